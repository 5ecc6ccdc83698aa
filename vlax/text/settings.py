"""What decides about ids beside a tokenizer and the name of a template set. It is settled when a run begins, and goes with it.

    {"version": 2, "date": "2026-01-31"}    in WORKDIR/STAGE/text.json and in the export's manifest, under "text"

Runs and exports without such a record are of version 1, and keep it: the model was trained on those ids.
"""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any

VERSION = 2
"""1: special tokens in users' texts are special; every span is tokenised by itself, so that SentencePiece begins an answer with
a second blank. 2: they are text; a span has the ids that it has in the whole text."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """version: as above; date: what chat templates take for today, "2026-01-31", or "" for the day an Encoder is made."""

    version: int = VERSION
    date: str = ""

    def dated(self) -> "Settings":
        return self if self.date else dataclasses.replace(self, date=datetime.date.today().isoformat())

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def as_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)


OLD = Settings(version=1)


def from_dict(values: Mapping[str, Any] | None) -> Settings:
    """The Settings of a record; those of version 1 where there is none."""
    return Settings(**values) if values else OLD
