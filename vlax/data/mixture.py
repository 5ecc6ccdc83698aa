"""The order in which the rows of weighted sources are met: a pure function of the seed, made before hosts take their slices."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence

import numpy as np

from vlax.data.rows import Row, Source
from vlax.errors import VlaxError


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Sources with weights, and the order in which their rows are met.

    One epoch is one pass over the first source; the others contribute rows in proportion to their weights, each walking
    through its own reshuffled passes. `shuffle=False` keeps the file order (evaluation; a single source then).
    """

    sources: Sequence[Source]
    weights: Sequence[float]
    seed: int
    shuffle: bool = True

    def __post_init__(self):
        for source, weight in zip(self.sources, self.weights, strict=True):
            if len(source) == 0:
                raise VlaxError(f"data source {source.name} has no rows")
            if weight <= 0:
                raise VlaxError(f"data source {source.name} has weight {weight}; a weight is positive")

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """Global id of each source's first row."""
        return np.concatenate([[0], np.cumsum([len(s) for s in self.sources])]).astype(np.int64)

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Rows that each source contributes to one epoch."""
        first = len(self.sources[0])
        counts = [max(1, round(first * weight / self.weights[0])) for weight in self.weights]
        return np.array([first, *counts[1:]], np.int64)

    @property
    def epoch_size(self) -> int:
        return int(self.counts.sum())

    @functools.cached_property
    def plan_hash(self) -> str:
        """Identifies the row order: it changes with the rows, their weights, the seed and the shuffling."""
        parts = [[s.name, s.fingerprint, len(s)] for s in self.sources]
        text = json.dumps([parts, list(map(float, self.weights)), self.seed, self.shuffle])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _pass(self, source: int, number: int) -> np.ndarray:
        """The order of one pass over a source."""
        rows = len(self.sources[source])
        if not self.shuffle:
            return np.arange(rows)
        return np.random.default_rng([self.seed, 1, source, number]).permutation(rows)

    @functools.lru_cache(maxsize=3)  # noqa: B019  (a mixture lives as long as its run)
    def epoch(self, number: int) -> np.ndarray:
        """int64[epoch_size]: global row ids of one epoch, in the order in which they are met."""
        parts = []
        for source, count in enumerate(self.counts):
            rows = len(self.sources[source])
            begin, end = number * count, (number + 1) * count
            passes = [self._pass(source, n) for n in range(begin // rows, -(-end // rows))]
            start = begin - begin // rows * rows
            parts.append(np.concatenate(passes)[start : start + count] + self.offsets[source])
        order = np.concatenate(parts)
        return np.random.default_rng([self.seed, 2, number]).permutation(order) if self.shuffle else order

    def ids(self, begin: int, end: int) -> np.ndarray:
        """Global row ids at positions begin..end-1: of an endless order when shuffled, else of one pass, then filler (-1)."""
        if not self.shuffle:
            position = np.arange(begin, end)
            return np.where(position < self.epoch_size, position, -1)
        epochs = range(begin // self.epoch_size, (end - 1) // self.epoch_size + 1)
        rows = np.concatenate([self.epoch(e) for e in epochs])
        return rows[begin - epochs[0] * self.epoch_size :][: end - begin]

    def locate(self, row_id: int) -> tuple[Source, int]:
        source = int(np.searchsorted(self.offsets, row_id, side="right")) - 1
        return self.sources[source], int(row_id - self.offsets[source])

    def row(self, row_id: int) -> Row:
        source, index = self.locate(row_id)
        return source[index]

    def name(self, row_id: int) -> str:
        """What an error calls a global row id: "coco:1234#2" """
        return "filler" if row_id < 0 else f"{self.locate(row_id)[0].name}:{self.row(row_id).id}"
