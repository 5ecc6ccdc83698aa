"""Ends a process in which nothing moves any more: a step that waits for a host that is gone, a device that hangs.

A process that was stopped, by Ctrl-Z say, and goes on later is not one of them.
"""

import contextlib
import faulthandler
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from vlax.process import activity, stop
from vlax.process.activity import NOW

EVERY = 2.0  # seconds between two looks; a launcher takes a process for frozen that hasn't touched its file for long
SAVING = 10  # times the patience, of a save: a remote disk is slow, but a host that doesn't join it never comes
LATER = 20.0  # seconds after those who can still save, or know what hangs, have said so


@contextlib.contextmanager
def watching(stacks: Path, peers: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Within, the process ends with code 75 where nothing moves for longer than `NOW.patience`.

    stacks  the file that the stacks of all threads are written to
    peers   asked every few seconds; its text, if any, is why this process must end: what happened on another host
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            NOW.clock()
            activity.publish()
            why = peers()
            if not why and NOW.idle > NOW.patience * (SAVING if NOW.saving else 1) + LATER:
                why = f"nothing has moved for {NOW.idle:.0f} s (--config.run.watchdog_minutes)"
            if why and not done.is_set():
                with contextlib.suppress(OSError), stacks.open("w") as file:
                    faulthandler.dump_traceback(file, all_threads=True)
                what = f"{NOW.phase.name}, after step {NOW.step} of {NOW.of}"
                kept = "what was saved is whole, and the same command goes on from it"
                stop.now(activity.Lost.code, f"vlax: error: {what}: {why}; {kept}. All stacks are in {stacks}")

    NOW.clock()
    NOW.looking = True
    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        done.set()
        NOW.looking = False
