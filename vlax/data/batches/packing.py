"""Packing: several rows of the data share a row of the batch, apart from each other by their example ids (`vlax/masks.py`).

Image blocks stay whole, positions restart, and every example begins with its own unsupervised prompt token, so that packed
logits are those of the same examples one a row.
"""

import bisect
import dataclasses
import logging
import time
from typing import Any

import numpy as np

from vlax.data.batches.row_plan import Planned, WindowedPlan
from vlax.errors import VlaxError

SAY_EVERY = 20.0  # seconds of a wait


def pack(lengths: np.ndarray, capacity: int, slots: int, takes: np.ndarray | None = None) -> list[list[int]]:
    """Rows of at most `capacity` tokens and `slots` slots, as indices into `lengths`; best fit, longest first.

    pack([5, 3, 9, 2, 1], 10, 3)  ->  [[2, 4], [0, 1, 3]]
    pack([5, 3, 9, 2, 1], 10, 3, takes=[1, 2, 1, 1, 1])  ->  [[2, 4], [0, 1], [3]]

    takes: the slots of each, 1 by default. As tight as first fit decreasing (where `slots` doesn't bind, about 11/9 of the best
    number of rows at worst: Johnson et al., 1974) and one step a length, with `takes` one for each number of free slots: rows
    lie by the room that they have, and `rooms` has a bit for each room there is. VlaxError when a length is above `capacity`.
    """
    lengths = np.asarray(lengths)
    if lengths.max(initial=0) > capacity:
        raise VlaxError(f"{lengths.max()} tokens do not fit into a packed row of {capacity}")
    rows: list[list[int]] = []
    # By the slots that are free (all as one where each takes one), then by room: rows, and when each was put there.
    kinds = 1 if takes is None else slots
    free: list[int] = []
    by_room: list[list[list[tuple[int, int]]]] = [[[] for _ in range(capacity + 1)] for _ in range(kinds)]
    rooms, now = [0] * kinds, 0
    for index in np.argsort(-lengths, kind="stable").tolist():
        size, wanted = int(lengths[index]), 1 if takes is None else int(takes[index])
        row, room, kind = _tightest(rooms, by_room, size, 0 if takes is None else wanted)
        if row < 0:
            row, room = len(rows), capacity
            rows.append([])
            free.append(slots)
        else:
            by_room[kind][room].pop()
            if not by_room[kind][room]:
                rooms[kind] &= ~(1 << room)
        rows[row].append(index)
        free[row] -= wanted
        if free[row] > 0:
            kind, now = 0 if takes is None else free[row], now + 1
            by_room[kind][room - size].append((now, row))
            rooms[kind] |= 1 << (room - size)
    return rows


def _tightest(rooms: list[int], by_room: list[list[list[tuple[int, int]]]], size: int, least: int) -> tuple[int, int, int]:
    """(row, its room, its free slots) of the row of the least room that is enough, the latest of several; -1 for none."""
    found = (len(by_room[0]), 0, -1, 0)
    for kind in range(least, len(rooms)):
        if enough := rooms[kind] >> size:
            room = size + (enough & -enough).bit_length() - 1
            latest, row = by_room[kind][room][-1]
            found = min(found, (room, -latest, row, kind))
    room, _, row, kind = found
    return row, room, kind


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PackedPlan(WindowedPlan):
    """Batch rows of up to `slots` examples, in a seeded order within each window.

    Every example takes a slot, text-only ones too (their image stays hidden), and one of several pictures as many. Rows that
    are dropped take none: every batch of their window names them. A window has as many batch rows as it needs, so step k is
    found by packing what comes before it: a resumed run needs the lengths of the rows up to its step, and a stage that is
    given in epochs those of all its rows, since only packing them says how many updates it has. They are measured by all cores
    and kept for the next run (`lengths.py`); stage.steps spares a new run of a very large set the wait.
    """

    images: int = 1  # stage.images: rows of more pictures are bad ones, and take no more
    views: int = 1  # slots a picture: how many tiles it has is not known before it is opened
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
        takes = None
        if self.images * self.views > 1:
            takes = np.clip(self.lengths.pictures(self.mixture, ids[chosen]) * self.views, 1, self.images * self.views)
        packed = pack(np.minimum(tokens[chosen], self.text_length), self.text_length, self.slots, takes)
        at = np.full((len(packed), self.slots), -1, np.int64)
        for row, members in zip(at, (packed[i] for i in rng.permutation(len(packed))), strict=True):
            row[: len(members)] = chosen[members]
        return np.where(at < 0, -1, begin + at), np.where(at < 0, -1, ids[at]), dropped

    def _settings(self) -> list[Any]:
        return [*super()._settings(), *([self.images, self.views] if self.images * self.views > 1 else [])]

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
