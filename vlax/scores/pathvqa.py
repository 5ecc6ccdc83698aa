"""The scores of PathVQA answers: each a function (references, prediction) -> score in 0..1.

    open_recall(["bile duct cells"], "cells of the bile duct")      ->  1.0        3 of 3 tokens found
    open_token_f1(["bile duct cells"], "cells of the bile duct")    ->  0.857      P 3/4, R 3/3
    open_bleu1(["bile duct cells"], "cells")                        ->  0.135      1/1 times exp(1 - 3/1)

Answers are compared by tokens: the words of `normalise_answer` (lower-cased; without punctuation and articles; number words as
digits), which is LLaVA-Med's `normalize_word`. Where that leaves nothing (an answer "A"), the words of the text as it is.
PathVQA has one reference a question; with several, the best counts.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from vlax.scores.vqa_rules import normalise_answer

_CLOSED_TYPES = ("yes/no", "closed")  # of PathVQA itself and of LLaVA-Med's files


def is_closed(references: Sequence[str], answer_type: str | None) -> bool:
    """A yes/no question: by its answer type, or, where that is missing, because each reference is yes or no."""
    if answer_type:
        return answer_type.lower() in _CLOSED_TYPES
    return all(tokens(reference) in (["yes"], ["no"]) for reference in references)


def tokens(text: str) -> list[str]:
    return normalise_answer(text).split() or text.lower().split()


def exact(references: Sequence[str], answer: str) -> float:
    return _best(references, answer, lambda reference, predicted: float(reference == predicted))


def open_recall(references: Sequence[str], answer: str) -> float:
    return _best(references, answer, lambda r, p: sum(token in p for token in r) / len(r) if r else 0.0)


def open_token_f1(references: Sequence[str], answer: str) -> float:
    """2 P R / (P + R) = 2 x overlap / (tokens of both)."""
    return _best(references, answer, lambda r, p: 2 * _overlap(r, p) / (len(r) + len(p)) if r or p else 0.0)


def open_bleu1(references: Sequence[str], answer: str) -> float:
    return _best(references, answer, _bleu1)


def _bleu1(reference: list[str], predicted: list[str]) -> float:
    if not predicted:
        return 0.0
    return _overlap(reference, predicted) / len(predicted) * math.exp(min(0.0, 1 - len(reference) / len(predicted)))


def _overlap(reference: list[str], predicted: list[str]) -> int:
    """Tokens in common, each as often as it occurs in both."""
    return (Counter(reference) & Counter(predicted)).total()


def _best(references: Sequence[str], answer: str, score: Callable[[list[str], list[str]], float]) -> float:
    predicted = tokens(answer)
    return max(score(tokens(reference), predicted) for reference in references)
