"""Scores a trained stage: predictions, metrics beside blind twin and prior, report.html, scores.json.

python eval.py --config=configs/stage3.py                          # the stage's own suites
python eval.py --config=configs/stage4.py:0.9b --suite=vqav2_val,gqa_testdev --config.run.data_root=DIR
python eval.py --config=configs/stage4.py --suite=custom --data=questions.json,annotations.json --images=DIR
python eval.py --config=configs/stage3.py --suite=coco_karpathy_test --predictions=theirs.json
python eval.py --compare runs/old/stage3/eval runs/new/stage3/eval
"""

import argparse
import dataclasses

from vlax.commands import setup
from vlax.commands.flags import Parser, words
from vlax.errors import VlaxError
from vlax.evaluation.options import Options
from vlax.storage import cache, paths


def add_arguments(parser: Parser) -> None:
    """The flags of evaluation; most of them are the fields of `Options`."""
    parser.add_config(required=False)
    parser.add_argument("--workdir", default=paths.WORKDIR, help="the --workdir of training")
    about = "two directories that eval.py wrote: what the second has over the first, paired; no model runs"
    parser.add_argument("--compare", type=words, default=(), metavar="OLD NEW", help=about)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)  # --compare's second directory
    parser.add_fields(Options)


def main(args: argparse.Namespace) -> None:
    from vlax.evaluation import evaluate, terminal  # after the flags: a typo should not wait for the imports

    if args.suites == ("help",):
        terminal.list_suites()
    elif args.compare:
        terminal.compare([*args.compare, *args.rest], args.different_protocols, args.report_samples)
    elif args.rest:
        raise VlaxError(f"{args.rest[0]}: what is this? Every flag of eval.py begins with --; see --help")
    else:
        config = setup.prepare(args.config)
        cache.beside(args.workdir)
        given = {field.name: getattr(args, field.name) for field in dataclasses.fields(Options)}
        evaluate.run(config, args.workdir, Options(**given | {"answers": terminal.answer_list(args.answers)}))
