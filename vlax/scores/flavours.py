"""The VQA flavours: which scores each has, and what each computes.

    formulas("gqa")  ->  {"accuracy": "1 if prediction and answer are equal, both lower-cased, ..."}

"vqav2@official": the arithmetic of the script that visualqa.org publishes (Antol et al. 2015; Goyal et al. 2017), in its
current revision:

  1. Newlines and tabs become spaces and the ends are stripped, in the prediction and in the human answers.
  2. If the human answers are not all the same string, the prediction and every human answer are normalised. If they are all the
     same, nothing is normalised, not even the case: "Yes" scores 0 against ten times "yes", while it scores 1 against nine
     "yes" and one "no". The script's author: it keeps text that is to be read from the picture as it is (GT-Vision-Lab/VQA#14).
  3. For each human answer, min(matches among the others / 3, 1); the score is the mean of these.

"vqav2@lmms": lmms-eval's task vqav2 since its pull request 794 (August 2025): steps 1 and 3, but step 2 always normalises. It
differs from the official score only where all human answers are the same string: "Yes" then scores 1 against "yes". (It also
takes "1,,2" for a number with a comma.)

"vqav2@lmms-2024": the same task before its pull request 760 (July 2025). The prediction goes through EvalAI's processor
(`evalai_answer`) whatever people say, then step 2 applies to both. So the prediction alone loses its commas and has 's parted
from its word: "what's up" scores 0 against "what's up", and "the cat" scores 0 against ten times "the cat". Between the two
pull requests, the task computed the official score.

"textvqa": TextVQA's accuracy, as MMF and lmms-eval compute it (Singh et al. 2019): EvalAI's processor on the prediction and on
every human answer, always; then step 3. It differs from the official score where people agree, for commas and for 's.

"gqa": GQA's script compares strings as they are (Hudson and Manning 2019), and its answers are lower-case words without a
period; models that write sentences are compared after lower-casing and without periods at the end (LLaVA's conversion for that
script).
"gqa@lmms": lmms-eval's task gqa: lower-cased and without any ASCII punctuation, on both sides.

"exact_match": equality with the majority answer, both lower-cased and stripped; ties go to the alphabetically first answer.

"pathvqa": six scores, of the closed questions, of the open ones and of all: see `formulas("pathvqa")` and
`vlax/scores/pathvqa.py`. LLaVA-Med's script, which published numbers come from, differs: a closed question counts as right
where the prediction has the reference anywhere, even "no" in "know", and leaves the mean where it has the other of "yes" and
"no" only; recall and F1 count a token that both have as often as the prediction repeats it.
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
FLAVOURS: dict[str, dict[str, Score]] = {  # flavour: {score: ...}, the headline first
    "vqav2@official": {
        "accuracy": Score(
            _SOFT + "after the official normalising unless all human answers are the same string (visualqa.org, vqaEval.py)",
            vqa_rules.official,
        )
    },
    "vqav2@lmms": {
        "accuracy": Score(
            _SOFT + "always after the official normalising (lmms-eval, task vqav2, since pull request 794)", vqa_rules.lmms
        )
    },
    "vqav2@lmms-2024": {
        "accuracy": Score(
            _SOFT
            + "the prediction after EvalAI's processor, then both after the official normalising unless all human answers "
            "are the same string (lmms-eval, task vqav2, before pull request 760)",
            vqa_rules.lmms_2024,
        )
    },
    "textvqa": {
        "accuracy": Score(
            _SOFT + "always after EvalAI's answer processor (Singh et al. 2019; MMF, TextVQAAccuracyEvaluator)",
            vqa_rules.textvqa,
        )
    },
    "gqa": {
        "accuracy": Score(
            "1 if prediction and answer are equal, both lower-cased, stripped and without periods at the end "
            "(GQA's eval.py after LLaVA's conversion of predictions)",
            vqa_rules.gqa,
        )
    },
    "gqa@lmms": {
        "accuracy": Score(
            "1 if prediction and answer are equal, both lower-cased, stripped and without ASCII punctuation "
            "(lmms-eval, task gqa)",
            vqa_rules.gqa_lmms,
        )
    },
    "exact_match": {
        "accuracy": Score(
            "1 if the prediction equals the majority answer, both lower-cased and stripped (no published script)",
            vqa_rules.exact_match,
        )
    },
    "pathvqa": {
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
    },
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
