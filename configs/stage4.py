"""Stage 4, tasks: projector and decoder learn captions and question answering together."""

from configs import base, datasets, scores, stage3


def stage(variant: str):
    s = base.stage("stage4")
    s.init = {"vision": "stage3", "projector": "stage3", "decoder": "stage3"}
    s.trainable = {"projector": "^projector/", "decoder": "^decoder/"}
    s.learning_rate = {"projector": 2e-5, "decoder": 2e-5}
    s.epoch_of = "questions"
    if variant == "0.9b":
        s.mixture = {
            "questions": datasets.weighted(datasets.VQAV2_TRAIN, 1.0),
            "instruct": datasets.weighted(datasets.LLAVA_INSTRUCT, 0.35),
            "human": datasets.weighted(datasets.COCO_TRAIN, 0.5),
        }
        s.batch_size, s.accumulate, s.text_length = 128, 2, 256
        s.buckets, s.overlong, s.eval_every = (64, 128, 256), "cut", 1000
    else:
        s.learning_rate = {"projector": 2e-3, "decoder": 2e-3}
        s.mixture = {
            "questions": datasets.weighted({**datasets.scenes("train", "dialogue"), "size": 24_000}, 1.0),
            "human": datasets.weighted(datasets.scenes("train", "human"), 0.25),
        }
        s.steps, s.eval_every, s.text_length = 2200, 400, 80
    return scores.questions(scores.captions(s, variant), variant)


stages, get_config = base.chain(stage, stage3.stages)
