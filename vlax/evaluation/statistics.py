"""Bootstrap intervals of a mean score, and of the difference of two scores on the same rows.

    bootstrap_interval({"q1": 1.0, "q2": 0.0}, clusters={"q1": "image 7", "q2": "image 7"})
    paired_interval(model, twin)   ->  Interval(mean=model - twin, low, high)

Use these for scores that are a mean over rows (CIDEr, ROUGE_L, VQA accuracy). BLEU and METEOR are computed over the corpus as
a whole, so a mean over their values by image is another quantity.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vlax.errors import VlaxError

Id = Hashable  # str or int: the ids of annotation files
_DRAWS_AT_ONCE = 1 << 22  # indices held in memory together: 32 MiB


class Interval(NamedTuple):
    """A mean with its bootstrap interval, in the units of the score."""

    mean: float
    low: float
    high: float


def check_same_ids(expected: Mapping[Id, object], given: Mapping[Id, object], expected_name: str, given_name: str) -> None:
    """Raises VlaxError, with counts and the first few ids, unless both mappings have the same ids."""
    missing = [i for i in expected if i not in given]
    extra = [i for i in given if i not in expected]
    if not missing and not extra:
        return
    parts = []
    if missing:
        parts.append(f"{len(missing)} ids of {expected_name} are missing in {given_name} ({_first(missing)})")
    if extra:
        parts.append(f"{len(extra)} ids of {given_name} are not in {expected_name} ({_first(extra)})")
    text = f"{'; '.join(parts)}. Both must have the same ids ({len(expected)} against {len(given)})."
    if {str(i) for i in expected} & {str(i) for i in extra}:
        text += " Some differ in type only: JSON turns int keys into str; convert the ids of one side."
    raise VlaxError(text)


def bootstrap_interval(
    values: Mapping[Id, float] | Sequence[float] | np.ndarray,
    seed: int = 0,
    samples: int = 2000,
    level: float = 0.95,
    clusters: Mapping[Id, str] | None = None,
) -> Interval:
    """The mean of `values` and its percentile bootstrap interval (Efron 1979).

    Args:
      values: float[N], or {id: float}; the order of ids has no influence.
      seed: of the resampling; the same seed gives the same interval.
      samples: number of resamples.
      level: coverage, between 0 and 1.
      clusters: {id: cluster}. Whole clusters are resampled: questions about one image are not independent, and resampling
        them one by one gives intervals that are too narrow. The mean stays the mean over rows. Needs `values` by id;
        ids beyond those of `values` are ignored.

    Raises:
      VlaxError: no values, a value that is not finite, an id without a cluster, a level or a sample count out of range.
    """
    if not 0 < level < 1 or samples < 1:
        raise VlaxError(f"level must lie between 0 and 1 and samples be positive; got level={level}, samples={samples}.")
    by_id = dict(values) if isinstance(values, Mapping) else dict(enumerate(values))
    if not by_id:
        raise VlaxError("No values: an interval needs at least one.")
    ids = sorted(by_id, key=lambda i: (str(i), type(i).__name__))
    array = np.asarray([by_id[i] for i in ids], np.float64)
    if not np.isfinite(array).all():
        bad = [i for i, value in zip(ids, array, strict=True) if not np.isfinite(value)]
        raise VlaxError(f"{len(bad)} values are not finite ({_first(bad)}): drop these rows from the scores or mend them.")
    if clusters is None:
        sums, counts = array, np.ones(len(array))
    else:
        sums, counts = _cluster_sums(ids, array, clusters, isinstance(values, Mapping))
    means = _resampled_means(sums, counts, seed, samples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(array.mean()), float(low), float(high))


def paired_interval(
    a: Mapping[Id, float],
    b: Mapping[Id, float],
    seed: int = 0,
    samples: int = 2000,
    level: float = 0.95,
    clusters: Mapping[Id, str] | None = None,
) -> Interval:
    """The mean of a - b over rows and its paired bootstrap interval: each resample takes the same rows of both.

    An interval that excludes 0 says that the two differ beyond the choice of rows. Arguments and errors as in
    `bootstrap_interval`; `a` and `b` must have the same ids (VlaxError).
    """
    check_same_ids(a, b, "the first scores", "the second scores")
    return bootstrap_interval({i: a[i] - b[i] for i in a}, seed, samples, level, clusters)


def _cluster_sums(ids: list, array: np.ndarray, clusters: Mapping, have_ids: bool) -> tuple[np.ndarray, np.ndarray]:
    if not have_ids:
        raise VlaxError("clusters need values by id: pass {id: value}.")
    without = [i for i in ids if i not in clusters]
    if without:
        raise VlaxError(f"{len(without)} ids have no cluster ({_first(without)}): give every row its image id.")
    _, number = np.unique([str(clusters[i]) for i in ids], return_inverse=True)
    return np.bincount(number, weights=array), np.bincount(number).astype(np.float64)


def _resampled_means(sums: np.ndarray, counts: np.ndarray, seed: int, samples: int) -> np.ndarray:
    """float64[samples]: means over units drawn with replacement; in blocks, so that memory stays bounded."""
    rng = np.random.default_rng(seed)
    units = len(sums)
    block = max(1, _DRAWS_AT_ONCE // units)
    means = []
    for start in range(0, samples, block):
        drawn = rng.integers(0, units, (min(block, samples - start), units))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


def _first(ids: list, count: int = 3) -> str:
    return ", ".join(repr(i) for i in ids[:count]) + (", ..." if len(ids) > count else "")
