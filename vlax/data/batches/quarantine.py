"""Rows that training must not see, and how many bad ones it puts up with.

The doctor writes a list, one JSON object a line, and `--config.run.quarantine=FILE` makes training honour it:

    {"source": "coco-train", "row": "17#1", "image": "a.jpg", "reason": "truncated picture: ..."}

A row that is on the list becomes filler. So does any other row whose text or picture turns out bad, but these count against a
budget, and one too many ends the run. Rows that are too long for stage.text_length are a matter of policy (stage.overlong), not
of damage: they are counted apart.
"""

import collections
import math
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence

from etils import epath

from vlax.data.batches.mixture import Mixture
from vlax.data.readers.faults import Fault
from vlax.data.readers.reading import load_json
from vlax.errors import VlaxError
from vlax.storage.paths import read_file

NAMED, SHOWN = 10, 160  # rows that an error names, and characters of the reason of each
KINDS = ("bad", "quarantined", "dropped", "cut")


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
        for number, line in enumerate(_lines(path), 1):
            if line.strip():
                entries.append(_entry(f"{path}: line {number}", line))
    return Quarantine(entries)


def _lines(path: epath.Path) -> list[str]:
    if not path.exists():
        raise VlaxError(f"run.quarantine: there is no file {path}; write it with python -m vlax.data doctor SOURCE --out=DIR")
    return read_file(path).decode("utf-8", "replace").split("\n")


def _entry(where: str, line: str) -> tuple[str, str, str]:
    shape = 'a quarantine list has one {"source", "row", "image", "reason"} a line, all of them texts'
    entry = load_json(where, line, shape)
    if not isinstance(entry, dict):
        raise VlaxError(f"{where} is a {type(entry).__name__}, not an object; {shape}")
    for key in ("source", "row", "reason"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise VlaxError(f'{where}: "{key}" is {entry.get(key)!r}, not a text; {shape}')
    return entry["source"], entry["row"], entry["reason"]


def planned_rows(mixture: Mixture, positions: int) -> int:
    """Distinct rows that a run over so many positions of the order meets.

    Of each source: the rows that it contributes to the epochs, and no more than it has. Known before the first batch, and so
    steadier to take a share of than the rows met so far.
    """
    epochs = positions / mixture.epoch_size
    counts = zip(mixture.sources, mixture.counts, strict=True)
    return sum(min(len(source), math.ceil(count * epochs)) for source, count in counts)


class DropBudget:
    """Counts what one host leaves out of training, by distinct row, and stops the run when too many rows are bad.

    share   stage.drop_budget: of the rows that the run will meet, how many may be bad; 0: none. A positive share allows one.
    rows    the distinct rows that the run will meet (`planned_rows`). Nothing is communicated: a host counts the rows that it
            meets itself, and so none stops earlier than a single one would
    doctor  the command that a stopped run tells its user to type

    Thread-safe. counts: {one of KINDS: rows}; first: the first names, with reasons.
    """

    def __init__(self, share: float, rows: float, doctor: str = "python -m vlax.data doctor SOURCE --out=DIR"):
        if not 0 <= share < 1:
            raise VlaxError(f"stage.drop_budget={share} is not a share of the rows; give 0 to below 1, such as 0.001")
        self.share, self.rows, self.doctor = share, rows, doctor
        self.allowed = math.ceil(share * rows)
        self.counts: collections.Counter[str] = collections.Counter()
        self.quarantined_by_source: collections.Counter[str] = collections.Counter()
        self.first: list[str] = []
        self._bad: list[str] = []
        self._seen: set[Hashable] = set()
        self._long: list[str] = []
        self._lock = threading.Lock()

    def expect(self, rows: float, refused: Sequence[Fault] = (), host: int = 0, hosts: int = 1) -> None:
        """Says how many distinct rows will be met, and counts those that readers refused (`Faults.found`), or one host's part
        of them; VlaxError where these alone are too many."""
        self.rows, self.allowed = rows, math.ceil(self.share * rows)
        self.all_bad(((f.source, f.row), f.text, f"{f.source}:{f.row}") for f in refused[host::hosts])

    def bad(self, row: Hashable, reason: str, name: str) -> None:
        """A row whose text or picture is bad, and not quarantined; VlaxError when it is one too many.

        row: what makes it distinct (the global row id; what a reader refused has none: its (source, place)). The same row in
        a later epoch counts once.
        """
        self.all_bad([(row, reason, name)])

    def all_bad(self, rows: Iterable[tuple[Hashable, str, str]]) -> None:
        """As `bad`, for rows that are known together: the error names the first ten of them."""
        with self._lock:
            for row, reason, name in rows:
                if self._add("bad", row, f"{name} ({reason})") and len(self._bad) < NAMED:
                    self._bad.append(f"{name}: {reason if len(reason) <= SHOWN else reason[:SHOWN] + '...'}")
            if self.counts["bad"] > self.allowed:
                raise VlaxError(self._message())

    def quarantined(self, row: Hashable, source: str) -> None:
        """A row that the quarantine list covers: counted, outside the budget."""
        with self._lock:
            if self._add("quarantined", row, ""):
                self.quarantined_by_source[source] += 1

    def overlong(self, row: Hashable, kind: str, reason: str, name: Callable[[], str]) -> None:
        """A row that stage.overlong drops or cuts (`kind`: "dropped", "cut"): counted, outside the budget. name: asked only
        where it is kept."""
        with self._lock:
            if row not in self._seen:
                self._add(kind, row, f"{name()} ({reason})" if len(self._long) < NAMED else "")
                if len(self._long) < NAMED:
                    self._long.append(f"{name()} ({reason})")

    def _add(self, kind: str, row: Hashable, name: str) -> bool:
        """Counts a row unless it was counted before."""
        if row in self._seen:
            return False
        self._seen.add(row)
        self.counts[kind] += 1
        if name and len(self.first) < NAMED:
            self.first.append(name)
        return True

    def summary(self) -> dict[str, int]:
        """For the metrics: distinct rows left out so far, `{"left_out/bad": 2, "left_out/quarantined": 0, ...}`."""
        with self._lock:
            return {f"left_out/{kind}": self.counts[kind] for kind in KINDS}

    def lines(self) -> list[str]:
        """For the end of a run: one line a count that is not zero."""
        with self._lock:
            by_source = ", ".join(f"{count} of {source}" for source, count in sorted(self.quarantined_by_source.items()))
            shown = {
                "quarantined": f"quarantined {self.counts['quarantined']:,} rows: {by_source}",
                "bad": f"left out  {self.counts['bad']:,} bad rows of {self.allowed:,} allowed: {'; '.join(self._bad)}",
                "dropped": f"left out  {self.counts['dropped']:,} rows that are too long: {'; '.join(self._long[:3])}",
                "cut": f"cut       {self.counts['cut']:,} rows that are too long: {'; '.join(self._long[:3])}",
            }
            return [line for kind, line in shown.items() if self.counts[kind]]

    def _message(self) -> str:
        return (
            f"{self.counts['bad']} bad rows, and the drop budget allows {self.allowed} (stage.drop_budget={self.share:g} of "
            f"{self.rows:,.0f} rows): {'; '.join(self._bad)}. Run {self.doctor} and pass its list with "
            "--config.run.quarantine=DIR/quarantine.jsonl, or raise --config.stage.drop_budget"
        )
