"""VQA accuracy: each flavour's arithmetic on paper, the normalising rules by literal rows, and every error by its text."""

import pytest

from vlax.errors import VlaxError
from vlax.scores.vqa import (
    FLAVOURS,
    HEADLINE,
    evalai_answer,
    formulas,
    normalise_answer,
    score_vqa,
    vqa_scores_by_question,
    vqa_values,
)

LEAVE_ONE_OUT = ["vqav2@official", "vqav2@lmms", "vqav2@lmms-2024", "textvqa"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("black/white", "black white"),  # rows of the docstring first
        ("black-white - or red", "blackwhite or red"),
        ("yes,no", "yes no"),
        ("What's up", "what's up"),
        ("black-white - or red, two", "blackwhite or red 2"),
        ("1,000 black-cats", "1000 blackcats"),
        ("3.5 m.", "3.5 m"),
        ("none", "0"),
        ("the dont", "don't"),
        ("Two", "2"),
        ("Ten.", "10"),
        ("eleven", "eleven"),
        ("twenty-one", "twenty 1"),
        ("A", ""),
        ("the", ""),
        ("an apple and the pear", "apple and pear"),
        ("theatre", "theatre"),
        ("a yellow-green bus, 2 dogs", "yellow green bus 2 dogs"),
        ("yes!", "yes"),
        ("yes, no", "yes no"),
        ("yes ,no", "yes no"),
        ("up/down,left ,right", "up downleft right"),
        ("black / white", "black white"),
        ("(left)", "left"),
        ('"stop"', "stop"),
        ("what's up?", "what's up"),
        ("10:30", "10:30"),
        (".5", ".5"),
        ("5.", "5"),
        ("3.5.", "3.5"),
        ("u.s.a.", "usa"),
        ("1,5-2", "152"),
        ("12,345,678", "12345678"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),  # both apostrophes missing is not in the table
        ("yall'dve", "yall'dve"),
        ("y'all'dve", "y'all'd've"),
        ("ow's'at", "'ow's'at"),
        ("somebody'd", "somebodyd"),
        ("oclock", "o'clock"),
        ("Im", "im"),  # the table's capital I never meets a lower-cased word
        ("she's lets", "she's lets"),
        ("don’t", "don’t"),  # a typographic apostrophe is another character
        ("CAFÉ ½ 日本", "café ½ 日本"),
        ("٣,٤", "٣٤"),  # digits of any script
        ("a\u00a0dog", "dog"),
        ("  two\t\ncats ", "2 cats"),
        ("", ""),
        ("..." * 12, "...."),  # 36 periods: 32 go
    ],
)
def test_normalising(text, normal):
    assert normalise_answer(text) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("black/white", "black white"),  # rows of the docstring first
        ("black-white - or red", "blackwhite or red"),
        ("1,000 black-cats", "1000 black cats"),
        ("yes,no", "yesno"),
        ("What's up", "what 's up"),
        ("3.5 m.", "3.5 m"),
        ("none", "0"),
        ("the dont", "don't"),
        ("whats up?", "what's up"),  # the contraction comes after 's was parted, and stays whole
        ("is it red?no", "is it redno"),
        ("1,,2", "12"),
        ("12,345-6", "12345 6"),
        ("The Dog's 2 toys", "dog 's 2 toys"),
        (" two\tcats\n", "2 cats"),
        ("red-black\n-white", "redblack white"),  # the newline is a space before hyphens are looked at
        ("", ""),
    ],
)
def test_normalising_by_the_evalai_processor(text, normal):
    assert evalai_answer(text) == normal


@pytest.mark.parametrize("flavour", LEAVE_ONE_OUT)
@pytest.mark.parametrize(("matches", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)])
def test_leave_one_out_over_ten_answers(matches, score, flavour):
    humans = ["red"] * matches + [f"other {i}" for i in range(10 - matches)]
    assert score_vqa({1: humans}, {1: "Red."}, flavour) == {"accuracy": pytest.approx(score, abs=1e-12)}


def test_the_authors_example():
    humans = ["yes"] * 8 + ["no"] * 2  # GT-Vision-Lab/VQA#1
    scores = vqa_scores_by_question({"a": humans, "b": humans}, {"b": "no", "a": "yes"})
    assert scores == {"a": 1.0, "b": pytest.approx(0.6)}


def test_nothing_is_normalised_when_people_agree():
    agreed, split = ["yes"] * 10, ["yes"] * 9 + ["no"]
    for answer, same, differs in (("yes", 1.0, 1.0), ("Yes", 0.0, 1.0), ("yes.", 0.0, 1.0), (" yes\n", 1.0, 1.0)):
        assert vqa_scores_by_question({1: agreed, 2: split}, {1: answer, 2: answer}) == {1: same, 2: differs}
    # An article in an agreed answer is kept; white space at its ends does not count as disagreement.
    assert score_vqa({1: ["the cat"] * 9 + ["the cat "]}, {1: "the cat"}) == {"accuracy": 1.0}
    assert score_vqa({1: ["the cat"] * 10}, {1: "cat"}) == {"accuracy": 0.0}


def test_human_answers_are_normalised_too():
    humans = ["2", "two", "Two", "the two", "2."] + ["3"] * 5
    assert score_vqa({1: humans}, {1: "two"}) == {"accuracy": 1.0}


@pytest.mark.parametrize("flavour", LEAVE_ONE_OUT)
def test_fewer_than_ten_answers(flavour):
    assert score_vqa({1: ["The Cat!"]}, {1: "cat"}, flavour) == {"accuracy": 1.0}
    assert score_vqa({1: ["The Cat!"]}, {1: "dog"}, flavour) == {"accuracy": 0.0}
    assert score_vqa({1: ["b"] * 5}, {1: "b"}, flavour) == {"accuracy": 1.0}
    with pytest.warns(UserWarning, match="2 questions have 2 or 3 human answers"):
        scores = vqa_scores_by_question({1: ["x", "x"], 2: ["x", "y", "x"]}, {1: "x", 2: "x"}, flavour)
    assert scores == {1: pytest.approx(1 / 3), 2: pytest.approx((1 / 3 + 2 / 3 + 1 / 3) / 3)}


@pytest.mark.parametrize(
    ("human", "agreed", "answer", "expected"),
    # expected: vqav2@official, vqav2@lmms, vqav2@lmms-2024, textvqa. `human` ten times (agreed) or nine times beside "other".
    [
        ("yes", True, "yes", (1, 1, 1, 1)),
        # Only the official score leaves an agreed answer and its prediction as they are.
        ("black", True, "Black.", (0, 1, 1, 1)),
        ("black", False, "Black.", (1, 1, 1, 1)),
        # The old lmms rule takes the article from the prediction, not from the agreed answer.
        ("the cat", True, "the cat", (1, 1, 0, 1)),
        ("the cat", True, "cat", (0, 1, 0, 1)),
        ("the cat", False, "the cat", (1, 1, 1, 1)),
        # It also parts 's in the prediction only; TextVQA's parts it on both sides.
        ("what's up", True, "what's up", (1, 1, 0, 1)),
        ("what's up", False, "what's up", (1, 1, 0, 1)),
        ("what's up", False, "what 's up", (0, 0, 0, 1)),
        # A comma between letters: a space for the first two; removed from the prediction for the third, from both for the last.
        ("yes,no", False, "yes,no", (1, 1, 0, 1)),
        ("yes,no", False, "yes no", (1, 1, 1, 0)),
        ("yes,no", False, "yesno", (0, 0, 0, 1)),
        # Two commas in a number glue for EvalAI's pattern only.
        ("12", False, "1,,2", (0, 1, 1, 1)),
        # digit,digit makes the hyphen vanish unless the comma was taken out before.
        ("1,000 black-cats", False, "1000 blackcats", (1, 1, 1, 0)),
        ("1,000 black-cats", False, "1000 black cats", (0, 0, 0, 1)),
        ("two", True, "2", (0, 1, 0, 1)),
        ("two", False, "2", (1, 1, 1, 1)),
    ],
)
def test_where_the_leave_one_out_flavours_disagree(human, agreed, answer, expected):
    humans = [human] * 10 if agreed else [human] * 9 + ["other"]
    assert tuple(score_vqa({1: humans}, {1: answer}, flavour)["accuracy"] for flavour in LEAVE_ONE_OUT) == expected


@pytest.mark.parametrize(
    ("human", "answer", "expected"),  # expected: gqa, gqa@lmms, exact_match
    [
        ("yes", "yes", (1, 1, 1)),
        ("yes", " Yes\n", (1, 1, 1)),
        ("yes", "Yes.", (1, 1, 0)),  # a period at the end goes in both GQA flavours
        ("yes", "yes ..", (1, 1, 0)),
        ("yes", "Yes!", (0, 1, 0)),  # any other mark only in lmms-eval's
        ("t-shirt", "T-shirt.", (1, 1, 0)),
        ("t-shirt", "tshirt", (0, 1, 0)),
        ("t-shirt", "t shirt", (0, 0, 0)),
        ("yes", "yes, it is", (0, 0, 0)),
        ("the cat", "cat", (0, 0, 0)),  # no articles and no number words here
        ("2", "two", (0, 0, 0)),
    ],
)
def test_gqa_and_exact_match(human, answer, expected):
    flavours = ("gqa", "gqa@lmms", "exact_match")
    assert tuple(score_vqa({1: [human]}, {1: answer}, flavour)["accuracy"] for flavour in flavours) == expected


def test_values_by_question_have_the_score_as_their_mean():
    humans = {"q2": ["yes"] * 10, "q1": ["2"] * 9 + ["3"], "q3": ["red"] * 10}
    types = {"q1": "number", "q2": "yes/no", "q3": None}
    values = vqa_values(humans, {"q1": "two", "q2": "no", "q3": "red"}, "vqav2@official", types)
    assert values == {
        "accuracy": {"q2": 0.0, "q1": 1.0, "q3": 1.0},
        "accuracy[number]": {"q1": 1.0},
        "accuracy[yes/no]": {"q2": 0.0},
    }
    assert list(values["accuracy"]) == ["q2", "q1", "q3"]
    scores = score_vqa(humans, {"q1": "two", "q2": "no", "q3": "red"}, "vqav2@official", types)
    assert scores == {"accuracy": pytest.approx(2 / 3), "accuracy[number]": 1.0, "accuracy[yes/no]": 0.0}


def test_every_flavour_has_a_formula_for_each_score_and_a_headline():
    assert [HEADLINE[flavour] for flavour in FLAVOURS] == ["accuracy"] * 7 + ["overall"]
    answers = {1: "yes", 2: "red"}
    for flavour in FLAVOURS:
        texts = formulas(flavour)
        assert list(texts) == list(score_vqa({1: ["yes"], 2: ["red"]}, answers, flavour))
        assert all(len(text) > 40 and "\n" not in text for text in texts.values())
        by_question = vqa_scores_by_question({1: ["yes"], 2: ["red"]}, answers, flavour)
        assert by_question == {1: 1.0, 2: 1.0}
    assert len({formulas(flavour)[HEADLINE[flavour]] for flavour in FLAVOURS}) == len(FLAVOURS)
    with pytest.raises(VlaxError, match="Unknown VQA flavour 'okvqa'; valid are 'vqav2@official'"):
        formulas("okvqa")


def test_accuracy_by_answer_type():
    humans = {1: ["yes"] * 10, 2: ["no"] * 10, 3: ["2"] * 10}
    types = {1: "yes/no", 2: "yes/no", 3: "number", 4: "unused"}
    scores = score_vqa(humans, {1: "yes", 2: "yes", 3: "2"}, answer_types=types)
    assert scores == {"accuracy": pytest.approx(2 / 3), "accuracy[number]": 1.0, "accuracy[yes/no]": 0.5}
    assert next(iter(scores)) == "accuracy"


def test_exact_match():
    humans = {1: ["A cat", "a cat ", "dog"], 2: ["b", "a"], 3: ["the cat"]}
    scores = vqa_scores_by_question(humans, {1: " a CAT\n", 2: "a", 3: "cat"}, "exact_match")
    assert scores == {1: 1.0, 2: 1.0, 3: 0.0}


@pytest.mark.parametrize(
    ("annotations", "answers", "keywords", "text"),
    [
        (
            {1: ["a"]},
            {1: "a"},
            {"flavour": "vqa"},
            "Unknown VQA flavour 'vqa'; valid are 'vqav2@official', 'vqav2@lmms', 'vqav",
        ),
        ({}, {}, {}, "No annotations"),
        ({1: "yes"}, {1: ["yes"]}, {}, r"annotations\[1\] must be a list of human answers .*score_vqa\(annotations, answers\)"),
        ({1: []}, {1: "a"}, {}, r"annotations\[1\] has no human answer"),
        ({1: ["a"]}, {1: ["a"]}, {}, r"answers\[1\] must be one answer \(str\), got list"),
        ({1: ["a"], 2: ["b"]}, {1: "a"}, {}, r"1 ids of the annotations are missing in the answers \(2\)"),
        ({1: ["a"]}, {1: "a", "z": "a"}, {}, r"1 ids of the answers are not in the annotations \('z'\)"),
        ({1: ["a"]}, {"1": "a"}, {}, "JSON turns int keys into str"),
        ({1: ["a"]}, {1: "a"}, {"answer_types": {}}, "1 ids of the annotations are missing in answer_types"),
    ],
)
def test_mistakes_are_named(annotations, answers, keywords, text):
    with pytest.raises(VlaxError, match=text):
        score_vqa(annotations, answers, **keywords)
