"""Rows from a user's own files: what all formats (`formats/`) share. Annotations are read and checked at once; pictures are
opened only when a row's `open_image` is called."""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

from PIL import Image

from vlax.data.readers import leaks
from vlax.data.readers.reading import open_picture
from vlax.errors import VlaxError
from vlax.rows import Row, Turn
from vlax.storage.paths import join, rooted


class Item(NamedTuple):
    """What is kept of a row until it is asked for."""

    id: str
    image_id: str
    file_name: str
    question: str
    answer: str
    references: tuple[str, ...] = ()
    answer_type: str = ""
    later: tuple[Turn, ...] = ()  # of a dialogue, after the first exchange


class FileSource:
    """The half of the file sources that does not know the format (the Source protocol of `rows.py`).

    `base` is prefixed to the relative paths and stays out of the fingerprint: the same data elsewhere is the same data.
    Rows about a picture in `drop_image_ids` (ids, or keys of `leaks.py`) are left out and counted in `dropped`; then `limit`
    keeps the first rows.
    """

    def __init__(self, name: str, task: str, images: str, base: str, settings: dict, files: list[bytes], items, drop, limit):
        if limit is not None and limit < 1:
            raise VlaxError(f"{name}: limit is {limit}; give at least 1, or None for all rows")
        drop = frozenset(str(i) for i in drop)
        self.name, self.task = name, task
        self._images = join(base, images)
        gone = {item.id for item in items if self._keys(item) & drop} if drop else set()
        kept = [item for item in items if item.id not in gone]
        self.dropped = len(items) - len(kept)
        self._items = kept[:limit]
        if not self._items:
            raise VlaxError(
                f"{name}: no rows are left ({len(items)} read, {self.dropped} dropped by the leak filter); mend the file"
            )
        place = images.rstrip("/").split("/")[-1] if rooted(images) else images
        settings = {**settings, "task": task, "images": place, "limit": limit, "drop": sorted(gone)}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for content in files:
            digest.update(hashlib.sha256(content).digest())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._items)

    def _keys(self, item: Item) -> set[str]:
        return {item.image_id, *leaks.keys(*self._picture(item))}

    def _picture(self, item: Item) -> tuple[str, str, str]:
        """(file or "", image id, place) of an item, as `leaks.keys` takes them. In a container `file_name` is no file."""
        path, place = self._path(item), self.picture(item)[0]
        return (path if place == path else "", item.image_id, place)

    def _path(self, item: Item) -> str:
        """The picture's file; "" without one. Strings: a path object a row would take longer than reading the file."""
        return item.file_name if not item.file_name or rooted(item.file_name) else f"{self._images}/{item.file_name}"

    def pictures(self) -> Iterator[tuple[str, str, str]]:
        """(file or "", image id, place) of every row: what the leak filter goes by."""
        return map(self._picture, self._items)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, no row {index}")
        item = self._items[index]
        name, opener = self.picture(item)
        return Row(
            id=item.id,
            image_id=item.image_id,
            task=self.task,
            turns=(Turn(item.question, item.answer), *item.later),
            open_image=opener,
            image_name=name,
            references=item.references,
            answer_type=item.answer_type,
        )

    def picture(self, item: Item) -> tuple[str, Callable[[], Image.Image] | None]:
        """(what an error calls the picture, what decodes it): a file below `images`. Containers say otherwise."""
        if not item.file_name:
            return "", None
        path = self._path(item)
        return path, functools.partial(open_picture, path, item.id)
