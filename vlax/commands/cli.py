"""What train.py and eval.py share: set-up of processes and caches, and errors without a stack trace."""

import logging
import os
import re
import sys
from collections.abc import Callable

import jax
from absl import app, flags
from ml_collections import config_flags

from vlax.errors import VlaxError

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it would announce that there is no torch, which is as meant


def run(main: Callable) -> None:
    """absl's app.run with short errors: exit 2 for a mistake of the user, whose text says how to mend it."""
    try:
        app.run(lambda argv: _guarded(main, argv), flags_parser=_parse_flags)
    except VlaxError as error:
        _complain(error)


def _guarded(main: Callable, argv) -> None:
    handler = logging.StreamHandler()
    handler.addFilter(_worth_reading)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler], force=True)
    try:
        main(argv)
    except VlaxError as error:
        _complain(error)


def _worth_reading(record: logging.LogRecord) -> bool:
    """vlax's own lines; of other packages warnings and errors only."""
    own = record.pathname.startswith(os.path.dirname(os.path.abspath(__file__)))
    # orbax warns of every save without a validation loss, which is what a save on SIGTERM is.
    return own or (record.levelno >= logging.WARNING and "tracked_metric" not in record.getMessage())


def _complain(error: Exception) -> None:
    sys.stdout.flush()
    print(f"vlax: error: {error}", file=sys.stderr)
    sys.exit(2)


def _parse_flags(argv):
    """Flags, where a wrong field, type or file of --config is one line instead of config_flags' stack."""
    try:
        rest = flags.FLAGS(argv, known_only=False)
        config = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
        if config is not None:
            config.run  # noqa: B018  (a config file that could not be loaded says so at its first use)
        return rest
    except flags.UnrecognizedFlagError as error:
        raise VlaxError(f"{error}. See --help") from None
    except flags.Error as error:
        raise VlaxError(_explain_value(error, argv)) from None
    except (AttributeError, KeyError, TypeError, ValueError, OSError, ImportError, SyntaxError) as error:
        raise VlaxError(_explain(error, argv)) from None


def _explain(error: Exception, argv) -> str:
    """One line about what is wrong with --config or one of its fields: the flag as it was typed, and what to type instead."""
    text = str(error).strip() or type(error).__name__
    path, _ = _config_path(argv)
    field = re.search(r"'(\w+)", text)
    typed = [arg.split("=")[0] for arg in argv if field and field[1] in arg.split("=")[0].split(".")[1:]]
    if typed:
        hint = re.search(r'Did you mean "(\w+)"', text)
        meant = f"; did you mean {hint[1]!r}?" if hint else "."
        return f"{typed[0]}: there is no field {field[1]!r}{meant} Every field is in configs/base.py"
    if path and not os.path.exists(path):
        return f"there is no config file {path}; pass --config=configs/NAME.py[:VARIANT], e.g. configs/stage3.py"
    return f"--config={path}: {text.splitlines()[-1].strip()}"


def _explain_value(error: flags.Error, argv) -> str:
    """The same for a flag that is known and a value that it does not take."""
    text = str(error).strip().splitlines()[-1]
    if "get_config() takes 0 positional" in text:
        return f"{_config_path(argv)[0]} has no variants: write --config={_config_path(argv)[0]}"
    return text.removeprefix("ValueError: ")


def _config_path(argv) -> tuple[str, str]:
    """(file, variant) as --config names them."""
    given = re.search(r"(?:^| )--?config[= ](\S+)", " ".join(argv))
    return (given[1] if given else "").partition(":")[::2]


def define_config(example: str):
    """The --config flag."""
    return config_flags.DEFINE_config_file(
        "config", None, f"Config file, e.g. {example}; a variant follows a colon", lock_config=True
    )


def prepare(config):
    """Distributed start-up and the persistent compilation cache; returns the config. VlaxError without one."""
    if config is None:
        raise VlaxError("--config is missing, e.g. --config=configs/stage3.py")
    if config.run.distributed:
        jax.distributed.initialize()
    if config.run.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(config.run.compilation_cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    return config
