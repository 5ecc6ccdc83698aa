"""Token lengths that are known, by row: in memory, or in a file of the cache which all processes of a host share.

    CACHE/lengths/DIGEST      uint32[rows], little endian: check << 18 | length + 1; 0 where nobody has measured yet

An entry is written whole or not at all, and its check covers row and length: what was damaged is measured again, and a process
that dies leaves what it has measured. The file has its room on the disk from the start, since a full disk met by way of a
mapped file would kill the process. Memory that nobody has written to is none, neither here nor there.
"""

import contextlib
import logging
import mmap
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vlax.data.batches import shuffle
from vlax.storage import cache, state

BITS = 18  # of an entry's length
LONGEST = (1 << BITS) - 2  # tokens; a longer row is kept aside
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Linux'; Python names it from 3.13 on


class Measured:
    """The lengths of one source's rows under one encoder."""

    def __init__(self, rows: int):
        self.rows = rows
        self.path: Path | None = None
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
        self._entries = np.frombuffer(mmap.mmap(-1, max(rows, 1) * 4, flags=private), "<u4")
        self._aside: dict[int, int] = {}  # of rows that are bad today (0), or too long for an entry
        self._lock, self._said = threading.RLock(), False

    def get(self, indices: np.ndarray) -> np.ndarray:
        """int32, as many as `indices`; -1 where the length is not known."""
        entries = self._entries[indices]
        lengths = (entries & np.uint32((1 << BITS) - 1)).astype(np.int32) - 1
        known = (entries == _entry(indices, lengths)) & (lengths >= 0)
        if not known.all():
            if entries[~known].any():
                self._say("is damaged; what is wrong there is measured again")
            lengths[~known] = [self._aside.get(index, -1) for index in indices[~known].tolist()]
        return lengths

    def put(self, indices: np.ndarray, lengths: np.ndarray) -> None:
        """Keeps lengths (int32[n], distinct rows); -1 of a bad row: it is 0 tokens long for this process, and may be mended."""
        usual = (lengths >= 0) & (lengths <= LONGEST)
        self._entries[indices[usual]] = _entry(indices[usual], lengths[usual])
        for index, length in zip(indices[~usual].tolist(), lengths[~usual].tolist(), strict=True):
            self._aside[index] = max(length, 0)

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        """One thread of one process of this host at a time: who comes next asks again what is left to measure."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._lock)
            if self.path is not None:
                try:
                    stack.enter_context(cache.alone(self.path))
                except OSError as error:
                    self._say(f"cannot be locked ({error}); every process of this host measures for itself")
            yield

    def share(self, path: Path, make: bool) -> None:
        """From now on the file at `path` has the lengths, if there is one or `make`; what memory had is measured again."""
        with self._lock:
            if self.path is not None or not (make or path.exists()):
                return
            self.path = path
            try:
                with cache.alone(path):
                    self._entries = self._mapped(path)
            except OSError as error:
                self._say(f"cannot be written ({error}); token lengths are measured again by every process")

    def _mapped(self, path: Path) -> np.ndarray:
        size = self.rows * 4
        if path.exists() and path.stat().st_size != size:
            self._say("has another size than it was made with; rows are measured again")
        if not path.exists() or path.stat().st_size != size:
            with state.replacing(path) as part, part.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        with path.open("r+b") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), size), "<u4")

    def _say(self, what: str) -> None:
        """Once a process and source."""
        if not self._said:
            self._said = True
            logging.warning("WARNING: %s %s", self.path or "a token length in memory", what)


def _entry(indices: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """uint32; 0 for a length of -1."""
    value = (indices.astype(np.uint64) << np.uint64(BITS)) + (lengths + 1).astype(np.uint64)
    check = shuffle.mixed(value) >> np.uint64(32 + BITS)
    whole = (check.astype(np.uint32) << np.uint32(BITS)) | (lengths + 1).astype(np.uint32)
    return np.where(lengths < 0, np.uint32(0), whole)
