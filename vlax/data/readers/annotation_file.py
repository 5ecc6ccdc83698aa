"""One file of annotations: its bytes, its rows with the place of each, and errors that name it.

{"annotations": [{"image_id": 17, "caption": "a dog"}, ...]}        File.entries("annotations")
[{"image": "a.jpg", "text": "a dog"}, ...], or JSON lines of these  File.listed()
"""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping

from etils import epath

from vlax.data.readers import values
from vlax.data.readers.faults import STRICT, Faults
from vlax.errors import VlaxError
from vlax.rows import RowFault
from vlax.storage.paths import read_file
from vlax.storage.state import load_json, load_line


def parse(path: epath.Path, content: bytes, *shapes: str) -> dict:
    """The JSON object of a file; `shapes` say in an error what was looked for."""
    data = load_json(path, content)
    if not isinstance(data, dict):
        raise VlaxError(f"{path} holds a {type(data).__name__}, not an object; {'; '.join(shapes)}")
    return data


class File:
    """source, faults: whose rows they are, and what becomes of faulty ones; shape: what an error says that was looked for."""

    def __init__(self, path: epath.Path, shape: str, source: str = "", faults: Faults = STRICT):
        self.path, self.shape, self.source, self.faults = path, shape, source, faults
        self.content = read_file(path)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def guard(self, where: str):
        """Around all that is done with one row (`faults.py`)."""
        return self.faults.row(self.source, where)

    @functools.cached_property
    def data(self) -> dict:
        return parse(self.path, self.content, self.shape)

    def entries(self, key: str) -> list[tuple[str, object, dict]]:
        """(where, place, row) of a list in the file's object; where key is "", of the object's values: {question id: row}."""
        if not key:
            return [(f"{self.path}: question {at}", at, row) for at, row in self.data.items()]
        return [(f"{self.path}: {key}[{at}]", at, row) for at, row in enumerate(self.list(self.path, self.data, key))]

    def listed(self) -> list[tuple[int, str, dict]]:
        """(number, where, row) of every row of a file that is a JSON list, or JSON lines."""
        found = []
        for at, (where, read) in enumerate(self._lines() if self.content.lstrip()[:1] == b"{" else self._list()):
            with self.guard(where):
                row = read()
                if not isinstance(row, dict):
                    raise VlaxError(f"{where} is a {type(row).__name__}, not an object; {self.shape}")
                found.append((at, where, row))
        return found

    def _list(self) -> Iterator[tuple[str, Callable]]:
        data = load_json(self.path, self.content)
        if not isinstance(data, list):
            raise VlaxError(f"{self.path} holds a {type(data).__name__}, not a list; {self.shape}")
        return ((f"{self.path}: row {at}", lambda row=row: row) for at, row in enumerate(data))

    def _lines(self) -> Iterator[tuple[str, Callable]]:
        way_out = "JSON lines have one whole object a line; mend the line, or write one JSON list"
        for number, line in enumerate(self.content.split(b"\n"), 1):  # not splitlines: JSON texts may hold U+2028
            if line.strip():
                where = f"{self.path}: line {number}"
                yield where, functools.partial(load_line, where, line, way_out)

    def list(self, where, row: dict, key: str) -> list:
        found = row.get(key)
        if not isinstance(found, list):
            raise VlaxError(f'{where} has no list "{key}" (it has: {", ".join(row) or "nothing"}); {self.shape}')
        return found

    def field(self, where: str, row: dict, key: str):
        """A field that must be there, of what must be an object."""
        if not isinstance(row, dict):
            raise VlaxError(f"{where} is a {type(row).__name__}, not an object; {self.shape}")
        if row.get(key) is None:
            raise RowFault(f'{where} has no "{key}"; {self.shape}', "missing field")
        return row[key]

    def text(self, where: str, row: dict, key: str) -> str:
        """A text field with its white space (COCO has stray line ends) reduced to single blanks."""
        value = self.field(where, row, key)
        if not isinstance(value, str) or not value.strip():
            kind = "empty text" if isinstance(value, str) else "row refused"
            raise RowFault(f'{where}: "{key}" is {value!r}, not a text; mend or remove the row', kind)
        return " ".join(value.split())

    def id(self, where: str, row: dict, key: str) -> str:
        """An id as text: `17 -> "17"`, `17.0 -> "17"` (a column with a hole in it), `"0a1b" -> "0a1b"`."""
        value = self.field(where, row, key)
        if isinstance(value, bool) or not isinstance(value, int | float | str) or value == "":
            raise VlaxError(f'{where}: "{key}" is {value!r}, not a number or a text; {self.shape}')
        return value if isinstance(value, str) else values.text(value)


def usual_name(header: Mapping, image_id: str) -> str:
    """`"COCO_train2014_000000000042.jpg"` for picture 42 of VQAv2, `"0a1b.jpg"` for picture 0a1b of another set.

    header: what both files say beside their rows; `data_type` is MS COCO where it is missing.
    """
    subtype = str(header.get("data_subtype") or "").replace("test-dev", "test")  # test-dev asks about the test pictures
    if subtype and image_id.isdigit() and header.get("data_type", "mscoco") == "mscoco":
        return f"COCO_{subtype}_{int(image_id):012d}.jpg"
    return f"{image_id}.jpg"
