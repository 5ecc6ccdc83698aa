"""How many bad rows training puts up with: a counter of what it leaves out, which stops the run at one too many.

    budget = DropBudget(0.001, rows=10_000)                                  10 bad rows are allowed
    budget.bad(17, "a.jpg: the picture does not decode", "coco:17#0")        the eleventh distinct one raises VlaxError

Quarantined rows (`quarantine.py`) and rows that are too long for stage.text_length are counted beside them, outside the budget:
they are a matter of policy (stage.overlong), not of damage.
"""

import collections
import functools
import math
import threading
from collections.abc import Callable, Hashable, Sequence

from vlax.data.batches.mixture import Mixture
from vlax.data.readers.faults import Fault
from vlax.errors import VlaxError
from vlax.printing import printable

NAMED, SHOWN = 10, 160  # rows that are named of each kind, and characters of the reason of a bad one
KINDS = ("bad", "quarantined", "dropped", "cut")


def planned_rows(mixture: Mixture, positions: int) -> int:
    """Distinct rows that a run over so many positions of the order meets.

    Of each source: the rows that it contributes to the epochs, and no more than it has. Known before the first batch, and so
    steadier to take a share of than the rows met so far.
    """
    epochs = positions / mixture.epoch_size
    counts = zip(mixture.sources, mixture.counts, strict=True)
    return sum(min(len(source), math.ceil(count * epochs)) for source, count in counts)


class DropBudget:
    """Counts what is left out of training, by distinct row, and stops the run when too many rows are bad.

    share    stage.drop_budget: of the rows that the run will meet, how many may be bad; 0: none. A positive share allows one
    rows     the distinct rows that the run will meet (`planned_rows`), over all hosts: what one host finds with `news`, the
             others learn with `heard`, so that all of them stop where a single one would
    refused  bad rows that are known already: what a reader refused (`Faults.found`)

    Thread-safe. counts: {one of KINDS: rows}; named: the first of each kind, with reasons. VlaxError for a share that is none,
    and where the refused rows alone are too many.
    """

    def __init__(self, share: float, rows: float, refused: Sequence[Fault] = ()):
        if not 0 <= share < 1:
            raise VlaxError(f"stage.drop_budget={share} is not a share of the rows; give 0 to below 1, such as 0.001")
        self.share, self.rows = share, rows
        self.allowed = math.ceil(share * rows)
        self.counts: collections.Counter[str] = collections.Counter()
        self.quarantined_by_source: collections.Counter[str] = collections.Counter()
        self.named: dict[str, list[str]] = {kind: [] for kind in KINDS}
        self._seen: set[Hashable] = set()
        self._news: list[int] = []
        self._told: set[int] = set()  # bad rows that all hosts know of
        self._lock = threading.Lock()
        for fault in refused:
            self._add("bad", (fault.source, fault.row), functools.partial(_shown, f"{fault.source}:{fault.row}", fault.text))
        self._refused = self.counts["bad"]
        self._stop(self._refused)

    def bad(self, row: int, reason: str, name: str) -> None:
        """A row whose text or picture is bad, and not quarantined; VlaxError when it is one too many.

        row: its global id. The same row in a later epoch counts once; what a reader refused goes by (source, place).
        """
        with self._lock:
            if self._add("bad", row, lambda: _shown(name, reason)):
                self._news.append(row)
            self._stop(self.counts["bad"])

    def news(self) -> list[int]:
        """The bad rows that were met here since the last call, for the other hosts."""
        with self._lock:
            found, self._news = self._news, []
            return found

    def heard(self, rows: Sequence[int]) -> None:
        """What `news` gave on all hosts, this one too; VlaxError when there are too many of all that was heard. What this host
        has met since its last news is not counted: the others don't know it yet, and all must decide alike."""
        with self._lock:
            for row in rows:
                self._add("bad", row, lambda: "a row that another host names")
            self._told.update(rows)  # a row may be bad there and too long here, where it was counted as that
            self._stop(self._refused + len(self._told))

    def quarantined(self, row: Hashable, source: str) -> None:
        """A row that the quarantine list covers: counted, outside the budget."""
        with self._lock:
            self.quarantined_by_source[source] += self._add("quarantined", row, lambda: source)

    def overlong(self, row: Hashable, kind: str, reason: str, name: Callable[[], str]) -> None:
        """A row that stage.overlong drops or cuts (`kind`: "dropped", "cut"): counted, outside the budget. name: asked only
        where it is kept."""
        with self._lock:
            self._add(kind, row, lambda: f"{name()} ({reason})")

    def _add(self, kind: str, row: Hashable, named: Callable[[], str]) -> bool:
        """Counts a row unless it was counted before, and says whether it did."""
        if row in self._seen:
            return False
        self._seen.add(row)
        self.counts[kind] += 1
        if len(self.named[kind]) < NAMED:
            self.named[kind].append(named())
        return True

    def summary(self) -> dict[str, int]:
        """For the metrics: distinct rows left out so far, `{"left_out/bad": 2, "left_out/quarantined": 0, ...}`."""
        with self._lock:
            return {f"left_out/{kind}": self.counts[kind] for kind in KINDS}

    def lines(self) -> list[str]:
        """For the end of a run: one line a count that is not zero."""
        with self._lock:
            counts = self.counts
            by_source = ", ".join(f"{count} of {source}" for source, count in sorted(self.quarantined_by_source.items()))
            first = {kind: "; ".join(named[: NAMED if kind == "bad" else 3]) for kind, named in self.named.items()}
            shown = {
                "quarantined": f"quarantined {counts['quarantined']:,} rows: {by_source}",
                "bad": f"left out  {counts['bad']:,} bad rows of {self.allowed:,} allowed: {first['bad']}",
                "dropped": f"left out  {counts['dropped']:,} rows that are too long: {first['dropped']}",
                "cut": f"cut       {counts['cut']:,} rows that are too long: {first['cut']}",
            }
            return [line for kind, line in shown.items() if counts[kind]]

    def _stop(self, bad: int) -> None:
        """VlaxError where so many bad rows are too many."""
        if bad > self.allowed:
            raise VlaxError(
                f"{bad} bad rows, and the drop budget allows {self.allowed} (stage.drop_budget={self.share:g} "
                f"of {self.rows:,.0f} rows): {'; '.join(self.named['bad'])}. Run python -m vlax data doctor SOURCE --out=DIR "
                "and pass its list with --config.run.quarantine=DIR/quarantine.jsonl, or raise --config.stage.drop_budget"
            )


def _shown(name: str, reason: str) -> str:
    return printable(f"{name}: {reason if len(reason) <= SHOWN else reason[:SHOWN] + '...'}")
