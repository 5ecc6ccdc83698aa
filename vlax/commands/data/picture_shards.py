"""The pictures of a prepared set: each decoded, resized and encoded in parallel, each shard written once.

Pictures are numbered in the order in which the rows first name them, and a shard holds a fixed range of numbers, so that its
bytes depend on the source and the settings alone: not on how many threads there are, nor on which was done first, nor on
interruptions. For each finished shard OUT/progress/SHARD.json says what became of its pictures: a resumed run takes them from
there instead of encoding them again.
"""

import collections
import dataclasses
import hashlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from etils import epath
from tqdm import tqdm

from vlax.commands.data.row_shards import Gathered
from vlax.data.readers import shards, stored
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.rows import Source
from vlax.storage import state
from vlax.storage.paths import sha256

MEASURED = 16  # every 16th picture is decoded again, to say how far off its pixels are
OPTIONS = "group_size:1,uncompressed"  # one record is read at a time; JPEG and PNG don't compress again


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How pictures are stored. quality is JPEG's."""

    preprocess: Preprocess
    codec: str
    quality: int

    def per_shard(self, megabytes: int) -> int:
        """Pictures in a shard of about so many MB."""
        return max(1, int(megabytes * 2**20 / (self.preprocess.size**2 * stored.BYTES_PER_PIXEL[self.codec])))


class Encoded(NamedTuple):
    """One picture as it is stored; a shard's progress file keeps all but the content.

    digest  of the content: pictures of the same bytes are stored once
    off     sum and number of the differences from the pixels before encoding, and the largest; zeros where none is measured
    reason  why it did not decode, and the rest is empty
    """

    content: bytes = b""
    digest: str = ""
    off: Sequence[int] = (0, 0, 0)
    reason: str = ""


class PictureShards:
    """Writes the picture shards of one set, those that are not there yet, and knows of each picture where it lies.

    places   [(shard, record)] by number, (-1, -1) where the picture did not decode
    reasons  {number: why it did not decode}
    files    {"file", "records", "bytes", "sha256"} of each shard
    off      as that of a picture, over all that are stored
    """

    def __init__(self, source: Source, gathered: Gathered, out: epath.Path, how: Encoding, per_shard: int):
        self._source, self._gathered, self._out, self._how, self._per_shard = source, gathered, out, how, per_shard
        self.places: list[tuple[int, int]] = []
        self.reasons: dict[int, str] = {}
        self.files: list[dict] = []
        self.off = 0, 0, 0
        self._stored: dict[str, tuple[int, int]] = {}  # digest -> place
        self._records: collections.Counter[int] = collections.Counter()  # by shard

    def write(self, workers: int, bar: tqdm) -> Iterator[None]:
        """Pauses after each shard, those that an earlier run finished included. bar: by pictures. One shard is in memory."""
        total = len(self._gathered.opened)
        count = -(-total // self._per_shard)
        with ThreadPoolExecutor(workers) as pool:
            for shard in range(count):
                numbers = range(shard * self._per_shard, min((shard + 1) * self._per_shard, total))
                name = f"images-{shard:05d}-of-{count:05d}"
                file, progress = self._out / f"{name}.array_record", self._out / "progress" / f"{name}.json"
                facts, kept, contents = _finished(file, progress), [], []
                pictures = (Encoded(b"", *values) for values in facts["pictures"]) if facts else pool.map(self._encode, numbers)
                for picture in pictures:
                    if self._add(shard, picture):
                        contents.append(picture.content)
                    kept.append(picture[1:])
                    bar.update()
                if not facts:
                    facts = shards.write(file, contents, OPTIONS)
                    state.write_json(progress, facts | {"pictures": kept})
                self.files.append({key: facts[key] for key in ("file", "records", "bytes", "sha256")})
                yield

    def _add(self, shard: int, picture: Encoded) -> bool:
        """Takes in the next picture; whether its content has to be stored: it decodes, and no picture before had its bytes."""
        if picture.reason:
            self.reasons[len(self.places)] = picture.reason
            self.places.append((-1, -1))
            return False
        new = picture.digest not in self._stored
        if new:
            self._stored[picture.digest] = shard, self._records[shard]
            self._records[shard] += 1
            off, total, most = picture.off
            self.off = self.off[0] + off, self.off[1] + total, max(self.off[2], most)
        self.places.append(self._stored[picture.digest])
        return new

    def _encode(self, number: int) -> Encoded:
        row = self._source[self._gathered.opened[number]]
        assert row.picture is not None, "only rows with a picture are gathered"
        try:
            image = row.picture.pixels(self._how.preprocess)
        except VlaxError as error:
            reason = str(error).removeprefix(f"row {row.id}: ").replace(self._gathered.folder, "")
            return Encoded(reason=re.sub(r" at 0x[0-9a-f]+", "", reason))  # Pillow names open files by their addresses
        content = stored.encode(image, self._how.codec, self._how.quality)
        off = 0, 0, 0
        if self._how.codec == "jpeg" and number % MEASURED == 0:
            apart = np.abs(stored.decode(content, "jpeg", image.shape[0]).astype(np.int16) - image)
            off = int(apart.sum()), apart.size, int(apart.max())
        return Encoded(content, hashlib.sha256(content).hexdigest()[:32], off)


def _finished(file: epath.Path, progress: epath.Path) -> dict | None:
    """The progress file of a shard; None where the shard has to be made: it is missing, or its bytes are not those."""
    if not progress.exists() or not file.exists():
        return None
    facts = state.read(progress, "delete it, and its shard is made again")
    return facts if file.stat().length == facts["bytes"] and sha256(file) == facts["sha256"] else None
