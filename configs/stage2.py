"""Stage 2, extended alignment: the projector learns on, on dense AI captions and a slice of human ones; all else is frozen.

The paper's third finding: more work belongs in the alignment stage.
"""

from configs import base, datasets, scores, stage1


def stage(variant: str):
    s = base.stage("stage2")
    s.init = {"vision": "stage1", "projector": "stage1", "decoder": "stage1"}
    s.trainable = {"projector": "^projector/"}
    s.learning_rate = {"projector": 2e-4}
    s.epoch_of = "ai"
    if variant == "0.9b":
        s.mixture = {
            "ai": datasets.weighted(datasets.SHAREGPT4V, 1.0),
            "human": datasets.weighted(datasets.COCO_TRAIN, 0.2),
        }
        s.batch_size, s.accumulate, s.text_length = 256, 4, 256
        s.buckets, s.overlong, s.eval_every = (64, 128, 256), "cut", 500
    else:
        s.learning_rate = {"projector": 2e-3}
        s.mixture = {
            "ai": datasets.weighted(datasets.scenes("train", "ai"), 1.0),
            "human": datasets.weighted(datasets.scenes("train", "human"), 1.0),
        }
        s.steps, s.eval_every, s.text_length = 150, 150, 32
    return scores.captions(s, variant)


stages, get_config = base.chain(stage, stage1.stages)
