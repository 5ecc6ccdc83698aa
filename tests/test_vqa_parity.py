"""`vqav2@official` equals, row by row, a second implementation of the official script, and sums done by hand."""

import collections
import functools
import itertools
import json
import pathlib
import random
import re

import pytest
from vqa_reference import CONTRACTIONS, DIGITS, RESTORED, normalise, official_accuracy

from vlax.evaluation import score_vqa
from vlax.scores.vqa import vqa_scores_by_question

TEXTVQA = (
    pathlib.Path(__file__).parents[2] / "shared" / "data" / "formats" / "vqav2_textvqa" / "val_annotations_vqa_format.json"
)
NUMBERS = {value: word for word, value in DIGITS.items() if word != "none"}


def compare(pairs: list[tuple[list[str], str]]) -> list[float]:
    """The scores of (ten answers, prediction) pairs, after asserting that both implementations give the same ones."""
    expected = [official_accuracy(humans, prediction) for humans, prediction in pairs]
    rows = dict(enumerate(humans for humans, _ in pairs))
    got = vqa_scores_by_question(rows, {i: prediction for i, (_, prediction) in enumerate(pairs)}, "vqav2@official")
    assert list(got) == list(rows)
    wrong = [(*pairs[i], f"vlax {got[i]}, official {value}") for i, value in enumerate(expected) if abs(got[i] - value) > 1e-12]
    assert not wrong, f"{len(wrong)} of {len(pairs)} rows differ, such as {wrong[:3]}"
    return expected


# ---------------------------------------------------------------- (c) sums by hand

HAND = [  # (answers that are not "zebra", filled up to ten with "zebra"), prediction, accuracy
    # n matches: n times somebody who matched is left out, leaving n - 1; 10 - n times somebody else is, leaving n.
    (["cat"] * 0, "cat", 0.0),  # ten times 0 / 3
    (["cat"] * 1, "cat", 0.3),  # (1 * 0/3 + 9 * 1/3) / 10 = 3 / 10
    (["cat"] * 2, "cat", 0.6),  # (2 * 1/3 + 8 * 2/3) / 10 = 6 / 10
    (["cat"] * 3, "cat", 0.9),  # (3 * 2/3 + 7 * 3/3) / 10 = 9 / 10
    (["cat"] * 4, "cat", 1.0),  # (4 * 3/3 + 6 * min(1, 4/3)) / 10 = 10 / 10
    (["cat"] * 9, "cat", 1.0),  # (9 * min(1, 8/3) + 1 * min(1, 9/3)) / 10
    # Ten equal answers: nothing but the whitespace around both is touched.
    (["yes"] * 10, "yes", 1.0),
    (["yes"] * 10, "\tyes \n", 1.0),
    (["yes"] * 10, "Yes", 0.0),
    (["yes"] * 10, "yes.", 0.0),
    (["two"] * 10, "2", 0.0),
    (["The Cat!"] * 10, "The Cat!", 1.0),
    (["a\nb"] * 10, "a b", 1.0),  # a line break is a space on both sides
    (["a  b"] * 10, "a b", 0.0),  # yet two spaces are not one
    (["the cat"] * 5 + ["the cat\n"] * 5, "cat", 0.0),  # equal once stripped, hence still "the cat"
    (["two"] * 9 + ["2"], "2", 1.0),  # one other spelling, and all ten are normalised
    ([""] * 10, "  ", 1.0),
    # Case, number words, articles: two of ten, 6 / 10.
    (["the two men"] * 2, "TWO MEN", 0.6),
    (["none"] * 2, "zero", 0.6),  # both are 0
    (["ten"] * 2, "10", 0.6),
    (["eleven"] * 2, "11", 0.0),  # the list ends at ten
    (["the"] * 2, "a", 0.6),  # both become empty
    # Punctuation: no neighbouring space, so a space; a neighbouring space anywhere, so nothing, everywhere.
    (["well known"] * 1, "well-known", 0.3),
    (["wellknown x"] * 1, "well-known -x", 0.3),
    (["well known x"] * 1, "well-known -x", 0.0),
    (["girl's"] * 1, "girls", 0.0),  # apostrophes, colons, dollars and per cents are kept
    (["2:50"] * 1, "2 50", 0.0),
    (["1000"] * 3, "1,000", 0.9),
    (["1000 wellknown"] * 3, "1,000 well-known", 0.9),  # a comma between digits glues all the rest, too
    (["x,y"] * 3, "x y", 0.9),  # another comma is an ordinary mark
    # Periods: those before a digit stay.
    (["3.5"] * 3, "35", 0.0),
    (["1.000.000"] * 3, "1.000.000.", 0.9),
    (["a.5"] * 3, "a5", 0.0),
    (["u.s.a."] * 3, "USA", 0.9),
    (["x"] * 3, "x" + "." * 32, 0.9),
    (["x"] * 3, "x" + "." * 33, 0.0),  # the 33rd is left
    # Contractions: by whole words, after lower-casing.
    (["don't"] * 1, "Dont", 0.3),
    (["dont."] * 1, "don't", 0.3),
    (["couldn't've"] * 1, "couldntve", 0.0),  # one missing apostrophe only
    (["somebodyd"] * 1, "somebody'd", 0.3),  # the table's one slip
    (["I'm"] * 1, "Im", 0.0),  # its key has a capital, the word no longer
    # Beyond ASCII, as Python 3 has it: decimal digits are digits, wide spaces part words, curly quotes are letters.
    (["１０００"] * 3, "１,０００", 0.9),
    (["2 men"] * 3, "two\u00a0men", 0.9),
    (["don’t"] * 3, "dont", 0.0),
    (["²"] * 3, "2", 0.0),
]


@pytest.mark.parametrize(("humans", "prediction", "accuracy"), HAND)
def test_sums_by_hand(humans, prediction, accuracy):
    humans = humans + ["zebra"] * (10 - len(humans))
    assert vqa_scores_by_question({"q": humans}, {"q": prediction}, "vqav2@official")["q"] == pytest.approx(accuracy, abs=1e-12)
    assert official_accuracy(humans, prediction) == pytest.approx(accuracy, abs=1e-12)


def test_the_score_is_the_mean_of_the_rows():
    rows = {1: ["cat"] * 3 + ["dog"] * 7, 2: ["two"] * 10}
    assert score_vqa(rows, {1: "Cat.", 2: "2"}, flavour="vqav2@official")["accuracy"] == pytest.approx((0.9 + 0) / 2)


def test_the_rows_of_the_reference():
    assert official_accuracy(["two"] * 3 + ["3"] * 7, "2.") == 0.9
    assert normalise("The 1,000-year  egg!") == "1000year egg"
    assert normalise("Two well-known men dont.") == "2 well known men don't"
    assert len(RESTORED) == 114
    assert all(normalise(broken) == word for broken, word in RESTORED.items())


# ---------------------------------------------------------------- (a) TextVQA's ten answers

PREDICTIONS = {
    "upper case": str.upper,
    "an article": lambda text: f"the {text}",
    "articles between": lambda text: text.replace(" ", " a "),
    "a period": lambda text: f"{text}.",
    "two marks": lambda text: f"({text} !",
    "hyphens": lambda text: text.replace(" ", "-"),
    "glued": lambda text: text.replace(" ", ""),
    "commas in numbers": lambda text: re.sub(r"(\d)(?=\d)", r"\1,", text),
    "number words": lambda text: " ".join(NUMBERS.get(word, word) for word in text.split()),
    "digits": lambda text: " ".join(DIGITS.get(word, word) for word in text.split()),
    "no apostrophes": lambda text: text.replace("'", ""),
    "curly apostrophes": lambda text: text.replace("'", "’"),
    "tabs and line breaks": lambda text: "\t" + text.replace(" ", "\n") + " \n",
    "no punctuation": lambda text: re.sub(r"[^\w\s]", "", text),
}


@functools.cache
def textvqa() -> list[list[str]]:
    if not TEXTVQA.exists():
        pytest.skip(f"no {TEXTVQA.name}: the shared data are not beside this checkout")
    rows = [[answer["answer"] for answer in row["answers"]] for row in json.loads(TEXTVQA.read_text())["annotations"]]
    assert len(rows) == 5000
    assert {len(humans) for humans in rows} == {10}
    return rows


@functools.cache
def majorities() -> list[str]:
    return [collections.Counter(humans).most_common(1)[0][0] for humans in textvqa()]


def test_textvqa_answers_of_people():
    rows = textvqa()
    first = compare([(humans, humans[0]) for humans in rows])
    assert set(first) == {0.3, 0.6, 0.9, 1.0}  # one who said it is always there
    most = compare(list(zip(rows, majorities(), strict=True)))
    another = compare(list(zip(rows, majorities()[1:] + majorities()[:1], strict=True)))
    assert sum(first) < sum(most)
    assert sum(another) < 0.05 * sum(most)


@pytest.mark.parametrize("change", PREDICTIONS)
def test_textvqa_predictions(change):
    """The majority's answer, changed in at least some rows."""
    predictions = [PREDICTIONS[change](text) for text in majorities()]
    scores = compare(list(zip(textvqa(), predictions, strict=True)))
    assert any(text != majority for text, majority in zip(predictions, majorities(), strict=True))
    assert sum(scores) > 0


def test_textvqa_answers_changed():
    """The ten answers changed, each in another way; and all ten in the same, where they are equal."""
    changes = [*PREDICTIONS.values(), str]
    mixed = [[changes[(i + 3 * n) % 15](human) for n, human in enumerate(humans)] for i, humans in enumerate(textvqa())]
    assert 0 < sum(compare(list(zip(mixed, majorities(), strict=True)))) < 5000
    alike = [[changes[i % 15](majority)] * 10 for i, majority in enumerate(majorities())]
    scores = compare(list(zip(alike, majorities(), strict=True)))
    assert set(scores) == {0.0, 1.0}


# ---------------------------------------------------------------- (b) adversarial strings

FAMILIES = {  # strings that are easily taken for each other, parted by bars
    "thousands": "1,000|1000|1 000|1.000|1, 000|1 ,000|1,000,000|1.000.000|1,0,0|,1,000,|$1,000.00|1,a",
    "decimals": "3.5|3.5.|35|3 .5|3. 5|.5|5.|a.5|5.a|3..5|3.-5|-3.5|3.5%|v3.5.1|<=3.5|<=3.",
    "times": "10:30|10 30|1030|10:30 a.m.|10:30 am|10:30am|10.30|10;30|10:30:|: 10:30|at 10:30, the",
    "number words": "two|Two|2|twotwo|two-two|2 2|two,two|two.|two .|none|zero|0|none, one|0 1|TEN",
    "articles": "a|an|the||A cat|cat|the a cat|a-cat|a.cat|acat|the,cat|a/the cat|another|THE  CAT",
    "marks": '?|!|...|- -|-|()|( )|[{}]|a-b|ab|a b|a -b|a- b|a - b|a--b|a_b|a\\b|a@b|"a"|<a>|a+b=c;`',
    "periods": "|".join(
        ["." * n for n in (1, 31, 32, 33, 64, 65)] + ["x." * n for n in (32, 33, 40)] + [".1" * 40 + "." * 33, ". " * 40]
    ),
    "whitespace": "a\tb|a\nb|x y|x\ny|x\t y|x\r\ny|x\u00a0y|x\u2003y|x\vy| x y\n|x -\ny|x-\u00a0y|x-y|\n\t",
    "wide digits": "１,０００|１０００|1,000|1,０|10|３.５|３５|x.５|x５|٣,٥ a-b|٣٥ ab|²,² a-b|Ⅷ,Ⅷ|① .①",
    "quotes": "don't|dont|don’t|don`t|don t|‘don't’|'don't'|“dont”|dont?|DON'T|Don'T|do n't|dont dont",
    "accents": "café|cafe|CAFÉ|cafe\u0301|CAFE\u0301|İstanbul|i̇stanbul|istanbul|straße|STRASSE|ΣΑΣ|σας|ǅ",
    "symbols": "😀|😀!|! 😀|a😀b|👩‍👧|€5|5€|5 €|x–y|x—y|x-y|x…y|x。y|x，y|1，000|x&y|x y|xy|x*y|x#y|x~y|x^y|x%y|x$y|x *y",
    "dead entries": "im|Im|I'm|ive|I've|id've|I'dve|lets|let's|shes|she's|shed|itd|somebodyd|somebody'd",
}


def lists_of_ten(human: str, other: str) -> list[list[str]]:
    """All equal, one to four and nine of ten, and halves."""
    return [[human] * n + [other] * (10 - n) for n in (10, 1, 2, 3, 4, 5, 9)]


@pytest.mark.parametrize("family", FAMILIES)
def test_adversarial_families(family):
    """Each string of a family as prediction, against tens of each other one, of pairs, and of the whole family."""
    words = FAMILIES[family].split("|")
    pairs = [(ten, said) for said, human in itertools.product(words, words) for ten in lists_of_ten(human, "zebra")]
    pairs += [([human, other] * 5, said) for said, human, other in itertools.product(words, words, words) if human < other]
    pairs += [
        ([words[(i + step * n) % len(words)] for n in range(10)], said) for i, said in enumerate(words) for step in (0, 1, 2, 3)
    ]
    scores = compare(pairs)
    assert {0.0, 0.3, 0.6, 0.9, 1.0} <= set(scores)


def test_every_contraction():
    """Each spelling of the table, bare, in capitals, with a mark, in a sentence, against the full form and each other."""
    pairs = []
    for broken, word in RESTORED.items():
        forms = [broken, word, word.replace("'", ""), broken.upper(), broken + ".", f"{broken}-{word}", f"the {broken}"]
        pairs += [(ten, said) for said, human in itertools.product(forms, forms) for ten in lists_of_ten(human, "zebra")[:4]]
    assert len(pairs) == 114 * 49 * 4
    assert sum(compare(pairs)) > 0
    whole = [([word] * 3 + ["zebra"] * 7, word.replace("'", "")) for word in CONTRACTIONS]
    restored = {word.replace("'", "") in RESTORED for word in CONTRACTIONS if word.count("'") > 1}
    assert restored == {False}  # two missing apostrophes are one too many
    assert {score for (humans, _), score in zip(whole, compare(whole), strict=True) if humans[0].count("'") == 1} == {0.9}


MARKS = [*" .,-?!'\"()[]{};:/\\_<>=+@`|&$%\n\t\u00a0’１٣é", " ", ".", ",", " a ", " the ", " - "]
WORDS = [*DIGITS, *RESTORED, *CONTRACTIONS, "a", "an", "the", "A", "cat", "Cat", "x", *"0123456789", "1,000", "3.5"]


def mutated(text: str, chance: random.Random) -> str:
    """One character dropped, one mark put in, the case changed, or nothing."""
    at = chance.randrange(len(text) + 1)
    forms = [text, text[:at] + text[at + 1 :], text[:at] + chance.choice(MARKS) + text[at:], text.upper(), f"{text}."]
    return chance.choice(forms)


def test_strings_by_chance():
    """Short strings of words and marks against ten mutations, some of them equal, and against ten equal ones."""
    chance, pairs = random.Random(0), []
    for i in range(12_000):
        text = "".join(chance.choice(chance.choice((WORDS, MARKS))) for _ in range(chance.randint(1, 6)))
        alike = mutated(text, chance)
        pairs.append(([alike] * (i % 5) + [mutated(text, chance) for _ in range(10 - i % 5)], mutated(alike, chance)))
        pairs.append(([alike] * 10, mutated(alike, chance)))
    counts = collections.Counter(compare(pairs))
    assert set(counts) == {0.0, 0.3, 0.6, 0.9, 1.0}
    assert min(counts.values()) > 200
