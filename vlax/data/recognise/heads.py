"""What the first bytes of a text file hold: some rows of JSON lines, or of cells under a header."""

import csv
import itertools
from collections.abc import Mapping
from typing import BinaryIO

from vlax.data.readers import cells
from vlax.data.recognise import json_shapes
from vlax.errors import VlaxError
from vlax.storage.state import LINE_BYTES, load_line

HEAD = 1 << 20  # bytes that tell a format, with the end of their line; only a JSON file is read whole, once


def of(file: BinaryIO) -> bytes:
    """The first lines of a file; a line may be long, where rows hold their pictures."""
    return file.read(HEAD) + file.readline(LINE_BYTES)


def lines(head: bytes, columns: Mapping[str, str] | None = None, sure: bool = False) -> list | None:
    """The rows of JSON lines, None where the file is one JSON text. sure: its name says that it is no such text."""
    lines = [line for line in head.split(b"\n") if line.strip()]
    try:
        rows = [load_line("", line) for line in lines[:1000]]
    except VlaxError:
        return None
    rows = rows if all(isinstance(row, dict) for row in rows) else []
    return rows if rows and (sure or len(rows) > 1 or _is_row(rows[0], columns)) else None


def _is_row(row: dict, columns: Mapping[str, str] | None) -> bool:
    try:
        return bool(json_shapes.of_rows([row], columns))
    except VlaxError:
        return False


def cells_of(head: bytes) -> list[dict]:
    """The first rows of a text with a header; none for bytes that are no text."""
    text, _ = cells.decoded(head)
    try:
        names, rows = cells.table(text)
        return [dict(zip(names, row, strict=False)) for _, row in itertools.islice(rows, 1000) if len(row) == len(names)]
    except csv.Error:
        return []
