"""Runs the paper's findings as experiments: arms over seeds, paired tests, a page that says what came of each.

python -m vlax findings                                     # all of configs/findings.py, on embedded data
python -m vlax findings mask data --plan                    # how many runs two of them are, and how long they take
python -m vlax findings --jobs=2                            # two processes that share the work, a core each
python -m vlax findings mask --config=findings:flickr8k --config.run.data_root=DIR

Asked again, it goes on where it stopped: what is trained and measured is read back.
"""

import argparse
import sys

from vlax.commands import config_flag, setup
from vlax.commands.flags import Parser, at_least
from vlax.process import lease, supervise
from vlax.storage import cache


def add_arguments(parser: Parser) -> None:
    """Experiments by name, and where they are kept."""
    parser.add_config(required=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments of the config; none: all of them")
    parser.add_argument("--workdir", default="runs/findings", help="directory of models, scores, tables, plots and pages")
    parser.add_argument(
        "--jobs", type=at_least(1), default=1, help="processes that share the work, on a CPU: one for each core"
    )
    parser.add_argument("--plan", action="store_true", help="print how many runs it is and about how long; run nothing")
    parser.add_argument("--report", action="store_true", help="write tables and pages of what is measured; train nothing")


def main(args: argparse.Namespace) -> int | None:
    from vlax.findings import shares

    shares.settle()
    from etils import epath  # after the flags: a typo should not wait for jax

    from vlax.findings import estimate, experiment, opening, runner

    config = args.config
    if config is None:
        config, _ = config_flag.parse(["--config=findings"], required=True)
    plan, out = experiment.read(config, args.names), epath.Path(args.workdir)
    if args.plan:
        print(estimate.text(config, plan, out))
        return None
    alone = args.jobs == 1 or args.report
    setup.prepare(config)
    cache.beside(args.workdir)
    if not alone and shares.mine()[1] == 1:
        print(estimate.text(config, plan, out), flush=True)
        environments = shares.environments(args.jobs, out)
        with lease.hold(out):
            opening.check(config, plan, out, runner.AGAIN)
            return supervise.run([sys.executable, *sys.orig_argv[1:]], environments)
    if args.report:
        runner.report_all(config, plan, out)
        return None
    if alone:
        print(estimate.text(config, plan, out), flush=True)
    runner.run(config, plan, out, lambda line: print(line, flush=True))
    return None
