"""Trains a stage, and the stages it needs.

    python train.py --config=configs/stage3.py                      # embedded data
    python train.py --config=configs/stage3.py:0.9b --config.run.data_root=gs://bucket/data --workdir=gs://bucket/run

Asked again, it goes on where it stopped. Every field is in configs/base.py. With --inspect nothing is trained: the first batch
is shown as the model will see it.
"""

import argparse
import os

from vlax.commands import print_config, setup
from vlax.commands.flags import Parser, at_least
from vlax.errors import VlaxError
from vlax.storage.paths import WORKDIR, absolute


def add_arguments(parser: Parser) -> None:
    """The flags of training."""
    parser.add_config(required=True)
    add, switch = parser.add_argument, argparse.BooleanOptionalAction
    add("--workdir", default=WORKDIR, help="directory (or gs://...) of checkpoints, exports, logs and scores")
    add("--replay", action=switch, help="run the first steps of every started stage again and compare their losses")
    add("--inspect", action=switch, help="print the stage's first batches as the model will see them, and train nothing")
    add("--inspect_batches", type=at_least(1), help="--inspect, of so many batches instead of one")
    add("--print_config", action="store_true", help="print every field that would hold, and where it comes from; train nothing")
    add("--plan", action="store_true", help="print what the chain takes of a device, by its compiler where that is installed; "
        "train nothing")  # fmt: skip
    add("--device", default="", help="--plan: another device than this one's: h100, h100:8, rtx4090, v5e:2x4, ...")
    add("--estimate", action="store_true", help="--plan: don't ask the compiler, which takes minutes")
    add("--extend", type=at_least(1), default=0, metavar="STEPS", help="train a finished stage for so many updates more")
    add("--fork", default="", metavar="NEW_WORKDIR", help="begin another run there, from the stage's state in --workdir")


def main(args: argparse.Namespace) -> None:
    from vlax.evaluation import sampling  # after the flags: a typo should not wait for the imports
    from vlax.storage import cache
    from vlax.training import chain, guess
    from vlax.training.inspect import inspection
    from vlax.training.trackers import tracker

    if args.extend and args.fork:
        raise VlaxError("--extend goes on in --workdir and --fork begins another run elsewhere; give one of them")
    if args.fork and absolute(args.fork) == absolute(args.workdir):
        raise VlaxError(f"--fork={args.fork} is the workdir itself; name a new one")
    if args.plan:
        if args.device:
            os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing runs here, whatever is here
        from vlax.training import plan_table

        plan_table.show(args.config, args.workdir, args.device, compiles=not args.estimate)
        return
    if args.device or args.estimate:
        raise VlaxError("--device and --estimate belong to --plan")
    if args.print_config:
        print(print_config.table(args.config, guess.settled(args.config, args.workdir), args.given))
        return
    config = setup.prepare(args.config)
    cache.beside(args.workdir)
    if args.inspect or args.inspect_batches:
        inspection.run(config, args.workdir, args.inspect_batches or 1)
    elif args.replay:
        chain.replay(config, args.workdir)
    else:
        follow = tracker.checked(config.run.trackers)
        chain.run(config, args.workdir, sampling.sampler, extend=args.extend, fork=args.fork, follow=follow)
