"""What the stages of the chain are validated and scored on: captions on fixed human references, questions, and their priors."""


def captions(s, variant: str):
    """Adds the caption sets to a stage."""
    if variant == "0.9b":
        train = {"kind": "coco", "annotations": "coco/annotations/captions_train2014.json", "images": "coco/train2014"}
        val = {"kind": "coco", "annotations": "coco/annotations/captions_val2017.json", "images": "coco/val2017"}
        test = val
    else:
        train, val, test = ({"kind": "scenes", "split": x, "style": "human"} for x in ("train", "val", "test"))
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
        train = {"kind": "vqa", "questions": "vqav2/v2_OpenEnded_mscoco_train2014_questions.json",
                 "annotations": "vqav2/v2_mscoco_train2014_annotations.json", "images": "coco/train2014"}  # fmt: skip
        val = {"kind": "vqa", "questions": "vqav2/v2_OpenEnded_mscoco_val2014_questions.json",
               "annotations": "vqav2/v2_mscoco_val2014_annotations.json", "images": "coco/val2014"}  # fmt: skip
        test = val
    else:
        train, val, test = ({"kind": "scenes", "split": x, "style": "questions"} for x in ("train", "val", "test"))
    s.validation.questions = val
    s.generate.questions = val
    s.test.questions = test
    s.prior.questions = {"train": train, "validation": val}
    return s
