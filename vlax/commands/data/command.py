"""python -m vlax.data COMMAND: looks at data, checks it, prepares it.

python -m vlax.data preview PATH          what the file or folder is, and five rows as the model will see them
python -m vlax.data doctor SOURCE         broken pictures, faulty rows, duplicates, leaks; writes a quarantine list
python -m vlax.data prepare SOURCE OUT    pictures resized once and rows sharded, for fast training
python -m vlax.data COMMAND --help        the flags of a command
"""

import argparse
import importlib
import importlib.util
import logging
import os
import sys

from vlax.errors import VlaxError

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it would announce that there is no torch, which is as meant
COMMANDS = ("preview", "doctor", "prepare")  # modules beside this one, each with add_arguments(parser) and main(args)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise VlaxError(f"{message}. See {self.prog} --help")


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    logging.basicConfig(format="%(message)s")
    try:
        return run(argv)
    except VlaxError as error:
        sys.stdout.flush()
        print(f"vlax: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of our output (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def run(argv: list[str]) -> int:
    """Runs one command: its exit code; VlaxError for a command or flag that there is not."""
    there = [name for name in COMMANDS if importlib.util.find_spec(f"vlax.commands.data.{name}")]
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0
    if argv[0] not in there:
        raise VlaxError(f"there is no command {argv[0]!r}; the commands are {', '.join(there)}. See python -m vlax.data --help")
    command = importlib.import_module(f"vlax.commands.data.{argv[0]}")
    parser = _Parser(
        prog=f"python -m vlax.data {argv[0]}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    return command.main(parser.parse_args(argv[1:])) or 0


if __name__ == "__main__":
    sys.exit(main())
