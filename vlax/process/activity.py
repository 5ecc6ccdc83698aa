"""What this process is doing. The answer to a signal (`stop.py`), the watchdog and a launcher go by it.

with activity.phase("stage1: export", leave="the checkpoint at step 60 is whole"):   may be left at any moment
with activity.phase("stage1: training"):                                            ends at a safe point of its own
    activity.progress(17, of=60)
"""

import contextlib
import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vlax.errors import VlaxError

FIRST, COMPILES, SLOW = 40, 2, 20  # see Activity.patience
AWAY = 10.0  # seconds between two looks of the watchdog, which looks every two, in which it can't have run


class Interrupted(SystemExit):
    """SIGTERM, SIGINT or SIGHUP was honoured: what was worth keeping is on disk. `code` is 128 + the signal's number."""


class Lost(VlaxError):
    """Something never ends, here or on another host. This process can't be waited for either."""

    code = 75  # EX_TEMPFAIL: the same command may well succeed


@dataclasses.dataclass(frozen=True)
class Phase:
    """leave: what is kept and how to go on if the phase is left at once; "" where it ends at a safe point of its own.
    ready: whether what `leave` says has come true (a save may still be on its way to the disk)."""

    name: str
    leave: str = ""
    ready: Callable[[], bool] = lambda: True


class Activity:
    """What one process is doing, and what it was asked for. Several threads read it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.phase = Phase("starting", leave="nothing was begun; the same command begins")
        self.step = self.of = 0
        self.requested, self.code = "", 0  # "SIGTERM" once it is asked to stop, and the exit code that says so
        self.told = False  # whether the line about it was printed
        self.since, self.grace = 0.0, 30.0  # when it was asked, and the seconds that it has from then on
        self.saving = False
        self.limit = 0.0  # seconds without progress after which something hangs; 0: never
        self.looking = False  # whether a watchdog asks for `clock` every two seconds
        self._looked = self._away = 0.0
        self.restart()

    def clock(self) -> float:
        """Seconds that this process had. Where it was stopped (Ctrl-Z, a lid that was closed) so was its watchdog, and what
        lies between two of its looks does not count: nothing hung."""
        with self.lock:
            now = time.monotonic()
            if self.looking and now - self._looked > AWAY:
                self._away += now - self._looked
            self._looked = now
            return now - self._away

    def restart(self) -> None:
        self._moved, self._first, self._longest, self._moves = self.clock(), 0.0, 0.0, 0

    @contextlib.contextmanager
    def watched(self, limit: float) -> Iterator[None]:
        """Within, `limit` seconds without a move are too many (see `patience`)."""
        self.restart()
        self.limit = limit
        try:
            yield
        finally:
            self.limit = 0.0

    @contextlib.contextmanager
    def anew(self) -> Iterator[None]:
        """Something else is begun, and after it what went before: the first step of each takes its time."""
        self.restart()
        yield
        self.restart()

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """A save: what was begun is ended, whatever the grace and the watchdog say."""
        self.saving = True
        try:
            yield
        finally:
            self.saving = False
            self.move()

    def move(self) -> None:
        """Something was done; the watchdog is content."""
        if self._moves:
            self._longest = max(self._longest, self.idle)
        else:
            self._first = self.idle
        self._moved, self._moves = self.clock(), self._moves + 1

    @property
    def idle(self) -> float:
        """Seconds since something moved."""
        return self.clock() - self._moved

    @property
    def patience(self) -> float:
        """Seconds that may pass without a move. What is slow by nature does not hang: the first step, which opens files and
        compiles, has forty times the limit; later ones twenty times the longest so far, and twice the first, since a batch of
        another length compiles again."""
        if not self.limit:
            return float("inf")
        return max(self.limit, SLOW * self._longest, COMPILES * self._first) if self._moves > 1 else FIRST * self.limit

    def request(self, name: str, code: int) -> None:
        with self.lock:
            if not self.requested:
                self.requested, self.code, self.since = name, code, time.monotonic()

    @property
    def left(self) -> float:
        """Seconds of the grace that are left; as much as there is where nothing was asked for."""
        return self.grace - (time.monotonic() - self.since) if self.requested else self.grace

    @property
    def may_leave(self) -> bool:
        return bool(self.phase.leave) and self.phase.ready()


NOW = Activity()


@contextlib.contextmanager
def phase(name: str, leave: str = "", ready: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """What is done within. A request to stop is honoured where a phase begins and ends: Interrupted."""
    outer = NOW.phase
    try:
        enter(Phase(name, leave, ready))
        yield
        while NOW.requested and NOW.phase.leave and NOW.left > 0 and not NOW.may_leave:
            time.sleep(0.05)
        honour()
    finally:
        NOW.phase = outer
    publish()


def enter(new: Phase) -> None:
    honour()
    NOW.phase = new
    honour()
    publish()


def honour() -> None:
    """Interrupted where a stop was asked for and the phase may be left."""
    if NOW.requested and NOW.may_leave:
        if not NOW.told:  # what is raised may be lost in a finaliser, and is raised again then
            NOW.told = True
            print(below_bars(f"{NOW.requested} during {NOW.phase.name}: {NOW.phase.leave}"), file=sys.stderr, flush=True)
        raise Interrupted(NOW.code)


def below_bars(text: str) -> str:
    """A line of its own, where progress bars have left the cursor in theirs."""
    bars = getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", ())
    return "\n" * bool(bars) + text


def progress(step: int, of: int) -> None:
    """`step` of so many steps are done."""
    NOW.step, NOW.of = step, of
    NOW.move()


def publish() -> None:
    """Rewrites the file that VLAX_ACTIVITY names: a launcher reads it."""
    if where := os.environ.get("VLAX_ACTIVITY"):
        from vlax.storage import state  # a command's flags are read before anything heavy is imported

        doing = {"phase": NOW.phase.name, "step": NOW.step, "of": NOW.of, "pid": os.getpid()}
        with contextlib.suppress(OSError):  # no reason to end a run
            state.write_json(Path(where), doing)
