"""Trains a stage, and the stages it needs: `python train.py --help`. The same as `python -m vlax train`."""

import sys

from vlax.commands import front

if __name__ == "__main__":
    sys.exit(front.main(["train", *sys.argv[1:]], "python train.py"))
