"""Caption metrics by pycocoevalcap (the COCO caption evaluation code): BLEU-1..4, METEOR, ROUGE-L, CIDEr; SPICE on request.

    score_captions({7: ["a dog runs", "a dog on grass"], 8: ["a cat"]}, {7: "a dog runs", 8: "a cat"})
      ->  {"Bleu_1": ..., "Bleu_2": ..., "Bleu_3": ..., "Bleu_4": ..., "METEOR": ..., "ROUGE_L": ..., "CIDEr": ...}

    with CaptionScorer(references) as scorer:           # several systems: references tokenised once, METEOR started once
        scores, by_image = scorer(hypotheses_of_the_model)
        scores, by_image = scorer(hypotheses_of_the_twin)

Scores are on the scale of pycocoevalcap: BLEU, METEOR, ROUGE-L and SPICE in 0..1, CIDEr in 0..10 and mostly below 2. Papers
print all of them x100 (a CIDEr of 118 is 1.18 here). CAPTION_FORMULAS says what each computes. The tokenizer, METEOR and
SPICE are Java programs: see `vlax/scores/java.py`.
"""

import time
import warnings
from collections.abc import Mapping, Sequence

from vlax.errors import VlaxError
from vlax.scores import pooled
from vlax.scores.java import WORDS, Meteor, Tokens, check_spice, java_on_path, spice, spice_available, tokenize
from vlax.scores.statistics import Id, Pooled, check_same_ids

__all__ = [
    "CAPTION_FORMULAS",
    "METRICS",
    "CaptionScorer",
    "caption_scores_by_image",
    "java_on_path",
    "score_captions",
    "spice_available",
    "tokenize",
]

METRICS = ("Bleu", "METEOR", "ROUGE_L", "CIDEr")
_OPTIONAL = ("SPICE",)  # its models are no part of pycocoevalcap
_ORDER = "The order of arguments is score_captions(references, hypotheses): {id: [str, ...]}, {id: str}."

_BLEU = (
    "BLEU-{n}: geometric mean of the clipped 1..{n}-gram precisions, counts pooled over all images, times the brevity penalty "
    "min(1, exp(1 - r/c)) with r the reference length closest to the caption's (Papineni et al. 2002; pycocoevalcap)"
)
CAPTION_FORMULAS: dict[str, str] = {f"Bleu_{n}": _BLEU.format(n=n) for n in range(1, 5)} | {
    "METEOR": "METEOR 1.5, English, -norm: weighted harmonic mean of unigram precision and recall over exact, stem, synonym "
    "and paraphrase matches, times a penalty for fragmented matches; statistics pooled over all images; of a caption of "
    f"more than {WORDS:,} words, only the first {WORDS:,} are matched (Denkowski and Lavie 2014; pycocoevalcap)",
    "ROUGE_L": "ROUGE-L: (1 + b^2) P R / (R + b^2 P) of the longest common subsequence, b = 1.2, P and R each the best over "
    "the references; mean over images (Lin 2004; pycocoevalcap)",
    "CIDEr": "CIDEr-D: 10 x the mean over n = 1..4 and over references of the clipped TF-IDF cosine of n-grams, times "
    "exp(-(difference of lengths in bigrams)^2 / 72), document frequencies from the references at hand; mean over images "
    "(Vedantam et al. 2015; pycocoevalcap)",
    "SPICE": "SPICE 1.0: F1 of the scene-graph tuples (objects, attributes, relations) of the caption and of all references "
    "together; mean over images (Anderson et al. 2016; pycocoevalcap)",
}


class CaptionScorer:
    """Scores any number of hypothesis sets against the same references; a context manager, which ends METEOR at its exit.

    Args:
      references: {image id: its human captions}, at least one each.
      metrics: some of "Bleu" (four scores), "METEOR", "ROUGE_L", "CIDEr", "SPICE". Without "METEOR" seconds of start-up are
        saved. "SPICE" needs files that are not part of the requirements (`spice_available`).
      timeout_s: limit in seconds for the Java programs of one call together; they are killed when it has passed.

    Raises:
      VlaxError: no references, an image without any, an unknown metric, SPICE without its files.

    CIDEr over one image is 0 by construction (each n-gram occurs in every image, so its weight is log(1/1)): a warning says so.
    """

    def __init__(self, references: Mapping[Id, Sequence[str]], metrics: Sequence[str] = METRICS, timeout_s: float = 600):
        _check_metrics(metrics)
        _check_references(references)
        if "SPICE" in metrics:
            check_spice()
        if len(references) == 1 and "CIDEr" in metrics:
            warnings.warn("CIDEr over one image is 0 by construction: its n-gram weights need several images.", stacklevel=2)
        self._references, self._metrics, self._timeout_s = references, tuple(metrics), timeout_s
        self._tokens: dict[Id, list[str]] = {}  # of the references, from the first call on
        self._last: dict[Id, list[str]] = {}  # the hypotheses of the last call
        self._meteor: Meteor | None = None

    def __enter__(self) -> "CaptionScorer":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._meteor is not None:
            self._meteor.close()

    def __call__(self, hypotheses: Mapping[Id, str]) -> tuple[dict[str, float], dict[str, dict[Id, float]]]:
        """(score of the corpus by metric, {metric: {image id: score of this image}} in the order of the references).

        CIDEr, ROUGE_L and SPICE of the corpus are the means of the values by image; BLEU and METEOR pool counts first and
        are not.

        Args:
          hypotheses: {image id: the predicted caption}; the ids of the references. Empty captions count as they are (0), with
            a warning.

        Raises:
          VlaxError: ids that differ, arguments swapped, a Java that does not run or takes too long.
        """
        _check_hypotheses(hypotheses, self._references)
        deadline = time.monotonic() + self._timeout_s
        if "METEOR" in self._metrics and (self._meteor is None or self._meteor.closed):
            self._meteor = Meteor()  # before the tokenizer: it loads in the meantime
        if not self._tokens:
            tokens = tokenize(self._references, deadline - time.monotonic())
            _check_tokens(tokens)
            self._tokens = tokens
        gts = self._tokens
        res = tokenize({i: [hypotheses[i]] for i in gts}, deadline - time.monotonic())
        scores, by_image = {}, {}
        for metric in self._metrics:
            for name, value, values in self._compute(metric, gts, res, deadline):
                scores[name] = float(value)
                by_image[name] = {i: float(v) for i, v in zip(gts, values, strict=True)}
        self._last = res
        return scores, by_image

    def pooled(self) -> dict[str, Pooled]:
        """Of the last call, the scores that pool counts over the images (BLEU, METEOR), as what a bootstrap can resample."""
        found = pooled.bleu(self._tokens, self._last) if "Bleu" in self._metrics else {}
        if self._meteor is not None:
            found["METEOR"] = pooled.meteor(dict(zip(self._tokens, self._meteor.statistics, strict=True)))
        return found

    def _compute(self, metric: str, gts: Tokens, res: Tokens, deadline: float) -> list[tuple[str, float, Sequence[float]]]:
        """[(name, score of the corpus, scores by image)]; pycocoevalcap is imported here since importing it is slow."""
        if metric == "Bleu":
            from pycocoevalcap.bleu.bleu import Bleu

            corpus, by_image = Bleu(4).compute_score(gts, res, verbose=0)  # verbose prints to stdout
            return [(f"Bleu_{n + 1}", corpus[n], by_image[n]) for n in range(4)]
        if self._meteor is not None and metric == "METEOR":
            return [(metric, *self._meteor(gts, res, deadline))]
        if metric == "SPICE":
            return [(metric, *spice(gts, res, deadline))]
        if metric == "ROUGE_L":
            from pycocoevalcap.rouge.rouge import Rouge

            return [(metric, *Rouge().compute_score(gts, res))]
        from pycocoevalcap.cider.cider import Cider

        return [(metric, *Cider().compute_score(gts, res))]


def score_captions(
    references: Mapping[Id, Sequence[str]],
    hypotheses: Mapping[Id, str],
    metrics: Sequence[str] = METRICS,
    timeout_s: float = 600,
) -> dict[str, float]:
    """{"Bleu_1".. "Bleu_4", "METEOR", "ROUGE_L", "CIDEr": score} over the corpus, for the metrics asked for.

    Arguments, warnings and errors are those of `CaptionScorer`, here for one set of hypotheses.
    """
    return caption_scores_by_image(references, hypotheses, metrics, timeout_s)[0]


def caption_scores_by_image(
    references: Mapping[Id, Sequence[str]],
    hypotheses: Mapping[Id, str],
    metrics: Sequence[str] = METRICS,
    timeout_s: float = 600,
) -> tuple[dict[str, float], dict[str, dict[Id, float]]]:
    """(scores as `score_captions` returns them, {metric: {image id: score of this image}}): one call of a `CaptionScorer`."""
    with CaptionScorer(references, metrics, timeout_s) as scorer:
        return scorer(hypotheses)


def _check_metrics(metrics: Sequence[str]) -> None:
    known = (*METRICS, *_OPTIONAL)
    if isinstance(metrics, str) or not metrics or any(metric not in known for metric in metrics):
        raise VlaxError(f"Unknown caption metrics {metrics!r}; give a list of some of {', '.join(known)}.")


def _check_references(references: Mapping[Id, Sequence[str]]) -> None:
    if not references:
        raise VlaxError("No references: there is no image to score.")
    for i, captions in references.items():
        if isinstance(captions, str) or not isinstance(captions, Sequence) or not all(isinstance(c, str) for c in captions):
            raise VlaxError(f"references[{i!r}] must be a list of captions (str), got {captions!r}. {_ORDER}")
        if not any(caption.strip() for caption in captions):
            raise VlaxError(f"references[{i!r}] has no caption: leave the image out, in the hypotheses as well.")


def _check_tokens(tokens: Mapping[Id, Sequence[str]]) -> None:
    wordless = [i for i, captions in tokens.items() if not all(captions)]
    if not any(caption for captions in tokens.values() for caption in captions):
        raise VlaxError("No reference has a word left after tokenising (only punctuation): check the reference captions.")
    if wordless:
        warnings.warn(
            f"{len(wordless)} of {len(tokens)} images have a reference without a word (first: {wordless[0]!r}): ROUGE_L "
            "gives an empty prediction 1 there. Remove these references.",
            stacklevel=4,
        )


def _check_hypotheses(hypotheses: Mapping[Id, str], references: Mapping[Id, Sequence[str]]) -> None:
    for i, caption in hypotheses.items():
        if not isinstance(caption, str):
            raise VlaxError(f"hypotheses[{i!r}] must be one caption (str), got {type(caption).__name__}. {_ORDER}")
    check_same_ids(references, hypotheses, "the references", "the hypotheses")
    empty = [i for i, caption in hypotheses.items() if not caption.strip()]
    if empty:
        warnings.warn(f"{len(empty)} of {len(hypotheses)} predicted captions are empty (first: {empty[0]!r}).", stacklevel=3)
