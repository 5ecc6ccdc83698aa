"""Rows that a reader cannot take: raised, passed over or collected, as whoever opens the source wants it.

A reader wraps what it does with each row, and says as always what is wrong with it:

    for at, row in enumerate(rows(path, data, "annotations", SHAPE)):
        where = f"{path}: annotations[{at}]"
        with faults.row(name, where):
            ...                                     # field(where, row, ...), raise RowFault(f"{where} ...", "unlisted image")

    Faults()                            a faulty row ends the reading with its error, as if `with` were not there
    Faults(quarantine)                  ... unless the list has ("coco-train", "annotations[7]"): then it is passed over
    Faults(quarantine, collect=True)    others are passed over too, and named in `found` (training: they count as bad rows)
    Faults(collect=True, notes=True)    the doctor's: `notes` says what is odd about rows that a reader takes all the same

Rows that are passed over keep their number (COCO's "17#1" stays "17#1" without "17#0"), and a file gives the same rows whether
its faulty ones are quarantined or collected.
"""

import collections
import contextlib
from typing import NamedTuple

from vlax.rows import REFUSED, as_fault


class Fault(NamedTuple):
    """What is wrong with one row. row: its id, or its place in the file where it has none ("annotations[7]")."""

    source: str
    row: str
    kind: str
    text: str


class Faults:
    """Decides about the faulty rows of a reader; see the module's docstring. One object may serve several sources in turn."""

    def __init__(self, quarantine=None, *, collect: bool = False, notes: bool = False):
        self._quarantine, self._collect, self._notes = quarantine, collect, notes
        self.found: list[Fault] = []
        self.notes: list[Fault] = []
        self.passed_over: collections.Counter[str] = collections.Counter()  # quarantined rows by source

    @contextlib.contextmanager
    def row(self, source: str, where: str):
        """Around all that a reader does with one row. where: what its errors begin with ("DIR/a.json: annotations[7]")."""
        try:
            yield
        except Exception as raised:
            error = as_fault(where, raised)
            place = where.rpartition(": ")[2]
            if self._quarantine and self._quarantine.covers(source, place):
                self.passed_over[source] += 1
            elif self._collect:
                self.found.append(Fault(source, place, getattr(error, "kind", REFUSED), str(error)))
            else:
                raise error from raised.__cause__ if error is raised else raised

    def note(self, source: str, row: str, kind: str, text: str) -> None:
        """Says something about a row that the reader takes; only the doctor keeps it."""
        if self._notes:
            self.notes.append(Fault(source, row, kind, text))


STRICT = Faults()  # it keeps nothing: every reader's default
