"""Priors without an image: majority answers, and the best constant caption against pycocoevalcap."""

import pytest

from vlax.errors import VlaxError
from vlax.scores import prior
from vlax.scores.captions import tokenize
from vlax.scores.prior import ConstantCider, best_constant_caption, question_majority

REFERENCES = {
    1: ["A dog runs on the grass.", "a brown dog running"],
    2: ["a dog with a red ball", "the dog plays with a ball", "a ball"],
    "x": ["a man rides a horse"],
}


def test_question_majority():
    rows = [("Is it red?", "no"), ("is  it red?", "no "), ("Is it red?", "yes"), ("how many?", "2"), ("how many?", "1")]
    majority = question_majority(iter([*rows, ("who?", "yes"), ("what?", "yes")]))
    assert majority.answer("is it RED? ") == "no"
    assert majority.answer("how many?") == "1"  # a tie goes to the alphabetically first
    assert majority.answer("where?") == "yes"  # three yes, two no
    with pytest.raises(VlaxError, match="No training questions"):
        question_majority([])


@pytest.fixture(scope="module")
def tokens():
    return tokenize(REFERENCES)


@pytest.mark.parametrize("caption", ["a dog runs on the grass", "a a a dog a dog", "ball", "horse of a colour", "xyz", ""])
def test_constant_cider_equals_pycocoevalcap(tokens, caption):
    from pycocoevalcap.cider.cider import Cider

    reference, _ = Cider().compute_score(tokens, {i: [caption] for i in tokens})
    assert ConstantCider(list(tokens.values()))(caption) == pytest.approx(float(reference), abs=1e-9)


def test_best_constant_caption(tokens):
    candidates = ["a cat", "A dog with a ball.", "the dog plays", "!", "", "a man rides a horse", "a cat"]
    scorer = ConstantCider(list(tokens.values()))
    scores = {c: scorer(text) for c, (text,) in tokenize({c: [c] for c in candidates}).items()}
    best = best_constant_caption(candidates[::-1], REFERENCES)
    assert scores[best] == max(scores.values()) > 0
    # Equal scores: the alphabetically first.
    assert best_constant_caption(["zebra", "yak"], REFERENCES) == "yak"


def test_too_many_candidates_leave_the_most_frequent(monkeypatch):
    monkeypatch.setattr(prior, "MOST_CANDIDATES", 1)
    assert best_constant_caption(["a dog with a ball", "a cat", "a cat"], REFERENCES) == "a cat"


def test_every_caption_is_read_once(monkeypatch):
    """Thousands of candidates take seconds: Java runs once, and no candidate takes a pass over the references."""
    words = [f"w{i}" for i in range(60)]
    captions = [" ".join(words[(i * k + k) % 60] for k in range(1, 11)) + f" {i}" for i in range(400)]
    tokenised, read = [], []
    real, ngrams = prior.tokenize, prior._ngrams
    monkeypatch.setattr(prior, "tokenize", lambda *args: tokenised.append(args) or real(*args))
    monkeypatch.setattr(prior, "_ngrams", lambda caption: read.append(caption) or ngrams(caption))
    best_constant_caption(captions, {i: captions[i * 31 : i * 31 + 5] for i in range(10)})
    assert len(tokenised) == 1 and len(read) == 400 + 50


def test_mistakes_are_named():
    with pytest.raises(VlaxError, match="two validation images or more"):
        best_constant_caption(["a dog"], {1: ["a dog"]})
    with pytest.raises(VlaxError, match="No candidate caption has a word"):
        best_constant_caption(["...", ""], REFERENCES)
