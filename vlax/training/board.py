"""TensorBoard's event file."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from etils import epath

from vlax.errors import spared
from vlax.images import as_rgb
from vlax.printing import printable
from vlax.training.listeners import Shown


@contextlib.contextmanager
def _without(module: str) -> Iterator[None]:
    """Whoever tries to import it within finds that it isn't there, unless it was imported before."""
    hidden = module not in sys.modules
    if hidden:
        sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[module]


with _without("torch"):  # tensorboardX takes it where it is installed, seconds and a hundred megabytes, for a class of arrays
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

_HEAD = "| row | asked | model | truth |\n|---|---|---|---|\n"


def _line(shown: Shown) -> str:
    """A row of a table in Markdown."""
    cells = (shown.id, shown.prompt, shown.prediction, "; ".join(dict.fromkeys(shown.references)))
    return f"| {' | '.join(' '.join(printable(cell).replace('|', '/').split()) for cell in cells)} |\n"


class Board:
    """TensorBoard's event file. It never stops a run: what cannot be written is a warning, once.

    tensorboardX's own writer has a thread, and waits for ever for one that met a full disk.
    """

    def __init__(self, directory: epath.Path, begin: int):
        """begin: the first step; TensorBoard forgets what the file has from there on."""
        self._file: EventsWriter | None = None
        with self._spared():
            directory.mkdir(parents=True, exist_ok=True)
            self._file = EventsWriter(str(directory / "events"))
            self._add(Event(step=begin, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, values: Mapping[str, float], shown: Sequence[Shown] = ()) -> None:
        """Scalars by name, what is no number left out; and rows with the model's words: pictures, a table of texts a set."""
        with self._spared():
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._add(Event(step=step, summary=summary.scalar(name, value)))
            for number, one in enumerate(shown):
                if one.image is not None:
                    pixels = np.asarray(as_rgb(one.image))
                    self._add(Event(step=step, summary=summary.image(f"samples/{one.set}/{number}", pixels, dataformats="HWC")))
            for name in dict.fromkeys(one.set for one in shown):
                rows = "".join(map(_line, (one for one in shown if one.set == name)))
                self._add(Event(step=step, summary=summary.text(f"samples/{name}", f"{_HEAD}{rows}")))
            if self._file is not None:
                self._file.flush()

    def _add(self, event: Event) -> None:
        event.wall_time = time.time()
        if self._file is not None:
            self._file.write_event(event)

    def close(self) -> None:
        with self._spared():
            if self._file is not None:
                self._file.close()

    @contextlib.contextmanager
    def _spared(self) -> Iterator[None]:
        with spared("TensorBoard's event file"):
            try:
                yield
            except Exception:
                self._file = None
                raise
