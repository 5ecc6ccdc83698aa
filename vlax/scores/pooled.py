"""BLEU and METEOR as counts by image and a score of their sums, which is what a bootstrap over images needs.

Both are corpus scores: counts are added up over the images first. The scores of all images together are those of pycocoevalcap
(the tests compare them); only the resampling is ours.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vlax.scores.statistics import Id, Pooled

_ORDERS = 4
_TINY, _SMALL = 1e-15, 1e-9  # what pycocoevalcap adds to numerators and denominators
# METEOR 1.5's English parameters (Denkowski and Lavie 2014, table 1), matchers: exact, stem, synonym, paraphrase
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_STAGES = np.array([1.0, 0.6, 0.8, 0.6])


def bleu(gts: Mapping[Id, Sequence[str]], res: Mapping[Id, Sequence[str]]) -> dict[str, Pooled]:
    """{"Bleu_1": ..., "Bleu_4": ...} of tokenised captions: {id: references}, {id: [hypothesis]}."""
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    rows = {}
    for i, references in gts.items():
        counts = cook_test(res[i][0], cook_refs(references, n=_ORDERS), n=_ORDERS)
        length = counts["testlen"]
        closest = min(counts["reflen"], key=lambda reference: (abs(reference - length), reference))
        rows[i] = (*counts["correct"], *counts["guess"], length, closest)
    return {f"Bleu_{n}": Pooled(rows, _bleu_of(n)) for n in range(1, _ORDERS + 1)}


def _bleu_of(n: int) -> Callable[[np.ndarray], np.ndarray]:
    def combine(sums: np.ndarray) -> np.ndarray:
        precision = (sums[..., :n] + _TINY) / (sums[..., _ORDERS : _ORDERS + n] + _SMALL)
        ratio = (sums[..., -2] + _TINY) / (sums[..., -1] + _SMALL)
        score: np.ndarray = precision.prod(axis=-1) ** (1 / n) * np.exp(np.minimum(0.0, 1 - 1 / ratio))
        return score

    return combine


def meteor(statistics: Mapping[Id, Sequence[float]]) -> Pooled:
    """The METEOR of a corpus from the 23 numbers that the Java program gives for each image.

    They are: length of the hypothesis and of the reference, function words of both; for each of four matchers the matched
    content words of both and function words of both; chunks; matched words of both.
    """
    return Pooled({i: _without_whole(row) for i, row in statistics.items()}, _meteor)


def _without_whole(row: Sequence[float]) -> tuple[float, ...]:
    """A hypothesis that matches as one whole counts no chunk in the sum over a corpus: nothing of it is fragmented."""
    whole = row[20] == 1 and row[21] == row[0] and row[22] == row[1]
    return (*row[:20], 0.0 if whole else row[20], *row[21:])


def _meteor(sums: np.ndarray) -> np.ndarray:
    lengths, function = sums[..., 0:2], sums[..., 2:4]
    stages = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 4)  # matcher x (content, content, function, function)
    chunks, words = sums[..., 20], sums[..., 21:23]
    matched = np.einsum("...mk,m->...k", _DELTA * stages[..., 0:2] + (1 - _DELTA) * stages[..., 2:4], _STAGES)
    weighed = _DELTA * (lengths - function) + (1 - _DELTA) * function
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = np.moveaxis(np.where(weighed > 0, matched / weighed, 0.0), -1, 0)
        mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        score = mean * (1 - _GAMMA * (chunks / words.mean(axis=-1)) ** _BETA)
    return np.where((precision > 0) & (recall > 0), score, 0.0)
