"""Scores a trained stage: predictions, metrics beside blind twin and prior, report.html, scores.json.

python eval.py --config=configs/stage3.py                          # the stage's own suites
python eval.py --config=configs/stage4.py:0.9b --suite=vqav2_val,gqa_testdev --config.run.data_root=DIR
python eval.py --config=configs/stage4.py --suite=custom --data=questions.json,annotations.json --images=DIR
python eval.py --config=configs/stage3.py --suite=coco_karpathy_test --predictions=theirs.json
python eval.py --compare runs/a/stage3/eval runs/b/stage3/eval
"""

from absl import flags

from vlax.commands import cli
from vlax.errors import VlaxError

CONFIG = cli.define_config("configs/stage3.py or configs/stage3.py:0.9b")
WORKDIR = flags.DEFINE_string("workdir", "runs/embedded", "The --workdir of training")
CHECKPOINT = flags.DEFINE_string("checkpoint", "", 'Which state: "" (the stage\'s export), last, best, or an export directory')
SUITE = flags.DEFINE_list("suite", [], "Suites in place of the stage's own: names, FILE.toml, custom; --suite=help lists them")
DATA = flags.DEFINE_string("data", "", "--suite=custom: CAPTIONS.json, QUESTIONS.json,ANNOTATIONS.json or any known format")
IMAGES = flags.DEFINE_string("images", "", "--suite=custom: the folder of the pictures")
LIKE = flags.DEFINE_string("like", "", "--suite=custom: the suite whose metrics, prompt and decoding it takes, e.g. vqav2_val")
ANSWERS = flags.DEFINE_list("answers", [], "Closed questions: the only answers there are, e.g. yes,no; or @FILE, one a line")
ANSWERS_BY = flags.DEFINE_enum("answers_by", "trie", ["trie", "likelihood"], "--answers: token by token, or the likeliest")
PREDICTIONS = flags.DEFINE_string("predictions", "", "Score this file (JSON lines or list) instead of running a model")
COMPARE = flags.DEFINE_list("compare", [], "Two directories that eval.py wrote: paired differences, no model runs")
AGAINST = flags.DEFINE_string("against", "", "Compare with another stage of the workdir, e.g. stage2, or an eval directory")
DIFFERENT = flags.DEFINE_bool("different_protocols", False, "Compare although the protocols differ")
TWIN = flags.DEFINE_bool("twin", True, "Decode the blind twin too, if it was not yet: the same model, pictures exchanged")
BLIND = flags.DEFINE_bool("blind", False, "Score the blind twin alone")
LIMIT = flags.DEFINE_integer("limit", 0, "Score only the first rows of each set; 0: all", lower_bound=0)
BATCH = flags.DEFINE_integer("batch_size", 0, "Rows asked for at once, at most a physical batch; answers stay the same", 0)
REPORT = flags.DEFINE_integer("report_samples", 200, "Rows of each set in report.html; 0: no report", lower_bound=0)


def main(argv):
    from vlax.evaluation import evaluate, options, terminal  # after the flags: a typo should not wait for the imports

    if SUITE.value == ["help"]:
        terminal.list_suites()
    elif COMPARE.value:
        terminal.compare([*COMPARE.value, *argv[1:]], DIFFERENT.value, REPORT.value)
    elif argv[1:]:
        raise VlaxError(f"{argv[1]}: what is this? Every flag of eval.py begins with --; see --help")
    else:
        config = cli.prepare(CONFIG.value)
        evaluate.run(config, WORKDIR.value, options.Options(
            checkpoint=CHECKPOINT.value, suites=tuple(SUITE.value), data=DATA.value, images=IMAGES.value, like=LIKE.value,
            answers=terminal.answer_list(ANSWERS.value), answers_by=ANSWERS_BY.value, predictions=PREDICTIONS.value,
            against=AGAINST.value, different_protocols=DIFFERENT.value, limit=LIMIT.value, batch_size=BATCH.value,
            twin=TWIN.value, blind=BLIND.value, report_samples=REPORT.value,
        ))  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
