"""Rows from a user's own files: what all formats share. Annotations are read and checked at once; pictures are opened only when
a row's `picture` is."""

import dataclasses
import functools
import hashlib
import io
import itertools
import json
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from etils import epath
from PIL import Image

from vlax.data.readers import item_batches, leaks, left, row_cache
from vlax.data.readers.faults import STRICT, Fault, Faults, Recorder
from vlax.data.readers.item_table import NOWHERE, SCHEMA, Item, ItemTable
from vlax.data.readers.pictures import decode_picture, open_picture, read_picture, resolved
from vlax.errors import VlaxError
from vlax.rows import Picture, Row, Turn
from vlax.storage import paths
from vlax.storage.paths import join, rooted


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a source is read, whatever its format.

    kind            of `kinds.KINDS`
    train           rows to train on: a caption each; otherwise a picture each, with all its references
    limit           the first rows alone, after the leak filter
    base            what relative paths are relative to; no part of the fingerprint: the same data elsewhere is the same data
    drop_image_ids  pictures (ids, or keys of `leaks.py`) whose rows are left out and counted in `dropped`
    faults          what becomes of rows that a reader cannot take
    """

    kind: str
    train: bool = True
    limit: int | None = None
    base: str = ""
    drop_image_ids: Collection[str] = ()
    faults: Faults = STRICT

    def name(self, *parts: str) -> str:
        """A source's name: `"karpathy-dataset_coco-train"`."""
        return "-".join([self.kind, *filter(None, parts)])

    def check_limit(self, name: str) -> None:
        if self.limit is not None and self.limit < 1:
            raise VlaxError(f"{name}: limit is {self.limit}; give at least 1, or None for all rows")


class Facts(NamedTuple):
    """What a reader knows of its source once it has read it.

    settings  what the rows depend on besides kind, train, task, images, limit and the rows left out: for the fingerprint
    digests   sha256 of what was read, in full or in digests, in hex: also for the fingerprint
    kept      what the source itself wants to know again: JSON
    numbered  ids may recur: then each row's place is added to its own
    """

    name: str
    task: str
    settings: dict
    digests: list[str]
    kept: dict = {}  # noqa: RUF012  (never changed)
    numbered: bool = False


def roots(base: str, images: epath.PathLike) -> tuple[str, ...]:
    """The folders that pictures must lie in: the source's own, and the data root where there is one."""
    return tuple(dict.fromkeys(resolved(str(folder)) for folder in (images, base) if str(folder)))


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def open_inline(content: bytes, name: str, row_id: str) -> Image.Image:
    return decode_picture(io.BytesIO(content), name, row_id)


class FileSource(left.Leaving):
    """The half of the file sources that does not know the format (the Source protocol of `rows.py`).

    images  the folder of the pictures, below `base`
    files   what is read
    given   how, besides `reading`: what else the subclass was told

    `pictured` of the `read_rows` have a picture.

    A subclass knows how to `read`. Its constructor sets what it needs for that, and then calls this one.
    """

    def __init__(self, reading: Reading, images: str, files: Iterable[epath.PathLike], given: dict):
        self._images = join(reading.base, images)
        self._roots = roots(reading.base, self._images)
        key = row_cache.key(files, reading.kind, reading.train, reading.base, given)
        blocks, known = row_cache.kept(key, SCHEMA, functools.partial(self._made, reading.faults), reading.faults.noted)
        reading.faults.take(itertools.starmap(Fault, known["found"]), itertools.starmap(Fault, known["aside"] or ()))
        facts, self._table, self._numbered = Facts(**known["facts"]), ItemTable(blocks), known["numbered"]
        reading.check_limit(facts.name)
        self.name, self.task, self.kept = facts.name, facts.task, facts.kept
        self.pictured, self.read_rows = int(known["pictured"]), len(self._table)
        found = [Fault(*one) for one in known["found"]]  # where no row is left, the reason lies in the rows
        self._way_out = "mend the file" + (f". The first row that was refused: {found[0].text}" if found else "")
        place = images.rstrip("/").split("/")[-1] if rooted(images) else images
        self._own = {"kind": reading.kind, "train": reading.train, "task": facts.task, "images": place, "limit": reading.limit}
        self._facts, self.total, self._limit = facts, len(self._table), reading.limit
        self._key = key and f"{key} {self._images}"
        self._leave(self.about(frozenset(map(str, reading.drop_image_ids))))

    def about(self, drop: frozenset[str]) -> Sequence[int]:
        return left.gone(drop, self._key, lambda: map(self._keys_of, range(self.total)), self._keys_of)

    def _fingerprinted(self, gone: Sequence[int]) -> str:
        settings = {**self._facts.settings, **self._own, "drop": sorted(self._item(at).id for at in gone)}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for content in self._facts.digests:
            digest.update(bytes.fromhex(content))
        return digest.hexdigest()

    def _prints_key(self) -> str:
        own = {**self._own, "limit": None, "images": paths.absolute(self._images)}
        return row_cache.derived("prints", self._facts.settings, self._facts.digests, own)

    def read(self, faults: Faults) -> Generator[Item, None, Facts]:
        """Yields the items of all rows that can be taken, one by one, and returns what is then known.

        faults  around what is done with one row (`Faults.row`); not the reading's own: what is found is kept with the rows
        """
        raise NotImplementedError

    def _made(self, faults: Faults) -> row_cache.Made:
        """Record batches of all rows; returns what else is kept of them."""
        recorder, facts, ids, pictured = Recorder(faults), list[Facts](), [], 0
        try:
            for block in item_batches.blocks(_noted(self.read(recorder), facts)):
                ids.append(block.column("id"))
                pictured += pc.sum(pc.greater(pc.binary_length(block.column("file_name")), 0)).as_py() or 0
                yield block
        except Exception:
            faults.take(recorder.found, recorder.notes)
            raise
        recurs = facts[0].numbered and pc.count_distinct(pa.chunked_array(ids, pa.string())).as_py() < sum(map(len, ids))
        kept = {"facts": facts[0]._asdict(), "numbered": recurs, "pictured": pictured}
        return {**kept, "found": recorder.found, "aside": recorder.notes}

    def __len__(self) -> int:
        return len(self._left)

    def _item(self, at: int) -> Item:
        item = self._table[at]
        return item._replace(id=f"{item.id}@{at}") if self._numbered else item

    def items(self) -> Iterator[Item]:
        """Of every row in order."""
        return map(self._item, self._left)

    def _keys_of(self, at: int) -> set[str]:
        return self._keys(self._item(at))

    def _keys(self, item: Item) -> set[str]:
        own = {item.image_id, item.file_name, *item.more} if item.more else {item.image_id}
        return own.union(*(leaks.keys(*called) for called in self._called(item)))

    def _called(self, item: Item) -> list[leaks.Called]:
        """Of each of a row's pictures, at least one: what it is called. The row's other names may be any picture's."""
        pictures, space = self.pictures_of(item), self.kept.get("space", "")
        files = (item.file_name, *item.more)
        each = [(picture.path, picture.name) for picture in pictures] or [("", "")]
        return [
            leaks.Called(path, (file, item.image_id, *item.also), place, space, item.id)
            for file, (path, place) in zip(files, each, strict=True)
        ]

    def pictures(self) -> Iterator[leaks.Called]:
        """Of every row, what its pictures are called: what the leak filter goes by."""
        return itertools.chain.from_iterable(map(self._called, self.items()))

    def called(self, index: int) -> list[leaks.Called]:
        """What the pictures of a row are called."""
        return self._called(self._item(self._left[index]))

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, no row {index}")
        item = self._item(self._left[index])
        turns = (Turn(item.question, item.answer), *item.later)
        task = item.task or self.task
        first, *others = self.pictures_of(item) or (None,)
        row = Row(item.id, item.image_id, task, turns, first, item.references, item.answer_type)
        if not item.stands and not others:
            return row
        places = tuple((int(turn), int(at)) for turn, at in (one.split(":") for one in item.stands))
        return dataclasses.replace(row, others=tuple(others), places=places)

    def contained(self, item: Item, number: int = 0) -> Picture:
        """A picture at an item's place in this source's container. number: which of those that lie there."""
        raise NotImplementedError

    def pictures_of(self, item: Item) -> tuple[Picture, ...]:
        """In a container, files below `images`, or what stands in the row; none for a row of text."""
        if item.place != NOWHERE:
            return tuple(self.contained(item, number) for number in range(1 + len(item.more)))
        if not item.file_name:
            return ()
        files, insets = (item.file_name, *item.more), (item.inline, *(item.insets or [b""] * len(item.more)))
        return tuple(self._of_file(item, number, *each) for number, each in enumerate(zip(files, insets, strict=True)))

    def _of_file(self, item: Item, number: int, file_name: str, inline: bytes) -> Picture:
        if inline:
            which = f"picture {number + 1}" if number else "the picture"
            name = f"{self.name}: {which} in row {item.id}"
            return Picture(name, functools.partial(open_inline, inline, name, item.id))
        # Strings: a path object a row would take longer than reading the file.
        path = file_name if rooted(file_name) else f"{self._images}/{file_name}"
        place = path, item.id, self._roots
        return Picture(path, functools.partial(open_picture, *place), path, functools.partial(read_picture, *place))


def _noted(read: Generator[Item, None, Facts], found: list[Facts]) -> Generator[Item, None, None]:
    """The items of a reader; `found` gets what it returns."""
    found.append((yield from read))
