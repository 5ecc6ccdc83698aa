"""The rows of a prepared set: which picture each is about, and the shards that they are written to."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from tqdm import tqdm

from vlax.data.batches.quarantine import Quarantine, place
from vlax.data.readers import shards
from vlax.data.readers.prepared import line
from vlax.errors import VlaxError
from vlax.rows import Source, making
from vlax.storage import state

PER_SHARD = 100_000  # rows of the source; what is left out of them leaves no gap
OPTIONS = "group_size:64,zstd:3"  # rows are read from end to end
TEXT_ONLY, QUARANTINED = -1, -2


@dataclasses.dataclass(frozen=True)
class Gathered:
    """Which picture each row is about.

    picture  int64[rows]: number of the picture, or TEXT_ONLY, or QUARANTINED
    opened   index of the first row about each picture
    names    of each picture, as the source has it
    digest   of the quarantined rows
    """

    picture: np.ndarray
    opened: list[int]
    names: list[str]
    digest: str

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
    opened: list[int] = []
    numbers: dict[tuple[str, str], int] = {}
    for index in tqdm(range(len(source)), desc="rows", unit="row", disable=not progress):
        with making(f"{source.name}:{place(index)}"):
            row = source[index]
        if quarantine.covers(source.name, row.id, index) is not None:
            picture[index] = QUARANTINED
            digest.update(f"{index}\n".encode())
        elif row.picture is not None:
            picture[index] = numbers.setdefault((row.image_name, row.image_id), len(opened))
            if picture[index] == len(opened):
                opened.append(index)
    return Gathered(picture, opened, [name for name, _ in numbers], digest.hexdigest())


def write(source: Source, gathered: Gathered, reasons: Mapping[int, str], names: Sequence[str], out: epath.Path) -> list[dict]:
    """Writes the rows whose picture is there; {"file", "records", "bytes", "sha256"} of each shard.

    reasons  {number of a picture: why it cannot be opened}
    names    of every picture; pictures with the same bytes have one
    """
    count, facts = -(-len(source) // PER_SHARD), []
    for shard in range(count):
        part = gathered.picture[shard * PER_SHARD : (shard + 1) * PER_SHARD].tolist()
        lines = (
            line(source[index], picture, "" if picture == TEXT_ONLY else names[picture])
            for index, picture in enumerate(part, shard * PER_SHARD)
            if picture != QUARANTINED and picture not in reasons
        )
        facts.append(shards.write(out / f"rows-{shard:05d}-of-{count:05d}.array_record", lines, OPTIONS))
    return facts


def lost(source: Source, gathered: Gathered, reasons: Mapping[int, str]) -> list[str]:
    """The rows about pictures that cannot be opened, as lines of a quarantine list."""
    found = []
    for index in np.flatnonzero(np.isin(gathered.picture, list(reasons))):
        row, reason = source[int(index)], reasons[int(gathered.picture[index])]
        entry = {"source": source.name, "row": row.id, "image": row.image_name, "reason": reason}
        found.append(state.as_json(entry, end="\n", ensure_ascii=False).decode())
    return found
