"""The rows of a prepared set: which picture each is about, and the shards that they are written to."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from etils import epath
from tqdm import tqdm

from vlax.data.batches.quarantine import Quarantine
from vlax.data.readers import shards
from vlax.data.readers.prepared import line
from vlax.errors import VlaxError
from vlax.rows import Source

PER_SHARD = 100_000  # rows of the source; what is left out of them leaves no gap
OPTIONS = "group_size:64,zstd:3"  # rows are read from end to end


@dataclasses.dataclass
class Gathered:
    """Which picture each row is about.

    picture  int64[rows]: number of the picture, -1 without one, -2 quarantined
    opened   index of the first row about each picture
    digest   of the quarantined rows
    """

    picture: np.ndarray
    opened: list[int]
    digest: str


def gather(source: Source, quarantine: Quarantine, progress: bool = False) -> Gathered:
    """Numbers the pictures in the order in which rows first name them. VlaxError for a list that is not about this source."""
    if len(quarantine) and not quarantine.count(source.name):
        raise VlaxError(
            f"--quarantine: the list has no row of {source.name}; give the one that the doctor wrote for this source"
        )
    picture, opened, numbers, digest = np.full(len(source), -1, np.int64), [], {}, hashlib.sha256()
    for index in tqdm(range(len(source)), desc="rows", unit="row", disable=not progress):
        row = source[index]
        if quarantine.covers(source.name, row.id, index) is not None:
            picture[index] = -2
            digest.update(f"{index}\n".encode())
        elif row.open_image is not None:
            key = row.image_name, row.image_id
            if key not in numbers:
                numbers[key] = len(opened)
                opened.append(index)
            picture[index] = numbers[key]
    return Gathered(picture, opened, digest.hexdigest())


def write(source: Source, gathered: Gathered, reasons: Mapping[int, str], names: Sequence[str], out: epath.Path) -> list[dict]:
    """Writes the rows whose picture is there; {"file", "records", "bytes", "sha256"} of each shard.

    reasons  {number of a picture: why it cannot be opened}
    names    of every picture; pictures with the same bytes have one
    """
    count, facts = -(-len(source) // PER_SHARD), []
    for shard in range(count):
        part = range(shard * PER_SHARD, min((shard + 1) * PER_SHARD, len(source)))

        def lines(part=part) -> Iterator[bytes]:
            for index in part:
                picture = int(gathered.picture[index])
                if picture != -2 and picture not in reasons:
                    yield line(source[index], picture, names[picture] if picture >= 0 else "")

        facts.append(shards.write(out / f"rows-{shard:05d}-of-{count:05d}.array_record", lines(), OPTIONS))
    return facts


def lost(source: Source, gathered: Gathered, reasons: Mapping[int, str]) -> list[str]:
    """The rows about pictures that cannot be opened, as lines of a quarantine list."""
    found = []
    for index in np.flatnonzero(np.isin(gathered.picture, list(reasons))):
        row, reason = source[int(index)], reasons[int(gathered.picture[index])]
        entry = {"source": source.name, "row": row.id, "image": row.image_name, "reason": reason}
        found.append(json.dumps(entry, ensure_ascii=False) + "\n")
    return found
