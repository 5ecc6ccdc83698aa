"""Several processes that work through the same list, each on cores of its own: no item is done by two, and what one is busy
with the others pass over. What a small model does gains less from a second core than a second process does."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from etils import epath

from vlax.errors import VlaxError
from vlax.process import activity, lease, memory
from vlax.process.activity import NOW
from vlax.storage import paths

VARIABLE = "VLAX_SHARE"  # "1/2": the second of two
EVERY = 0.5  # seconds between two looks at what others are busy with


def mine() -> tuple[int, int]:
    """(number of this process, how many there are): (0, 1) of one that works alone."""
    number, _, count = os.environ.get(VARIABLE, "0/1").partition("/")
    return int(number), int(count)


def environments(count: int, out: epath.Path) -> list[Mapping[str, str]]:
    """Of the processes. VlaxError where several can't work: one has the accelerators, and object stores have no locks."""
    if not memory.cpu_alone():
        raise VlaxError(f"--jobs={count}: one process has the accelerators; leave it out (it is for CPUs)")
    if paths.remote(out):
        raise VlaxError(f"--jobs={count}: several processes need a local --workdir, and {out} is none")
    return [{**os.environ, VARIABLE: f"{number}/{count}"} for number in range(count)]


def settle() -> None:
    """This process keeps to its cores from now on: before jax starts a thread for each that it has."""
    number, count = mine()
    if count > 1 and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number::count] or cores)


@dataclasses.dataclass
class Item:
    """path: its name, beside which its lock lies. needs: paths of items before it. finished: whether anybody has done it."""

    path: epath.Path
    needs: Sequence[epath.Path]
    finished: Callable[[], bool]
    do: Callable[[], None]
    done: bool = False

    def over(self) -> bool:
        self.done = self.done or self.finished()
        return self.done


def work(items: Sequence[Item]) -> None:
    """Does what nobody has done, first things first, and returns when all is done. Each comes once, behind what it needs."""
    left = {item.path: item for item in items}
    while left := {path: item for path, item in left.items() if not item.over()}:
        for item in left.values():
            if not any(path in left and not left[path].done for path in item.needs) and _done_here(item):
                break
        else:
            with activity.phase("what another process is busy with", "what is trained and measured is kept"):
                time.sleep(EVERY)
            NOW.move()


def _done_here(item: Item) -> bool:
    """Whether it was open, and is done now."""
    with _alone(item.path) as free:
        if not free or item.over():
            return False
        item.do()
        item.done = True
    return True


@contextlib.contextmanager
def _alone(path: epath.Path) -> Iterator[bool]:
    """Whether no other process is busy with it; none begins until this is left. A process that dies lets go."""
    if mine()[1] == 1:
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.parent / f"{path.name}.lock"
    try:
        descriptor = lease.locked(lock)
    except BlockingIOError:
        yield False
        return
    if descriptor < 0:
        raise VlaxError(f"{path.parent}: this disk has no locks, which --jobs needs; leave it out, or take another --workdir")
    try:
        yield True
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)
