"""Rows that training must not see.

The doctor writes a list, one JSON object a line, and `--config.run.quarantine=FILE` makes training honour it:

    {"source": "coco-train", "row": "17#1", "image": "a.jpg", "reason": "truncated picture: ..."}

A row that is on the list becomes filler. So does any other row whose text or picture turns out bad, but these count against a
budget (`budget.py`).
"""

import collections
from collections.abc import Iterable, Sequence

from etils import epath

from vlax.errors import VlaxError
from vlax.storage.paths import read_file
from vlax.storage.state import load_line


class Quarantine:
    """Reasons by source and row, from lists of the doctor. Empty: nothing is quarantined."""

    def __init__(self, entries: Iterable[tuple[str, str, str]] = ()):
        self._reasons: dict[str, dict[str, str]] = collections.defaultdict(dict)
        for source, row, reason in entries:
            self._reasons[source].setdefault(row, reason)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._reasons.values())

    def covers(self, source: str, row: str, index: int | None = None) -> str | None:
        """Why a row is quarantined, or None. row: its id, or its place in the file for a reader; index: in the source."""
        rows = self._reasons.get(source)
        if rows is None:
            return None
        return rows.get(row) or (None if index is None else rows.get(place(index)))

    def count(self, source: str) -> int:
        """Entries about one source."""
        return len(self._reasons.get(source, ()))

    def about(self, names: Iterable[str]) -> str:
        """For the header of a stage that reads these sources: `"2 rows of coco-a"`, or that none is about them.

        A list may well be about the sources of another stage, but a user whose list does nothing should see it.
        """
        shown = ", ".join(f"{self.count(name):,} rows of {name}" for name in sorted(set(names)) if self.count(name))
        return shown or f"none of {len(self):,} rows: the list is about {', '.join(sorted(self._reasons))}"


def place(index: int) -> str:
    """What the list calls a row that cannot even be asked for its id: `place(7) == "[7]"`."""
    return f"[{index}]"


def read_quarantine(paths: str | Sequence[str]) -> Quarantine:
    """The lists of some files (several names in one string are parted by commas); VlaxError names file and line of a fault."""
    entries = []
    for path in paths.split(",") if isinstance(paths, str) else paths:
        if not str(path).strip():
            continue
        path = epath.Path(str(path).strip())
        if not path.exists():
            way_out = "write it with python -m vlax data doctor SOURCE --out=DIR"
            raise VlaxError(f"run.quarantine: there is no file {path}; {way_out}")
        for number, line in enumerate(read_file(path).decode("utf-8", "replace").split("\n"), 1):
            if line.strip():
                entries.append(_entry(f"{path}: line {number}", line))
    return Quarantine(entries)


def _entry(where: str, line: str) -> tuple[str, str, str]:
    shape = 'a quarantine list has one {"source", "row", "image", "reason"} a line, all of them texts'
    entry = load_line(where, line, shape)
    if not isinstance(entry, dict):
        raise VlaxError(f"{where} is a {type(entry).__name__}, not an object; {shape}")
    for key in ("source", "row", "reason"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise VlaxError(f'{where}: "{key}" is {entry.get(key)!r}, not a text; {shape}')
    return entry["source"], entry["row"], entry["reason"]
