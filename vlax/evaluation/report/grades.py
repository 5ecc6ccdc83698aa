"""What counts as good, in samples.png and in the report: right and wrong where scores say so, else thirds of the set."""

from collections.abc import Mapping

import numpy as np

# Of these there is no right and wrong: a sample is low, middle or high among the rows of its set.
_CAPTION_METRICS = ("CIDEr", "ROUGE_L", "METEOR", "SPICE", "Bleu")
WRONG, PARTLY, CORRECT = range(3)  # grades; or low, middle, high


def has_verdict(headline: str, scores: Mapping[str, float]) -> bool:
    """Whether 1 means correct and 0 wrong: so for all metrics but those of captions, as long as scores lie in [0, 1]."""
    return not headline.startswith(_CAPTION_METRICS) and all(0 <= score <= 1 for score in scores.values())


def grades(headline: str, scores: Mapping[str, float]) -> dict[str, int]:
    """{id: WRONG | PARTLY | CORRECT} of {id: the headline's score} of all rows of a set: by right and wrong, or by thirds of
    the scores, where ties share the lower third."""
    if not scores or has_verdict(headline, scores):
        return {i: CORRECT if v >= 1 - 1e-9 else WRONG if v <= 1e-9 else PARTLY for i, v in scores.items()}
    low, high = np.quantile(list(scores.values()), (1 / 3, 2 / 3))
    if low == high:
        return {i: WRONG if v < low else CORRECT if v > high else PARTLY for i, v in scores.items()}
    return {i: WRONG if v <= low else CORRECT if v >= high else PARTLY for i, v in scores.items()}
