"""Files that are one list of rows: a JSON list, or JSON lines.

[{"image": "a.jpg", "text": "a dog"}, {"image": "b.jpg", "text": "a cat"}]      ("rows.json: row 0", {...}), ...

{"image": "a.jpg", "text": "a dog"}
{"image": "b.jpg", "text": "a cat"}                                              ("rows.jsonl: line 1", {...}), ...
"""

import collections
import functools
from collections.abc import Callable

from etils import epath

from vlax.data.readers.faults import Faults
from vlax.data.readers.reading import field
from vlax.errors import VlaxError
from vlax.storage.state import load_json


def listed(path: epath.Path, content: bytes, shape: str, name: str, faults: Faults) -> list[tuple[int, str, dict]]:
    """(number, where, row) of every row of a JSON list or of JSON lines; `where` begins an error, `shape` ends one.

    name, faults: of the source, and what becomes of a row that is no object or a line that is not JSON.
    """
    found = []
    for at, (where, read) in enumerate(_lines(path, content) if content.lstrip()[:1] == b"{" else _list(path, content, shape)):
        with faults.row(name, where):
            row = read()
            if not isinstance(row, dict):
                raise VlaxError(f"{where} is a {type(row).__name__}, not an object; {shape}")
            found.append((at, where, row))
    return found


def _list(path: epath.Path, content: bytes, shape: str) -> list[tuple[str, Callable]]:
    data = load_json(path, content)
    if not isinstance(data, list):
        raise VlaxError(f"{path} holds a {type(data).__name__}, not a list; {shape}")
    return [(f"{path}: row {at}", lambda row=row: row) for at, row in enumerate(data)]


def _lines(path: epath.Path, content: bytes) -> list[tuple[str, Callable]]:
    lines = enumerate(content.split(b"\n"), 1)  # not splitlines: JSON texts may hold U+2028
    named = [(f"{path}: line {number}", line) for number, line in lines if line.strip()]
    way_out = "JSON lines have one whole object a line; mend the line, or write one JSON list"
    return [(where, functools.partial(load_json, where, line, way_out)) for where, line in named]


def identifier(where: str, row: dict, key: str, shape: str) -> str:
    """An id as text: `17 -> "17"`, `"0a1b" -> "0a1b"`."""
    value = field(where, row, key, shape)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise VlaxError(f'{where}: "{key}" is {value!r}, not a number or a text; {shape}')
    return str(value)


def majority(answers) -> str:
    """The most frequent answer, of equals the first: `("yes", "no", "no") -> "no"`; "" where all are empty."""
    said = collections.Counter(answer for answer in answers if answer.strip())
    return said.most_common(1)[0][0] if said else ""
