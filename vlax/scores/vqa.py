"""VQA accuracy in named flavours, because several incompatible rules are in use under one name.

    score_vqa({1: ["yes"] * 10}, {1: "Yes"})                              ->  {"accuracy": 0.0}
    score_vqa({1: ["yes"] * 10}, {1: "Yes"}, flavour="vqav2@lmms")        ->  {"accuracy": 1.0}
    formulas("vqav2@lmms")                                                ->  {"accuracy": "mean over the human answers of ..."}

The flavours are "vqav2@official", "vqav2@lmms", "vqav2@lmms-2024", "textvqa", "gqa", "gqa@lmms", "exact_match" and "pathvqa";
`vlax/scores/flavours.py` says what each computes and how they differ. All scores lie in 0..1; papers print them x100.
"""

import warnings
from collections.abc import Mapping, Sequence

from vlax.errors import VlaxError
from vlax.scores.flavours import FLAVOURS, HEADLINE, LEAVE_ONE_OUT, formulas, scores_of
from vlax.scores.pathvqa import is_closed
from vlax.scores.statistics import Id, check_same_ids
from vlax.scores.vqa_rules import evalai_answer, normalise_answer

__all__ = [
    "FLAVOURS",
    "HEADLINE",
    "evalai_answer",
    "formulas",
    "normalise_answer",
    "score_vqa",
    "vqa_scores_by_question",
    "vqa_values",
]


def vqa_values(
    annotations: Mapping[Id, Sequence[str]],
    answers: Mapping[Id, str],
    flavour: str = "vqav2@official",
    answer_types: Mapping[Id, str | None] | None = None,
) -> dict[str, dict[Id, float]]:
    """{score: {question id: value in 0..1}}, ids in the order of `annotations`; a score is the mean of its values.

    Args:
      annotations: {question id: human answers}, ten of them in VQA v2 and TextVQA, one in GQA and PathVQA. With fewer than ten
        a leave-one-out rule stays defined, but with two or three its best possible score is 1/3 or 2/3 (a warning counts such
        questions). With one, which these rules do not cover, the score is 1 if the two are equal after normalising. A single
        answer repeated ten times is ten equal answers.
      answers: {question id: predicted answer}.
      flavour: a key of FLAVOURS.
      answer_types: {question id: "yes/no" | "number" | "other" | ...} for every question; None where it is unknown. Flavours
        with one score add "accuracy[TYPE]" for each type; "pathvqa" tells closed questions from open ones by it.

    A score that no row counts for is left out ("pathvqa" without open questions).

    Raises:
      VlaxError: an unknown flavour, no questions, ids that differ, a question without human answers, a value of a wrong type.
    """
    scores = scores_of(flavour)
    _check(annotations, answers)
    types = dict.fromkeys(annotations)
    if answer_types is not None:
        check_same_ids(
            annotations, {i: t for i, t in answer_types.items() if i in annotations}, "the annotations", "answer_types"
        )
        types = {i: answer_types[i] for i in annotations}
    if flavour in LEAVE_ONE_OUT:
        _warn_of_few(annotations)
    result: dict[str, dict[Id, float]] = {}
    for name, score in scores.items():
        counted = _rows(annotations, types, score.rows)
        if counted:
            result[name] = {i: score.rule(annotations[i], answers[i]) for i in counted}
    if len(scores) == 1:
        (name,) = scores
        for kind in sorted({kind for kind in types.values() if kind}):
            result[f"{name}[{kind}]"] = {i: value for i, value in result[name].items() if types[i] == kind}
    return result


def score_vqa(
    annotations: Mapping[Id, Sequence[str]],
    answers: Mapping[Id, str],
    flavour: str = "vqav2@official",
    answer_types: Mapping[Id, str | None] | None = None,
) -> dict[str, float]:
    """{"accuracy": mean over all questions, "accuracy[TYPE]": ...}; for "pathvqa" its six scores.

    Arguments and errors as in `vqa_values`.
    """
    values = vqa_values(annotations, answers, flavour, answer_types)
    return {name: sum(by_id.values()) / len(by_id) for name, by_id in values.items()}


def vqa_scores_by_question(
    annotations: Mapping[Id, Sequence[str]], answers: Mapping[Id, str], flavour: str = "vqav2@official"
) -> dict[Id, float]:
    """The flavour's headline score of each question; arguments and errors as in `vqa_values`."""
    return vqa_values(annotations, answers, flavour)[HEADLINE[flavour]]


def _rows(annotations: Mapping[Id, Sequence[str]], types: Mapping[Id, str | None], rows: str) -> list[Id]:
    if rows == "all":
        return list(annotations)
    return [i for i, humans in annotations.items() if is_closed(humans, types[i]) == (rows == "closed")]


def _check(annotations: Mapping[Id, Sequence[str]], answers: Mapping[Id, str]) -> None:
    if not annotations:
        raise VlaxError("No annotations: there is no question to score.")
    for i, humans in annotations.items():
        if isinstance(humans, str) or not isinstance(humans, Sequence) or not all(isinstance(h, str) for h in humans):
            raise VlaxError(
                f"annotations[{i!r}] must be a list of human answers (str), got {humans!r}. "
                "The order of arguments is score_vqa(annotations, answers)."
            )
        if not humans:
            raise VlaxError(f"annotations[{i!r}] has no human answer: leave the question out, in the answers as well.")
    for i, answer in answers.items():
        if not isinstance(answer, str):
            raise VlaxError(f"answers[{i!r}] must be one answer (str), got {type(answer).__name__}.")
    check_same_ids(annotations, answers, "the annotations", "the answers")


def _warn_of_few(annotations: Mapping[Id, Sequence[str]]) -> None:
    few = sum(2 <= len(humans) <= 3 for humans in annotations.values())
    if few:
        warnings.warn(f"{few} questions have 2 or 3 human answers: their best possible score is 1/3 or 2/3.", stacklevel=4)
