"""Which rows make which batch: a pure function of (mixture order, stage settings, step), made before hosts take their slices.

    plan.batch(step) -> Planned(positions int64[B,N], ids int64[B,N], length)       -1 is filler

    Plan        rows as the order has them, one a batch row (N = 1), padded to stage.text_length
    BucketPlan  stage.buckets: rows of like length share a batch, padded to the smallest bucket that holds them all
    PackedPlan  stage.packing (`packing.py`): several rows share a batch row, up to N examples and stage.text_length tokens

Both arrange rows within windows of `stage.plan_window` batches, so the order stays near the mixture's and any step can be had
without those long before it. A position is a row's place in the mixture's order: whatever is drawn for a row (augmentation) is
drawn by it, and so does not depend on the layout.
"""

import bisect
import dataclasses
import hashlib
import json
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlax.data.batches.lengths import Lengths
from vlax.data.batches.mixture import Mixture

KEPT = 4  # arranged windows in memory: threads that read ahead are in two of them


@dataclasses.dataclass(frozen=True, eq=False)
class Planned:
    """One global batch before it is filled in."""

    positions: np.ndarray  # int64[B,N]: places in the mixture's order; -1 filler
    ids: np.ndarray  # int64[B,N]: global row ids; -1 filler
    length: int  # T
    dropped: Sequence[tuple[int, int]] = ()  # (global row id, tokens) of rows that were too long for a place near these


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The plain plan, and what all plans have in common.

    rows         B of the global batch that a train step takes (all micro-batches with accumulation="scan")
    text_length  T, and the limit of a row
    slots        N
    """

    mixture: Mixture
    rows: int
    text_length: int
    slots: int = 1

    def batch(self, step: int) -> Planned:
        positions = step * self.rows + np.arange(self.rows)[:, None]
        return Planned(positions, self.mixture.ids(int(positions[0, 0]), int(positions[-1, 0]) + 1)[:, None], self.text_length)

    def batches(self, positions: int) -> int:
        """How many batches hold the first so many rows of the order."""
        return -(-positions // self.rows)

    def positions(self, batches: int) -> int:
        """How many rows of the order so many batches take."""
        return batches * self.rows

    @property
    def lengths_used(self) -> tuple[int, ...]:
        """The static text lengths, each of which is a compiled program."""
        return (self.text_length,)

    @property
    def hash(self) -> str:
        """Identifies rows and layout of every batch: a checkpoint resumes only under the same."""
        return self.mixture.plan_hash

    def describe(self) -> str:
        """For the header of a stage; empty where there is nothing to say."""
        return ""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class WindowedPlan(Plan):
    """What buckets and packing share: arranged windows of the order.

    overlong  stage.overlong. A row that is cut counts as text_length tokens; one that is dropped is left out
    window    batches of a full window
    stop      a window ends at this position, however short: what a stage's epochs consist of is met exactly; 0: nowhere
    """

    lengths: Lengths
    overlong: str = "drop"
    window: int = 32
    stop: int = 0
    _arranged: dict[int, Sequence[Any]] = dataclasses.field(default_factory=dict)
    _lock: threading.RLock = dataclasses.field(default_factory=threading.RLock)

    @property
    def _size(self) -> int:
        """Rows of a full window."""
        return self.window * self.rows * self.slots

    def _bounds(self, number: int) -> tuple[int, int]:
        """(begin, end) of a window in the order."""
        head = -(-self.stop // self._size)
        if number < head:
            return number * self._size, min((number + 1) * self._size, self.stop)
        begin = self.stop + (number - head) * self._size
        return begin, begin + self._size

    def _window(self, number: int) -> Sequence[Any]:
        """The arranged window; several threads may ask, and one of them arranges it."""
        with self._lock:
            if number not in self._arranged:
                begin, end = self._bounds(number)
                ids = self.mixture.ids(begin, end)
                tokens = self.lengths.of(self.mixture, ids, keep=True)
                kept = (tokens <= self.text_length) | (self.overlong == "cut")
                rng = np.random.default_rng([self.mixture.seed, 4, number])
                made = self._arrange(begin, ids, tokens, kept, rng)
                while len(self._arranged) >= KEPT:
                    self._arranged.pop(next(iter(self._arranged)))
                self._arranged[number] = made
            return self._arranged[number]

    def _arrange(
        self, begin: int, ids: np.ndarray, tokens: np.ndarray, kept: np.ndarray, rng: np.random.Generator
    ) -> Sequence[Any]:
        """What `batch` takes a window's batches from. ids, tokens: int[rows]; kept: bool[rows], False where one is dropped."""
        raise NotImplementedError

    def _settings(self) -> list[Any]:
        return [self.rows, self.text_length, self.slots, self.overlong, self.window, self.stop]

    @property
    def hash(self) -> str:
        parts = [self.mixture.plan_hash, type(self).__name__, self.lengths.key, *self._settings()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class BucketPlan(WindowedPlan):
    """Batches of rows of like length, in a seeded order within each window; the rows are those of the plain plan.

    Rows that are dropped spread evenly over a window's batches, where they become filler. `stop`, a multiple of `rows`, is
    where the plan ends, unless it goes on `beyond`. Any step costs one window: the lengths of its rows, once a process.
    """

    buckets: tuple[int, ...]
    beyond: bool = False

    def batch(self, step: int) -> Planned:
        if self.stop and (more := step - self.stop // self.rows) >= 0:
            if not self.beyond:
                raise IndexError(f"the plan has {self.stop // self.rows} batches, no batch {step}")
            return self._window(-(-self.stop // self._size) + more // self.window)[more % self.window]
        return self._window(step // self.window)[step % self.window]

    def _arrange(
        self, begin: int, ids: np.ndarray, tokens: np.ndarray, kept: np.ndarray, rng: np.random.Generator
    ) -> list[Planned]:
        fitting, dropped = np.flatnonzero(kept), np.flatnonzero(~kept)
        tokens = np.minimum(tokens, self.text_length)
        fitting = fitting[np.argsort(tokens[fitting], kind="stable")]
        batches = []
        for part in np.array_split(fitting, len(ids) // self.rows):
            fill, dropped = np.split(dropped, [self.rows - len(part)])
            longest = int(tokens[part].max(initial=0))
            at = np.concatenate([part, fill])[:, None]
            batches.append(Planned(begin + at, ids[at], self.buckets[bisect.bisect_left(self.buckets, longest)]))
        return [batches[i] for i in rng.permutation(len(batches))]

    @property
    def lengths_used(self) -> tuple[int, ...]:
        return self.buckets

    def _settings(self) -> list[Any]:
        return [*super()._settings(), list(self.buckets)]

    def describe(self) -> str:
        lengths = [planned.length for planned in self._window(0)]
        shares = ", ".join(f"{b} tokens {lengths.count(b) / len(lengths):.0%}" for b in self.buckets)
        return f"buckets   {shares} of the first batches, {1 - np.mean(lengths) / self.text_length:.0%} less text"
