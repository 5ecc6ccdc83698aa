"""PathVQA's six scores, computed on paper."""

import math

import pytest

from vlax.scores.pathvqa import exact, is_closed, open_bleu1, open_recall, open_token_f1, tokens
from vlax.scores.vqa import formulas, score_vqa, vqa_scores_by_question, vqa_values


@pytest.mark.parametrize(
    ("reference", "answer", "em", "recall", "f1", "bleu1"),
    [
        ("bile duct cells", "Bile duct cells.", 1, 1, 1, 1),
        # 3 of 3 reference tokens; P 3/4, R 3/3; longer than the reference, so no brevity penalty.
        ("bile duct cells", "cells of the bile duct", 0, 1, 2 * 3 / (3 + 4), 3 / 4),
        # Articles are no tokens: infarct, in, brain against brain.
        ("an infarct in the brain", "brain", 0, 1 / 3, 2 * 1 / (3 + 1), math.exp(1 - 3 / 1)),
        # "cell" counts once for P and R: one occurrence in the reference. LLaVA-Med's own recall would be 3 / (3 + 1).
        ("cell nucleus", "cell cell cell", 0, 1 / 2, 2 * 1 / (2 + 3), 1 / 3),
        # Each of the reference's two "cell" is found; in common are one.
        ("cell to cell", "cell", 0, 2 / 3, 2 * 1 / (3 + 1), math.exp(1 - 3 / 1)),
        ("three", "3", 1, 1, 1, 1),
        ("white", "black", 0, 0, 0, 0),
        ("white", "", 0, 0, 0, 0),
        ("white", "the", 0, 0, 0, 0),
        # Words in another order are not an exact match, though all token scores are 1.
        ("acute cellular rejection", "cellular rejection acute", 0, 1, 1, 1),
        # An answer that is only an article is compared as it is.
        ("A", "a", 1, 1, 1, 1),
        ("A", "the", 0, 0, 0, 0),
    ],
)
def test_scores_of_one_answer(reference, answer, em, recall, f1, bleu1):
    found = [score([reference], answer) for score in (exact, open_recall, open_token_f1, open_bleu1)]
    assert found == [pytest.approx(value, abs=1e-12) for value in (em, recall, f1, bleu1)]


def test_rows_of_the_docstring():
    answer = "cells of the bile duct"
    assert tokens(answer) == ["cells", "of", "bile", "duct"]
    assert open_recall(["bile duct cells"], answer) == 1.0
    assert round(open_token_f1(["bile duct cells"], answer), 3) == 0.857
    assert round(open_bleu1(["bile duct cells"], "cells"), 3) == 0.135


def test_the_best_reference_counts():
    assert exact(["red", "blue", "blue"], "Blue") == 1.0
    assert open_recall(["red cells", "blue"], "blue") == 1.0


@pytest.mark.parametrize(
    ("references", "answer_type", "closed"),
    [
        (["yes"], None, True),
        (["No."], None, True),
        (["yes", "no"], "", True),
        (["not seen"], None, False),
        (["yes", "a scar"], None, False),
        (["yes"], "other", False),  # a type that is given decides
        (["present"], "yes/no", True),
        (["present"], "CLOSED", True),
        (["yes"], "OPEN", False),
    ],
)
def test_closed_questions(references, answer_type, closed):
    assert is_closed(references, answer_type) is closed


REFERENCES = {1: ["yes"], 2: ["no"], 3: ["bile duct cells"], 4: ["an infarct in the brain"], 5: ["yes"]}
# 2: "know" and "not" contain "no", and the answer is wrong all the same. 5: a sentence around the right word is no exact match.
ANSWERS = {1: "Yes.", 2: "I do not know", 3: "the bile duct cells", 4: "brain", 5: "yes, it does"}
EXPECTED = {
    "overall": 2 / 5,
    "yes/no accuracy": 1 / 3,
    "open exact match": 1 / 2,
    "open recall": (1 + 1 / 3) / 2,
    "open token F1": (1 + 1 / 2) / 2,
    "open BLEU-1": (1 + math.exp(-2)) / 2,
}


def test_six_scores_of_one_set_of_predictions():
    scores = score_vqa(REFERENCES, ANSWERS, "pathvqa")
    assert scores == {name: pytest.approx(value) for name, value in EXPECTED.items()}
    assert list(scores) == list(formulas("pathvqa")) == list(EXPECTED)
    types = {1: "yes/no", 2: "yes/no", 3: "other", 4: None, 5: "yes/no"}
    assert score_vqa(REFERENCES, ANSWERS, "pathvqa", types) == scores


def test_values_cover_the_rows_of_their_kind():
    values = vqa_values(REFERENCES, ANSWERS, "pathvqa")
    assert values["overall"] == {1: 1.0, 2: 0.0, 3: 1.0, 4: 0.0, 5: 0.0}
    assert values["yes/no accuracy"] == {1: 1.0, 2: 0.0, 5: 0.0}
    assert values["open recall"] == {3: 1.0, 4: pytest.approx(1 / 3)}
    assert vqa_scores_by_question(REFERENCES, ANSWERS, "pathvqa") == values["overall"]
    by_type = vqa_values(REFERENCES, ANSWERS, "pathvqa", {**dict.fromkeys(REFERENCES, "other"), 1: "yes/no"})
    assert list(by_type["yes/no accuracy"]) == [1]
    assert list(by_type["open recall"]) == [2, 3, 4, 5]


def test_a_kind_without_rows_has_no_score():
    assert score_vqa({1: ["yes"]}, {1: "no"}, "pathvqa") == {"overall": 0.0, "yes/no accuracy": 0.0}
    only_open = score_vqa({1: ["a scar"]}, {1: "scar"}, "pathvqa")
    assert list(only_open) == ["overall", "open exact match", "open recall", "open token F1", "open BLEU-1"]
    assert set(only_open.values()) == {1.0}
