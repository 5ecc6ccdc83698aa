"""Items as record batches of Arrow (`item_table.py`), from a stream of them, and the files that these are written to."""

import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from vlax.data.readers.item_table import CONTENTS, KINDS, SCHEMA, TEXTS, TURNS, Item
from vlax.errors import VlaxError
from vlax.rows import Turn

BLOCK, BLOCK_BYTES = 4096, 16 << 20  # rows of a record batch, and about what their answers and pictures may hold


def _strings(values: list[str]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can spell: it comes back as it was
        column = pa.array([value.encode("utf-8", "surrogatepass") for value in values], pa.binary())
        return column.cast(pa.string(), safe=False) if isinstance(column, pa.BinaryArray) else column


def _listed(values: list[tuple], make: Callable[[list], pa.Array]) -> pa.Array:
    ends = np.array([0, *itertools.accumulate(map(len, values))], np.int32)
    flat = make(list(itertools.chain.from_iterable(values)))
    if isinstance(flat, pa.ChunkedArray):
        raise pa.ArrowCapacityError("more than one array holds")
    return pa.ListArray.from_arrays(pa.array(ends), flat)


def _structs(turns: list[Turn]) -> pa.Array:
    columns = [_strings([getattr(turn, name) for turn in turns]) for name in ("question", "answer", "task")]
    if any(isinstance(column, pa.ChunkedArray) for column in columns):
        raise pa.ArrowCapacityError("more than one array holds")
    return pa.StructArray.from_arrays(columns, fields=list(TURNS.value_type))


def _column(name: str, values: list) -> Any:
    kind = KINDS.get(name)
    if kind == CONTENTS:
        return _listed(values, lambda flat: pa.array(flat, pa.binary()))
    if kind in (TEXTS, TURNS):
        return _listed(values, _strings if kind == TEXTS else _structs)
    return pa.array(values, kind) if kind else _strings(values)


def batches(items: Sequence[Item], schema: pa.Schema = SCHEMA) -> list[pa.RecordBatch]:
    """Some items as one record batch; as several where their texts are more than one has room for (2 GiB a column)."""
    columns: dict[str, Any] = dict(zip(Item._fields, zip(*items, strict=True), strict=True))
    places = zip(*columns.pop("place"), strict=True)
    try:
        made = [_column(name, list(values)) for name, values in columns.items() if name in schema.names]
        made += [pa.array(numbers, pa.int64()) for numbers in places]
        if not any(isinstance(column, pa.ChunkedArray) for column in made):
            return [pa.RecordBatch.from_arrays(made, schema=schema)]
    except pa.ArrowCapacityError:
        pass  # it is cut in halves below
    if len(items) == 1:
        raise VlaxError(f"row {items[0].id} has more text than a column takes (2 GiB); remove the row")
    half = len(items) // 2
    return [*batches(items[:half], schema), *batches(items[half:], schema)]


def blocks(items: Iterable[Item], schema: pa.Schema = SCHEMA) -> Iterator[pa.RecordBatch]:
    """Record batches of a schema, SCHEMA or NARROW, from a stream of items."""
    part, size = [], 0
    for item in items:
        part.append(item)
        size += len(item.answer) + len(item.inline) + sum(map(len, item.insets))
        if len(part) == BLOCK or size > BLOCK_BYTES:
            yield from batches(part, schema)
            part, size = [], 0
    if part:
        yield from batches(part, schema)


def write(path: Path, schema: pa.Schema, made: Iterable[pa.RecordBatch]) -> list[tuple[int, int, int, int]]:
    """One Arrow IPC file; (rows, byte, bytes, CRC-32) of each of its record batches. The bytes depend on the batches alone."""
    found = []
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for batch in made:
            begin = file.tell()
            writer.write_batch(batch)
            found.append((len(batch), begin, file.tell() - begin))
    with pa.OSFile(str(path)) as file:
        file.seek(8)  # the schema, which goes to the disk with the first batch
        pa.ipc.read_message(file)
        first = file.tell()
    where = [(rows, max(at, first), size - max(first - at, 0)) for rows, at, size in found]
    with path.open("rb") as file:  # not mapped: what is written once need not stay in memory
        return [(rows, at, size, zlib.crc32(_read(file, at, size))) for rows, at, size in where]


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def places(written: Iterable[Sequence[tuple[int, int, int, int]]]) -> np.ndarray:
    """int64[blocks + 1, 5], as `rows.npy` has it, of what `write` returned for each file."""
    lines = [(rows, number, *where) for number, batches in enumerate(written) for rows, *where in batches]
    table = np.array([*lines, (0, 0, 0, 0, 0)], np.int64)
    table[:, 0] = np.cumsum(table[:, 0]) - table[:, 0]
    return table
