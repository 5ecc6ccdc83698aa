"""What stages are scored on: suites of vlax/suites/protocols, or suites made here of one's own files."""

from pathlib import Path

from vlax.suites import files


def on(s, name: str, suite: dict):
    """Adds a suite to a stage: eval.py runs it on its test set; its validation set gives the held-out loss, and the small
    generative evaluation while training. A suite without one (VQAv2's validation is its test) is not looked at in training."""
    s.suites[name] = suite
    if "validation" in suite["data"]:
        s.validation[name] = suite["data"]["validation"]
    return s


def own(task: str, train: dict, val: dict, test: dict, **decoding) -> dict:
    """A suite of one's own sources, e.g. own("caption", train, val, test, num_beams=4)."""
    metrics = ["vqav2@official", "exact_match"] if task == "question" else ["CIDEr", "Bleu", "METEOR", "ROUGE_L"]
    data = {"test": test, "validation": val, "train": train}
    return {"task": task, "metrics": metrics, "decoding": decoding, "data": data}


def captions(s, variant: str):
    """The caption suite of the chain: fixed human references at every stage."""
    if variant == "0.9b":
        return on(s, "captions", files.read("coco_karpathy_test"))
    s.reference = str(Path(__file__).with_name("reference") / "embedded.json")
    return on(s, "captions", files.read("embedded_captions"))


def questions(s, variant: str):
    """The question suite of the chain."""
    return on(s, "questions", files.read("vqav2_val" if variant == "0.9b" else "embedded_questions"))
