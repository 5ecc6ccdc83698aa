"""The table of scores for the terminal: no score without its blind twin, its prior and their intervals.

    metric  score   95 % interval  blind twin  prior           score - twin          score - prior
    ──────  ─────  ──────────────  ──────────  ─────  ─────────────────────  ─────────────────────
    CIDEr   0.612  [0.571, 0.655]       0.208  0.171  +0.404 [0.360, 0.449]  +0.441 [0.398, 0.486]
    Bleu_4  0.201               -       0.112      -                      -                      -

"-" stands where there is no number.
"""

import dataclasses
from collections.abc import Iterable

from vlax.errors import VlaxError
from vlax.printing import columns
from vlax.scores.statistics import Interval

_HEADS = ("metric", "score", "95 % interval", "blind twin", "prior", "score - twin", "score - prior")


@dataclasses.dataclass(frozen=True)
class ScoreRow:
    """One line: scores in the metric's own units, None where there is none (it is shown as "-").

    interval    of the score (`statistics.bootstrap_interval`)
    over_twin   of score - twin on the same rows (`statistics.paired_interval`)
    over_prior  of score - prior
    """

    metric: str
    score: float
    interval: Interval | None = None
    twin: float | None = None
    prior: float | None = None
    over_twin: Interval | None = None
    over_prior: Interval | None = None


def score_table(rows: Iterable[ScoreRow]) -> str:
    """Aligned plain text, one line a row under a head; three decimals. Raises VlaxError without rows."""
    lines = [_cells(row) for row in rows]
    if not lines:
        raise VlaxError("No scores to show: the table needs a row.")
    rule = ["─" * max(map(len, column)) for column in zip(_HEADS, *lines, strict=True)]
    return columns([_HEADS, rule, *lines])


def _cells(row: ScoreRow) -> tuple[str, ...]:
    interval = "-" if row.interval is None else _range(row.interval)
    numbers = (interval, _number(row.twin), _number(row.prior), _difference(row.over_twin), _difference(row.over_prior))
    return (row.metric, _number(row.score), *numbers)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _range(interval: Interval) -> str:
    return f"[{interval.low:.3f}, {interval.high:.3f}]"


def _difference(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval.mean:+.3f} {_range(interval)}"
