"""BLEU and METEOR from counts by image: over all images they are pycocoevalcap's scores, and they can be resampled."""

import pytest

from vlax.scores.captions import CaptionScorer
from vlax.scores.statistics import Pooled, bootstrap_interval

REFERENCES = {
    "a": ["a dog runs on the grass", "the brown dog is running"], "b": ["two cats sleep on a sofa", "cats asleep"],
    "c": ["a man rides a bicycle"], "d": ["people at a market", "a busy market with many people in it"],
}  # fmt: skip
# a paraphrase; one that matches as a whole; an empty one; one that is too long
HYPOTHESES = {"a": "dogs running over grass", "b": "two cats sleep on a sofa", "c": "",
              "d": "many people who walk around at a busy market in a town"}  # fmt: skip


@pytest.fixture(scope="module")
def scored():
    warned = pytest.warns(UserWarning, match="1 of 4 predicted captions are empty")
    with warned, CaptionScorer(REFERENCES, ("Bleu", "METEOR")) as scorer:
        scores, _ = scorer(HYPOTHESES)
        return scores, scorer.pooled()


@pytest.mark.parametrize("metric", ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR"))
def test_the_score_of_all_images_is_pycocoevalcaps(scored, metric):
    scores, pooled = scored
    assert pooled[metric].score == pytest.approx(scores[metric], abs=1e-12) and scores[metric] > 0.1


def test_half_of_the_images_score_as_they_would_alone(scored):
    """The sum of two images' counts is their corpus score: the very thing that a resample needs."""
    part = ("a", "d")
    with CaptionScorer({i: REFERENCES[i] for i in part}, ("Bleu", "METEOR")) as scorer:
        alone, _ = scorer({i: HYPOTHESES[i] for i in part})
    for metric, pooled in scored[1].items():
        assert Pooled({i: pooled.rows[i] for i in part}, pooled.combine).score == pytest.approx(alone[metric], abs=1e-12)


def test_an_interval(scored):
    interval = bootstrap_interval(scored[1]["METEOR"])
    assert interval.mean == pytest.approx(scored[0]["METEOR"]) and interval.low < interval.mean < interval.high
