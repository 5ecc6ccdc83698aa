"""What the pictures of rows look like (`phash.py`), computed once by the doctor and by `prepare`: the leak filter's second net.

CACHE/rows/KEY/             of a source that the doctor looked at: 56 bytes a row (`row_cache.py`)
OUT/prints.npy              of a prepared set: uint8[pictures, 56], the hash and the colours of each
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from vlax.data.readers import phash, row_cache

WITHIN = 4  # bits of 64 in which near duplicates may differ
FLAT = 2  # levels of 255 by which a picture of one colour may differ: JPEG may leave one or two
WIDTH = 56  # bytes of a picture
NAME = "prints.npy"
SCHEMA = pa.schema([("print", pa.binary(WIDTH))])
OTHERS = pa.schema([("row", pa.int64()), ("print", pa.binary(WIDTH))])
BLOCK = 1 << 16  # rows of a record batch


class Prints(NamedTuple):
    """hashes: uint64[n], 0 where there is none: no picture, one of one colour, or one that does not decode;
    colours: uint8[n,48]."""

    hashes: np.ndarray
    colours: np.ndarray

    def of(self, rows: np.ndarray) -> "Prints":
        """Those of some rows; -1 is no picture."""
        found = Prints(self.hashes[rows], self.colours[rows])
        found.hashes[rows < 0] = 0
        return found


def joined(many: Iterable[Prints]) -> Prints:
    hashes, colours = [np.zeros(0, np.uint64)], [np.zeros((0, 48), np.uint8)]
    for one in many:
        there = one.hashes != 0
        hashes.append(one.hashes[there])
        colours.append(one.colours[there])
    return Prints(np.concatenate(hashes), np.concatenate(colours))


def packed(looks: Sequence[tuple[int | None, np.ndarray | None]]) -> Prints:
    """Of (hash, colours) of each picture."""
    hashes = np.array([look[0] or 0 for look in looks], np.uint64)
    colours = np.array([np.zeros(48, np.uint8) if look[1] is None else look[1] for look in looks], np.uint8)
    return Prints(hashes, colours.reshape(-1, 48))


def look(image: Image.Image) -> str:
    """One picture's print in hex; "" of one of one colour, which would be near to all others of that colour."""
    image = image.convert("RGB")
    extrema: Any = image.getextrema()  # (low, high) a band
    if max(high - low for low, high in extrema) <= FLAT:
        return ""
    return bytes(as_bytes(packed([phash.fingerprint(image)]))[0]).hex()


def as_bytes(found: Prints) -> np.ndarray:
    """uint8[n,56], whatever machine writes it."""
    return np.concatenate([found.hashes.astype(">u8").view(np.uint8).reshape(-1, 8), found.colours], axis=1)


def from_hex(looks: Sequence[str]) -> np.ndarray:
    """uint8[n,56] of what `look` says of pictures."""
    flat = b"".join(bytes.fromhex(look) or bytes(WIDTH) for look in looks)
    return np.frombuffer(flat, np.uint8).reshape(-1, WIDTH)


def from_bytes(table: np.ndarray) -> Prints:
    """table: uint8[n,56]"""
    return Prints(np.ascontiguousarray(table[:, :8]).view(">u8").reshape(-1).astype(np.uint64), table[:, 8:])


def near(mine: Prints, theirs: Prints) -> np.ndarray:
    """int64[k]: which of mine look like one of theirs, in order."""
    there = np.flatnonzero(mine.hashes)
    table = np.ascontiguousarray(as_bytes(mine.of(there)))
    _, first, back = np.unique(
        table.view(f"V{WIDTH}").reshape(-1), return_index=True, return_inverse=True
    )  # rows share pictures
    found = phash.nearest(*from_bytes(table[first]), *theirs, WITHIN) >= 0
    return there[found[back.reshape(-1)]]


def write(key: str, found: Prints) -> None:
    """Keeps the prints of the rows of a source."""
    _write(key, SCHEMA, [_column(as_bytes(found))])


def write_others(key: str, rows: np.ndarray, found: Prints) -> None:
    """Keeps the prints of further pictures of some rows."""
    _write(_others(key), OTHERS, [pa.array(rows, pa.int64()), _column(as_bytes(found))])


def _column(table: np.ndarray) -> pa.Array:
    buffer = pa.py_buffer(np.ascontiguousarray(table))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(WIDTH), len(table), [None, buffer])


def _write(key: str, schema: pa.Schema, columns: list[pa.Array]) -> None:
    whole = pa.RecordBatch.from_arrays(columns, schema=schema)

    def made() -> row_cache.Made:
        for at in range(0, len(whole), BLOCK):
            yield whole.slice(at, BLOCK)
        return {}

    row_cache.forget(key)
    row_cache.kept(key, schema, made)


def _others(key: str) -> str:
    return row_cache.derived("other pictures", key)


def read(key: str, rows: int) -> Prints | None:
    """The prints of the rows of a source; None where there are none."""
    blocks = row_cache.found(key, SCHEMA)
    if blocks is None:
        return None
    table = _table(blocks)
    return from_bytes(table) if len(table) == rows else None


def read_others(key: str) -> tuple[np.ndarray, Prints]:
    """(int64[n] rows, prints of their further pictures)"""
    blocks = row_cache.found(_others(key), OTHERS) or ()
    rows = [np.frombuffer(block.column("row").buffers()[1], np.int64, len(block)) for block in blocks]
    return np.concatenate([np.zeros(0, np.int64), *rows]), from_bytes(_table(blocks))


def _table(blocks: Iterable[pa.RecordBatch]) -> np.ndarray:
    parts = [np.frombuffer(block.column("print").buffers()[1], np.uint8, len(block) * WIDTH) for block in blocks]
    return np.concatenate([np.zeros(0, np.uint8), *parts]).reshape(-1, WIDTH)
