"""`score_captions` against pycocoevalcap run by hand on real captions: COCO val2017, one caption of each image held out; and
BLEU and METEOR from counts by image."""

import json
import warnings
from pathlib import Path

import pytest

from vlax.evaluation import scoring
from vlax.scores import captions, java
from vlax.scores.captions import CaptionScorer, java_on_path, score_captions, spice_available, tokenize
from vlax.scores.statistics import Pooled, bootstrap_interval
from vlax.suites import protocol

COCO = Path(__file__).parents[2] / "shared" / "data" / "formats" / "coco_captions_val2017" / "captions_val2017.json"
NAMES = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr"]
IMAGES = 300  # of the fast test
# METEOR by hand, recorded: another start of Java for it, which takes seconds, is left to the slow tests.
METEOR = {"coco": 0.24386129503296672, "written": 0.27804828579959445}
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


def held_out(images=None):
    """({image id: all captions but its first}, {image id: its first caption}), in the order of the file."""
    if not COCO.exists():
        pytest.skip("needs the COCO val2017 captions of the development data (not part of the repository)")
    texts = {}
    for row in json.loads(COCO.read_text())["annotations"]:
        texts.setdefault(row["image_id"], []).append(row["caption"])
    ids = list(texts)[:images]
    return {i: texts[i][1:] for i in ids}, {i: texts[i][0] for i in ids}


def by_hand(references, hypotheses, meteor, spice=False):
    """(tokenised references, {name: (corpus, by image)}): pycocoevalcap's own classes, called as its COCOEvalCap does."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.spice.spice import Spice
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with java_on_path():
        gts = PTBTokenizer().tokenize({i: [{"caption": text} for text in texts] for i, texts in references.items()})
        res = PTBTokenizer().tokenize({i: [{"caption": hypotheses[i]}] for i in references})
        corpus, by_image = Bleu(4).compute_score(gts, res, verbose=0)
        scores = {f"Bleu_{n + 1}": (corpus[n], by_image[n]) for n in range(4)}
        scores["ROUGE_L"] = Rouge().compute_score(gts, res)
        scores["CIDEr"] = Cider().compute_score(gts, res)
        if meteor:
            scores["METEOR"] = Meteor().compute_score(gts, res)
        if spice:
            corpus, by_image = Spice().compute_score(gts, res)
            scores["SPICE"] = corpus, [row["All"]["f"] for row in by_image]
    return gts, scores


def largest_difference(scores, by_image, hand):
    """{name: the largest absolute difference over the corpus score and the scores by image}."""
    found = {}
    for name, (corpus, values) in hand.items():
        assert len(by_image[name]) == len(values)
        by_row = (abs(a - b) for a, b in zip(by_image[name].values(), values, strict=True))
        found[name] = max(abs(scores[name] - corpus), *by_row)
    return found


@pytest.fixture(scope="module", autouse=True)
def one_meteor():
    """All tests of this file ask one METEOR, in a locale with decimal commas: each start of its Java takes 15 s of a core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
        with java_on_path():
            meteor = java.Meteor()
        close = meteor.close
        patch.setattr(meteor, "close", lambda: None)
        patch.setattr(captions, "Meteor", lambda: meteor)
        yield
        close()


@pytest.fixture(scope="module")
def results():
    """{"coco" | "written": (references, hypotheses, scores, scores by image)}: all metrics."""
    sets = {"coco": held_out(IMAGES), "written": (REFERENCES, HYPOTHESES)}
    found = {}
    for name, (references, hypotheses) in sets.items():
        with CaptionScorer(references) as scorer, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = (references, hypotheses, *scorer(hypotheses))
    return found


@pytest.mark.parametrize("name", METEOR)
def test_scores_equal_pycocoevalcap_by_hand(results, name):
    references, hypotheses, scores, by_image = results[name]
    assert list(scores) == NAMES
    assert all(isinstance(score, float) for score in scores.values())
    assert all(list(values) == list(references) for values in by_image.values())
    gts, hand = by_hand(references, hypotheses, meteor=False)
    assert tokenize(references) == gts
    assert max(largest_difference(scores, by_image, hand).values()) <= 1e-9
    assert scores["METEOR"] == pytest.approx(METEOR[name], abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", METEOR)
def test_recorded_meteor_equals_a_run_by_hand(results, name):
    references, hypotheses, scores, by_image = results[name]
    _, hand = by_hand(references, hypotheses, meteor=True)
    assert hand["METEOR"][0] == pytest.approx(METEOR[name], abs=1e-12)
    assert largest_difference(scores, by_image, hand)["METEOR"] <= 1e-9


@pytest.mark.slow
def test_all_images_equal_pycocoevalcap_by_hand():
    references, hypotheses = held_out()
    assert len(references) == 5000
    with CaptionScorer(references) as scorer:
        scores, by_image = scorer(hypotheses)
    _, hand = by_hand(references, hypotheses, meteor=True)
    differences = largest_difference(scores, by_image, hand)
    print({name: (round(scores[name], 6), differences[name]) for name in NAMES})
    assert sorted(hand) == sorted(NAMES)
    assert max(differences.values()) <= 1e-9


@pytest.mark.slow
@pytest.mark.skipif(not spice_available(), reason="SPICE's models (Stanford CoreNLP 3.6.0) are not installed")
def test_spice_equals_pycocoevalcap_by_hand():
    references, hypotheses = held_out(50)
    with CaptionScorer(references, ("SPICE",)) as scorer:
        scores, by_image = scorer(hypotheses)
    in_order_of_ids = {i: by_image["SPICE"][i] for i in sorted(by_image["SPICE"])}  # as pycocoevalcap returns them
    _, hand = by_hand(references, hypotheses, meteor=False, spice=True)
    assert largest_difference(scores, {"SPICE": in_order_of_ids}, {"SPICE": hand["SPICE"]})["SPICE"] <= 1e-9


# The example of Maluuba/nlg-eval and the scores that its README publishes for it (MIT License, Copyright (c) Microsoft
# Corporation; github.com/Maluuba/nlg-eval, examples/): six sentences, three decimals more than papers give.
PUBLISHED_REFERENCES = {
    1: ["this is one reference sentence for sentence1", "this is one more reference sentence for sentence1"],
    2: ["this is a reference sentence for sentence2 which was generated by your model",
        "this is the second reference sentence for sentence2"],
}  # fmt: skip
PUBLISHED_HYPOTHESES = {
    1: "this is the model generated sentence1 which seems good enough",
    2: "this is sentence2 which has been generated by your model",
}
PUBLISHED_SCORES = {"Bleu_1": 0.550000, "Bleu_2": 0.428174, "Bleu_3": 0.284043, "Bleu_4": 0.201143, "METEOR": 0.295797,
                    "ROUGE_L": 0.522104, "CIDEr": 1.242192}  # fmt: skip


def test_published_scores_of_a_known_hypothesis_file():
    assert score_captions(PUBLISHED_REFERENCES, PUBLISHED_HYPOTHESES) == pytest.approx(PUBLISHED_SCORES, abs=5e-7)


POOLED_REFERENCES = {
    "a": ["a dog runs on the grass", "the brown dog is running"], "b": ["two cats sleep on a sofa", "cats asleep"],
    "c": ["a man rides a bicycle"], "d": ["people at a market", "a busy market with many people in it"],
}  # fmt: skip
# a paraphrase; one that matches as a whole; an empty one; one that is too long
POOLED_HYPOTHESES = {"a": "dogs running over grass", "b": "two cats sleep on a sofa", "c": "",
                     "d": "many people who walk around at a busy market in a town"}  # fmt: skip


@pytest.fixture(scope="module")
def scored():
    """What BLEU and METEOR pool, as counts by image: over all images they are pycocoevalcap's scores, and can be resampled."""
    warned = pytest.warns(UserWarning, match="1 of 4 predicted captions are empty")
    with warned, CaptionScorer(POOLED_REFERENCES, ("Bleu", "METEOR")) as scorer:
        scores, _ = scorer(POOLED_HYPOTHESES)
        return scores, scorer.pooled()


@pytest.mark.parametrize("metric", ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR"))
def test_the_score_of_all_images_is_pycocoevalcaps(scored, metric):
    scores, pooled = scored
    assert pooled[metric].score == pytest.approx(scores[metric], abs=1e-12) and scores[metric] > 0.1


def test_half_of_the_images_score_as_they_would_alone(scored):
    """The sum of two images' counts is their corpus score: the very thing that a resample needs."""
    part = ("a", "d")
    with CaptionScorer({i: POOLED_REFERENCES[i] for i in part}, ("Bleu", "METEOR")) as scorer:
        alone, _ = scorer({i: POOLED_HYPOTHESES[i] for i in part})
    for metric, pooled in scored[1].items():
        assert Pooled({i: pooled.rows[i] for i in part}, pooled.combine).score == pytest.approx(alone[metric], abs=1e-12)


def test_an_interval(scored):
    interval = bootstrap_interval(scored[1]["METEOR"])
    assert interval.mean == pytest.approx(scored[0]["METEOR"]) and interval.low < interval.mean < interval.high


@pytest.mark.slow
def test_an_evaluation_sets_meteor_beside_twin_and_prior(scored, capsys):
    """Every other test leaves METEOR out of its suites."""
    content = {"task": "caption", "metrics": ["METEOR"], "data": {"test": {"kind": "scenes", "split": "test"}}}
    lines = [{"id": i, "image_id": i, "references": texts, "prediction": POOLED_HYPOTHESES[i]}
             for i, texts in POOLED_REFERENCES.items()]  # fmt: skip
    twin = [{**line, "prediction": "a dog"} for line in lines]
    with pytest.warns(UserWarning, match="1 of 4 predicted captions are empty"):
        rows, _ = scoring.score_set(protocol.from_dict("mine", content), lines, twin, lambda line: "a busy market")
    row = rows["METEOR"]
    assert row["score"] == scored[0]["METEOR"] > row["prior"] > row["twin"] > 0
    assert row["interval"] == bootstrap_interval(scored[1]["METEOR"])
    assert row["over_twin"].mean == pytest.approx(row["score"] - row["twin"]) and row["over_prior"].low < row["over_prior"].high
