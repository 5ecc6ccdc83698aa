"""The pictures of a prepared set: each decoded, resized and encoded in parallel, each shard written once.

Pictures are numbered in the order in which the rows first name them, and a shard holds a fixed range of numbers, so that its
bytes depend on the source and the settings alone: not on who encodes them (`runners.py`), nor on which was done first, nor on
interruptions. For each finished shard OUT/progress/SHARD.json says what became of its pictures: a resumed run takes them from
there instead of encoding them again.
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from tqdm import tqdm

from vlax.commands.data.row_shards import Gathered
from vlax.commands.data.runners import Runner
from vlax.data.readers import prints, stored
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.rows import Source
from vlax.storage import state
from vlax.storage.paths import sha256

MEASURED = 16  # every 16th picture is decoded again, to say how far off its pixels are
OPTIONS = "group_size:1,uncompressed"  # one record is read at a time; JPEG and PNG don't compress again
REMADE = "delete it, and its shard is made again"


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
    look    its print (`prints.py`) before it was resized, in hex; "" of one of one colour
    """

    content: bytes = b""
    digest: str = ""
    off: Sequence[int] = (0, 0, 0)
    reason: str = ""
    look: str = ""


@dataclasses.dataclass(frozen=True)
class Encode:
    """Makes a picture what is stored of it: the work that a runner does.

    opened  int64[pictures]: index of a row about each
    which   int64[pictures]: which of that row's pictures it is
    folder  what the names of all pictures begin with
    """

    source: Source
    opened: np.ndarray
    which: np.ndarray
    how: Encoding
    folder: str
    keeps = True

    def __call__(self, number: int) -> Encoded:
        row = self.source[int(self.opened[number])]
        picture = row.pictures[int(self.which[number])]
        try:
            opened = picture.open()
            image = dataclasses.replace(picture, decode=lambda: opened).pixels(self.how.preprocess)
            look = prints.look(opened)
        except VlaxError as error:
            reason = str(error).removeprefix(f"row {row.id}: ").replace(self.folder, "")
            return Encoded(reason=re.sub(r" at 0x[0-9a-f]+", "", reason))  # Pillow names open files by their addresses
        content = stored.encode(image, self.how.codec, self.how.quality)
        off = 0, 0, 0
        if self.how.codec == "jpeg" and number % MEASURED == 0:
            apart = np.abs(stored.decode(content, "jpeg", image.shape[0]).astype(np.int16) - image)
            off = int(apart.sum()), apart.size, int(apart.max())
        return Encoded(content, hashlib.sha256(content).hexdigest()[:32], off, look=look)

    def fault(self, encoded: Encoded) -> str:
        return encoded.reason


class PictureShards:
    """Writes the picture shards of one set, those that are not there yet, and knows of each picture where it lies.

    places   [(shard, record)] by number, (-1, -1) where the picture did not decode
    reasons  {number: why it did not decode}
    looks    what each looks like, by number, in hex
    files    {"file", "records", "bytes", "sha256"} of each shard
    off      as that of a picture, over all that are stored
    """

    def __init__(self, source: Source, gathered: Gathered, out: epath.Path, how: Encoding, per_shard: int):
        self._source, self._gathered, self._out, self._how, self._per_shard = source, gathered, out, how, per_shard
        self.places: list[tuple[int, int]] = []
        self.reasons: dict[int, str] = {}
        self.looks: list[str] = []
        self._facts: dict[int, dict] = {}  # by shard
        self._written: collections.deque[tuple[int, epath.Path, list[tuple], Callable[[], dict]]] = collections.deque()
        self.off = 0, 0, 0
        self._stored: dict[str, tuple[int, int]] = {}  # digest -> place
        self._records: collections.Counter[int] = collections.Counter()  # by shard

    @property
    def files(self) -> list[dict]:
        return [self._facts[shard] for shard in sorted(self._facts)]

    def write(self, runner: Runner, bar: tqdm) -> Iterator[None]:
        """Pauses after each shard, those that an earlier run finished included. bar: by pictures. One shard is in memory, and
        what the runner has begun of others."""
        total = len(self._gathered.opened)
        parts = [range(at, min(at + self._per_shard, total)) for at in range(0, total, self._per_shard)]
        files = [self._paths(f"images-{shard:05d}-of-{len(parts):05d}") for shard in range(len(parts))]
        there = [_finished(*paths) for paths in files]
        missing = itertools.chain.from_iterable(part for part, done in zip(parts, there, strict=True) if not done)
        opened, which = np.array(self._gathered.opened, np.int64), np.array(self._gathered.which, np.int64)
        encode = Encode(self._source, opened, which, self._how, self._gathered.folder)
        with contextlib.closing(runner.map(encode, missing)) as encoded, self._nothing_behind():
            for shard, (file, progress) in enumerate(files):
                if there[shard]:
                    facts = self._facts[shard] = state.read(progress, REMADE)
                    self._take(shard, (Encoded(b"", *values) for values in facts.pop("pictures")), bar)
                else:
                    contents, kept = self._take(shard, itertools.islice(encoded, len(parts[shard])), bar)
                    self._written.append((shard, progress, kept, runner.write(file, contents, OPTIONS)))
                    self._settle(runner.writes)
                try:
                    yield
                except GeneratorExit:  # what ends the run here ends it with all shards so far, whoever writes them
                    self._settle(0)
                    raise
        self._settle(0)

    @contextlib.contextmanager
    def _nothing_behind(self) -> Iterator[None]:
        """An error leaves when what others have begun to write is written: the next run finds no file that still changes."""
        try:
            yield
        except BaseException:
            while self._written:
                *_, wait = self._written.popleft()
                with contextlib.suppress(Exception):
                    wait()
            raise

    def _paths(self, name: str) -> tuple[epath.Path, epath.Path]:
        return self._out / f"{name}.array_record", self._out / "progress" / f"{name}.json"

    def _take(self, shard: int, pictures: Iterable[Encoded], bar: tqdm) -> tuple[list, list[tuple]]:
        """The contents that a shard stores, and what its progress file says of all of its pictures."""
        contents, kept = [], []
        for picture in pictures:
            if self._add(shard, picture):
                contents.append(picture.content)
            kept.append(picture[1:])
            bar.update()
        return contents, kept

    def _settle(self, most: int) -> None:
        """Waits until at most so many shards are still being written."""
        while len(self._written) > most:
            shard, progress, kept, wait = self._written.popleft()
            self._facts[shard] = wait()
            state.write_json(progress, self._facts[shard] | {"pictures": kept})

    def _add(self, shard: int, picture: Encoded) -> bool:
        """Takes in the next picture; whether its content has to be stored: it decodes, and no picture before had its bytes."""
        self.looks.append(picture.look)
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


def _finished(file: epath.Path, progress: epath.Path) -> bool:
    """Whether a shard need not be made: it is there, and its bytes are those that its progress file tells."""
    if not progress.exists() or not file.exists():
        return False
    facts = state.read(progress, REMADE)
    return file.stat().length == facts["bytes"] and sha256(file) == facts["sha256"]
