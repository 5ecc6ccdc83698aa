"""Lists runs: stages, how far they got, scores with their intervals, sizes, and what the same command would go on with.

python -m vlax runs runs
python -m vlax runs runs --html=runs.html            # one page with all curves and scores side by side; opens offline
"""

import argparse
from pathlib import Path

from vlax.commands.flags import Parser


def add_arguments(parser: Parser) -> None:
    """The flags of a list."""
    parser.add_argument("directory", metavar="DIR", nargs="?", default="runs", help="a workdir, or a folder of them (runs)")
    parser.add_argument("--html", default="", metavar="FILE", help="write a page with curves and scores there as well")


def main(args: argparse.Namespace) -> None:
    from vlax.evaluation.runs import page, survey  # after the arguments: a typo should not wait for jax

    found = survey.find(args.directory)
    print(survey.text(found))
    if args.html:
        Path(args.html).parent.mkdir(parents=True, exist_ok=True)
        Path(args.html).write_text(page.page(args.directory, found), encoding="utf-8")
        print(f"\n{args.html} has their curves and scores")
