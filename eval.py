"""Scores a trained stage, or compares two: `python eval.py --help`. The same as `python -m vlax eval`."""

import sys

from vlax.commands import front

if __name__ == "__main__":
    sys.exit(front.main(["eval", *sys.argv[1:]], "python eval.py"))
