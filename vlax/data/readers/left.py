"""Which rows of a table are left: the leak filter, then the limit. No object a row, whatever is left out."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np

from vlax.data.readers import leaks, row_cache


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
