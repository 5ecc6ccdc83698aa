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
from collections.abc import Iterable
from typing import NamedTuple

from vlax.errors import VlaxError
from vlax.rows import REFUSED, RowFault, as_fault


class Fault(NamedTuple):
    """What is wrong with one row. row: its id, or its place in the file where it has none ("annotations[7]")."""

    source: str
    row: str
    kind: str
    text: str


class Faults:
    """Decides about the faulty rows of a reader; see the module's docstring. One object may serve several sources in turn."""

    def __init__(self, quarantine=None, *, collect: bool = False, notes: bool = False):
        self._quarantine, self._collect, self.noted = quarantine, collect, notes
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
            fault = Fault(source, where.rpartition(": ")[2], getattr(error, "kind", REFUSED), str(error))
            if self.refuses(fault):
                raise error from raised.__cause__ if error is raised else raised
            self._count(fault)

    def refuses(self, fault: Fault) -> bool:
        """Whether a fault ends the reading."""
        return not (self._collect or self._covers(fault))

    def _covers(self, fault: Fault) -> bool:
        return bool(self._quarantine and self._quarantine.covers(fault.source, fault.row))

    def _count(self, fault: Fault) -> None:
        if self._covers(fault):
            self.passed_over[fault.source] += 1
        else:
            self.found.append(fault)

    def take(self, found: Iterable[Fault], notes: Iterable[Fault]) -> None:
        """What a `Recorder` has, as if it were met now: the same error, counts and lists."""
        for fault in found:
            if self.refuses(fault):
                raise VlaxError(fault.text) if fault.kind == REFUSED else RowFault(fault.text, fault.kind)
            self._count(fault)
        for fault in notes:
            self.note(*fault)

    def note(self, source: str, row: str, kind: str, text: str) -> None:
        """Says something about a row that the reader takes; only the doctor keeps it."""
        if self.noted:
            self.notes.append(Fault(source, row, kind, text))


class Recorder(Faults):
    """Has all faults and notes of a reading that another Faults does not end."""

    def __init__(self, judge: Faults):
        super().__init__(collect=True, notes=True)
        self._judge = judge

    def refuses(self, fault: Fault) -> bool:
        return self._judge.refuses(fault)


STRICT = Faults()  # it keeps nothing: every reader's default
