"""Text files of cells, as people's programs write them: CSV and TSV, a spreadsheet's export, the token files of Flickr8k.

    image,caption\\na.jpg,a dog                   cells split by comma, tab, semicolon or |: by what the header has most of
    image_name| comment_number| comment          blanks around cells are no part of them
    a.jpg#0<TAB>A dog .                          without a header: `image` and `text`
    a.jpg|what is it?|a dog                      without a header: `image`, `question` and `answer`

UTF-8 with a byte order mark or without, UTF-16 with one, and else Windows-1252, which is said.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from typing import Any, Literal

from vlax.errors import VlaxError
from vlax.storage.state import LINE_BYTES

csv.field_size_limit(LINE_BYTES)  # by itself csv ends at a cell of 128 KiB, and with it the file
TOKENS = re.compile(r"[^\t\r\n]+\.(?:jpe?g|png)#\d+\t", re.IGNORECASE)  # Flickr8k's, which quote nothing either
BARE = re.compile(r"([^\t\r\n,|;]+\.(?:jpe?g|png|webp))(#\d+)?([\t,|;])", re.IGNORECASE)  # a first line without a header


def decoded(content: bytes) -> tuple[str, str]:
    """(text, its encoding); "" for bytes that are no text."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace"), "UTF-16"
    if b"\0" in content[: 1 << 20]:
        return "", ""
    try:
        return content.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace"), "Windows-1252"


def table(text: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """(column names, (line number, cells) of each row). csv.Error, while they are read, for what is none.

    csv.Sniffer would go by the texts too, which are full of commas, and has no answer for a single column.
    """
    first = text.lstrip("\ufeff\r\n").split("\n", 1)[0]
    if bare := BARE.match(first):
        rows = _reader(text, bare[3])
        three = first.count(bare[3]) == 2
        names = ["image", "question", "answer"] if three else ["image", "text"]
        return names, ((rows.line_num, [re.sub(r"#\d+$", "", row[0]), *row[1:]]) for row in rows if row)
    delimiter = max(",\t;|", key=first.count)
    rows = _reader(text, delimiter)
    header: list[str] = next(rows, [])
    return [name.strip().lstrip("\ufeff") for name in header], ((rows.line_num, row) for row in rows if row)


def _reader(text: str, delimiter: str) -> Any:
    # Who chose | for a comma quotes nothing.
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "|" or TOKENS.match(text) else csv.QUOTE_MINIMAL
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)


def record(where: str, names: list[str], cells: list[str]) -> dict[str, Any]:
    """One row by the names of its columns; VlaxError where it has other cells than there are names."""
    if len(cells) != len(names):
        way_out = "put texts with commas or line ends in double quotes"
        raise VlaxError(f"{where} has {len(cells)} cells under {len(names)} column names; {way_out}")
    return {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
