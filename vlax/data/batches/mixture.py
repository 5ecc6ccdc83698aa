"""The order in which the rows of mixed sources are met: a pure function of the seed, made before hosts take their slices.

How much a source brings to an epoch is said in its spec by one of

    "weight": 0.5         half as many rows as the source named by stage.epoch_of (1.0 where nothing is said)
    "epochs": 2.0         two passes over the source, in one epoch of the mixture
    "tokens": 3_000_000   as many rows as have about so many tokens, prompts and answers, by the mean of a sample of its rows

`epochs` and `tokens` fix a number of rows. Weights are relative: to that of the epoch_of source, which brings one pass unless
it has `epochs` or `tokens` itself; then its own number of rows is what a weight of 1 means.
"""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vlax.data.batches import order
from vlax.errors import VlaxError
from vlax.rows import Row, Source

SHARES = ("weight", "epochs", "tokens")
BLOCK = 2048  # positions that order 2 computes at once: a call takes 0.3 ms whether it is for 64 or for 500 of them


def share(name: str, spec: Mapping) -> tuple[str, float]:
    """share("ai", {"kind": "coco", "epochs": 2.0}) == ("epochs", 2.0); ("weight", 1.0) where nothing is said.

    VlaxError for more than one of SHARES and for what is no positive number.
    """
    given = {key: spec[key] for key in SHARES if spec.get(key) is not None}
    if len(given) > 1:
        raise VlaxError(f"mixture source {name} has {' and '.join(given)}; give one of {', '.join(SHARES)}")
    for key, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 < value < math.inf):
            raise VlaxError(f"mixture source {name}: {key} is {value!r}; it is a positive number")
        return key, float(value)
    return "weight", 1.0


def fixed_rows(name: str, kind: str, value: float, source: Source, mean_tokens: Callable[[Source], float]) -> int:
    """Rows an epoch of a source that says `epochs` or `tokens`; 0 of one that has a weight."""
    if kind == "weight":
        return 0
    if kind == "epochs":
        return max(1, round(value * len(source)))
    mean = mean_tokens(source)
    if mean <= 0:
        raise VlaxError(
            f"mixture source {name}: no row fits in stage.text_length, so no number of rows has {value:,.0f} tokens"
        )
    return max(1, round(value / mean))


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Sources, how much each brings, and the order in which their rows are met.

    Each source walks through its own reshuffled passes; an epoch has `counts` rows of them, shuffled. The first source is the
    one that weights refer to. `shuffle=False` keeps the file order (evaluation; a single source then).

    fixed   rows an epoch by source, 0 where the weight decides; () when it decides everywhere
    order   the one that the run was started with (`order.py`); None of a new run
    """

    sources: Sequence[Source]
    weights: Sequence[float]
    seed: int
    shuffle: bool = True
    fixed: Sequence[int] = ()
    order: int | None = None

    def __post_init__(self) -> None:
        for source, weight in zip(self.sources, self.weights, strict=True):
            if len(source) == 0:
                raise VlaxError(f"data source {source.name} has no rows")
            if weight <= 0:
                raise VlaxError(f"data source {source.name} has weight {weight}; a weight is positive")

    @functools.cached_property
    def version(self) -> int:
        """Which order it is, for the record of a run; 1 where nothing is shuffled."""
        return order.choose(self.order, self.epoch_size) if self.shuffle else 1

    @functools.cached_property
    def rows(self) -> np.ndarray:
        """int64: the rows of each source."""
        return np.array([len(source) for source in self.sources], np.int64)

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """Global id of each source's first row."""
        return np.concatenate([[0], np.cumsum(self.rows)]).astype(np.int64)

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Rows that each source contributes to one epoch."""
        fixed = self.fixed or [0] * len(self.sources)
        first = fixed[0] or len(self.sources[0])
        counts = [n or max(1, round(first * w / self.weights[0])) for n, w in zip(fixed, self.weights, strict=True)]
        return np.array([first, *counts[1:]], np.int64)

    @property
    def epoch_size(self) -> int:
        return int(self.counts.sum())

    @functools.cached_property
    def plan_hash(self) -> str:
        """Identifies the row order: it changes with the rows, their shares, the seed and the shuffling."""
        parts = [[s.name, s.fingerprint, len(s)] for s in self.sources]
        values = [parts, list(map(float, self.weights)), self.seed, self.shuffle]
        values += [list(map(int, self.fixed))] if any(self.fixed) else []
        text = json.dumps([*values, {"order": self.version}] if self.version > 1 else values)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _pass(self, source: int, number: int) -> np.ndarray:
        """The order of one pass over a source."""
        rows = len(self.sources[source])
        if not self.shuffle:
            return np.arange(rows)
        return np.random.default_rng([self.seed, 1, source, number]).permutation(rows)

    @functools.lru_cache(maxsize=3)  # noqa: B019  (a mixture lives as long as its run)
    def epoch(self, number: int) -> np.ndarray:
        """int64[epoch_size]: global row ids of one epoch under order 1, in the order in which they are met."""
        parts = []
        for source, count in enumerate(self.counts):
            rows = len(self.sources[source])
            begin, end = number * count, (number + 1) * count
            passes = [self._pass(source, n) for n in range(begin // rows, -(-end // rows))]
            start = begin - begin // rows * rows
            parts.append(np.concatenate(passes)[start : start + count] + self.offsets[source])
        whole = np.concatenate(parts)
        return np.random.default_rng([self.seed, 2, number]).permutation(whole) if self.shuffle else whole

    @functools.lru_cache(maxsize=4)  # noqa: B019  (as above; threads that read ahead are in two of them)
    def _block(self, number: int) -> np.ndarray:
        """int64[BLOCK]: global row ids under order 2 at positions from BLOCK * number on."""
        positions = np.arange(number * BLOCK, (number + 1) * BLOCK)
        return order.second(positions, self.seed, self.rows, self.counts, self.offsets[:-1])

    def ids(self, begin: int, end: int) -> np.ndarray:
        """int64: global row ids at positions begin..end-1, endless when shuffled; else of one pass, then filler (-1)."""
        size = self.epoch_size
        if not self.shuffle:
            position = np.arange(begin, end)
            return np.where(position < size, position, -1)
        if self.version == 2:
            blocks = range(begin // BLOCK, (end - 1) // BLOCK + 1)
            return np.concatenate([self._block(b)[max(begin - b * BLOCK, 0) : end - b * BLOCK] for b in blocks])
        epochs = range(begin // size, (end - 1) // size + 1)
        return np.concatenate([self.epoch(e)[max(begin - e * size, 0) : end - e * size] for e in epochs])

    def locate(self, row_id: int) -> tuple[Source, int]:
        source = int(np.searchsorted(self.offsets, row_id, side="right")) - 1
        return self.sources[source], int(row_id - self.offsets[source])

    def row(self, row_id: int) -> Row:
        source, index = self.locate(row_id)
        return source[index]

    def names(self, row_ids: np.ndarray) -> str:
        """The first eight of them, for an error."""
        shown = [self.name(int(row)) for row in row_ids.ravel()[:8]]
        return ", ".join(shown) + (f" and {row_ids.size - 8} more" if row_ids.size > 8 else "")

    def name(self, row_id: int) -> str:
        """What an error calls a global row id: "coco:1234#2" """
        return "filler" if row_id < 0 else f"{self.locate(row_id)[0].name}:{self.row(row_id).id}"
