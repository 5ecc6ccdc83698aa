"""Rows from a user's own files: what all formats share. Annotations are read and checked at once; pictures are opened only when
a row's `picture` is."""

import dataclasses
import functools
import hashlib
import io
import json
from collections.abc import Collection, Iterator
from typing import NamedTuple

from etils import epath
from PIL import Image

from vlax.data.readers import leaks
from vlax.data.readers.faults import STRICT, Faults
from vlax.data.readers.pictures import decode_picture, open_picture, read_picture, resolved
from vlax.errors import VlaxError
from vlax.rows import Picture, Row, Turn
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


class Place(NamedTuple):
    """Where a picture lies in a container. number: of the source's file; at: its row, record or byte; size: its bytes, where
    the file doesn't say."""

    number: int = -1
    at: int = -1
    size: int = -1


NOWHERE = Place()  # of a picture that is a file of its own, or is none


class Item(NamedTuple):
    """What is kept of a row until it is asked for.

    file_name  of a picture that is a file of its own; of one in a container what it is called there; "" without a picture
    task       where the row's is another than its source's
    inline     the encoded picture, where it stands in the row itself (base64 in JSON)
    also       what else the row calls its picture: ids and names of it in fields that nothing else reads
    """

    id: str
    image_id: str
    file_name: str
    question: str
    answer: str
    references: tuple[str, ...] = ()
    answer_type: str = ""
    later: tuple[Turn, ...] = ()  # of a dialogue, after the first exchange
    task: str = ""
    place: Place = NOWHERE
    inline: bytes = b""
    also: tuple[str, ...] = ()


def roots(base: str, images: epath.PathLike) -> tuple[str, ...]:
    """The folders that pictures must lie in: the source's own, and the data root where there is one."""
    return tuple(dict.fromkeys(resolved(str(folder)) for folder in (images, base) if str(folder)))


def open_inline(content: bytes, name: str, row_id: str) -> Image.Image:
    return decode_picture(io.BytesIO(content), name, row_id)


class FileSource:
    """The half of the file sources that does not know the format (the Source protocol of `rows.py`).

    images    the folder of the pictures, below `base`
    settings  what the rows depend on besides kind, train, task, images, limit and the rows left out: for the fingerprint
    files     what was read, in full or in digests: also for the fingerprint
    """

    def __init__(self, reading: Reading, name: str, task: str, images: str, settings: dict, files: list[bytes], items):
        reading.check_limit(name)
        drop = frozenset(str(i) for i in reading.drop_image_ids)
        self.name, self.task = name, task
        self._images = join(reading.base, images)
        self._roots = roots(reading.base, self._images)
        gone = {item.id for item in items if self._keys(item) & drop} if drop else set()
        kept = [item for item in items if item.id not in gone]
        self.dropped = len(items) - len(kept)
        self._items = kept[: reading.limit]
        if not self._items:
            raise VlaxError(
                f"{name}: no rows are left ({len(items)} read, {self.dropped} dropped by the leak filter); mend the file"
            )
        place = images.rstrip("/").split("/")[-1] if rooted(images) else images
        own = {"kind": reading.kind, "train": reading.train, "task": task, "images": place, "limit": reading.limit}
        digest = hashlib.sha256(json.dumps({**settings, **own, "drop": sorted(gone)}, sort_keys=True).encode())
        for content in files:
            digest.update(hashlib.sha256(content).digest())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._items)

    def _keys(self, item: Item) -> set[str]:
        return {item.image_id, *leaks.keys(*self._picture(item))}

    def _picture(self, item: Item) -> tuple[str, str, str]:
        """(file or "", image id, place) of an item, as `leaks.keys` takes them."""
        picture = self.picture(item)
        return (picture.path, item.image_id, picture.name) if picture else ("", item.image_id, "")

    def pictures(self) -> Iterator[tuple[str, str, str]]:
        """(file or "", image id, place) of every row: what the leak filter goes by."""
        return map(self._picture, self._items)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, no row {index}")
        item = self._items[index]
        turns = (Turn(item.question, item.answer), *item.later)
        task = item.task or self.task
        return Row(item.id, item.image_id, task, turns, self.picture(item), item.references, item.answer_type)

    def picture(self, item: Item) -> Picture | None:
        """A file below `images`, or what stands in the row; None for a row of text. Containers say otherwise."""
        if not item.file_name:
            return None
        if item.inline:
            name = f"{self.name}: the picture in row {item.id}"
            return Picture(name, functools.partial(open_inline, item.inline, name, item.id))
        # Strings: a path object a row would take longer than reading the file.
        path = item.file_name if rooted(item.file_name) else f"{self._images}/{item.file_name}"
        place = path, item.id, self._roots
        return Picture(path, functools.partial(open_picture, *place), path, functools.partial(read_picture, *place))
