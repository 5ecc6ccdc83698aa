"""One parquet or arrow file: its columns of text by batches, and single cells of its image column.

What such a file says of its lengths is a stranger's word: arrow's offsets are compared with its buffers, of which nothing else
would keep a reader, and what a parquet file unpacks to is counted while it is unpacked.
"""

import bisect
import collections
import dataclasses
import functools
import itertools
import threading
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from etils import epath

from vlax.errors import VlaxError
from vlax.storage.paths import FILE_BYTES, local_file, remote

GROUPS_MB = 256  # of row groups kept in memory, all threads together
GROUP_BYTES = 4 << 30  # of pictures that one row group may unpack to
AT_ONCE = 8  # pictures that are unpacked together


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
                column = _unpacked(key[0], key[1], key[2])
                with self._lock:
                    self._kept[key] = column
                    self.size += column.nbytes
                    while self.size > self.capacity and len(self._kept) > 1:
                        self.size -= self._kept.popitem(last=False)[1].nbytes
                    self._reading.pop(key, None)
                return column
        return self.get(key)


_GROUPS = RowGroups(GROUPS_MB << 20)


def _unpacked(file: "TableFile", group: int, column: str):
    """A column of a row group, a few rows at a time: a file of 4 kB may hold a dictionary of one picture and a million rows."""
    import pyarrow

    parts, size = [], 0
    for batch in _open(file.path, file.metadata).iter_batches(AT_ONCE, row_groups=[group], columns=[column]):
        parts.append(batch.column(0))
        size += parts[-1].nbytes
        if size > GROUP_BYTES:
            raise VlaxError(f"{file.path}: row group {group} has over {GROUP_BYTES:,} bytes of pictures; write smaller ones")
    return pyarrow.chunked_array(parts)


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
                table = (pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)).read_all()
            table.validate(full=True)  # an offset beyond its buffer would end the process
            return table
        except (OSError, ValueError) as error:
            raise VlaxError(f"{self.path} is not arrow ({str(error).splitlines()[0]}); fetch or export it again") from None

    @functools.cached_property
    def schema(self):
        return self.metadata.schema.to_arrow_schema() if self.is_parquet else self.table.schema

    def holds(self, column: str) -> bool:
        """Whether a column holds contents: a struct of bytes and path, or bytes, or a list of these."""
        import pyarrow.types as types

        kind = self._single(column)
        if types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def _single(self, column: str):
        """The type of a column, of a list that of its values."""
        import pyarrow.types as types

        kind = self.schema.field(column).type
        return kind.value_type if types.is_list(kind) or types.is_large_list(kind) else kind

    def embeds(self, column: str) -> bool:
        """Whether the image column holds pictures, and not the paths of files."""
        import pyarrow.types as types

        kind, own = self._single(column), self.schema.field(column).type
        if self.holds(column):
            return True
        if types.is_string(kind) or types.is_large_string(kind):
            return False
        wanted = "struct<bytes, path>, binary, a path or a list of these"
        raise VlaxError(f"{self.path}: the image column {column!r} is {own}; it should be {wanted}")

    def first(self) -> dict[str, Any]:
        """The values of the first row besides pictures: what columns of the usual names hold; {} of an empty file."""
        import pyarrow.types as types

        names = [field.name for field in self.schema if not types.is_struct(field.type) and not types.is_binary(field.type)]
        names = [name for name in names if "bytes: binary" not in str(self.schema.field(name).type)]
        if not self.is_parquet:
            rows = self.table.select(names).slice(0, 1).to_pylist()
        else:
            batches = _open(self.path, self.metadata).iter_batches(1, columns=names) if names else iter(())
            rows = next((batch.to_pylist() for batch in batches), [])
        held = {name: {"bytes": b""} if self.holds(name) else {"": ""} for name in self.schema.names if name not in names}
        return {**held, **rows[0]} if rows else held

    def distinct(self, column: str) -> list[str]:
        """The texts that occur in a column of few; none where it is not there, or holds other things."""
        import pyarrow
        import pyarrow.compute

        kind = self.schema.field(column).type if column in self.schema.names else None
        if kind is None or not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
            return []
        found: set[str] = set()
        read = _open(self.path, self.metadata).iter_batches(columns=[column]) if self.is_parquet else self.table.to_batches()
        for batch in read:
            found |= set(pyarrow.compute.unique(batch.column(column)).to_pylist()) - {None}
        return sorted(found)

    def parquet(self):
        """Opened for one reading."""
        return _open(self.path, self.metadata)

    def cell(self, column: str, row: int):
        if not self.is_parquet:
            return self.table.column(column)[row].as_py()
        group = bisect.bisect_right(self.starts, row) - 1
        return _GROUPS.get((self, group, column))[row - self.starts[group]].as_py()

    def values(self, column: str) -> Iterator[Any]:
        """A picture column's values, a few at a time."""
        if self.is_parquet:
            batches = (batch.column(column) for batch in _open(self.path).iter_batches(AT_ONCE, columns=[column]))
        else:
            batches = iter(self.table.column(column).chunks)
        for batch in batches:
            for value in batch:
                yield value.as_py()

    def texts(self, names: list[str], images: Iterable[str], embedded: bool, rows: int = 4096):
        """Batches of the text columns and, under the image columns' names, the paths of the pictures where there are any."""
        import pyarrow
        import pyarrow.compute

        kinds = {image: self.schema.field(image).type for image in images}
        named = [
            image
            for image, kind in kinds.items()
            if not embedded or (pyarrow.types.is_struct(kind) and kind.get_field_index("path") >= 0)
        ]
        wanted = [*names, *(f"{image}.path" if embedded and self.is_parquet else image for image in named)]
        size = 0
        try:
            opened = _open(self.path, self.metadata).iter_batches(rows, columns=wanted) if self.is_parquet else None
            for batch in opened or self.table.select(wanted).to_batches(max_chunksize=rows):
                size += batch.nbytes if self.is_parquet else 0  # an arrow file is mapped, pictures and all
                if size > FILE_BYTES:
                    raise VlaxError(f"{self.path} unpacks to more than {FILE_BYTES:,} bytes of text; split the file")
                for image in named if embedded else ():
                    paths = pyarrow.compute.struct_field(batch.column(image), "path")
                    batch = batch.set_column(batch.schema.get_field_index(image), image, paths)
                yield batch
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise VlaxError(f"{self.path} is damaged ({reason}); fetch or export it again") from None
