"""What the first bytes of a text file hold: some rows of JSON lines, or of cells under a header."""

import csv
import itertools

from vlax.data.readers import cells
from vlax.data.recognise import json_shapes
from vlax.errors import VlaxError
from vlax.storage.state import load_line

HEAD = 1 << 20  # bytes that tell a format; only a JSON file is read whole, once


def lines(head: bytes) -> list | None:
    """The rows of JSON lines, None where the file is one JSON text."""
    lines = head.split(b"\n")
    lines = [line for line in (lines[:-1] if len(head) == HEAD else lines) if line.strip()]
    try:
        rows = [load_line("", line) for line in lines[:1000]]
    except VlaxError:
        return None
    rows = rows if all(isinstance(row, dict) for row in rows) else []
    return rows if rows and (len(rows) > 1 or _is_row(rows[0])) else None


def _is_row(row: dict) -> bool:
    try:
        return bool(json_shapes.of_rows([row]))
    except VlaxError:
        return False


def cells_of(head: bytes) -> list[dict]:
    """The first rows of a text with a header; none for bytes that are no text."""
    text, _ = cells.decoded(head if len(head) < HEAD else head[: head.rfind(b"\n")])
    try:
        names, rows = cells.table(text)
        return [dict(zip(names, row, strict=False)) for _, row in itertools.islice(rows, 1000) if len(row) == len(names)]
    except csv.Error:
        return []
