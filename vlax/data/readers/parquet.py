"""Hugging Face `datasets` on disk: parquet files, and the arrow files of `save_to_disk`.

HfTable("pathvqa", split="train")[0]     Row(id="data/train-00000-of-00002:0", task="question", answer_type="yes/no", ...)
HfTable("flickr/train.parquet")[1]       Row(id="train:0#1", task="caption", image_id="a.jpg", ...)

Text is read at once, by column, and pictures never with it. A picture in a parquet file can only be had with its whole row
group (100 rows in the files of `datasets`, tens of MB): read in order, each group is read once; read in random order, as
training does, nearly every picture costs a group. So prepare such data before training on it. Arrow files are mapped into
memory, where a picture costs its own bytes.
"""

import bisect
import collections
import functools
import hashlib
import io
import itertools
import json
import threading
from collections.abc import Iterator, Mapping

from etils import epath
from PIL import Image

from vlax.data.readers import records, shards
from vlax.data.readers.faults import STRICT
from vlax.data.readers.files import FileSource, Item
from vlax.data.readers.reading import decode_picture, open_picture
from vlax.errors import VlaxError
from vlax.rows import RowFault
from vlax.storage.paths import join, local_file, remote

GROUPS_MB = 256  # of row groups kept in memory, all threads together


class RowGroups:
    """The image columns of the row groups met last. A group that several threads want is read once; others wait for it."""

    def __init__(self, capacity: int):
        self.capacity, self.size = capacity, 0
        self._kept: collections.OrderedDict = collections.OrderedDict()
        self._reading: dict = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self.size = 0

    def get(self, key: tuple[str, int, str]):
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:
            if key not in self._kept:
                column = _open(key[0], _metadata(key[0])).read_row_group(key[1], columns=[key[2]]).column(0)
                with self._lock:
                    self._kept[key] = column
                    self.size += column.nbytes
                    while self.size > self.capacity and len(self._kept) > 1:
                        self.size -= self._kept.popitem(last=False)[1].nbytes
                    self._reading.pop(key, None)
                return column
        return self.get(key)


_GROUPS = RowGroups(GROUPS_MB << 20)


class HfTable(FileSource):
    """Rows of one parquet or arrow file, of a folder of them, or of a glob.

    path     a folder as `datasets` writes it (data/train-00000-of-00002.parquet, train/data-00000-of-00001.arrow), or a file
    images   folder of the pictures where the image column holds paths, and not the pictures themselves
    split    picks the files by their names; needed where a folder holds several splits
    columns  {part: column} where a column is not called as in `records.NAMES`, e.g. {"text": "caption_0"}

    Rows share an image id where an `image_id` column or the path inside the image struct says so; to evaluate on, else by the
    picture's bytes, for which all pictures are read once (the published PathVQA has no paths). The fingerprint covers the
    names, sizes, schema and text of the files, not the bytes of the pictures.
    """

    def __init__(self, path: str, images: str = "", train: bool = True, task: str = "", *, columns: Mapping | None = None,
                 split: str = "", base="", drop_image_ids=(), limit=None, faults=STRICT):  # fmt: skip
        for cache in (_GROUPS.clear, _is_parquet.cache_clear, _metadata.cache_clear, _starts.cache_clear, _arrow.cache_clear):
            cache()  # a file of this name may be another one now
        files = shards.of_split(shards.listed(base, path, r"\.(parquet|arrow)$", "parquet or arrow"), split, path)
        self._files = [str(file) for file in files.values()]
        schema = _schema(self._files[0])
        fields = records.choose(schema.names, columns, self._files[0], picture=True)
        task = records.task_of(fields, task, path)
        self._column, self._embedded = fields.image, bool(fields.image) and _is_embedded(schema, fields.image, self._files[0])
        name = "-".join(["hf", epath.Path(path).stem, *([split] if split else [])])
        items, digests = [], []
        for at, (called, file) in enumerate(files.items()):
            if _schema(str(file)).names != schema.names:
                raise VlaxError(f"{file} has the columns {', '.join(_schema(str(file)).names)}, {self._files[0]} has others; "
                                f"give files of one table")  # fmt: skip
            found, digest = self._read(called, at, fields, train, functools.partial(faults.row, name))
            items.extend(found)
            digests.append(json.dumps([called, file.stat().length, str(schema.remove_metadata()), digest]).encode())
        self._root = str(join(base, images))
        settings = {"kind": "hf", "train": train, "split": split, "fields": fields}
        super().__init__(name, task, images, base, settings, digests, records.unique(items), drop_image_ids, limit)

    def _read(self, called: str, at: int, fields: records.Fields, train: bool, guard) -> tuple[list[Item], str]:
        """The Items of one file, and a digest of all its text."""
        items, digest, row, file = [], hashlib.sha256(), 0, self._files[at]
        top = file.removesuffix(called).rstrip("/")
        same = None if train or not self._embedded else _digests(file, fields.image)
        for batch in _text_columns(file, fields.texts, fields.image, self._embedded):
            rows = batch.to_pylist()
            digest.update(json.dumps(rows, default=str).encode())
            for values in rows:
                name, picture = f"{called.rpartition('.')[0]}:{row}", (values.get(fields.image) or "") if fields.image else ""
                image_id = picture or (next(same) if same else "") or (name if self._embedded else "")
                file_name = f"{at}:{row}" if self._embedded else picture
                where = f"{top}: {called} row {row}"
                with guard(where):
                    items += records.items(where, name, image_id, file_name, values, fields, train)
                row += 1
        return items, digest.hexdigest()

    def picture(self, item: Item):
        if not self._embedded:
            return super().picture(item)
        file, row = (int(number) for number in item.file_name.split(":"))
        opener = functools.partial(open_embedded, self._files[file], self._column, row, self._root, item.id)
        return f"{self._files[file]}: row {row}", opener


def open_embedded(file: str, column: str, row: int, root: str, row_id: str) -> Image.Image:
    """The picture in the image column of a row; where that holds a path and no bytes, the file below `root`."""
    try:
        if _is_parquet(file):
            starts = _starts(file)
            group = bisect.bisect_right(starts, row) - 1
            value = _GROUPS.get((file, group, column))[row - starts[group]].as_py()
        else:
            value = _arrow(file).column(column)[row].as_py()
    except (OSError, ValueError) as error:  # pyarrow's are among them
        reason = str(error).splitlines()[0]
        text = f"row {row_id}: {file}: row {row} cannot be read ({reason}); fetch the file again"
        raise RowFault(text, "corrupt picture") from None
    value = value if isinstance(value, dict) else {"bytes": value}
    if value.get("bytes") is None and value.get("path"):
        return open_picture(str(join(root, value["path"])), row_id)
    if not value.get("bytes"):
        text = f"row {row_id}: {file}: row {row} has no picture; remove the row, or name another image column"
        raise RowFault(text, "missing picture")
    return decode_picture(io.BytesIO(value["bytes"]), f"{file}: row {row}", row_id)


def _digests(file: str, column: str) -> Iterator[str]:
    """Of each row that has no path, what its picture's bytes say; asked for only where there is none."""
    if _is_parquet(file):
        batches = (batch.column(column) for batch in _open(file).iter_batches(64, columns=[column]))
    else:
        batches = _arrow(file).column(column).chunks
    for batch in batches:
        for value in batch:
            value = value.as_py()
            content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
            if not path:
                yield hashlib.sha256(content).hexdigest()[:20] if content else ""


@functools.lru_cache(maxsize=4096)
def _is_parquet(file: str) -> bool:
    with epath.Path(file).open("rb") as opened:
        return opened.read(4) == b"PAR1"


@functools.lru_cache(maxsize=256)
def _metadata(file: str):
    return _open(file).metadata


@functools.lru_cache(maxsize=256)
def _starts(file: str) -> list[int]:
    """The first row of each row group."""
    counts = [_metadata(file).row_group(at).num_rows for at in range(_metadata(file).num_row_groups)]
    return [0, *itertools.accumulate(counts)][:-1]


def _open(file: str, metadata=None):
    """A parquet file opened for one reading: pyarrow's are not to be shared by threads."""
    import pyarrow.parquet  # here, because most runs read no table

    try:
        return pyarrow.parquet.ParquetFile(epath.Path(file).open("rb") if remote(file) else file, metadata=metadata)
    except (OSError, ValueError) as error:
        raise VlaxError(f"{file} is not parquet ({str(error).splitlines()[0]}); fetch or export it again") from None


@functools.lru_cache(maxsize=256)
def _arrow(file: str):
    """The table of an arrow file, mapped: the streaming format of `datasets`, or the file format."""
    import pyarrow

    try:
        source = pyarrow.memory_map(local_file(epath.Path(file)))
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        return (pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)).read_all()
    except (OSError, ValueError) as error:
        raise VlaxError(f"{file} is not arrow ({str(error).splitlines()[0]}); fetch or export it again") from None


def _schema(file: str):
    return _metadata(file).schema.to_arrow_schema() if _is_parquet(file) else _arrow(file).schema


def _is_embedded(schema, column: str, file: str) -> bool:
    """Whether the image column holds pictures (a struct of bytes and path, or bytes), and not the paths of files."""
    import pyarrow.types as types

    kind = schema.field(column).type
    is_struct = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    if is_struct or types.is_binary(kind) or types.is_large_binary(kind):
        return True
    if types.is_string(kind) or types.is_large_string(kind):
        return False
    raise VlaxError(f"{file}: the image column {column!r} is {kind}; it should be struct<bytes, path>, binary or a path")


def _text_columns(file: str, names: list[str], image: str, embedded: bool, rows: int = 4096):
    """Batches of the text columns and, under the image column's name, the paths of the pictures where there are any."""
    import pyarrow
    import pyarrow.compute

    kind = _schema(file).field(image).type if image else None
    has_path = bool(image) and (not embedded or (pyarrow.types.is_struct(kind) and kind.get_field_index("path") >= 0))
    if _is_parquet(file):
        wanted = [*names, *([f"{image}.path" if embedded else image] if has_path else [])]
        try:
            table = _open(file, _metadata(file)).read(columns=wanted)
        except (OSError, ValueError) as error:
            raise VlaxError(f"{file} is damaged ({str(error).splitlines()[0]}); fetch or export it again") from None
    else:
        table = _arrow(file).select([*names, *([image] if has_path else [])])
    if has_path and embedded:
        paths = pyarrow.compute.struct_field(table.column(image), "path")
        table = table.set_column(table.schema.get_field_index(image), image, paths)
    return table.to_batches(max_chunksize=rows)
