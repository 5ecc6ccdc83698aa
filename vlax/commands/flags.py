"""Flags of every command: argparse, with underscores or hyphens as one likes, and --config with its fields beside them."""

import argparse
import csv
import dataclasses
import difflib
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from vlax.commands import config_flag
from vlax.errors import VlaxError


class Parser(argparse.ArgumentParser):
    """One command's flags. A mistake is a VlaxError."""

    def __init__(self, prog: str, about: str):
        plain = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=about, formatter_class=plain, allow_abbrev=False)
        self._config: bool | None = None  # whether --config is required, where there is one

    def add_config(self, required: bool) -> None:
        """--config=FILE[:VARIANT] and --config.path.to.field=value: `args.config`, locked; None where none was given."""
        self._config = required
        about = "e.g. configs/stage3.py or configs/stage3.py:0.9b; a name alone, such as stage3, is one that comes with vlax. "
        about += "--config.path.to.field=VALUE changes a field; every field is in configs/base.py"
        self.add_argument("--config", metavar="FILE[:VARIANT]", help=about)

    @property
    def takes_config(self) -> bool:
        """Whether this command has --config and its fields."""
        return self._config is not None

    def add_fields(self, settings: type) -> None:
        """A flag for every field of a dataclass whose metadata has its `help`; also `choices`, and `flag`, another name."""
        for field in dataclasses.fields(settings):
            about: dict[str, Any] = {"dest": field.name, "default": field.default, **field.metadata}
            name, kind = about.pop("flag", field.name), type(field.default)
            if kind is bool:
                about["action"] = argparse.BooleanOptionalAction
            elif "choices" not in about:
                about["type"] = {int: at_least(0), tuple: words, str: str}[kind]
            self.add_argument(f"--{name}", **about)

    def parse_args(  # type: ignore[override]  # argparse overloads it by the kind of namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        argv = list(sys.argv[1:] if args is None else args)
        if {"-h", "--help", "--helpfull"} & set(argv):
            self.print_help()
            raise SystemExit(0)
        config = None
        if self._config is not None:
            given = config_flag.given(argv, self._config)
            config, argv = config_flag.parse(argv, self._config)
        found, odd = self.parse_known_args([self._known(arg) for arg in argv], namespace)
        if odd:
            self._complain(odd)
        if self._config is not None:
            found.config, found.given = config, given
        return found

    def _known(self, arg: str) -> str:
        """`--max-new-tokens -> --max_new_tokens`, `--notwin` and `--twin=false -> --no-twin`: an argument as declared."""
        match = re.fullmatch(r"--?([A-Za-z][\w-]+)(=.*)?", arg, re.DOTALL)
        if not match:
            return arg
        declared = {_letters(option): option for option in self._option_string_actions}
        name, value = match[1], match[2] or ""
        option = declared.get(_letters(name), f"--{name}")
        switch = getattr(self._option_string_actions.get(option), "nargs", None) == 0
        if switch and value in ("=true", "=false"):
            return option if value == "=true" else declared[f"no{_letters(name)}"]
        return option + value

    def _complain(self, odd: list[str]) -> NoReturn:
        flag = next((arg for arg in odd if arg.startswith("-")), "")
        if not flag:
            raise VlaxError(f"{odd[0]}: what is this? Every flag of {self.prog} begins with --; see --help")
        name = flag.lstrip("-").split("=")[0]
        near = difflib.get_close_matches(name, [option.lstrip("-") for option in self._option_string_actions], 1)
        hint = f" Did you mean: {near[0]}?" if near else ""
        self.error(f"Unknown command line flag {name!r}.{hint}")

    def error(self, message: str) -> NoReturn:
        raise VlaxError(f"{message}{'' if message[-1] in '.?' else '.'} See {self.prog} --help")


def _letters(option: str) -> str:
    return option.replace("-", "").replace("_", "")


def at_least(least: int) -> Callable[[str], int]:
    """The type of a whole number with a lower bound."""

    def whole(text: str) -> int:
        if not re.fullmatch(r"-?\d+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return whole


def words(text: str) -> tuple[str, ...]:
    """`"a,b" -> ("a", "b")`, with quotes as in CSV."""
    return tuple(part.strip() for part in next(csv.reader([text], skipinitialspace=True), []))
