"""Bootstrap intervals of a mean score, and of the difference of two scores on the same rows.

    bootstrap_interval({"q1": 1.0, "q2": 0.0}, clusters={"q1": "image 7", "q2": "image 7"})
    paired_interval(model, twin)   ->  Interval(mean=model - twin, low, high)

A score that is a mean over rows (CIDEr, ROUGE_L, VQA accuracy) is given by its values. BLEU and METEOR pool counts over the
corpus first, so that a mean over their values by image is another quantity: they come as `Pooled`, counts by row and what makes
a score of their sums.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vlax.errors import VlaxError

Id = Any  # str or int, the ids of annotation files: a Mapping takes no wider type of key than the one it says
_DRAWS_AT_ONCE = 1 << 22  # indices held in memory together: 32 MiB


class Interval(NamedTuple):
    """A mean with its bootstrap interval, in the units of the score."""

    mean: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Pooled:
    """A corpus score: K counts a row, and the score of their sums.

    rows     {id: K numbers}
    combine  float64[..., K] -> float64[...]: sums over any rows to their score
    """

    rows: Mapping[Id, Sequence[float]]
    combine: Callable[[np.ndarray], np.ndarray]

    @property
    def score(self) -> float:
        return float(self.combine(np.asarray(list(self.rows.values()), np.float64).sum(axis=0)))


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
    values: Mapping[Id, float] | Sequence[float] | np.ndarray | Pooled,
    seed: int = 0,
    samples: int = 2000,
    level: float = 0.95,
    clusters: Mapping[Id, str] | None = None,
) -> Interval:
    """The score of `values` and its percentile bootstrap interval (Efron 1979).

    Args:
      values: float[N] or {id: float}, whose score is the mean, or Pooled; the order of ids has no influence.
      seed: of the resampling; the same seed gives the same interval.
      samples: number of resamples.
      level: coverage, between 0 and 1.
      clusters: {id: cluster}. Whole clusters are resampled: questions about one image are not independent, and resampling
        them one by one gives intervals that are too narrow. The mean stays the mean over rows. Needs `values` by id;
        ids beyond those of `values` are ignored.

    Raises:
      VlaxError: no values, a value that is not finite, an id without a cluster, a level or a sample count out of range.
    """
    if clusters is not None and not isinstance(values, Mapping | Pooled):
        raise VlaxError("clusters need values by id: pass {id: value}.")
    return _interval([_pooled(values)], seed, samples, level, clusters)


def paired_interval(
    a: Mapping[Id, float] | Pooled,
    b: Mapping[Id, float] | Pooled,
    seed: int = 0,
    samples: int = 2000,
    level: float = 0.95,
    clusters: Mapping[Id, str] | None = None,
) -> Interval:
    """The score of a minus that of b and its paired bootstrap interval: each resample takes the same rows of both.

    An interval that excludes 0 says that the two differ beyond the choice of rows. Arguments and errors as in
    `bootstrap_interval`; `a` and `b` must have the same ids (VlaxError).
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        check_same_ids(a, b, "the first scores", "the second scores")
        return bootstrap_interval({i: a[i] - b[i] for i in a}, seed, samples, level, clusters)
    a, b = _pooled(a), _pooled(b)
    check_same_ids(a.rows, b.rows, "the first scores", "the second scores")
    return _interval([a, b], seed, samples, level, clusters)


def _mean(sums: np.ndarray) -> np.ndarray:
    mean: np.ndarray = sums[..., 0] / sums[..., 1]
    return mean


def _pooled(values: Mapping[Id, float] | Sequence[float] | np.ndarray | Pooled) -> Pooled:
    if isinstance(values, Pooled):
        return values
    by_id = values if isinstance(values, Mapping) else dict(enumerate(values))
    return Pooled({i: (value, 1.0) for i, value in by_id.items()}, _mean)


def _interval(scores: Sequence[Pooled], seed: int, samples: int, level: float, clusters: Mapping[Id, str] | None) -> Interval:
    """Of one score, or of the first minus the second; both are resampled with the same draws."""
    if not 0 < level < 1 or samples < 1:
        raise VlaxError(f"level must lie between 0 and 1 and samples be positive; got level={level}, samples={samples}.")
    ids = sorted(scores[0].rows, key=lambda i: (str(i), type(i).__name__))
    if not ids:
        raise VlaxError("No values: an interval needs at least one.")
    parts = [np.asarray([score.rows[i] for i in ids], np.float64) for score in scores]
    table = np.concatenate(parts, axis=1)
    if not np.isfinite(table).all():
        bad = [i for i, row in zip(ids, table, strict=True) if not np.isfinite(row).all()]
        raise VlaxError(f"{len(bad)} values are not finite ({_first(bad)}): drop these rows from the scores or mend them.")
    units = table if clusters is None else clustered(ids, table, clusters)
    cut = parts[0].shape[1]

    def difference(sums: np.ndarray) -> np.ndarray:
        value = scores[0].combine(sums[..., :cut])
        return value - scores[1].combine(sums[..., cut:]) if len(scores) == 2 else value

    drawn = difference(_resampled_sums(units, seed, samples))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(difference(table.sum(axis=0))), float(low), float(high))


def clustered(ids: Sequence[Id], table: np.ndarray, clusters: Mapping[Id, str]) -> np.ndarray:
    """float64[clusters,K]: the sums over the rows of each cluster. VlaxError for an id without one."""
    without = [i for i in ids if i not in clusters]
    if without:
        raise VlaxError(f"{len(without)} ids have no cluster ({_first(without)}): give every row its image id.")
    _, number = np.unique([str(clusters[i]) for i in ids], return_inverse=True)
    return np.stack([np.bincount(number, weights=column) for column in table.T], axis=1)


def _resampled_sums(units: np.ndarray, seed: int, samples: int) -> np.ndarray:
    """float64[samples,K]: sums over units drawn with replacement; in blocks, so that memory stays bounded."""
    rng = np.random.default_rng(seed)
    count, columns = units.shape
    block = max(1, _DRAWS_AT_ONCE // count)
    sums = np.empty((samples, columns))
    for start in range(0, samples, block):
        size = min(block, samples - start)
        drawn = rng.integers(0, count, (size, count))
        for column in range(columns):
            sums[start : start + size, column] = units[:, column][drawn].sum(axis=1)
    return sums


def _first(ids: Sequence[Id], count: int = 3) -> str:
    return ", ".join(repr(i) for i in ids[:count]) + (", ..." if len(ids) > count else "")
