"""The VQA flavours: which scores each has, and what each computes.

    formulas("gqa")  ->  {"accuracy": "1 if prediction and answer are equal, both lower-cased, ..."}

Each formula stands in FLAVOURS below; what they do not say:

"vqav2@official"   is the script of visualqa.org (Antol et al. 2015; Goyal et al. 2017) in its current revision. Where people
                   agree it normalises nothing, not even the case: "Yes" scores 0 against ten times "yes", while it scores 1
                   against nine "yes" and one "no". Its author: text that is to be read from the picture stays as it is
                   (GT-Vision-Lab/VQA#14).
"vqav2@lmms"       differs from it there alone ("Yes" then scores 1), and takes "1,,2" for a number with a comma.
"vqav2@lmms-2024"  parts 's from its word and takes commas away in the prediction alone: "what's up" scores 0 against "what's
                   up", and "the cat" scores 0 against ten times "the cat". Between pull requests 760 (July 2025) and 794
                   (August 2025), lmms-eval's task computed the official score.
"pathvqa"          LLaVA-Med's script, which published numbers come from, differs: a closed question counts as right where the
                   prediction has the reference anywhere, even "no" in "know", and leaves the mean where it has the other of
                   "yes" and "no" only; recall and F1 count a token that both have as often as the prediction repeats it.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vlax.errors import VlaxError
from vlax.scores import pathvqa, vqa_rules


class Score(NamedTuple):
    """One score of a flavour: its formula in words, its rule for a row, and the rows that count ("all", "closed", "open")."""

    formula: str
    rule: Callable[[Sequence[str], str], float]
    rows: str = "all"


_SOFT = "mean over the human answers of min(matches among the other answers / 3, 1), "
_AS_OFFICIAL = "after the official normalising unless all human answers are the same string "
FLAVOURS: dict[str, dict[str, Score]] = {  # flavour: {score: ...}, the headline first
    flavour: {"accuracy": Score(formula, rule)}
    for flavour, rule, formula in (
        ("vqav2@official", vqa_rules.official, f"{_SOFT}{_AS_OFFICIAL}(visualqa.org, vqaEval.py)"),
        ("vqav2@lmms", vqa_rules.lmms,
         f"{_SOFT}always after the official normalising (lmms-eval, task vqav2, since pull request 794)"),
        ("vqav2@lmms-2024", vqa_rules.lmms_2024,
         f"{_SOFT}the prediction after EvalAI's processor, then both {_AS_OFFICIAL}"
         "(lmms-eval, task vqav2, before pull request 760)"),
        ("textvqa", vqa_rules.textvqa,
         f"{_SOFT}always after EvalAI's answer processor (Singh et al. 2019; MMF, TextVQAAccuracyEvaluator)"),
        ("gqa", vqa_rules.gqa,
         "1 if prediction and answer are equal, both lower-cased, stripped and without periods at the end "
         "(GQA's eval.py after LLaVA's conversion of predictions)"),
        ("gqa@lmms", vqa_rules.gqa_lmms,
         "1 if prediction and answer are equal, both lower-cased, stripped and without ASCII punctuation "
         "(lmms-eval, task gqa)"),
        ("exact_match", vqa_rules.exact_match,
         "1 if the prediction equals the majority answer, both lower-cased and stripped (no published script)"),
    )
}  # fmt: skip
FLAVOURS["pathvqa"] = {
    "overall": Score("1 if the normalised prediction equals the normalised reference; mean over all rows", pathvqa.exact),
    "yes/no accuracy": Score(
        "1 if the normalised prediction equals the normalised reference; mean over closed rows (answer type yes/no, or a "
        "reference yes or no where types are missing)",
        pathvqa.exact,
        "closed",
    ),
    "open exact match": Score(
        "1 if the normalised prediction equals the normalised reference; mean over open rows", pathvqa.exact, "open"
    ),
    "open recall": Score(
        "tokens of the reference that occur in the prediction / tokens of the reference; mean over open rows "
        "(Li et al. 2023, LLaVA-Med)",
        pathvqa.open_recall,
        "open",
    ),
    "open token F1": Score(
        "2 P R / (P + R) of the tokens in common, P = common / tokens of the prediction, R = common / tokens of the "
        "reference; mean over open rows (Rajpurkar et al. 2016)",
        pathvqa.open_token_f1,
        "open",
    ),
    "open BLEU-1": Score(
        "clipped unigram precision x min(1, exp(1 - tokens of the reference / tokens of the prediction)); mean of these "
        "sentence scores over open rows (Papineni et al. 2002)",
        pathvqa.open_bleu1,
        "open",
    ),
}
RULES = 1  # count up when a rule changes its scores: it is part of every protocol
HEADLINE: dict[str, str] = {flavour: next(iter(scores)) for flavour, scores in FLAVOURS.items()}
LEAVE_ONE_OUT = ("vqav2@official", "vqav2@lmms", "vqav2@lmms-2024", "textvqa")


def formulas(flavour: str) -> dict[str, str]:
    """{score: its formula in one sentence, with its source}, the headline first. VlaxError: an unknown flavour."""
    return {name: score.formula for name, score in scores_of(flavour).items()}


def scores_of(flavour: str) -> dict[str, Score]:
    """{name: Score}, the headline first. VlaxError: an unknown flavour."""
    if flavour not in FLAVOURS:
        raise VlaxError(f"Unknown VQA flavour {flavour!r}; valid are {', '.join(map(repr, FLAVOURS))}.")
    return FLAVOURS[flavour]
