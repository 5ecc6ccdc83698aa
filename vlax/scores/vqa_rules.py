"""The arithmetic of the VQA flavours, one rule a function: (human answers, predicted answer) -> score in 0..1.

    official(["two"] * 9 + ["3"], "2")  ->  1.0        `flavours.py` says in words what each flavour computes

Two normalising rules, with the quirks of their scripts:

  text                          normalise_answer       evalai_answer
  black/white                   black white            black white        a mark becomes a space,
  black-white - or red          blackwhite or red      blackwhite or red  but vanishes everywhere where it touches a space once
  1,000 black-cats              1000 blackcats         1000 black cats    digit,digit makes every mark vanish
  yes,no                        yes no                 yesno              the second first removes commas and "?"
  What's up                     what's up              what 's up         and parts 's from its word
  3.5 m.                        3.5 m                  3.5 m              a period goes, unless a digit follows it
  none                          0                      0                  number words up to ten, "none" included
  the dont                      don't                  don't              articles go, a lost apostrophe is restored
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # neither apostrophe nor colon
_ASCII_PUNCTUATION = str.maketrans("", "", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_COMMAS_IN_NUMBER = re.compile(r"\d,+\d")  # EvalAI's processor also takes several commas
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED = 32  # the scripts pass a flag where `re.sub` takes the count, so at most 32 periods go
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
    """Punctuation, case, number words, articles and contractions, as the official VQA script treats them (see above)."""
    return _normalise(text, _COMMA_IN_NUMBER)


def evalai_answer(text: str) -> str:
    """The same after a tokenising step: EvalAI's answer processor, as MMF and lmms-eval use it (see above)."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _normalise(_one_line(text), _COMMAS_IN_NUMBER)


def official(humans: Sequence[str], answer: str) -> float:
    """ "vqav2@official"."""
    humans, answer = [_one_line(human) for human in humans], _one_line(answer)
    if len(humans) == 1:
        return float(normalise_answer(answer) == normalise_answer(humans[0]))
    if len(set(humans)) > 1:
        humans, answer = [normalise_answer(human) for human in humans], normalise_answer(answer)
    return leave_one_out(humans, answer)


def lmms(humans: Sequence[str], answer: str) -> float:
    """ "vqav2@lmms": the official normalising without its exception for answers on which people agree."""
    humans = [_normalise(_one_line(human), _COMMAS_IN_NUMBER) for human in humans]
    return leave_one_out(humans, _normalise(_one_line(answer), _COMMAS_IN_NUMBER))


def lmms_2024(humans: Sequence[str], answer: str) -> float:
    """ "vqav2@lmms-2024": EvalAI's processor on the prediction alone, then the rule of the official script on both."""
    humans, answer = [_one_line(human) for human in humans], evalai_answer(answer)
    if len(set(humans)) > 1 or len(humans) == 1:
        humans = [_normalise(human, _COMMAS_IN_NUMBER) for human in humans]
        answer = _normalise(answer, _COMMAS_IN_NUMBER)
    return leave_one_out(humans, answer)


def textvqa(humans: Sequence[str], answer: str) -> float:
    """ "textvqa": EvalAI's processor on both sides, always."""
    return leave_one_out([evalai_answer(human) for human in humans], evalai_answer(answer))


def leave_one_out(humans: Sequence[str], answer: str) -> float:
    """The mean over human answers of min(matches among the others / 3, 1); with one human answer, equality."""
    matches = sum(human == answer for human in humans)
    if len(humans) == 1:
        return float(matches)
    return sum(min(1.0, (matches - (human == answer)) / 3) for human in humans) / len(humans)


def exact_match(humans: Sequence[str], answer: str) -> float:
    """ "exact_match": equality with the majority answer; among equally frequent ones, the alphabetically first."""
    counts = Counter(human.strip().lower() for human in humans)
    majority = min(counts, key=lambda human: (-counts[human], human))
    return float(answer.strip().lower() == majority)


def gqa(humans: Sequence[str], answer: str) -> float:
    """ "gqa": equality after lower-casing and without periods at the end."""
    return _equals_one(humans, answer, lambda text: text.strip().rstrip(".").rstrip().lower())


def gqa_lmms(humans: Sequence[str], answer: str) -> float:
    """ "gqa@lmms": equality after lower-casing and without any ASCII punctuation."""
    return _equals_one(humans, answer, lambda text: text.lower().translate(_ASCII_PUNCTUATION).strip())


def _equals_one(humans: Sequence[str], answer: str, normalise: Callable[[str], str]) -> float:
    return float(normalise(answer) in {normalise(human) for human in humans})


def _normalise(text: str, comma_in_number: re.Pattern[str]) -> str:
    glue = comma_in_number.search(text) is not None
    cleaned = text
    for mark in _PUNCTUATION:
        # The scripts look at the text as it was given, not as the marks before have left it.
        touches_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if glue or touches_space else " ")
    cleaned = _PERIOD.sub("", cleaned, count=_PERIODS_REMOVED)
    words = (_NUMBERS.get(word, word) for word in cleaned.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()
