"""Who decodes the pictures of `prepare` and `doctor`: threads of this process, or the workers of a Ray cluster.

    for result in Local(8).map(work, items):    in the order of the items, whoever was done first

A runner may not change a byte of what comes out: it gives the results of `work` in order, and this process says which of them
are written where.
"""

import collections
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from etils import epath

from vlax.data.readers import shards
from vlax.errors import VlaxError

AHEAD = 4  # pictures by thread that are begun before the first of them is asked for
Result = TypeVar("Result")
Begun = TypeVar("Begun")


class RunnerError(VlaxError):
    """The workers are at fault, or their machines: no row is, and no source."""


class Work(Protocol[Result]):
    """A function of one item that can be pickled, with all that it needs.

    keeps: its results are named tuples with a `content`, bytes; the runner may give a token for it, that its `write` takes.
    """

    keeps: bool

    def __call__(self, item: int, /) -> Result: ...

    def fault(self, result: Result, /) -> Any:
        """What kept the item from being read, which might be the machine that tried; falsy where nothing did."""


class Runner(Protocol):
    """`map` gives work(item) of each item, in their order. A bounded number of items is begun ahead, and where the iterator is
    closed early, what has not begun is cancelled. What the work raises is raised here, after the results before it.

    `write` begins an ArrayRecord file of contents that `map` gave, as `shards.write`; what it returns waits for the file, and
    gives its facts. writes: files that may be on their way while others are made.
    """

    @property
    def writes(self) -> int: ...

    def map(self, work: Work[Result], items: Iterable[int]) -> Generator[Result, None, None]: ...

    def write(self, path: epath.Path, contents: Sequence[Any], options: str) -> Callable[[], dict]: ...


class Local:
    """Threads of this process: Pillow decodes, resizes and encodes without Python's lock."""

    writes = 0

    def __init__(self, workers: int):
        if workers < 1:
            raise VlaxError(f"--workers={workers}: at least one of them has to work; mend the flag")
        self.workers = workers

    def map(self, work: Work[Result], items: Iterable[int]) -> Generator[Result, None, None]:
        with ThreadPoolExecutor(self.workers) as pool:
            yield from in_order(items, lambda item: pool.submit(work, item), Future.result, Future.cancel, self.workers * AHEAD)

    def write(self, path: epath.Path, contents: Sequence[Any], options: str) -> Callable[[], dict]:
        facts = shards.write(path, contents, options)
        return lambda: facts


def in_order(
    items: Iterable[Any],
    begin: Callable[[Any], Begun],
    end: Callable[[Begun], Result],
    cancel: Callable[[Begun], Any],
    ahead: int,
) -> Generator[Result, None, None]:
    """end(begin(item)) of each item, with at most `ahead` of them begun; those that nobody waits for any more are cancelled."""
    begun: collections.deque[Begun] = collections.deque()
    try:
        for item in items:
            begun.append(begin(item))
            if len(begun) >= ahead:
                yield end(begun.popleft())
        while begun:
            yield end(begun.popleft())
    finally:
        for each in begun:
            cancel(each)
