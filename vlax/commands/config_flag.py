"""--config and the fields of a config on the command line: ml_collections' flags, with errors of one line."""

import functools
import importlib
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from vlax.errors import VlaxError

_HOUSE = Path(__file__).parents[1]
# Where the configs lie that come with vlax: in the package when it is installed, beside it in a clone.
FOLDER = next((folder for folder in (_HOUSE / "configs", _HOUSE.parent / "configs") if (folder / "base.py").exists()), _HOUSE)


def parse(argv: list[str], required: bool) -> tuple[Any, list[str]]:
    """(the config with what --config.FIELD=VALUE changes of it, or None; the arguments that are none of these)."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["vlax"])  # grain and others ask absl's own flags for their defaults
    provide()
    argv = [_underscored(arg) for arg in positional(argv, required)]
    argv = [f"--config={locate(arg.partition('=')[2])}" if re.match("--?config=", arg) else arg for arg in argv]
    for at, arg in enumerate(argv[:-1]):
        if arg in ("-config", "--config"):
            argv[at + 1] = locate(argv[at + 1])
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, lock_config=True, sys_argv=["vlax", *argv])
    try:
        rest = values(["vlax", *argv], known_only=True)[1:]
        if required and values["config"].value is None:
            raise VlaxError("--config is missing, e.g. --config=configs/stage3.py")
        if values["config"].value is not None:
            values["config"].value.run  # noqa: B018  (a config file that could not be loaded says so at its first use)
        return values["config"].value, rest
    except flags.Error as error:
        raise VlaxError(_explain_value(error, argv)) from None
    except (AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError) as error:
        raise VlaxError(_explain(error, argv)) from None


class Given(NamedTuple):
    """What the command line says of the config: its file as it is named, and the fields that it sets ("stage.steps", ...)."""

    file: str
    fields: frozenset[str]


def given(argv: list[str], required: bool) -> Given:
    argv = [_underscored(arg) for arg in positional(argv, required)]
    path, variant = _config_path(argv)
    found = (re.match(r"--?(?:no)?config\.([\w.]+)", arg) for arg in argv)
    return Given(path + (f":{variant}" if variant else ""), frozenset(match[1] for match in found if match))


def positional(argv: list[str], required: bool) -> list[str]:
    """`configs/stage3.py` or `stage3:0.9b` in front, without --config, is the config all the same. Where a command needs one,
    whatever stands there was meant as it."""
    if argv and not argv[0].startswith("-") and (required or os.path.isfile(locate(argv[0]).partition(":")[0])):
        return [f"--config={argv[0]}", *argv[1:]]
    return argv


def locate(given: str) -> str:
    """FILE[:VARIANT] of a file, or of a name: `stage3` is configs/stage3.py, here or among those that come with vlax."""
    path, colon, variant = given.partition(":")
    if path and not os.path.isfile(path) and Path(path).parent in (Path(), Path("configs")):
        name = f"{Path(path).stem}.py"
        path = next((str(file) for file in (Path("configs", name), FOLDER / name) if file.is_file()), path)
    return path + colon + variant


def provide() -> None:
    """Lets `from configs import base` work in any config file: ./configs comes first, then what comes with vlax."""
    if "configs" not in sys.modules:
        spec = importlib.machinery.ModuleSpec("configs", None, is_package=True)
        folders = dict.fromkeys([Path("configs").absolute(), FOLDER])
        spec.submodule_search_locations = [str(folder) for folder in folders if folder.is_dir()]
        sys.modules["configs"] = importlib.util.module_from_spec(spec)


def _underscored(arg: str) -> str:
    """`--config.run.log-every=5 -> --config.run.log_every=5`; what a user has named (a source of a mixture) stays."""
    match = re.match(r"(--?config\.)([\w.-]+)(.*)", arg, re.DOTALL)
    if not match or "-" not in match[2]:
        return arg
    known = _names()
    path = (part.replace("-", "_") if part.replace("-", "_") in known else part for part in match[2].split("."))
    return match[1] + ".".join(path) + match[3]


@functools.cache
def _names() -> frozenset[str]:
    """What fields are called."""
    base = importlib.import_module("configs.base")

    def names(values: Any) -> Iterator[str]:
        for name, value in values.items():
            yield name
            if hasattr(value, "items"):
                yield from names(value)

    return frozenset([*names(base.run()), *names(base.stage(""))])


def _explain(error: Exception, argv: list[str]) -> str:
    """One line about what is wrong with --config or one of its fields: the flag as it was typed, and what to type instead."""
    text = str(error).strip() or type(error).__name__
    path, _ = _config_path(argv)
    if old := _renamed(text, argv, path):
        return old
    quoted = re.search(r"'(\w+)", text)
    field = quoted[1] if quoted else ""
    typed = [flag for flag in (arg.split("=")[0] for arg in argv) if field in flag.split(".")[1:]]
    if typed:
        hint = re.search(r'Did you mean "(\w+)"', text)
        meant = f"; did you mean {hint[1]!r}?" if hint else "."
        return f"{typed[0]}: there is no field {field!r}{meant} Every field is in configs/base.py"
    if path and not os.path.exists(path):
        return f"there is no config file {path}; pass --config=configs/NAME.py[:VARIANT], e.g. configs/stage3.py"
    return f"--config={path}: {text.splitlines()[-1].strip()}"


def _renamed(text: str, argv: list[str], path: str) -> str:
    """What to type where run.model is meant as it once was, the shapes of fresh parts; "" where it isn't."""
    typed = next((arg.split("=")[0] for arg in argv if re.match(r"--?config\.run\.model\.", arg)), "")
    said = "str" in text and os.path.isfile(path) and re.search(r"\brun\.model(\.\w+)*", Path(path).read_text())
    if not typed and not said:
        return ""
    old = typed or f"{path}: {said[0] if said else ''}"
    new = re.sub(r"\brun\.model", "run.shapes", old.split()[-1])
    return f"{old}: the shapes of fresh parts are now in run.shapes; write {new}. run.model is a whole model to start from"


def _explain_value(error: flags.Error, argv: list[str]) -> str:
    """The same for a flag that is known and a value that it does not take."""
    text = str(error).strip().splitlines()[-1]
    if "get_config() takes 0 positional" in text:
        return f"{_config_path(argv)[0]} has no variants: write --config={_config_path(argv)[0]}"
    return text.removeprefix("ValueError: ")


def _config_path(argv: list[str]) -> tuple[str, str]:
    """(file, variant) as --config names them."""
    given = re.search(r"(?:^| )--?config[= ](\S+)", " ".join(argv))
    path, _, variant = (given[1] if given else "").partition(":")
    return path, variant
