"""Trains a stage, and the stages it needs.

    python train.py --config=configs/stage3.py                      # embedded data
    python train.py --config=configs/stage3.py:0.9b --config.run.data_root=gs://bucket/data --workdir=gs://bucket/run

Asked again, it goes on where it stopped. Every field is in configs/base.py. With --inspect nothing is trained: the first batch
is shown as the model will see it.
"""

from absl import flags

from vlax.commands import cli

CONFIG = cli.define_config("configs/stage3.py or configs/stage3.py:0.9b")
WORKDIR = flags.DEFINE_string("workdir", "runs/embedded", "Directory (or gs://...) of checkpoints, exports, logs and scores")
REPLAY = flags.DEFINE_bool("replay", False, "Run the first steps of every started stage again and compare their losses")
INSPECT = flags.DEFINE_bool("inspect", False, "Print the stage's first batches as the model will see them, and train nothing")
INSPECT_BATCHES = flags.DEFINE_integer("inspect_batches", None, "--inspect, of so many batches instead of one", lower_bound=1)


def main(argv):
    del argv
    from vlax.evaluation import sampling
    from vlax.training import chain
    from vlax.training.inspect import inspection  # after the flags: a typo should not wait for the imports

    cli.prepare(CONFIG.value)
    if INSPECT.value or INSPECT_BATCHES.value:
        inspection.run(CONFIG.value, WORKDIR.value, INSPECT_BATCHES.value or 1)
    elif REPLAY.value:
        chain.replay(CONFIG.value, WORKDIR.value)
    else:
        chain.run(CONFIG.value, WORKDIR.value, sampling.sampler)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    cli.run(main)
