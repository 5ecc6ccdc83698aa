"""VQA accuracy in named flavours, because three incompatible rules are in use.

"vqav2@official": the arithmetic of the script that visualqa.org publishes (Antol et al. 2015; Goyal et al. 2017), in its
current revision:

  1. Newlines and tabs become spaces and the ends are stripped, in the prediction and in the human answers.
  2. If the human answers are not all the same string, the prediction and every human answer are normalised. If they are all the
     same, nothing is normalised, not even the case: "Yes" scores 0 against ten times "yes", while it scores 1 against nine
     "yes" and one "no". The script's author: it keeps text that is to be read from the picture as it is (GT-Vision-Lab/VQA#14).
  3. For each human answer, min(matches among the others / 3, 1); the score is the mean of these.

Normalising (`normalise_answer`), with the script's own quirks:

  black/white                   ->  black white            a mark becomes a space,
  black-white - or red, two     ->  blackwhite or red 2    but vanishes everywhere where it touches a space once
  1,000 black-cats              ->  1000 blackcats         digit,digit anywhere makes every mark vanish
  3.5 m.                        ->  3.5 m                  a period goes, unless a digit follows it
  none                          ->  0                      number words up to ten, "none" included
  the dont                      ->  don't                  articles go, a lost apostrophe is restored

Older revisions and other tools normalise always, or human answers by punctuation only; their numbers differ from these.

"exact_match": 1 if the prediction equals the majority answer, both lower-cased and stripped; ties go to the alphabetically
first answer.

All scores lie in 0..1; papers print them x100.
"""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from vlax.errors import VlaxError
from vlax.evaluation.statistics import Id, check_same_ids

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # neither apostrophe nor colon
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED = 32  # the script passes a flag where `re.sub` takes the count, so at most 32 periods go
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {"none": "0"} | {word: str(n) for n, word in enumerate(_NUMBER_WORDS)}
_ARTICLES = frozenset(("a", "an", "the"))
_CONTRACTED = {  # ending: what stands before it
    "'t": "ain aren can couldn didn doesn don hadn hasn haven isn mightn mustn needn oughtn shan shouldn wasn weren won wouldn",
    "'ve": "could might must not should they we what where who would you couldn't hadn't mightn't shouldn't wouldn't",
    "'d": "he how it someone something there they where who you",
    "'d've": "he it she somebody someone something there they we who you y'all",
    "'ll": "how it somebody someone something they what who why you y'all",
    "'s": "he how somebody someone that there what when where who why",
    "'re": "there they what why you",
    "": "ma'am o'clock 'ow's'at 'twas y'all",
}


def _contractions() -> dict[str, str]:
    """{"couldnt've": "couldn't've", ...}: each form with exactly one of its apostrophes missing -> the full form."""
    table = {"somebody'd": "somebodyd"}  # the one entry of the official table that goes the other way
    for ending, stems in _CONTRACTED.items():
        for full in (stem + ending for stem in stems.split()):
            table |= {full[:i] + full[i + 1 :]: full for i, letter in enumerate(full) if letter == "'"}
    return table


_CONTRACTIONS = _contractions()


def normalise_answer(text: str) -> str:
    """Punctuation, case, number words, articles and contractions, as the official script treats them (see above)."""
    glue = _COMMA_IN_NUMBER.search(text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        # The script looks at the text as it was given, not as the marks before have left it.
        touches_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if glue or touches_space else " ")
    cleaned = _PERIOD.sub("", cleaned, count=_PERIODS_REMOVED)
    words = (_NUMBERS.get(word, word) for word in cleaned.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _official(humans: Sequence[str], answer: str) -> float:
    humans, answer = [_one_line(human) for human in humans], _one_line(answer)
    if len(humans) == 1:
        return float(normalise_answer(answer) == normalise_answer(humans[0]))
    if len(set(humans)) > 1:
        humans, answer = [normalise_answer(human) for human in humans], normalise_answer(answer)
    matches = sum(human == answer for human in humans)
    return sum(min(1.0, (matches - (human == answer)) / 3) for human in humans) / len(humans)


def _exact_match(humans: Sequence[str], answer: str) -> float:
    counts = Counter(human.strip().lower() for human in humans)
    majority = min(counts, key=lambda human: (-counts[human], human))
    return float(answer.strip().lower() == majority)


FLAVOURS: dict[str, Callable[[Sequence[str], str], float]] = {"vqav2@official": _official, "exact_match": _exact_match}


def vqa_scores_by_question(
    annotations: Mapping[Id, Sequence[str]], answers: Mapping[Id, str], flavour: str = "vqav2@official"
) -> dict[Id, float]:
    """The score of each question, 0..1, in the order of `annotations`.

    Args:
      annotations: {question id: human answers}, ten of them in VQA v2. With fewer the official rule stays defined, but with two
        or three its best possible score is 1/3 or 2/3 (a warning counts such questions). With one, which the rule does not
        cover, the score is 1 if the two are equal after normalising. A single answer repeated ten times is ten equal answers.
      answers: {question id: predicted answer}.
      flavour: a key of FLAVOURS.

    Raises:
      VlaxError: an unknown flavour, no questions, ids that differ, a question without human answers, a value of a wrong type.
    """
    if flavour not in FLAVOURS:
        raise VlaxError(f"Unknown VQA flavour {flavour!r}; valid are {', '.join(map(repr, FLAVOURS))}.")
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
    few = sum(2 <= len(humans) <= 3 for humans in annotations.values())
    if few and flavour == "vqav2@official":
        warnings.warn(f"{few} questions have 2 or 3 human answers: their best official score is 1/3 or 2/3.", stacklevel=2)
    return {i: FLAVOURS[flavour](humans, answers[i]) for i, humans in annotations.items()}


def score_vqa(
    annotations: Mapping[Id, Sequence[str]],
    answers: Mapping[Id, str],
    flavour: str = "vqav2@official",
    answer_types: Mapping[Id, str] | None = None,
) -> dict[str, float]:
    """{"accuracy": mean over all questions}, and "accuracy[TYPE]" for each type where `answer_types` is given.

    Args and errors as in `vqa_scores_by_question`; `answer_types` is {question id: "yes/no" | "number" | "other" | ...} and
    must have a type for every question (VlaxError).
    """
    scores = vqa_scores_by_question(annotations, answers, flavour)
    result = {"accuracy": sum(scores.values()) / len(scores)}
    if answer_types is not None:
        check_same_ids(scores, {i: t for i, t in answer_types.items() if i in scores}, "the annotations", "answer_types")
        for kind in sorted({answer_types[i] for i in scores}):
            values = [score for i, score in scores.items() if answer_types[i] == kind]
            result[f"accuracy[{kind}]"] = sum(values) / len(values)
    return result


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
