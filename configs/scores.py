"""What stages are validated and scored on, and what their priors are fitted on."""

from configs import datasets


def on(s, name: str, train: dict, val: dict, test: dict):
    """Adds a named set to a stage: held-out loss and samples on `val`, eval.py on `test`, the prior from `train` and `val`."""
    s.validation[name] = val
    s.generate[name] = val
    s.test[name] = test
    s.prior[name] = {"train": train, "validation": val}
    return s


def captions(s, variant: str):
    """The caption sets of the chain: fixed human references at every stage."""
    if variant == "0.9b":
        return on(s, "captions", datasets.COCO_TRAIN, datasets.COCO_VAL, datasets.COCO_VAL)
    s.reference = "configs/reference/embedded.json"
    return on(s, "captions", *(datasets.scenes(split, "human") for split in ("train", "val", "test")))


def questions(s, variant: str):
    """The question sets of the chain."""
    if variant == "0.9b":
        return on(s, "questions", datasets.VQAV2_TRAIN, datasets.VQAV2_VAL, datasets.VQAV2_VAL)
    return on(s, "questions", *(datasets.scenes(split, "questions") for split in ("train", "val", "test")))
