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
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from etils import epath
from PIL import Image

from vlax.data.readers import records, shards
from vlax.data.readers.files import FileSource, Item, Reading
from vlax.data.readers.pictures import decode_picture, open_picture
from vlax.errors import VlaxError
from vlax.rows import Picture, RowFault
from vlax.storage.paths import join, local_file, remote

GROUPS_MB = 256  # of row groups kept in memory, all threads together


class RowGroups:
    """The image columns of the row groups met last. A group that several threads want is read once; others wait for it."""

    def __init__(self, capacity: int):
        self.capacity, self.size = capacity, 0
        self._kept: collections.OrderedDict = collections.OrderedDict()
        self._reading: dict = {}
        self._lock = threading.Lock()

    def get(self, key: tuple["TableFile", int, str]):
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:
            if key not in self._kept:
                column = _open(key[0].path, key[0].metadata).read_row_group(key[1], columns=[key[2]]).column(0)
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

    def __init__(self, path: str, images: str = "", task: str = "", *, columns: Mapping | None = None, split: str = "",
                 reading: Reading):  # fmt: skip
        files = shards.of_split(shards.listed(reading.base, path, r"\.(parquet|arrow)$", "parquet or arrow"), split, path)
        self._files = [TableFile(str(file)) for file in files.values()]
        first, schema = self._files[0], self._files[0].schema
        fields = records.choose(schema.names, columns, first.path, picture=True)
        task = records.task_of(fields, task, path)
        self._column, self._embedded = fields.image, bool(fields.image) and first.embeds(fields.image)
        name = reading.name(epath.Path(path).stem, split)
        items, digests = [], []
        for at, (called, file) in enumerate(files.items()):
            names = self._files[at].schema.names
            if names != schema.names:
                raise VlaxError(f"{file} has the columns {', '.join(names)}, {first.path} has others; give files of one table")
            found, digest = self._read(called, at, fields, reading.train, functools.partial(reading.faults.row, name))
            items.extend(found)
            digests.append(json.dumps([called, file.stat().length, str(schema.remove_metadata()), digest]).encode())
        self._root = str(join(reading.base, images))
        settings = {"split": split, "fields": fields}
        super().__init__(reading, name, task, images, settings, digests, records.unique(items))

    def _read(self, called: str, at: int, fields: records.Fields, train: bool, guard) -> tuple[list[Item], str]:
        """The Items of one file, and a digest of all its text."""
        items, digest, row, file = [], hashlib.sha256(), 0, self._files[at]
        top = file.path.removesuffix(called).rstrip("/")
        same = None if train or not self._embedded else file.digests(fields.image)
        for batch in file.texts(fields.texts, fields.image, self._embedded):
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

    def picture(self, item: Item) -> Picture | None:
        if not self._embedded:
            return super().picture(item)
        at, row = (int(number) for number in item.file_name.split(":"))
        file = self._files[at]
        opener = functools.partial(open_embedded, file, self._column, row, (self._root, self._roots), item.id)
        return Picture(f"{file.path}: row {row}", opener)


def open_embedded(file: "TableFile", column: str, row: int, within: tuple, row_id: str) -> Image.Image:
    """The picture in a row's image column; where that holds a path alone, its file (within: its folder, and read_picture's)."""
    try:
        value = file.cell(column, row)
    except (OSError, ValueError) as error:  # pyarrow's are among them
        reason = str(error).splitlines()[0]
        text = f"row {row_id}: {file.path}: row {row} cannot be read ({reason}); fetch the file again"
        raise RowFault(text, "corrupt picture") from None
    value = value if isinstance(value, dict) else {"bytes": value}
    if value.get("bytes") is None and value.get("path"):
        return open_picture(str(join(within[0], value["path"])), row_id, within[1])
    if not value.get("bytes"):
        text = f"row {row_id}: {file.path}: row {row} has no picture; remove the row, or name another image column"
        raise RowFault(text, "missing picture")
    return decode_picture(io.BytesIO(value["bytes"]), f"{file.path}: row {row}", row_id)


def _open(file: str, metadata=None):
    """A parquet file opened for one reading: pyarrow's are not to be shared by threads."""
    import pyarrow.parquet  # here, because most runs read no table

    try:
        return pyarrow.parquet.ParquetFile(epath.Path(file).open("rb") if remote(file) else file, metadata=metadata)
    except (OSError, ValueError) as error:
        raise VlaxError(f"{file} is not parquet ({str(error).splitlines()[0]}); fetch or export it again") from None


@dataclasses.dataclass(frozen=True)
class TableFile:
    """A parquet or arrow file with what is known of it; `token` tells it from another file of that name and time."""

    path: str
    token: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "table"}  # mapped, and all of the file

    @functools.cached_property
    def is_parquet(self) -> bool:
        with epath.Path(self.path).open("rb") as opened:
            return opened.read(4) == b"PAR1"

    @functools.cached_property
    def metadata(self):
        return _open(self.path).metadata

    @functools.cached_property
    def starts(self) -> list[int]:
        """The first row of each row group."""
        counts = [self.metadata.row_group(at).num_rows for at in range(self.metadata.num_row_groups)]
        return [0, *itertools.accumulate(counts)][:-1]

    @functools.cached_property
    def table(self):
        """An arrow file, mapped: the streaming format of `datasets`, or the file format."""
        import pyarrow

        try:
            with pyarrow.memory_map(local_file(epath.Path(self.path))) as source:  # closed, what is mapped stays so
                is_file = source.read(6) == b"ARROW1"
                source.seek(0)
                return (pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)).read_all()
        except (OSError, ValueError) as error:
            raise VlaxError(f"{self.path} is not arrow ({str(error).splitlines()[0]}); fetch or export it again") from None

    @functools.cached_property
    def schema(self):
        return self.metadata.schema.to_arrow_schema() if self.is_parquet else self.table.schema

    def embeds(self, column: str) -> bool:
        """Whether the image column holds pictures (a struct of bytes and path, or bytes), and not the paths of files."""
        import pyarrow.types as types

        kind = self.schema.field(column).type
        is_struct = types.is_struct(kind) and kind.get_field_index("bytes") >= 0
        if is_struct or types.is_binary(kind) or types.is_large_binary(kind):
            return True
        if types.is_string(kind) or types.is_large_string(kind):
            return False
        wanted = "struct<bytes, path>, binary or a path"
        raise VlaxError(f"{self.path}: the image column {column!r} is {kind}; it should be {wanted}")

    def cell(self, column: str, row: int):
        if not self.is_parquet:
            return self.table.column(column)[row].as_py()
        group = bisect.bisect_right(self.starts, row) - 1
        return _GROUPS.get((self, group, column))[row - self.starts[group]].as_py()

    def digests(self, column: str) -> Iterator[str]:
        """Of each row that has no path, what its picture's bytes say; asked for only where there is none."""
        if self.is_parquet:
            batches = (batch.column(column) for batch in _open(self.path).iter_batches(64, columns=[column]))
        else:
            batches = self.table.column(column).chunks
        for batch in batches:
            for value in batch:
                value = value.as_py()
                content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
                if not path:
                    yield hashlib.sha256(content).hexdigest()[:20] if content else ""

    def texts(self, names: list[str], image: str, embedded: bool, rows: int = 4096):
        """Batches of the text columns and, under the image column's name, the paths of the pictures where there are any."""
        import pyarrow
        import pyarrow.compute

        kind: Any = self.schema.field(image).type if image else None
        has_path = bool(image) and (not embedded or (pyarrow.types.is_struct(kind) and kind.get_field_index("path") >= 0))
        if self.is_parquet:
            wanted = [*names, *([f"{image}.path" if embedded else image] if has_path else [])]
            try:
                table = _open(self.path, self.metadata).read(columns=wanted)
            except (OSError, ValueError) as error:
                reason = str(error).splitlines()[0]
                raise VlaxError(f"{self.path} is damaged ({reason}); fetch or export it again") from None
        else:
            table = self.table.select([*names, *([image] if has_path else [])])
        if has_path and embedded:
            paths = pyarrow.compute.struct_field(table.column(image), "path")
            table = table.set_column(table.schema.get_field_index(image), image, paths)
        return table.to_batches(max_chunksize=rows)
