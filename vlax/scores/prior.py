"""Priors that see no image. A model that does not beat them has not shown that it looks at its pictures.

    question_majority([("is it red?", "no"), ("is it red?", "no"), ("is it red?", "yes")]).answer("Is it red?")  ->  "no"
    best_constant_caption(training_captions, validation_references)  ->  "a dog runs on the grass ."

The first needs training rows only; the second chooses on validation, never on the split that is reported.
"""

import dataclasses
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from vlax.errors import VlaxError
from vlax.scores.captions import tokenize
from vlax.scores.statistics import Id

MOST_CANDIDATES = 20_000
_ORDERS = (1, 2, 3, 4)  # CIDEr's n-gram lengths
_SIGMA = 6.0  # width of CIDEr's length penalty, in bigrams
_Ngram = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Prior:
    """The training majority answer by question string, and over all questions for a string that training never had.

    Strings are compared lower-cased with runs of spaces as one; equally frequent answers: the alphabetically first.
    """

    by_question: Mapping[str, str]
    overall: str

    def answer(self, question: str) -> str:
        return self.by_question.get(_key(question), self.overall)


def question_majority(train_rows: Iterable[tuple[str, str]]) -> Prior:
    """The prior of (question, answer) pairs; a question with ten human answers gives ten pairs. VlaxError without any."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    for question, answer in train_rows:
        counts[_key(question)][answer.strip()] += 1
        overall[answer.strip()] += 1
    if not overall:
        raise VlaxError("No training questions: the prior needs the (question, answer) pairs of the training split.")
    return Prior({question: _majority(answers) for question, answers in counts.items()}, _majority(overall))


def best_constant_caption(candidates: Sequence[str], val_references: Mapping[Id, Sequence[str]], timeout_s: float = 600) -> str:
    """The candidate that, given as the caption of every validation image, has the highest CIDEr.

    Every distinct candidate gets its exact CIDEr (`ConstantCider`), thousands a second; beyond MOST_CANDIDATES distinct ones
    the most frequent are tried, and among equally frequent ones a fixed pseudo-random choice. All captions are
    tokenised in one run of Java. Ties: the alphabetically first.

    Args:
      candidates: captions of the training split, repeats included.
      val_references: {image id: human captions} of the validation split, two images or more.
      timeout_s: limit in seconds for the tokenizer.

    Raises:
      VlaxError: no candidate with a word in it, fewer than two validation images, a failure of the tokenizer.
    """
    if len(val_references) < 2:
        raise VlaxError("The best constant caption needs two validation images or more: over one, every CIDEr is 0.")
    counts = Counter(caption.strip() for caption in candidates if caption.strip())
    # A checksum, not the alphabet, decides among the many captions that occur once: "a ..." would crowd out the rest.
    chosen = sorted(counts, key=lambda caption: (-counts[caption], zlib.crc32(caption.encode("utf-8", "replace")), caption))
    chosen = chosen[:MOST_CANDIDATES]
    images: dict[Id, Sequence[str]] = {("image", i): captions for i, captions in val_references.items()}
    tokens = tokenize(images | {("candidate", caption): [caption] for caption in chosen}, timeout_s)
    scorer = ConstantCider([tokens[image] for image in images])
    words = {caption: tokens["candidate", caption][0] for caption in chosen}
    scores = {caption: scorer(text) for caption, text in words.items() if text}
    if not scores:
        raise VlaxError("No candidate caption has a word in it: pass the captions of the training split.")
    best = max(scores.values())
    # Scores are sums of floats: captions with the same tokens tie exactly, others may miss a tie by rounding.
    return min(caption for caption, score in scores.items() if score >= best - 1e-12)


class ConstantCider:
    """CIDEr of one caption given to all images, in the definition of pycocoevalcap (Vedantam et al. 2015, with clipping and a
    Gaussian length penalty), without a pass over the references for each caption.

    For a constant caption c the score is a sum over references r; with weights w(g) = log(images / images with g):

        CIDEr(c) = 10 / 4 sum_n 1/|c|_n sum_r exp(-(len c - len r)^2 / 72) / (images R_r |r|_n)
                                  sum_g min(tf_c(g) w(g), tf_r(g) w(g)) tf_r(g) w(g)

    Only tf_r(g) and len r say how a reference meets c, so references are pooled by (g, tf_r, len r) beforehand. R_r is the
    number of references of r's image; len counts bigrams, as pycocoevalcap does.
    """

    def __init__(self, references: Sequence[Sequence[str]]):
        """references: for each image its tokenised captions."""
        grams = [[_ngrams(caption) for caption in captions] for captions in references]
        images_with = Counter(g for captions in grams for g in set().union(*captions))
        self._unseen = math.log(len(references))
        self._weight = {g: math.log(len(references) / n) for g, n in images_with.items()}
        self._pools: dict[_Ngram, dict[tuple[int, int], float]] = defaultdict(lambda: defaultdict(float))
        for captions in grams:
            for counts in captions:
                norms, length = self._norms(counts), _bigrams(counts)
                for g, tf in counts.items():
                    if self._weight[g] > 0:
                        share = tf * self._weight[g] / (norms[len(g)] * len(captions) * len(references))
                        self._pools[g][tf, length] += share

    def __call__(self, caption: str) -> float:
        """The score of one tokenised caption."""
        counts = _ngrams(caption)
        norms, length = self._norms(counts), _bigrams(counts)
        total = 0.0
        for g, tf in counts.items():
            if g in self._pools:  # `in` does not create an entry of the defaultdict
                met = sum(
                    min(tf, tf_ref) * share * math.exp(-((length - length_ref) ** 2) / (2 * _SIGMA**2))
                    for (tf_ref, length_ref), share in self._pools[g].items()
                )
                total += met * self._weight[g] / norms[len(g)]
        return 10 * total / len(_ORDERS)

    def _norms(self, counts: Mapping[_Ngram, int]) -> dict[int, float]:
        squares = dict.fromkeys(_ORDERS, 0.0)
        for g, tf in counts.items():
            squares[len(g)] += (tf * self._weight.get(g, self._unseen)) ** 2
        return {n: math.sqrt(square) for n, square in squares.items()}


def _ngrams(caption: str) -> Counter[_Ngram]:
    words = caption.split()
    return Counter(tuple(words[i : i + n]) for n in _ORDERS for i in range(len(words) - n + 1))


def _bigrams(counts: Mapping[_Ngram, int]) -> int:
    return sum(tf for g, tf in counts.items() if len(g) == 2)


def _key(question: str) -> str:
    return " ".join(question.lower().split())


def _majority(answers: Counter[str]) -> str:
    return min(answers, key=lambda answer: (-answers[answer], answer))
