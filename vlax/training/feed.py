"""The batches of a run: built by other threads, waited for with open ears."""

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vlax.data.batches.pipeline import HostBatches, iterate
from vlax.process import activity
from vlax.process.activity import NOW, Lost

EARS = 0.2  # seconds between two looks at whether a stop is asked for


class Feed:
    """`next()` waits neither through a request to stop nor for ever: what a reader hangs in (a FIFO, a dead mount) hangs one of
    the threads that build batches, never the main one."""

    def __init__(self, batches: HostBatches, start: int, run: ConfigDict):
        self._batches, self._queue, self._closed = batches, queue.Queue[Any](1), threading.Event()
        self._longest = 0.0  # seconds that a batch was waited for
        threading.Thread(target=self._fill, args=(iterate(batches, start, run.threads, run.prefetch),), daemon=True).start()

    def _fill(self, iterator: Any) -> None:
        try:
            for batch in iterator:
                if not self._put(batch):
                    return
        except Exception as error:
            self._put(error)

    def _put(self, found: Any) -> bool:
        """False where nobody asks any more: a thread that waits for ever would keep its batches for as long."""
        while not self._closed.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(found, timeout=EARS)
                return True
        return False

    def close(self) -> None:
        """Ends the thread, unless it hangs in a batch."""
        self._closed.set()

    def next(self) -> dict[str, np.ndarray] | Exception | None:
        """The next batch; None where a stop was asked for; what building it raised, which is Lost where it never comes: within
        the watchdog's limit or twenty times the longest wait so far. Nothing compiles here that could take longer."""
        begun = NOW.clock()
        while True:
            try:
                found = self._queue.get(timeout=EARS)
            except queue.Empty:
                if NOW.requested:
                    return None
                waited = NOW.clock() - begun
                if NOW.limit and waited > max(NOW.limit, activity.SLOW * self._longest):
                    reading = ", ".join(self._batches.collate.reading()) or "no row"
                    return Lost(
                        f"no batch for {waited:.0f} s; the threads that build batches are at {reading}. Mend what hangs "
                        "there, or raise --config.run.watchdog_minutes"
                    )
                continue
            self._longest = max(self._longest, NOW.clock() - begun)
            batch: dict[str, np.ndarray] | Exception = found
            return batch


def all_of(batches: HostBatches, run: ConfigDict) -> Iterator[dict[str, np.ndarray]]:
    """All batches, as `Feed` waits for them; raises what building one raised."""
    feed = Feed(batches, 0, run)
    try:
        for _ in range(len(batches)):
            while (found := feed.next()) is None:
                activity.honour()  # as soon as the phase may be left
            if isinstance(found, Exception):
                raise found
            yield found
    finally:
        feed.close()
