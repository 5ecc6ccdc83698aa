"""Bootstrap intervals: cases with known answers, determinism, clusters, errors by their text."""

import math

import numpy as np
import pytest

from vlax.errors import VlaxError
from vlax.scores import statistics
from vlax.scores.statistics import Interval, Pooled, bootstrap_interval, check_same_ids, paired_interval


def test_known_intervals():
    assert bootstrap_interval([3.0]) == Interval(3.0, 3.0, 3.0)
    # Means of two draws from {0, 1} are 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    assert bootstrap_interval([0.0, 1.0]) == Interval(0.5, 0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], level=0.4) == Interval(0.5, 0.5, 0.5)


def test_agrees_with_the_normal_interval_for_many_values():
    values = np.random.default_rng(1).normal(2.0, 3.0, 2000)
    mean, low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert mean == pytest.approx(values.mean())
    assert (mean - low, high - mean) == (pytest.approx(half, rel=0.08), pytest.approx(half, rel=0.08))


def test_deterministic_and_free_of_order_and_blocks(monkeypatch):
    values = {f"q{i}": float(i % 7) for i in range(50)}
    first = bootstrap_interval(values, seed=3)
    assert first == bootstrap_interval(dict(reversed(values.items())), seed=3)
    assert first != bootstrap_interval(values, seed=4)
    monkeypatch.setattr(statistics, "_DRAWS_AT_ONCE", 170)
    assert first == bootstrap_interval(values, seed=3)


def test_clusters_of_equal_rows_are_one_observation():
    rng = np.random.default_rng(0)
    by_image = {f"image {i}": value for i, value in enumerate(rng.normal(size=40))}
    values = {(image, k): value for image, value in by_image.items() for k in range(5)}
    clusters = {key: key[0] for key in values} | {"unused": "image 0"}
    clustered, rows = bootstrap_interval(values, clusters=clusters), bootstrap_interval(values)
    assert clustered == pytest.approx(bootstrap_interval(by_image))
    assert (clustered.high - clustered.low) / (rows.high - rows.low) == pytest.approx(math.sqrt(5), rel=0.15)


def test_clusters_of_unequal_size_keep_the_mean_over_rows():
    values = {1: 1.0, 2: 1.0, 3: 1.0, 4: 0.0}
    interval = bootstrap_interval(values, clusters={1: "x", 2: "x", 3: "x", 4: "y"})
    assert interval == Interval(0.75, 0.0, 1.0)


def test_paired_interval_is_that_of_the_differences():
    rng = np.random.default_rng(0)
    b = {i: float(v) for i, v in enumerate(rng.normal(size=100))}
    shifted = {i: b[i] + 0.25 for i in reversed(b)}
    assert paired_interval(shifted, b) == pytest.approx(Interval(0.25, 0.25, 0.25))
    a = {i: float(v) for i, v in enumerate(rng.normal(size=100))}
    ab, ba = paired_interval(a, b), paired_interval(b, a)
    assert (ab.mean, ab.low, ab.high) == pytest.approx((-ba.mean, -ba.high, -ba.low))
    assert ab == bootstrap_interval({i: a[i] - b[i] for i in a})
    assert paired_interval(a, b, clusters=dict.fromkeys(a, "all")).low == pytest.approx(ab.mean)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: bootstrap_interval([]), "No values"),
        (lambda: bootstrap_interval({"a": 1.0, "b": math.nan}), r"1 values are not finite \('b'\)"),
        (lambda: bootstrap_interval([1.0], level=95), "level must lie between 0 and 1"),
        (lambda: bootstrap_interval([1.0], samples=0), "samples be positive"),
        (lambda: bootstrap_interval([1.0], clusters={0: "x"}), "clusters need values by id"),
        (lambda: bootstrap_interval({1: 1.0, 2: 2.0}, clusters={1: "x"}), r"1 ids have no cluster \(2\)"),
        (lambda: paired_interval({1: 1.0}, {2: 1.0}), "1 ids of the first scores are missing in the second scores"),
        (lambda: check_same_ids({1: 0}, {"1": 0}, "A", "B"), r"\(1 against 1\).*JSON turns int keys into str"),
    ],
)
def test_mistakes_are_named(call, text):
    with pytest.raises(VlaxError, match=text):
        call()


def test_a_pooled_score_is_made_of_sums():
    """Precision over a corpus, 3 of 4 and 1 of 8 right: 4/12, while the mean of the rows would be 0.4375."""
    pooled = Pooled({"a": (3, 4), "b": (1, 8)}, lambda sums: sums[..., 0] / sums[..., 1])
    assert pooled.score == pytest.approx(1 / 3)
    interval = bootstrap_interval(pooled, clusters={"a": "x", "b": "y"})
    assert interval.mean == pytest.approx(1 / 3) and (interval.low, interval.high) == (0.125, 0.75)


def test_pooled_differences_take_the_same_rows_of_both():
    rng = np.random.default_rng(1)
    rows = {i: (float(rng.integers(1, 5)), 5.0) for i in range(40)}

    def ratio(sums):
        return sums[..., 0] / sums[..., 1]

    same = paired_interval(Pooled(rows, ratio), Pooled(rows, ratio))
    assert same == Interval(0.0, 0.0, 0.0)
    means = {i: n / d for i, (n, d) in rows.items()}  # all denominators are alike: pooling is averaging
    assert bootstrap_interval(Pooled(rows, ratio)) == pytest.approx(bootstrap_interval(means))
