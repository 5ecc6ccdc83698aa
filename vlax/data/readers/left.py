"""Which rows of a table are left: the leak filter by two nets, then the limit. No object a row, whatever is left out."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np

from vlax.data.readers import leaks, prints, row_cache
from vlax.errors import VlaxError


def gone(
    drop: frozenset[str], key: str, every: Callable[[], Iterable[Collection[str]]], of: Callable[[int], Collection[str]]
) -> Sequence[int]:
    """The numbers of the rows whose picture has a key in `drop`, in order.

    key    of the rows in the cache, where their pictures' keys are kept too
    every  the keys of all rows' pictures in order; of: those of one row's
    """
    if not drop:
        return []

    def made() -> row_cache.Made:
        return (yield from leaks.columns(every()))

    blocks, known = row_cache.kept(key and row_cache.derived(key, "keys"), leaks.SCHEMA, made)
    return leaks.dropped(blocks, drop, of, known)


class Leaving:
    """The half of the leak filter that sources share.

    dropped_by  {"name": rows that were left out by what their pictures are called, "hash": further ones, by what they show}
    dropped     rows that were left out
    total       rows of the table
    near        those of them that look like evaluation pictures, whatever they are called
    """

    near: Sequence[int] | np.ndarray = ()

    name: str
    fingerprint: str
    total: int
    _limit: int | None
    _way_out: str  # of a source without rows

    def about(self, drop: frozenset[str]) -> Sequence[int]:
        """The numbers of the table's rows whose picture has a key (`leaks.py`) in `drop`."""
        raise NotImplementedError

    def called(self, index: int) -> Sequence[leaks.Called]:
        """What the pictures of a row that is left are called."""
        raise NotImplementedError

    def _keys_of(self, at: int) -> Collection[str]:
        """The keys of the pictures of one of them."""
        raise NotImplementedError

    def met(self, pictures: Sequence[Collection[str]]) -> list[int]:
        """Which of some pictures, by their keys, are those of a row that is left."""
        certain = leaks.resolved(pictures)
        wanted, there = frozenset().union(*certain), set(self._left)
        met = {leaks.as_certain(key) for at in self.about(wanted) if at in there for key in self._keys_of(at)}
        return [number for number, keys in enumerate(certain) if not met.isdisjoint(keys)]

    def seen_in(self, looks: prints.Prints | None) -> list[int]:
        """Which of some pictures look like that of a row that is left."""
        own = self.all_looks() if looks is not None else None
        return prints.near(looks, own).tolist() if looks is not None and own is not None else []

    def _fingerprinted(self, gone: Sequence[int]) -> str:
        """The fingerprint of the source without these rows."""
        raise NotImplementedError

    def _prints_key(self) -> str:
        """What the prints of its pictures go by in the cache."""
        raise NotImplementedError

    def _leave(self, named: Sequence[int], near: Sequence[int] | np.ndarray = ()) -> None:
        gone = sorted({*named, *map(int, near)})
        self._by_name, self.near, self.dropped = named, near, len(gone)
        self.dropped_by = {"name": len(named), "hash": len(gone) - len(named)}
        self._left = Left(self.total, gone, self._limit)
        if not len(self._left):
            read = f"{self.total} read, {self.dropped} dropped by the leak filter"
            raise VlaxError(f"{self.name}: no rows are left ({read}); {self._way_out}")
        self.fingerprint = self._fingerprinted(gone)

    def leave_out(self, near: np.ndarray) -> None:
        """Leaves out these rows of the table too: their pictures look like evaluation pictures."""
        if len(near):
            self._leave(self._by_name, near)

    def looks(self) -> prints.Prints | None:
        """Of all rows of the table, what their (first) pictures look like; None where nobody has looked."""
        return prints.read(self._prints_key(), self.total)

    def other_looks(self) -> tuple[np.ndarray, prints.Prints]:
        """(int64[n] rows of the table, what their pictures after the first one look like), as far as somebody has looked."""
        return prints.read_others(self._prints_key())

    def near_to(self, theirs: prints.Prints) -> np.ndarray:
        """int64[k]: the rows of the table of which a picture looks like one of theirs."""
        mine = self.looks() if len(theirs.hashes) else None
        if mine is None:
            return np.zeros(0, np.int64)
        rows, others = self.other_looks()
        return np.union1d(prints.near(mine, theirs), rows[prints.near(others, theirs)])

    @property
    def seen(self) -> bool:
        """Whether somebody has looked at its pictures."""
        return row_cache.found(self._prints_key(), prints.SCHEMA) is not None

    def left_looks(self) -> prints.Prints | None:
        """Of the (first) pictures of the rows that are left; None where nobody has looked."""
        found = self.looks()
        return found and found.of(np.fromiter(self._left, np.int64, len(self._left)))

    def left_other_looks(self) -> tuple[np.ndarray, prints.Prints]:
        """(int64[n] rows that are left, by index, what their pictures after the first one look like)"""
        rows, others = self.other_looks()
        if not len(rows):
            return rows, others
        left = np.fromiter(self._left, np.int64, len(self._left))
        there = np.flatnonzero(np.isin(rows, left))
        return np.searchsorted(left, rows[there]), others.of(there)

    def all_looks(self) -> prints.Prints | None:
        """Of all pictures of the rows that are left; None where nobody has looked."""
        found = self.left_looks()
        return found and prints.joined([found, self.left_other_looks()[1]])

    def keep_looks(self, found: prints.Prints, rows: np.ndarray, others: prints.Prints) -> None:
        """Keeps what was seen of all pictures; nothing where that is not all of the table. rows, others: of `other_looks`."""
        if len(found.hashes) == self.total:
            prints.write(self._prints_key(), found)
            if len(rows):
                prints.write_others(self._prints_key(), rows, others)


class Left:
    """The numbers of the rows that are left, by their index. Where none is missing these are the same, and nothing is held."""

    def __init__(self, total: int, gone: Sequence[int], limit: int | None):
        # int64[rows], or None
        self.numbers = np.delete(np.arange(total), gone) if len(gone) else None
        left = total - len(gone)
        self._count = left if limit is None else min(left, limit)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> int:
        return index if self.numbers is None else int(self.numbers[index])

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._count)) if self.numbers is None else map(int, self.numbers[: self._count])
