"""What is kept of a source's rows: columns of Arrow, in memory or mapped from files, and no Python object a row.

    FOLDER/rows-00000.arrow    Arrow IPC, BLOCK rows a record batch, a column for each field of `Item`
    FOLDER/rows.npy            int64[blocks + 1, 5]: first row, file, byte, bytes, CRC-32 of each batch; then [rows, 0, 0, 0, 0]

    ItemTable([batch, ...])[7]           Item(id="17#1", image_id="17", file_name="a.jpg", ...), in a few microseconds
    ItemTable(Mapped(FOLDER, ...))    opened without a look at any row, however many there are

A batch is compared with its CRC when it is first touched, and its buffers are read by Python's own memoryviews: a damaged file
is an error, and not the end of the process. `item_batches.py` writes what is read here.
"""

import bisect
import functools
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from etils import epath

from vlax.errors import VlaxError
from vlax.rows import Turn
from vlax.storage.paths import local_file

KEPT = 256  # record batches whose columns are at hand; what they hold stays on disk


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
    also       what else the row calls its picture: ids and names of it in fields that nothing else reads, keys (`leaks.py`)
    more       what `file_name` is, of each picture after the first; those of a container lie side by side at one place
    insets     what `inline` is, of each of them; () where none of them stands in the row
    stands     where the pictures stand in the text, "turn:characters" each (`rows.Row.places`)
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
    more: tuple[str, ...] = ()
    insets: tuple[bytes, ...] = ()
    stands: tuple[str, ...] = ()


EMPTY, PLACE = Item("", "", "", "", ""), Item._fields.index("place")
TEXTS = pa.list_(pa.string())
TURNS = pa.list_(pa.struct([(name, pa.string()) for name in ("question", "answer", "task")]))
CONTENTS = pa.list_(pa.binary())
KINDS = {"references": TEXTS, "later": TURNS, "inline": pa.binary(), "also": TEXTS, "more": TEXTS, "insets": CONTENTS,
         "stands": TEXTS}  # fmt: skip
PLAIN = [name for name in Item._fields if name != "place"]
SEVERAL = ("more", "insets", "stands")  # that prepared sets without rows of several pictures do not have


def _schema(names: Iterable[str]) -> pa.Schema:
    return pa.schema(
        [*((name, KINDS.get(name, pa.string())) for name in names), *((name, pa.int64()) for name in Place._fields)]
    )


SCHEMA = _schema(PLAIN)
NARROW = _schema(name for name in PLAIN if name not in SEVERAL)


class Mapped:
    """The record batches of some files, mapped.

    table   as in `rows.npy`
    again   what an error tells to do
    spoilt  the file by which others know that all is whole: it goes when a batch is found that is not
    """

    def __init__(self, folder: str, table: np.ndarray, files: Sequence[str], schema: pa.Schema, again: str, spoilt: str = ""):
        self._made_of = folder, table, files, schema, again, spoilt
        self.folder, self.table, self.files, self.schema, self.again, self.spoilt = self._made_of
        self._checked = np.zeros(len(self), bool)
        self._file = functools.cache(self._open)

    def __reduce__(self):
        return Mapped, self._made_of

    def __len__(self) -> int:
        return len(self.table) - 1

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return map(self.__getitem__, range(len(self)))

    def open(self) -> None:
        """Maps all files at once: they may go while this is used."""
        for number in range(len(self.files)):
            self._file(number)

    def _open(self, number: int) -> pa.Buffer:
        with pa.memory_map(local_file(epath.Path(f"{self.folder}/{self.files[number]}"))) as file:  # what is mapped stays so
            return file.read_buffer()

    def __getitem__(self, block: int) -> pa.RecordBatch:
        _, number, at, size, crc = (int(n) for n in self.table[block])
        file = f"{self.folder}/{self.files[number]}"
        try:
            found = self._file(number).slice(at, size)
            if not self._checked[block]:
                if found.size != size or zlib.crc32(found) != crc:
                    raise ValueError(f"it is damaged at byte {at:,}")
                self._checked[block] = True
            return pa.ipc.read_record_batch(found, self.schema)
        except (OSError, ValueError, IndexError, MemoryError, pa.ArrowException) as error:
            if self.spoilt:
                Path(self.spoilt).unlink(missing_ok=True)
            raise VlaxError(f"{file} cannot be read ({str(error).splitlines()[0]}); {self.again}") from None


Reader = Callable[[int], Any]


def _ends(column: pa.Array) -> memoryview:
    """Where each of a column's values ends, after where the first begins: [0] where nothing is."""
    return memoryview(column.buffers()[1] or bytes(4)).cast("i")


def _filled(column: pa.Array) -> bool:
    ends = _ends(column)
    return bool(ends[0] != ends[len(column)])


def _texts(column: pa.Array) -> Reader:
    """Reads a text by its number; every offset is checked by the memoryview that it goes to."""
    ends, data = _ends(column), memoryview(column.buffers()[2] or b"")
    return lambda at: str(data[ends[at] : ends[at + 1]], "utf-8", "surrogatepass")


def _lists(column: pa.Array, make: Reader) -> Reader:
    """make: what one of the flat values is."""
    ends = _ends(column)
    return lambda at: tuple(map(make, range(ends[at], ends[at + 1])))


def _turns(column: pa.Array) -> Reader:
    question, answer, task = (_texts(column.values.field(name)) for name in ("question", "answer", "task"))
    return _lists(column, lambda at: Turn(question(at), answer(at), task(at)))


def _bytes(column: pa.Array) -> Reader:
    ends, data = _ends(column), memoryview(column.buffers()[2] or b"")
    return lambda at: bytes(data[ends[at] : ends[at + 1]])


def _nothing(at: int) -> tuple[()]:
    return ()


def _reader(column: pa.Array) -> Reader:
    if column.type == TURNS:
        return _turns(column)
    if column.type == TEXTS:
        return _lists(column, _texts(column.values))
    if column.type == CONTENTS:
        return _lists(column, _bytes(column.values))
    return _bytes(column) if column.type == pa.binary() else _texts(column)


class _Block:
    """A record batch, taken apart: columns that hold nothing are not asked for every row."""

    def __init__(self, batch: pa.RecordBatch):
        columns = [(Item._fields.index(name), batch.column(name)) for name in PLAIN if name in batch.schema.names]
        self.readers = [(at, _reader(column)) for at, column in columns if _filled(column)]
        places = [memoryview(batch.column(name).buffers()[1] or b"").cast("q") for name in Place._fields]
        self.places = places if any(np.asarray(place)[: len(batch)].max(initial=-1) >= 0 for place in places) else []

    def item(self, at: int) -> Item:
        values: list[Any] = [*EMPTY]
        for field, read in self.readers:
            values[field] = read(at)
        if self.places:
            number, where, size = self.places
            values[PLACE] = Place(number[at], where[at], size[at])
        return Item._make(values)


class ItemTable:
    """Items by number. blocks: record batches of SCHEMA, in memory or `Mapped`."""

    def __init__(self, blocks: Sequence[pa.RecordBatch] | Mapped):
        self.blocks = blocks
        if isinstance(blocks, Mapped):
            self._starts = blocks.table[:, 0].tolist()
        else:
            self._starts = [0, *itertools.accumulate(map(len, blocks))]
        self._block = functools.lru_cache(KEPT)(self._taken_apart)
        self._again = blocks.again if isinstance(blocks, Mapped) else "open it again"

    def __reduce__(self):
        return ItemTable, (self.blocks,)

    def __len__(self) -> int:
        return self._starts[-1]

    def _taken_apart(self, number: int) -> _Block:
        return _Block(self.blocks[number])

    def __getitem__(self, row: int) -> Item:
        number = bisect.bisect_right(self._starts, row) - 1
        try:
            return self._block(number).item(row - self._starts[number])
        except (IndexError, ValueError, TypeError) as error:  # a loop over rows would take an IndexError for their end
            raise VlaxError(f"row number {row} is not as it was written ({error}); {self._again}") from None

    def __iter__(self) -> Iterator[Item]:
        for number in range(len(self.blocks)):
            block = _Block(self.blocks[number])
            yield from map(block.item, range(self._starts[number + 1] - self._starts[number]))

    def columns(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Some columns of texts or of lists of them, row by row."""
        for batch in self.blocks:
            readers = [_reader(batch.column(name)) if name in batch.schema.names else _nothing for name in names]
            yield from (tuple([read(at) for read in readers]) for at in range(len(batch)))

    def batches(self) -> Iterator[pa.RecordBatch]:
        return iter(self.blocks)
