"""A set that `python -m vlax data prepare` wrote: rows in ArrayRecord shards, pictures resized and stored once each.

OUT/manifest.json                            counts, sha256 of every file, licence, source, settings; written last
OUT/rows-00000-of-00001.arrow, OUT/rows.npy  columns of rows, with the number of each one's picture (`prepared_rows.py`)
OUT/images-00000-of-00012.array_record       one encoded picture a record
OUT/index.npy                                int32[pictures, 2]: shard and record of each picture, -1 of one left out
OUT/prints.npy                               uint8[pictures, 56]: what each looks like (`prints.py`)
OUT/dropped.jsonl                            the rows left out because their picture did not decode, and why
OUT/seal.json                                what all of them hold (`storage/seal.py`); sets of earlier versions have none

PreparedSource("coco-224")[1]    the source's own Row(id="17#1", image_id="17", ...), its picture opened from OUT
"""

import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from etils import epath
from PIL import Image

from vlax.data.readers import leaks, left, prepared_rows, prints, row_cache, shards, stored
from vlax.data.readers.files import Reading
from vlax.data.readers.prepared_rows import AGAIN
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.rows import TASKS, Picture, Row, RowFault
from vlax.storage import seal, state
from vlax.storage.paths import join, local_file, read_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredPicture(Picture):
    """A picture of a prepared set: stored by `how` (`stored.settings`) as a tower wants it, and never resized again (a second
    crop would cut away more)."""

    how: dict
    folder: str

    def pixels(self, preprocess: Preprocess) -> np.ndarray:
        """uint8[size,size,3]; VlaxError when the set was prepared for another tower."""
        stored.check(self.how, preprocess, self.folder)
        return np.asarray(self.open())

    def views(self, preprocess: Preprocess, tiles: int = 0, alone: bool = True) -> np.ndarray:
        if tiles:
            raise VlaxError(f"{self.folder} holds pictures that were resized already, and run.tiles={tiles} is to see their "
                            "parts; train on the data that it was prepared from, or with --config.run.tiles=-1")  # fmt: skip
        return super().views(preprocess)


def open_stored(opened: shards.Kept, file: str, record: int, codec: str, size: int, row: str, name: str) -> Image.Image:
    try:
        content = opened(file).record(record)
        return Image.fromarray(stored.decode(content, codec, size))
    except VlaxError as error:
        raise RowFault(f"{row}: {error}", "corrupt picture") from None
    except (OSError, ValueError) as error:
        reason = str(error).replace("\n", " ")
        raise RowFault(f"{row}: {name}: {reason}; copy or prepare the set again", "corrupt picture") from None


class PreparedSource(left.Leaving):
    """The rows of a prepared set, which are those of its source (the Source protocol of `rows.py`).

    task   of captions: caption or describe instead of what the source's rows had
    train  what the set was prepared for: caption rows to train on are one a caption, to evaluate on one a picture with all
           references; VlaxError where that differs. Other rows serve both
    """

    _way_out = "prepare other data"

    def __init__(self, path: str, images: str = "", task: str = "", *, columns: Mapping | None = None, split: str = "",
                 reading: Reading):  # fmt: skip
        folder = join(reading.base, path)
        self.name, self._folder = f"prepared-{folder.name}", str(folder)
        if images or columns or split:
            raise VlaxError(f"{folder}: a prepared set has no images, columns or split; prepare one set for each split")
        if task not in ("", *TASKS[:2]):
            raise VlaxError(f"{folder}: captions have no task {task!r}; the tasks are {', '.join(TASKS[:2])}")
        reading.check_limit(self.name)
        self.manifest, self._opened, self._task = _manifest(self._folder), shards.Kept(_whole), task
        kinds = {kind: [entry["file"] for entry in self.manifest["shards"] if entry["file"].startswith(kind)]
                 for kind in ("rows", "images")}  # fmt: skip
        for entry in self.manifest["shards"]:
            file = folder / entry["file"]
            if not file.exists() or file.stat().length != entry["bytes"]:
                raise VlaxError(f"{file} is missing or not of {entry['bytes']} bytes, as its manifest says; copy the set again")
        self._shards, self._index = kinds["images"], shards.Kept(_index)
        seal.check(folder, "index.npy", way_out=AGAIN)
        index = self._index(self._folder)
        inside = index.ndim == 2 and (index >= -1).all() and (index[:, 0] < len(self._shards)).all()
        if not inside or index.dtype != np.int32 or index.shape[1] != 2:
            raise VlaxError(f"{folder}/index.npy names no places in {len(self._shards)} shards; {AGAIN}")
        self._table, captions, self._key = prepared_rows.opened(folder, self.manifest, kinds["rows"])
        counts = self.manifest["counts"]
        self.read_rows, self.pictured = counts["rows"], counts["rows"] - counts.get("rows_text_only", 0)
        if captions and self.manifest["train"] is not None and self.manifest["train"] != reading.train:
            now, flag = ("train on", "--train") if reading.train else ("evaluate on", "--no-train")
            raise VlaxError(f"{folder} was not prepared to {now}: its caption rows differ; prepare the source with {flag}")
        self.total, self._limit = len(self._table), reading.limit
        self._leave(self.about(frozenset(map(str, reading.drop_image_ids))))

    def about(self, drop: frozenset[str]) -> Sequence[int]:
        names = functools.partial(self._table.columns, "file_name", "image_id", "also", "id", "more")
        return left.gone(drop, self._key, lambda: itertools.starmap(self._keys, names()), self._keys_of)

    def _fingerprinted(self, gone: Sequence[int]) -> str:
        given = json.dumps([self._task, self._limit, sorted(self._table[at].id for at in gone)])
        return hashlib.sha256(read_file(epath.Path(self._folder) / "manifest.json") + given.encode()).hexdigest()

    def _prints_key(self) -> str:
        return row_cache.derived("prints", self.manifest)

    @property
    def _has_prints(self) -> bool:
        return any(entry["file"] == prints.NAME for entry in self.manifest["files"])

    @property
    def seen(self) -> bool:
        """Whether somebody has looked at its pictures: whoever prepared it, or the doctor."""
        return self._has_prints or super().seen

    def looks(self) -> prints.Prints | None:
        """Of all rows, what their pictures look like; None where nobody has looked."""
        if not self._has_prints:
            return super().looks()
        table = self._printed()
        if table.dtype != np.uint8 or table.shape != (len(self._index(self._folder)), prints.WIDTH):
            raise VlaxError(f"{self._folder}/{prints.NAME} has not {prints.WIDTH} bytes for each picture; {AGAIN}")
        pictures = np.concatenate([batch.column("at").to_numpy() for batch in self._table.batches()])
        if pictures.max(initial=-1) >= len(table):
            raise VlaxError(f"{self._folder}: a row names picture {pictures.max()} of {len(table)}; {AGAIN}")
        return prints.from_bytes(np.array(table)).of(pictures)

    def other_looks(self) -> tuple[np.ndarray, prints.Prints]:
        if not self._has_prints or not self.manifest.get("several"):
            return super().other_looks()
        found = [(row, n) for row, (more,) in enumerate(self._table.columns("more")) for n, _ in prepared_rows.others(more)]
        rows, numbers = np.array(found, np.int64).reshape(-1, 2).T
        return rows, prints.from_bytes(np.array(self._printed())).of(numbers)

    def _printed(self) -> np.ndarray:
        """uint8[pictures, WIDTH], mapped, once it is compared with its seal."""
        seal.check(self._folder, prints.NAME, way_out=AGAIN)
        table: np.ndarray = np.load(local_file(epath.Path(self._folder) / prints.NAME), mmap_mode="r", allow_pickle=False)
        return table

    def __len__(self) -> int:
        return len(self._left)

    def _keys_of(self, at: int) -> set[str]:
        item = self._table[at]
        return self._keys(item.file_name, item.image_id, item.also, item.id, item.more)

    def _keys(self, name: str, image_id: str, also: tuple[str, ...], row: str, more: tuple[str, ...]) -> set[str]:
        names = [name, *(other for _, other in prepared_rows.others(more))]
        found = (leaks.keys(self._path(one), (one, image_id, *also), "", "", row) for one in names)
        return {image_id, *names}.union(*found)

    def _path(self, name: str) -> str:
        """Where a picture lay before the set was prepared."""
        return f"{self.manifest['source'].get('folder', '')}{name}" if name else ""

    def pictures(self) -> Iterator[leaks.Called]:
        """Of every row, what its picture is called: what the leak filter goes by."""
        return itertools.chain.from_iterable(map(self.called, range(len(self))))

    def called(self, index: int) -> list[leaks.Called]:
        """What the pictures of a row are called."""
        item = self._table[self._left[index]]
        return [
            leaks.Called(self._path(name), (name, item.image_id, *item.also), f"{self._folder}: picture {number}", "", item.id)
            for number, name in [(item.place.at, item.file_name), *prepared_rows.others(item.more)]
        ]

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, no row {index}")
        item = self._table[self._left[index]]
        row, picture = prepared_rows.row(item, self._task), item.place.at
        if picture < 0:
            return row
        pictures = [(picture, item.file_name), *prepared_rows.others(item.more)]
        return row.showing([self._stored(row.id, *each) for each in pictures])

    def _stored(self, row: str, picture: int, called: str) -> StoredPicture:
        shard, record = (int(n) for n in self._index(self._folder)[picture])
        name = f"{self._folder}/{self._shards[shard]}: record {record} ({called})"
        file, how = f"{self._folder}/{self._shards[shard]}", self.manifest["preprocess"]
        opener = functools.partial(open_stored, self._opened, file, record, self.manifest["codec"]["name"], how["size"],
                                   f"row {row}", name)  # fmt: skip
        return StoredPicture(name, opener, how=how, folder=self._folder)

    def check(self, preprocess: Preprocess) -> None:
        """VlaxError unless the pictures are stored as this vision tower wants them."""
        stored.check(self.manifest["preprocess"], preprocess, self._folder)


def _index(folder: str) -> np.ndarray:
    """int32[pictures, 2], mapped: its header can't make more of it than the file has."""
    return np.load(local_file(epath.Path(folder) / "index.npy"), mmap_mode="r", allow_pickle=False)


def _whole(file: str) -> shards.Reader:
    """A shard of pictures, compared with the seal when it is first opened."""
    path = epath.Path(file)
    seal.check(path.parent, path.name, way_out=AGAIN)
    return shards.Reader(local_file(path))


def _manifest(folder: str) -> dict:
    path = epath.Path(folder) / "manifest.json"
    if not path.exists():
        started = (epath.Path(folder) / "progress").exists()
        way_out = "it was begun: give the same prepare command again" if started else "give what `prepare` wrote"
        raise VlaxError(f"{folder} is no prepared set (it has no manifest.json); {way_out}")
    seal.check(folder, path.name, way_out=AGAIN)
    manifest = state.read(path, AGAIN)
    if manifest.get("format") not in stored.FORMATS:
        known = " or ".join(map(repr, stored.FORMATS))
        raise VlaxError(f"{path} is of the format {manifest.get('format')!r}, not {known}; prepare the set again")
    return manifest
