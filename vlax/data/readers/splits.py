"""The split that rows say themselves to be of, in a column."""

import collections
from typing import Any

from vlax.data.readers import values
from vlax.data.readers.shards import same_split
from vlax.errors import VlaxError


class Splits:
    """Which rows are of the split that is asked for; "": of the only one that there may be then. Counts what was seen."""

    def __init__(self, asked: str):
        self.asked, self.seen = asked, collections.Counter[str]()

    def wanted(self, value: Any) -> bool:
        """Whether a row is wanted by what its column says; all are of which it says nothing."""
        said = values.text(value)
        if said:
            self.seen[said] += 1
        return not said or not self.asked or same_split(said, self.asked)

    def check(self, where: str) -> None:
        """When all rows were seen: VlaxError where they are of several splits and none is asked for, or none is of it."""
        there = ", ".join(f"{name} ({count:,} rows)" for name, count in self.seen.items())
        if not self.asked and len(self.seen) > 1:
            named = next((name for name in self.seen if same_split(name, "train")), next(iter(self.seen)))
            raise VlaxError(f"{where} holds the splits {there}; name one: split={named!r}")
        if self.asked and self.seen and not any(same_split(name, self.asked) for name in self.seen):
            raise VlaxError(f"{where} has no rows of the split {self.asked!r}; it holds {there}")
