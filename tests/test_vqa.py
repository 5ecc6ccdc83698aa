"""VQA accuracy: the official arithmetic on paper, its normalising rule by literal rows, and every error by its text."""

import pytest

from vlax.errors import VlaxError
from vlax.evaluation.vqa import normalise_answer, score_vqa, vqa_scores_by_question


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("black-white - or red, two", "blackwhite or red 2"),  # rows of the docstring first
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
        ("yes,no", "yes no"),
        ("yes, no", "yes no"),
        ("yes ,no", "yes no"),
        ("up/down,left ,right", "up downleft right"),
        ("black/white", "black white"),
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


@pytest.mark.parametrize(("matches", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)])
def test_leave_one_out_over_ten_answers(matches, score):
    humans = ["red"] * matches + [f"other {i}" for i in range(10 - matches)]
    assert score_vqa({1: humans}, {1: "Red."}) == {"accuracy": pytest.approx(score, abs=1e-12)}


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


def test_fewer_than_ten_answers():
    assert score_vqa({1: ["The Cat!"]}, {1: "cat"}) == {"accuracy": 1.0}
    assert score_vqa({1: ["a"] * 5}, {1: "a"}) == {"accuracy": 1.0}
    with pytest.warns(UserWarning, match="2 questions have 2 or 3 human answers"):
        scores = vqa_scores_by_question({1: ["x", "x"], 2: ["x", "y", "x"]}, {1: "x", 2: "x"})
    assert scores == {1: pytest.approx(1 / 3), 2: pytest.approx((1 / 3 + 2 / 3 + 1 / 3) / 3)}


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
        ({1: ["a"]}, {1: "a"}, {"flavour": "vqa"}, "Unknown VQA flavour 'vqa'; valid are 'vqav2@official', 'exact_match'"),
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
