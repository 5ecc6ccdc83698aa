"""What decides about ids beside a tokenizer and the name of a template set. It is settled when a run begins, and goes with it.

    {"version": 2, "date": "2026-01-31"}    in WORKDIR/STAGE/text.json and in the export's manifest, under "text"

Runs and exports without such a record are of version 1, and keep it: the model was trained on those ids.
"""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any

from vlax.errors import VlaxError

Around = Mapping[str, str] | None
VERSION = 2
"""1: special tokens in users' texts are special; every span is tokenised by itself, so that SentencePiece begins an answer with
a second blank. 2: they are text; a span has the ids that it has in the whole text."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """What goes with a run.

    version  as above
    date     what chat templates take for today, "2026-01-31"; "" for the day an Encoder is made
    system   said before every prompt: the chat template's system message, else a first line
    prompts  a user's own, by task; None: those that the template set's name stands for
    chat     the chat template goes around them
    interleaved  pictures stand where the text has them (`places.py`), and not before it
    picture  what a whole model was trained to see around one, {"before", "after"}, and "token", which its chat template writes
             for it; pictures that a text does not place then stand in the first prompt, where that template has them, else
             before its words. None: nothing, and they stand before all text
    """

    version: int = VERSION
    date: str = ""
    system: str = ""
    prompts: Mapping[str, str] | None = None
    chat: bool = False
    interleaved: bool = False
    picture: Around = None

    def dated(self) -> "Settings":
        return self if self.date else dataclasses.replace(self, date=datetime.date.today().isoformat())

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it, without what is not used."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value or key in ("version", "date")}

    @property
    def own(self) -> tuple[Any, ...]:
        """What a user chose, and not vlax or the day."""
        return self.system, self.prompts, self.chat, self.interleaved, self.picture

    def as_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)


OLD = Settings(version=1)


def from_dict(values: Mapping[str, Any] | None) -> Settings:
    """The Settings of a record; those of version 1 where there is none."""
    known = {field.name for field in dataclasses.fields(Settings)}
    if values and (not values.keys() <= known or values.get("version", 0) > VERSION):
        raise VlaxError(f"this was made by a newer vlax, whose texts become ids in a way of version {values.get('version')}; "
                        "install that one")  # fmt: skip
    return Settings(**values) if values else OLD
