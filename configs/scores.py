"""What the stages of the chain are validated and scored on: captions on fixed human references, questions, and their priors."""

from configs import datasets


def captions(s, variant: str):
    """Adds the caption sets to a stage."""
    if variant == "0.9b":
        train, val, test = datasets.COCO_TRAIN, datasets.COCO_VAL, datasets.COCO_VAL
    else:
        train, val, test = (datasets.scenes(x, "human") for x in ("train", "val", "test"))
    s.validation.captions = val
    s.generate.captions = val
    s.test.captions = test
    s.prior.captions = {"train": train, "validation": val}
    if variant == "embedded":
        s.reference = "configs/reference/embedded.json"
    return s


def questions(s, variant: str):
    """Adds the question sets to a stage."""
    if variant == "0.9b":
        train, val, test = datasets.VQAV2_TRAIN, datasets.VQAV2_VAL, datasets.VQAV2_VAL
    else:
        train, val, test = (datasets.scenes(x, "questions") for x in ("train", "val", "test"))
    s.validation.questions = val
    s.generate.questions = val
    s.test.questions = test
    s.prior.questions = {"train": train, "validation": val}
    return s
