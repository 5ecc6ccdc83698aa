"""Packing: several rows of the data share a row of the batch, apart from each other by their example ids (`vlax/masks.py`).

Image blocks stay whole, positions restart, and every example begins with its own unsupervised prompt token, so that packed
logits are those of the same examples one a row.
"""

import bisect
import dataclasses
import logging
import time

import numpy as np

from vlax.data.batches.row_plan import Planned, WindowedPlan
from vlax.errors import VlaxError

SAY_EVERY = 20.0  # seconds of a wait


def pack(lengths: np.ndarray, capacity: int, slots: int) -> list[list[int]]:
    """Rows of at most `capacity` tokens and `slots` examples, as indices into `lengths`; best fit, longest first.

    pack([5, 3, 9, 2, 1], 10, 3)  ->  [[2, 4], [0, 1, 3]]

    As tight as first fit decreasing (where `slots` doesn't bind, about 11/9 of the best number of rows at worst: Johnson et
    al., 1974) and one step a length: rows lie by the room that they have, and `rooms` has a bit for each room there is.
    VlaxError when a length is above `capacity`.
    """
    lengths = np.asarray(lengths)
    if lengths.max(initial=0) > capacity:
        raise VlaxError(f"{lengths.max()} tokens do not fit into a packed row of {capacity}")
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0
    for index in np.argsort(-lengths, kind="stable").tolist():
        size = int(lengths[index])
        if enough := rooms >> size:
            room = size + (enough & -enough).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            row, room = len(rows), capacity
            rows.append([])
        rows[row].append(index)
        if len(rows[row]) < slots:
            by_room[room - size].append(row)
            rooms |= 1 << (room - size)
    return rows


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PackedPlan(WindowedPlan):
    """Batch rows of up to `slots` examples, in a seeded order within each window.

    Every example takes a slot, text-only ones too (their image stays hidden). Rows that are dropped take none: every batch of
    their window names them. A window has as many batch rows as it needs, so step k is found by packing what comes before it: a
    resumed run needs the lengths of the rows up to its step, and a stage that is given in epochs those of all its rows, since
    only packing them says how many updates it has. They are measured by all cores and kept for the next run (`lengths.py`);
    stage.steps spares a new run of a very large set the wait.
    """

    _starts: list[int] = dataclasses.field(default_factory=lambda: [0])  # batch rows before each window, as far as is known

    def batch(self, step: int) -> Planned:
        first, last = step * self.rows, (step + 1) * self.rows
        with self._lock:
            while self._starts[-1] < last:
                self._extend()
            # A window of nothing but dropped rows starts where the next one does; the first of them is taken.
            number = min(bisect.bisect_left(self._starts, first), bisect.bisect_right(self._starts, first) - 1)
            parts, dropped = [], []
            while first < last:
                begin = self._starts[number]
                *arrays, too_long = self._window(number)
                parts.append([array[first - begin : last - begin] for array in arrays])
                dropped += too_long
                number += 1
                first = self._starts[number]
        positions, ids = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Planned(positions, ids, self.text_length, dropped)

    def _extend(self) -> None:
        """Counts one more window."""
        number = len(self._starts) - 1
        self._starts.append(self._starts[-1] + len(self._window(number)[0]))
        if self._starts[-1] == 0 and self._bounds(number)[1] >= self.mixture.epoch_size:
            raise VlaxError(
                f"no row of the mixture fits in {self.text_length} tokens; raise --config.stage.text_length, or set "
                "--config.stage.overlong=cut"
            )

    def _arrange(
        self, begin: int, ids: np.ndarray, tokens: np.ndarray, kept: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
        dropped = list(zip(ids[~kept].tolist(), tokens[~kept].tolist(), strict=True))
        chosen = np.flatnonzero(kept)
        packed = pack(np.minimum(tokens[chosen], self.text_length), self.text_length, self.slots)
        at = np.full((len(packed), self.slots), -1, np.int64)
        for row, members in zip(at, (packed[i] for i in rng.permutation(len(packed))), strict=True):
            row[: len(members)] = chosen[members]
        return np.where(at < 0, -1, begin + at), np.where(at < 0, -1, ids[at]), dropped

    def batches(self, positions: int) -> int:
        if positions != self.stop:
            raise ValueError("packed rows are counted by whole windows: ask for `stop`")
        windows, said = -(-positions // self._size), time.monotonic()
        with self._lock:
            while len(self._starts) <= windows:
                self._extend()
                if time.monotonic() > said + SAY_EVERY:
                    said, done = time.monotonic(), (len(self._starts) - 1) * self._size
                    logging.info(
                        "packing: %s of %s rows are arranged, to know how long the stage is", f"{done:,}", f"{positions:,}"
                    )
        return max(1, -(-self._starts[windows] // self.rows))

    def positions(self, batches: int) -> int:
        """`stop` for the batches up to there; other numbers are estimated by the rows a batch row in the first window."""
        head = self.batches(self.stop) if self.stop else 0
        known, rest = (self.stop, batches - head) if batches >= head else (0, batches)
        self.batch(0)
        return known + round(rest * self.rows * self._bounds(0)[1] / max(self._starts[1], 1))

    def describe(self) -> str:
        ids = self._window(0)[1]
        tokens = np.minimum(self.lengths.of(self.mixture, ids.ravel()), self.text_length)
        return (
            f"packing   {(ids >= 0).sum(1).mean():.2f} rows in {self.slots} slots, "
            f"{tokens.sum() / (len(ids) * self.text_length):.0%} of the text length used"
        )
