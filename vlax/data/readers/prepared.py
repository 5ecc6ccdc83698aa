"""A set that `python -m vlax data prepare` wrote: rows in ArrayRecord shards, pictures resized and stored once each.

OUT/manifest.json                            counts, sha256 of every file, licence, source, settings; written last
OUT/rows-00000-of-00001.array_record         one JSON object a row, with the number of its picture
OUT/images-00000-of-00012.array_record       one encoded picture a record
OUT/index.npy                                int32[pictures, 2]: shard and record of each picture, -1 of one left out
OUT/dropped.jsonl                            the rows left out because their picture did not decode, and why
OUT/seal.json                                what all of them hold (`storage/seal.py`); sets of earlier versions have none

PreparedSource("coco-224")[1]    the source's own Row(id="17#1", image_id="17", ...), its picture opened from OUT
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping

import numpy as np
from etils import epath
from PIL import Image

from vlax.data.readers import leaks, shards, stored
from vlax.data.readers.files import Reading
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.rows import TASKS, Picture, Row, RowFault, Turn
from vlax.storage import seal, state
from vlax.storage.paths import join, local_file, read_file

AGAIN = "copy or prepare the set again"


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


def open_stored(opened: shards.Kept, file: str, record: int, codec: str, size: int, row: str, name: str) -> Image.Image:
    try:
        content = opened(file).record(record)
        return Image.fromarray(stored.decode(content, codec, size))
    except VlaxError as error:
        raise RowFault(f"{row}: {error}", "corrupt picture") from None
    except (OSError, ValueError) as error:
        reason = str(error).replace("\n", " ")
        raise RowFault(f"{row}: {name}: {reason}; copy or prepare the set again", "corrupt picture") from None


class PreparedSource:
    """The rows of a prepared set, which are those of its source (the Source protocol of `rows.py`).

    task   of captions: caption or describe instead of what the source's rows had
    train  what the set was prepared for: caption rows to train on are one a caption, to evaluate on one a picture with all
           references; VlaxError where that differs. Other rows serve both
    """

    def __init__(self, path: str, images: str = "", task: str = "", *, columns: Mapping | None = None, split: str = "",
                 reading: Reading):  # fmt: skip
        folder = join(reading.base, path)
        self.name, self._folder = f"prepared-{folder.name}", str(folder)
        if images or columns or split:
            raise VlaxError(f"{folder}: a prepared set has no images, columns or split; prepare one set for each split")
        if task not in ("", *TASKS[:2]):
            raise VlaxError(f"{folder}: captions have no task {task!r}; the tasks are {', '.join(TASKS[:2])}")
        reading.check_limit(self.name)
        self.manifest, self._opened = _manifest(self._folder), shards.Kept(_whole)
        kinds = {kind: [entry["file"] for entry in self.manifest["shards"] if entry["file"].startswith(kind)]
                 for kind in ("rows", "images")}  # fmt: skip
        for entry in self.manifest["shards"]:
            file = folder / entry["file"]
            if not file.exists() or file.stat().length != entry["bytes"]:
                raise VlaxError(f"{file} is missing or not of {entry['bytes']} bytes, as its manifest says; copy the set again")
        seal.check(folder, "index.npy", *kinds["rows"], way_out=AGAIN)
        self._shards = kinds["images"]
        # Mapped: its header can't make more of it than the file has.
        self._index = np.array(np.load(local_file(folder / "index.npy"), mmap_mode="r", allow_pickle=False))
        inside = self._index.ndim == 2 and (self._index >= -1).all() and (self._index[:, 0] < len(self._shards)).all()
        if not inside or self._index.dtype != np.int32 or self._index.shape[1] != 2:
            raise VlaxError(f"{folder}/index.npy names no places in {len(self._shards)} shards; {AGAIN}")
        drop = frozenset(str(i) for i in reading.drop_image_ids)
        files = (shards.Reader(local_file(folder / name)) for name in kinds["rows"])
        found = [_row(line, task) for file in files for line in file.records()]
        kept = [one for one in found if not drop & {one[0].image_id, *leaks.keys(one[2], one[0].image_id)}]
        counts = self.manifest["counts"]
        self.dropped, self.read_rows = counts["rows"] - len(kept), counts["rows"]
        self.pictured = counts["rows"] - counts.get("rows_text_only", 0)
        self._rows = kept[: reading.limit]
        if not self._rows:
            raise VlaxError(f"{self.name}: no rows are left ({self.dropped} dropped by the leak filter); prepare other data")
        captions = any(row.task in TASKS[:2] for row, *_ in self._rows)
        if captions and self.manifest["train"] is not None and self.manifest["train"] != reading.train:
            now, flag = ("train on", "--train") if reading.train else ("evaluate on", "--no-train")
            raise VlaxError(f"{folder} was not prepared to {now}: its caption rows differ; prepare the source with {flag}")
        left = {row.id for row, *_ in kept}
        gone = sorted(row.id for row, *_ in found if row.id not in left)
        given = json.dumps([task, reading.limit, gone])
        self.fingerprint = hashlib.sha256(read_file(folder / "manifest.json") + given.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def pictures(self) -> Iterator[tuple[str, str, str]]:
        """(name in the source, image id, place) of every row: what the leak filter goes by."""
        for row, picture, name in self._rows:
            yield name, row.image_id, f"{self._folder}: picture {picture}"

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, no row {index}")
        row, picture, named = self._rows[index]
        if picture < 0:
            return row
        shard, record = (int(n) for n in self._index[picture])
        name = f"{self._folder}/{self._shards[shard]}: record {record} ({named})"
        file, how = f"{self._folder}/{self._shards[shard]}", self.manifest["preprocess"]
        opener = functools.partial(open_stored, self._opened, file, record, self.manifest["codec"]["name"], how["size"],
                                   f"row {row.id}", name)  # fmt: skip
        return dataclasses.replace(row, picture=StoredPicture(name, opener, how=how, folder=self._folder))

    def check(self, preprocess: Preprocess) -> None:
        """VlaxError unless the pictures are stored as this vision tower wants them."""
        stored.check(self.manifest["preprocess"], preprocess, self._folder)


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
    if manifest.get("format") != stored.FORMAT:
        raise VlaxError(f"{path} is of the format {manifest.get('format')!r}, not {stored.FORMAT!r}; prepare the set again")
    return manifest


def line(row: Row, picture: int, name: str) -> bytes:
    """One row as its record: {"id", "task", "turns": [[question, answer]], ...}; empty fields are left out."""
    turns = [[t.question, t.answer, *([t.task] if t.task else [])] for t in row.turns]
    values = {"id": row.id, "image_id": row.image_id, "task": row.task, "turns": turns, "references": row.references,
              "answer_type": row.answer_type, "name": name, "picture": picture}  # fmt: skip
    return state.as_json({key: value for key, value in values.items() if value not in ("", (), -1)}, ensure_ascii=False)


def _row(line: bytes, task: str) -> tuple[Row, int, str]:
    """The Row that `line` wrote, still without its picture, the number of that picture (-1 without one), and its name."""
    values = state.load_line("a row", line, AGAIN)
    own = task if task and values["task"] in TASKS[:2] else values["task"]
    turns = tuple(Turn(*turn) for turn in values["turns"])
    row = Row(values["id"], values.get("image_id", ""), own, turns, None,
              tuple(values.get("references", ())), values.get("answer_type", ""))  # fmt: skip
    return row, values.get("picture", -1), values.get("name", "")
