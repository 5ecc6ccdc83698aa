"""Intervals of closed scores: Wilson's, with known values, clusters, differences, and their coverage by simulation."""

import numpy as np
import pytest
from scipy.special import stdtrit

from vlax.errors import VlaxError
from vlax.scores.closed import closed_difference, closed_interval


def rows(*values):
    return {f"q{i}": float(value) for i, value in enumerate(values)}


def test_wilson_by_hand():
    t = stdtrit(9, 0.975)  # 2.262
    assert closed_interval(rows(*[1] * 10)) == pytest.approx((1.0, 10 / (10 + t * t), 1.0))
    assert closed_interval(rows(*[0] * 10)) == pytest.approx((0.0, 0.0, t * t / (10 + t * t)))
    # 5 of 10: the variance among them is 10 / 9 of p (1 - p) / 10, so nine rows are what they are worth
    half = t / (1 + t * t / 9) * np.sqrt(0.25 / 9 + (t / 18) ** 2)
    assert closed_interval(rows(*[0, 1] * 5)) == pytest.approx((0.5, 0.5 - half, 0.5 + half))


def test_no_interval_without_width_and_one_picture_says_nothing():
    for value in (0.0, 0.6, 1.0):
        mean, low, high = closed_interval(rows(*[value] * 50))
        assert mean == pytest.approx(value) and 0 < high - low < 0.3 and low <= value <= high
    assert closed_interval(rows(1, 1, 0), dict.fromkeys(rows(1, 1, 0), "one")) == pytest.approx((2 / 3, 0, 1))


def test_rows_of_one_picture_count_once():
    each = {f"{image}/{k}": float(image % 3 == 0) for image in range(30) for k in range(5)}
    by_picture = {str(image): float(image % 3 == 0) for image in range(30)}
    clusters = {key: key.split("/")[0] for key in each}
    assert closed_interval(each, clusters) == pytest.approx(closed_interval(by_picture))
    wide, narrow = closed_interval(each, clusters), closed_interval(each)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_differences():
    a, b = rows(1, 1, 1, 0, 1, 1, 0, 1), rows(0, 1, 0, 0, 1, 1, 1, 0)
    ab, ba = closed_difference(a, b), closed_difference(b, a)
    assert ab.mean == 0.25 and (ab.low, ab.high) == pytest.approx((-ba.high, -ba.low)) and -1 <= ab.low < 0.25 < ab.high <= 1
    gained = closed_interval(rows(*[0] * 40))
    assert closed_difference(rows(*[1] * 40), rows(*[1] * 40)) == pytest.approx((0, -gained.high, gained.high))


@pytest.mark.parametrize(
    ("call", "text"),
    (
        (lambda: closed_interval({}), "No values"),
        (lambda: closed_interval({"a": 1.2}), "the value of 'a' is 1.2; a closed score lies from 0 to 1"),
        (lambda: closed_interval({"a": 1.0}, {}), r"1 ids have no cluster \('a'\)"),
        (lambda: closed_difference({"a": 1.0}, {"b": 1.0}), "1 ids of the first scores are missing"),
    ),
)
def test_mistakes_are_named(call, text):
    with pytest.raises(VlaxError, match=text):
        call()


CASES = [
    (p, *pictures) for p in (0.5, 0.9, 0.97, 0.99) for pictures in ((100, 1, 0.0), (20, 3, 0.0), (20, 3, 0.3), (50, 5, 0.5))
]


@pytest.mark.slow
@pytest.mark.parametrize(("share", "pictures", "each", "alike"), CASES)
def test_coverage(share, pictures, each, alike):
    """alike: correlation of the rows of one picture. The bootstrap reaches 0.56 at a share of 0.99 of 100 rows."""
    rng, hits, repeats = np.random.default_rng(0), 0, 1000
    clusters = {i: str(i // each) for i in range(pictures * each)}
    for _ in range(repeats):
        odds = (1 - alike) / alike if alike else 0
        own = rng.beta(share * odds, (1 - share) * odds, pictures) if alike else np.full(pictures, share)
        drawn = rng.random((pictures, each)) < own[:, None]
        _, low, high = closed_interval({i: float(v) for i, v in enumerate(drawn.ravel())}, clusters)
        hits += low <= share <= high
    assert 0.87 <= hits / repeats <= 1.0
