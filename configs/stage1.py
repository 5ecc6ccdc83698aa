"""Stage 1, alignment: the projector alone learns, on AI-made captions. Vision tower and decoder are frozen."""

from configs import base, datasets, scores, stage0


def stage(variant: str):
    s = base.stage("stage1")
    s.trainable = {"projector": "^projector/"}
    s.learning_rate = {"projector": 1e-3}
    if variant == "0.9b":
        s.init = {"vision": "pretrained", "projector": "fresh", "decoder": "pretrained"}
        s.mixture = {"llava_pretrain": datasets.weighted(datasets.LLAVA_PRETRAIN, 1.0)}
        s.batch_size, s.accumulate, s.text_length = 256, 4, 64
        s.buckets, s.eval_every = (32, 64), 500
    else:
        s.init = {"vision": "stage0_vision", "projector": "fresh", "decoder": "stage0_decoder"}
        s.learning_rate = {"projector": 3e-3}
        s.mixture = {"ai": datasets.weighted(datasets.scenes("train", "ai"), 1.0)}
        s.steps, s.eval_every, s.text_length = 150, 150, 32
    return scores.captions(s, variant)


stages, get_config = base.chain(stage, stage0.stages)
