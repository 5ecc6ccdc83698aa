"""What a container has of a record beside its fields: its pictures."""

import dataclasses

from vlax.data.readers.item_table import Place


@dataclasses.dataclass(frozen=True)
class Held:
    """The picture of a record whose container holds it. name: what it is called; id: what rows about it share; count: how many
    there are; called: what else the container calls it; names: of each of several, where they have their own."""

    name: str
    place: Place
    id: str = ""
    count: int = 1
    called: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
