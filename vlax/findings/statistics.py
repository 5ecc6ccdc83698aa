"""Differences of two arms over seeds and pictures, corrected for their number, with what could have been seen.

    compared(d, pictures)          d f64[seeds, rows]: one arm minus the other, the same seed and the same row of both
    holm([0.01, 0.04, 0.03])   ->  [0.03, 0.06, 0.06]
    detectable(0.5, 4, 0.05)   ->  1.86

Both the seeds and the pictures are drawn from many: another five seeds, or another test set, would give another figure. The
variance of the mean is therefore that of seeds, plus that of pictures, less what both count (two-way clustering: Cameron,
Gelbach and Miller 2011), and never less than either alone; the quantile is Student's, of one degree of freedom less than there
are seeds (or pictures, where these are fewer). Of one figure a seed it is the paired t test.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr, stdtrit

from vlax.errors import VlaxError

LEVEL, POWER = 0.95, 0.8


@dataclasses.dataclass(frozen=True)
class Compared:
    """A mean difference, its standard error and degrees of freedom, its 95 % interval and the p value of no difference, from
    both sides. One seed says nothing of others: an infinite interval and p = 1."""

    mean: float
    error: float
    freedom: int
    low: float
    high: float
    p: float


def compared(differences: np.ndarray, pictures: Sequence[str] = ()) -> Compared:
    """differences: f64[seeds, rows], or f64[seeds]; pictures: of each row, where there are several: rows of one picture are not
    independent. VlaxError for no values, values that are not finite and pictures of another number."""
    d = np.asarray(differences, np.float64)
    d = d[:, None] if d.ndim == 1 else d
    names = list(pictures) or ["one"] * d.shape[1]
    if d.ndim != 2 or not d.size or len(names) != d.shape[1] or not np.isfinite(d).all():
        raise VlaxError(
            f"differences are finite numbers by seed and row, one picture a row; got {d.shape}, {len(names)} pictures"
        )
    mean = float(d.mean())
    _, number = np.unique(names, return_inverse=True)
    residual = np.stack([np.bincount(number, weights=row) for row in d - mean])  # [seeds, pictures]
    seeds, count = residual.shape
    if seeds < 2:
        return Compared(mean, math.inf, 0, -math.inf, math.inf, 1.0)
    by_seed = seeds / (seeds - 1) * float((residual.sum(1) ** 2).sum())
    variance, freedom = by_seed, seeds - 1
    if count > 1:
        by_picture = count / (count - 1) * float((residual.sum(0) ** 2).sum())
        both = residual.size / (residual.size - 1) * float((residual**2).sum())
        variance = max(by_seed, by_picture, by_seed + by_picture - both)
        freedom = min(seeds, count) - 1
    error = math.sqrt(variance) / d.size
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(mean) / error)) if error else float(mean == 0)
    return Compared(mean, error, freedom, mean - half, mean + half, p)


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979), in their order: below 0.05 for those that may be called differences when
    at most one family of 20 is to have a false one."""
    order = np.argsort(values, kind="stable")
    out, least = [0.0] * len(values), 0.0
    for place, at in enumerate(order):
        least = max(least, min(1.0, (len(values) - place) * values[at]))
        out[at] = least
    return out


def detectable(error: float, freedom: int, alpha: float) -> float:
    """The least true difference that a test of this standard error finds at `alpha`, from both sides, in 80 % of such
    experiments: (t of 1 - alpha/2 + t of 0.8) errors (Bloom 1995)."""
    if not freedom:
        return math.inf
    return float(stdtrit(freedom, 1 - alpha / 2) + stdtrit(freedom, POWER)) * error
