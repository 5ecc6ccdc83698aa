"""Deletes what of finished and stopped runs nobody needs, and asks first.

    python -m vlax clean runs                            # lists what would go, and asks
    python -m vlax clean runs/old --keep=1 --yes

Of each stage the newest checkpoints and the best on validation stay, and so does its export. What goes: older checkpoints,
the second export (export-best, export-last), checkpoints that were set aside as damaged, caches.
"""

import argparse
import sys

from vlax.commands.flags import Parser, at_least
from vlax.errors import VlaxError


def add_arguments(parser: Parser) -> None:
    """What is kept, and whether it asks."""
    parser.add_argument("directory", metavar="DIR", help="a workdir, or a folder of them")
    parser.add_argument("--keep", type=at_least(1), default=1, help="newest checkpoints of a stage that stay (default: 1)")
    parser.add_argument("--yes", action="store_true", help="delete without asking")


def main(args: argparse.Namespace) -> int:
    from vlax.evaluation.runs import clean, survey  # after the arguments: a typo should not wait for jax

    found = clean.find(survey.find(args.directory), args.keep)
    if not found:
        print(f"nothing in {args.directory} is to be deleted")
        return 0
    print(clean.text(found), flush=True)
    if not args.yes and not _asked():
        print("nothing was deleted")
        return 1
    clean.remove(found)
    print("deleted")
    return 0


def _asked() -> bool:
    if not sys.stdin.isatty():
        raise VlaxError("nobody can be asked here, and nothing was deleted; add --yes")
    try:
        return input("Delete all of it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
