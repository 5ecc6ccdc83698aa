"""Scores a trained stage: predictions, metrics beside blind twin and prior, a table and a sheet of samples.

python eval.py --config=configs/stage3.py              # the twin too, if it was not evaluated yet
python eval.py --config=configs/stage3.py --blind      # the twin alone: the same model, images exchanged
python eval.py --config=configs/stage3.py --checkpoint=best
"""

from absl import flags

from vlax import cli

CONFIG = cli.define_config("configs/stage3.py or configs/stage3.py:0.9b")
WORKDIR = flags.DEFINE_string("workdir", "runs/embedded", "The --workdir of training")
CHECKPOINT = flags.DEFINE_string("checkpoint", "", 'Which state: "" (the stage\'s export), last, best, or an export directory')
BLIND = flags.DEFINE_bool("blind", False, "Score the blind twin alone: every picture replaced by another one")
LIMIT = flags.DEFINE_integer("limit", 0, "Score only the first rows of each set; 0: all", lower_bound=0)
AGAINST = flags.DEFINE_string("against", "", "Another evaluated stage of the workdir to compare with, row by row, e.g. stage2")


def main(argv):
    del argv
    from vlax.evaluation import suite  # after the flags: a typo should not wait for the imports

    cli.prepare(CONFIG.value)
    suite.run(CONFIG.value, WORKDIR.value, CHECKPOINT.value, blind=BLIND.value, limit=LIMIT.value, against=AGAINST.value)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
