"""The rows of a prepared set: which picture each is about, and the shards that they are written to."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from etils import epath
from tqdm import tqdm

from vlax.data.batches.quarantine import Quarantine, place
from vlax.data.readers import item_batches, leaks, prepared_rows
from vlax.data.readers.item_table import NARROW, SCHEMA, Item
from vlax.errors import VlaxError
from vlax.rows import TASKS, Source, making
from vlax.storage import state
from vlax.storage.paths import sha256

PER_SHARD = 100_000  # rows of the source; what is left out of them leaves no gap
TEXT_ONLY, QUARANTINED = -1, -2


@dataclasses.dataclass(frozen=True)
class Gathered:
    """Which picture each row is about.

    picture  int64[rows]: number of the (first) picture, or TEXT_ONLY, or QUARANTINED
    opened   index of the first row about each picture
    names    of each picture, as the source has it
    digest   of the quarantined rows
    which    of each picture: which one of that row's it is
    others   numbers of the pictures after the first one, by row
    placed   whether a row says where its pictures stand
    """

    picture: np.ndarray
    opened: list[int]
    names: list[str]
    digest: str
    which: list[int]
    others: dict[int, tuple[int, ...]]
    placed: bool

    @property
    def several(self) -> bool:
        """Whether rows are kept with what only those of several pictures, or of pictures within the text, have."""
        return bool(self.others) or self.placed

    @functools.cached_property
    def folder(self) -> str:
        """What all names begin with: they are kept relative to it."""
        shared = os.path.commonprefix(self.names)  # noqa: RUF071  (of characters, cut at a slash: names need not be files)
        return shared[: shared.rfind("/") + 1]


def gather(source: Source, quarantine: Quarantine, progress: bool = False) -> Gathered:
    """Numbers the pictures in the order in which rows first name them. VlaxError for a list that is not about this source."""
    if len(quarantine) and not quarantine.count(source.name):
        raise VlaxError(
            f"--quarantine: the list has no row of {source.name}; give the one that the doctor wrote for this source"
        )
    picture, digest = np.full(len(source), TEXT_ONLY, np.int64), hashlib.sha256()
    opened, which, others, placed = list[int](), list[int](), dict[int, tuple[int, ...]](), False
    numbers: dict[tuple[str, str], int] = {}
    for index in tqdm(range(len(source)), desc="rows", unit="row", disable=not progress):
        with making(f"{source.name}:{place(index)}"):
            row = source[index]
        if quarantine.covers(source.name, row.id, index) is not None:
            picture[index] = QUARANTINED
            digest.update(f"{index}\n".encode())
        elif row.picture is not None:
            mine = []
            for at, one in enumerate(row.pictures):
                mine.append(numbers.setdefault((one.name, row.image_id), len(opened)))
                if mine[-1] == len(opened):
                    opened.append(index)
                    which.append(at)
            picture[index], placed = mine[0], placed or bool(row.places)
            if len(mine) > 1:
                others[index] = tuple(mine[1:])
    return Gathered(picture, opened, [name for name, _ in numbers], digest.hexdigest(), which, others, placed)


def write(
    source: Source, gathered: Gathered, reasons: Mapping[int, str], names: Sequence[str], out: epath.Path
) -> tuple[list[dict], np.ndarray, bool]:
    """Writes the rows whose picture is there; ({"file", "records", "bytes", "sha256"} of each shard, where their batches lie
    (`rows.npy`), whether there are captions among them).

    reasons  {number of a picture: why it cannot be opened}
    names    of every picture; pictures with the same bytes have one
    """
    count, facts, written, tasks = -(-len(source) // PER_SHARD), [], [], set[str]()
    schema = SCHEMA if gathered.several else NARROW

    called = getattr(source, "called", None)

    def also(index: int) -> tuple[str, ...]:
        return tuple(sorted({name for one in called(index) for name in leaks.names(one)})) if called else ()

    def items(begin: int) -> Iterator[Item]:
        for index, picture in enumerate(gathered.picture[begin : begin + PER_SHARD].tolist(), begin):
            others = gathered.others.get(index, ())
            if picture != QUARANTINED and reasons.keys().isdisjoint((picture, *others)):
                row = source[index]
                tasks.add(row.task)
                more = tuple((number, names[number]) for number in others)
                yield prepared_rows.item(row, picture, "" if picture == TEXT_ONLY else names[picture], also(index), more)

    for shard in range(count):
        file = out / f"rows-{shard:05d}-of-{count:05d}.arrow"
        with state.replacing(file) as part:
            written.append(item_batches.write(part, schema, item_batches.blocks(items(shard * PER_SHARD), schema)))
            entry = {"records": sum(rows for rows, *_ in written[-1]), "bytes": part.stat().st_size, "sha256": sha256(part)}
            facts.append({"file": file.name, **entry})
    return facts, item_batches.places(written), not tasks.isdisjoint(TASKS[:2])


def lost(source: Source, gathered: Gathered, reasons: Mapping[int, str]) -> list[str]:
    """The rows about pictures that cannot be opened, as lines of a quarantine list."""
    found = []
    bad = {*np.flatnonzero(np.isin(gathered.picture, list(reasons))).tolist()}
    bad |= {index for index, others in gathered.others.items() if gathered.picture[index] >= 0 and reasons.keys() & others}
    for index in sorted(bad):
        mine = (int(gathered.picture[index]), *gathered.others.get(index, ()))
        row, reason = source[index], next(reasons[number] for number in mine if number in reasons)
        entry = {"source": source.name, "row": row.id, "image": row.image_name, "reason": reason}
        found.append(state.as_json(entry, end="\n", ensure_ascii=False).decode())
    return found
