"""One shard of prepared pictures after the other: each decoded, resized and encoded in parallel, each shard written once.

Pictures are numbered in the order in which the rows first name them, and a shard holds a fixed range of numbers, so that its
bytes depend on the source and the settings alone: not on how many threads there are, nor on which was done first, nor on
interruptions. Beside each finished shard lies OUT/progress/SHARD.json: it is what a resumed run goes by.
"""

import collections
import dataclasses
import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from etils import epath

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


@dataclasses.dataclass
class Done:
    """What is known of the pictures of all finished shards.

    places   int32[pictures, 2]: shard and record; -1 where the picture did not decode
    reasons  {picture: why it did not decode}
    files    {"file", "records", "bytes", "sha256"} of each shard
    off      sum and number of the measured differences, and the largest
    """

    places: np.ndarray
    reasons: dict[int, str] = dataclasses.field(default_factory=dict)
    files: list[dict] = dataclasses.field(default_factory=list)
    first: dict[str, int] = dataclasses.field(default_factory=dict)  # digest of a stored picture -> its number
    off: list[int] = dataclasses.field(default_factory=lambda: [0, 0, 0])

    def add(self, shard: int, begin: int, facts: dict) -> None:
        """Takes in the progress file of one shard."""
        self.files.append({key: facts[key] for key in ("file", "records", "bytes", "sha256")})
        for number, place in enumerate(facts["places"], begin):
            if place >= 0:
                self.places[number] = shard, place
            elif place < -1:  # an earlier shard has these bytes: -2 - the number of their picture
                self.places[number] = self.places[-place - 2]
        self.first |= {digest: number for digest, number in facts["digests"]}
        self.reasons |= {number: reason for number, reason in facts["dropped"]}
        self.off = [self.off[0] + facts["off"][0], self.off[1] + facts["off"][1], max(self.off[2], facts["off"][2])]


class PictureShards:
    """Writes the picture shards of one set, those that are not there yet.

    opened[n]  the index of a row about picture n
    called     what reasons lose of file names: the folder that all pictures share
    """

    def __init__(
        self, source: Source, opened: list[int], called: str, out: epath.Path, how: Encoding, per_shard: int, plan: str
    ):
        self.source, self.opened, self.called, self.out, self.how, self.plan = source, opened, called, out, how, plan
        self.per_shard = per_shard
        self.count = -(-len(opened) // per_shard)

    def write(self, workers: int, bar) -> Iterator[Done]:
        """Yields what is known after each shard, the finished ones of an earlier run included. bar: of tqdm, by pictures."""
        done = Done(np.full((len(self.opened), 2), -1, np.int32))
        with ThreadPoolExecutor(workers) as pool:
            for shard in range(self.count):
                begin, end = shard * self.per_shard, min((shard + 1) * self.per_shard, len(self.opened))
                file = self.out / f"images-{shard:05d}-of-{self.count:05d}.array_record"
                facts = self._finished(file)
                if facts is None:
                    facts = self._make(file, begin, end, done.first, pool, 4 * workers, bar)
                else:
                    bar.update(end - begin)
                done.add(shard, begin, facts)
                yield done

    def _finished(self, file: epath.Path) -> dict | None:
        """The progress file of a shard, None where the shard has to be made: it is missing, or its bytes are not those."""
        progress = self.out / "progress" / f"{file.name}.json"
        if not progress.exists() or not file.exists():
            return None
        facts = state.read(progress, "delete it, and its shard is made again")
        whole = facts["plan"] == self.plan and file.stat().length == facts["bytes"] and sha256(file) == facts["sha256"]
        return facts if whole else None

    def _make(self, file: epath.Path, begin: int, end: int, first: dict[str, int], pool, ahead: int, bar) -> dict:
        places, digests, dropped, off = [], {}, [], [0, 0, 0]

        def contents() -> Iterator[bytes]:
            results = _in_order(self._one, range(begin, end), pool, ahead)
            for number, (content, digest, difference, reason) in enumerate(results, begin):
                bar.update()
                if reason:
                    dropped.append([number, reason])
                    places.append(-1)
                elif digest in first:
                    places.append(-first[digest] - 2)
                elif digest in digests:
                    places.append(places[digests[digest] - begin])
                else:
                    digests[digest] = number
                    places.append(len(digests) - 1)
                    off[:] = off[0] + difference[0], off[1] + difference[1], max(off[2], difference[2])
                    yield content

        facts = shards.write(file, contents(), OPTIONS)
        facts |= {"plan": self.plan, "places": places, "digests": list(digests.items()), "dropped": dropped, "off": off}
        state.write_json(self.out / "progress" / f"{file.name}.json", facts)
        return facts

    def _one(self, number: int) -> tuple[bytes, str, tuple[int, int, int], str]:
        """(the stored bytes, their digest, (sum, number, largest) of the differences, why there are none) of a picture."""
        row = self.source[self.opened[number]]
        try:
            image = stored.pixels(row.open_image, self.how.preprocess)
        except VlaxError as error:
            reason = str(error).removeprefix(f"row {row.id}: ").replace(self.called, "")
            return b"", "", (0, 0, 0), re.sub(r" at 0x[0-9a-f]+", "", reason)  # Pillow names open files by their addresses
        content = stored.encode(image, self.how.codec, self.how.quality)
        off = 0, 0, 0
        if self.how.codec == "jpeg" and number % MEASURED == 0:
            apart = np.abs(stored.decode(content, "jpeg", image.shape[0]).astype(np.int16) - image)
            off = int(apart.sum()), apart.size, int(apart.max())
        return content, hashlib.sha256(content).hexdigest()[:32], off, ""


def _in_order(work, numbers, pool: ThreadPoolExecutor, ahead: int) -> Iterator:
    """work(number) of each in order, by threads that are at most `ahead` results ahead: memory stays bounded."""
    waiting: collections.deque = collections.deque()
    for number in numbers:
        waiting.append(pool.submit(work, number))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
