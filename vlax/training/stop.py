"""Requests to stop, from outside the process."""

import dataclasses
import signal


class Interrupted(SystemExit):
    """SIGTERM or Ctrl-C was honoured: the state is on disk."""


@dataclasses.dataclass
class Stop:
    """Turns SIGTERM and the first Ctrl-C into a request that the loop honours between two steps."""

    requested: str = ""

    def __enter__(self) -> "Stop":
        self._previous = {s: signal.signal(s, self._handle) for s in (signal.SIGTERM, signal.SIGINT)}
        return self

    def _handle(self, number: int, frame: object) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C: at once
        self.requested = signal.Signals(number).name

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
