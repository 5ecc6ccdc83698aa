"""Prints the completion of a shell: commands, flags, the configs that there are and the fields of a config.

bash        eval "$(vlax completion bash)"               in ~/.bashrc
zsh         vlax completion zsh > ~/.zfunc/_vlax         with ~/.zfunc in fpath
fish        vlax completion fish | source                in ~/.config/fish/config.fish
"""

import argparse
import importlib
import re

import shtab
from ml_collections import ConfigDict

from vlax.commands import config_flag
from vlax.commands.flags import Parser
from vlax.commands.print_config import fields

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: Parser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")


def main(args: argparse.Namespace) -> None:
    print(shtab.complete(whole(), args.shell))


def whole() -> argparse.ArgumentParser:
    """One parser of all commands, as the front would make them one at a time."""
    from vlax.commands.front import COMMANDS  # which imports this module by its name

    root = argparse.ArgumentParser("vlax")
    groups = {"": root.add_subparsers()}
    for name, about in COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group not in groups:
            groups[group] = groups[""].add_parser(group, help="looks at data, and prepares it").add_subparsers()
        command = importlib.import_module(f"vlax.commands.{name.replace(' ', '.')}")
        made = Parser(f"vlax {name}", about)
        command.add_arguments(made)
        if made.takes_config:
            _add_config(made)
        groups[group].add_parser(last, help=about, parents=[made], add_help=False)
    return root


def _add_config(parser: Parser) -> None:
    """Every field of a config as a flag of its own, and what --config may name."""
    config_flag.provide()
    base = importlib.import_module("configs.base")
    files = (file for file in config_flag.FOLDER.glob("*.py") if file.stem != "base")
    known = sorted(file.stem for file in files if re.search(r"\bget_config\b", file.read_text()))
    config = next(action for action in parser._actions if "--config" in action.option_strings)
    config.choices = known
    made = ConfigDict({"run": base.run(), "stage": base.stage("")})
    for path, _ in fields(made):
        parser.add_argument(f"--config.{path}", help=argparse.SUPPRESS if path.startswith("run.shapes") else None)
