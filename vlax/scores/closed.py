"""Intervals of scores whose values lie in [0, 1], such as accuracies: right near 0 and 1, too, and never of no width.

Resampling can't see what did not happen: of 100 right answers every resample is 100 right ones. Here a share has Wilson's score
interval (1927), with the number of rows that would have the variance which is found when whole pictures are drawn (Kish's
effective sample size) and Student's t of as many degrees of freedom as there are pictures, as survey statistics have it (Korn
and Graubard 1998). A difference is made of the intervals of what was gained and of what was lost (MOVER: Newcombe 1998, Zou and
Donner 2008).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import stdtrit

from vlax.errors import VlaxError
from vlax.scores.statistics import Interval, check_same_ids, clustered

Id = Any


def closed_interval(values: Mapping[Id, float], clusters: Mapping[Id, str] | None = None, level: float = 0.95) -> Interval:
    """The mean of values in [0, 1] and its interval.

    values: {id: value}; clusters: {id: cluster}, such as the picture that a question is about: rows of one cluster are not
    independent. One cluster alone says nothing: [0, 1]. VlaxError: no values, one outside [0, 1], an id without a cluster.
    """
    return _share(*_sums(values, clusters), level)


def closed_difference(
    a: Mapping[Id, float], b: Mapping[Id, float], clusters: Mapping[Id, str] | None = None, level: float = 0.95
) -> Interval:
    """The mean of a minus that of b on the same rows, and its interval. Arguments and errors as in `closed_interval`; both have
    the same ids."""
    check_same_ids(a, b, "the first scores", "the second scores")
    change = {i: a[i] - b[i] for i in a}
    gained = closed_interval({i: max(d, 0.0) for i, d in change.items()}, clusters, level)
    lost = closed_interval({i: max(-d, 0.0) for i, d in change.items()}, clusters, level)
    # What is gained in a row is not lost in it: the two shares of one multinomial.
    rest = (1 - gained.mean) * (1 - lost.mean)
    r = -math.sqrt(gained.mean * lost.mean / rest) if rest > 0 else 0.0
    mean = gained.mean - lost.mean
    down, up = gained.mean - gained.low, gained.high - gained.mean
    its_down, its_up = lost.mean - lost.low, lost.high - lost.mean
    low = mean - math.sqrt(max(down**2 + its_up**2 - 2 * r * down * its_up, 0.0))
    high = mean + math.sqrt(max(up**2 + its_down**2 - 2 * r * up * its_down, 0.0))
    return Interval(mean, max(low, -1.0), min(high, 1.0))


def _sums(values: Mapping[Id, float], clusters: Mapping[Id, str] | None) -> tuple[np.ndarray, np.ndarray]:
    """(f64[N] values, f64[clusters, 2]: sum and number of each cluster's)"""
    if not values:
        raise VlaxError("No values: an interval needs at least one.")
    ids = sorted(values, key=lambda i: (str(i), type(i).__name__))
    column = np.asarray([values[i] for i in ids], np.float64)
    if not ((column >= 0) & (column <= 1)).all():
        bad = next(i for i, value in zip(ids, column, strict=True) if not 0 <= value <= 1)
        raise VlaxError(f"the value of {bad!r} is {values[bad]}; a closed score lies from 0 to 1")
    table = np.stack([column, np.ones_like(column)], axis=1)
    return column, table if clusters is None else clustered(ids, table, clusters)


def _share(values: np.ndarray, sums: np.ndarray, level: float) -> Interval:
    """Wilson's interval with the effective number of rows."""
    count, rows = len(sums), len(values)
    mean = float(values.mean())
    if count < 2:
        return Interval(mean, 0.0, 1.0)
    residual = sums[:, 0] - mean * sums[:, 1]
    # Few clusters may look more alike than chance makes them: never more certain than independent rows.
    variance = max(count / (count - 1) * float((residual**2).sum()) / rows**2, float(values.var()) / (rows - 1))
    alike = values.min() == values.max()  # nothing is known of the variance: each picture counts once
    effective = count if alike else mean * (1 - mean) / variance
    t = float(stdtrit(count - 1, (1 + level) / 2))
    shrunk = 1 + t * t / effective
    centre = (mean + t * t / (2 * effective)) / shrunk
    half = t / shrunk * math.sqrt(mean * (1 - mean) / effective + (t / (2 * effective)) ** 2)
    return Interval(mean, max(0.0, centre - half), min(1.0, centre + half))
