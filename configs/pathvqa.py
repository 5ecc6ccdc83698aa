"""Transfer to pathology questions. Plain: the embedded cells, from stage 4. `:0.9b`: PathVQA, from the full-size stage 4.

`:0.9b` expects PathVQA in VQAv2's two files; docs/data.md says how they look.
"""

from configs import base, datasets, scores, stage4

PATHVQA = {
    split: {
        "kind": "vqa",
        "questions": f"pathvqa/questions_{split}.json",
        "annotations": f"pathvqa/annotations_{split}.json",
        "images": "pathvqa/images",
    }
    for split in ("train", "val", "test")
}
CELLS = {split: {"kind": "cells", "split": split} for split in ("train", "val", "test")}


def stage(variant: str):
    s = base.stage("pathvqa")
    s.init = {"vision": "stage4", "projector": "stage4", "decoder": "stage4"}
    s.trainable = {"projector": "^projector/", "decoder": "^decoder/"}
    sets = CELLS
    if variant == "0.9b":
        sets = PATHVQA
        s.learning_rate = {"projector": 2e-5, "decoder": 2e-5}
        s.batch_size, s.accumulate, s.text_length, s.epochs, s.eval_every = 64, 1, 96, 3.0, 300
    else:
        # The tower was made on coloured shapes; cells look like nothing that it has seen, so it learns along.
        s.trainable = {"vision": "^vision/", "projector": "^projector/", "decoder": "^decoder/"}
        s.learning_rate = {"vision": 5e-4, "projector": 1e-3, "decoder": 1e-3}
        s.steps, s.eval_every, s.text_length = 500, 250, 40
    s.mixture = {"questions": datasets.weighted(sets["train"], 1.0)}
    return scores.on(s, "questions", sets["train"], sets["val"], sets["test"])


def get_config(variant: str = "embedded"):
    base.check_variant(variant)
    parents = {**stage4.parents(variant), "stage4": stage4.stage(variant)}
    return base.config(variant, stage(variant), parents)
