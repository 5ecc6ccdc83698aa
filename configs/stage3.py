"""Stage 3, joint training: projector and decoder learn, on AI-made and human captions."""

from configs import base, datasets, scores, stage2


def stage(variant: str):
    s = base.stage("stage3")
    s.init = {"vision": "stage2", "projector": "stage2", "decoder": "stage2"}
    s.trainable = {"projector": "^projector/", "decoder": "^decoder/"}
    s.learning_rate = {"projector": 1e-4, "decoder": 5e-5}
    s.epoch_of = "human"
    if variant == "0.9b":
        s.mixture = {
            "ai": datasets.weighted(datasets.SHAREGPT4V, 0.5),
            "human": datasets.weighted(datasets.COCO_TRAIN, 1.0),
        }
        s.batch_size, s.accumulate, s.text_length = 256, 4, 256
        s.buckets, s.overlong, s.eval_every = (64, 128, 256), "cut", 500
    else:
        s.learning_rate = {"projector": 2e-3, "decoder": 2e-3}
        s.mixture = {
            "ai": datasets.weighted(datasets.scenes("train", "ai"), 0.5),
            "human": datasets.weighted(datasets.scenes("train", "human"), 1.0),
        }
        s.steps, s.eval_every, s.text_length = 600, 200, 32
    return scores.captions(s, variant)


stages, get_config = base.chain(stage, stage2.stages)
