"""Two pictures a row: are both the same? Embedded scenes, from stage 1 (vlax/data/embedded/pairs.py)."""

from configs import base, datasets, scores, stage1
from vlax.suites import files


def stage(variant: str):
    s = base.stage("pairs")
    s.init = {"vision": "stage1", "projector": "stage1", "decoder": "stage1"}
    s.trainable = {"projector": "^projector/", "decoder": "^decoder/"}
    s.learning_rate = {"projector": 2e-3, "decoder": 2e-3}
    s.images = 2
    s.mixture = {"pairs": datasets.weighted({"kind": "pairs", "split": "train"}, 1.0)}
    s.steps, s.eval_every, s.text_length = 500, 250, 24
    return scores.on(s, "pairs", files.read("embedded_pairs"))


stages, get_config = base.chain(stage, stage1.stages)
