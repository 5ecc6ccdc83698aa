"""One file of annotations: its bytes, its rows with the place of each, and errors that name it.

{"annotations": [{"image_id": 17, "caption": "a dog"}, ...]}        File.entries("annotations")
[{"image": "a.jpg", "text": "a dog"}, ...], or JSON lines of these  File.listed()
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from etils import epath

from vlax.data.readers import json_stream, values
from vlax.data.readers.faults import STRICT, Faults
from vlax.errors import VlaxError
from vlax.rows import RowFault
from vlax.storage.paths import FILE_BYTES, irregular, local_file, read_file, sha256
from vlax.storage.state import LINE_BYTES, load_json, load_line

STREAMED = 32 << 20  # bytes from which on a file is not held as a whole
START = 4096  # bytes by which it is known what a file holds


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
        self._called = str(path)  # a path object takes longer to say so than a row to read
        if (size := _size(path)) <= STREAMED:
            self._start, self._local = self.content[:START], ""
        elif size > FILE_BYTES:
            read_file(path)  # which says so
        else:
            self._local = local_file(path)
            with Path(self._local).open("rb") as file:
                self._start = file.read(START)

    @functools.cached_property
    def content(self) -> bytes:
        return read_file(self.path)

    @property
    def digest(self) -> str:
        return sha256(Path(self._local)) if self._local else hashlib.sha256(self.content).hexdigest()

    @property
    def start(self) -> bytes:
        """The first byte that is no space."""
        return self._start.lstrip()[:1]

    @property
    def streamed(self) -> bool:
        """Whether the file is large, and is read piece by piece."""
        return bool(self._local) and json.detect_encoding(self._start[:4]).startswith("utf-8")

    @property
    def lines(self) -> bool:
        """Whether a large file's first line is a whole JSON object, and more lines follow."""
        if not self._local:
            return False
        with Path(self._local).open("rb") as file:
            first = file.readline(LINE_BYTES + 2)
            more = file.read(START).strip()
        try:
            return bool(more) and isinstance(load_line(self.path, first), dict)
        except VlaxError:
            return False

    def guard(self, where: str):
        """Around all that is done with one row (`faults.py`)."""
        return self.faults.row(self.source, where)

    @functools.cached_property
    def data(self) -> dict:
        """The file's object; of a large file with empty lists for those that are streamed."""
        if not self.streamed or self.start != b"{":
            return parse(self.path, self.content, self.shape)
        return {key: value for key, at, value in json_stream.members(self.path, self._local) if at < 0}

    def entries(self, key: str) -> Iterator[tuple[str, object, dict]]:
        """(where, place, row) of a list in the file's object; where key is "", of the object's values: {question id: row}."""
        if not key:
            for at, row in self._values():
                yield f"{self._called}: question {at}", at, row
            return
        for number, row in enumerate(self._listed(key)):
            yield f"{self._called}: {key}[{number}]", number, row

    def _values(self) -> Iterator[tuple[str, dict]]:
        if self.streamed and self.start == b"{":
            return ((key, row) for key, at, row in json_stream.members(self.path, self._local) if at < 0)
        return iter(self.data.items())

    def _listed(self, key: str) -> Iterable:
        """The elements of a list in the file's object."""
        if not self.streamed or self.start != b"{":
            return self.list(self.path, self.data, key)
        return self._streamed(key)

    def _streamed(self, key: str) -> Iterator:
        there: dict[str, object] = {}
        for name, at, element in json_stream.members(self.path, self._local):
            if at < 0:
                there[name] = element
            elif name == key:
                yield element
        self.list(self.path, there, key)  # VlaxError where there is no such list

    def listed(self) -> Iterator[tuple[int, str, dict]]:
        """(number, where, row) of every row of a file that is a JSON list, or JSON lines. Of a small file all are read first:
        a line that is no JSON says more than what is amiss with a row before it."""
        return self._found() if self._local else iter(list(self._found()))

    def _found(self) -> Iterator[tuple[int, str, dict]]:
        for at, (where, read) in enumerate(self._lines() if self.start == b"{" else self._list()):
            row = None
            with self.guard(where):
                found = read()
                if not isinstance(found, dict):
                    raise VlaxError(f"{where} is a {type(found).__name__}, not an object; {self.shape}")
                row = found
            if row is not None:
                yield at, where, row

    def _list(self) -> Iterator[tuple[str, Callable]]:
        if self.streamed and self.start == b"[":
            found = ((at, row) for _, at, row in json_stream.members(self.path, self._local) if at >= 0)
        else:
            data = load_json(self.path, self.content)
            if not isinstance(data, list):
                raise VlaxError(f"{self.path} holds a {type(data).__name__}, not a list; {self.shape}")
            found = ((at, row) for at, row in enumerate(data))
        return ((f"{self._called}: row {at}", lambda row=row: row) for at, row in found)

    def _lines(self) -> Iterator[tuple[str, Callable]]:
        way_out = "JSON lines have one whole object a line; mend the line, or write one JSON list"
        # Not splitlines: JSON texts may hold U+2028.
        lines = self._long_lines() if self._local else iter(self.content.split(b"\n"))
        for number, line in enumerate(lines, 1):
            if line.strip():
                where = f"{self._called}: line {number}"
                yield where, functools.partial(load_line, where, line, way_out)

    def _long_lines(self) -> Iterator[bytes]:
        """The lines of a large file; of one that is longer than any may be, what is enough to say so."""
        with Path(self._local).open("rb") as file:
            while line := file.readline(LINE_BYTES + 2):
                yield line.removesuffix(b"\n")
                while len(line) == LINE_BYTES + 2 and not line.endswith(b"\n"):
                    line = file.readline(LINE_BYTES + 2)

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


def _size(path: epath.Path) -> int:
    """Bytes of a file; 0 where it is none, which is said when it is read."""
    try:
        return 0 if irregular(path) else int(path.stat().length)
    except OSError:
        return 0


def usual_name(header: Mapping, image_id: str) -> str:
    """`"COCO_train2014_000000000042.jpg"` for picture 42 of VQAv2, `"0a1b.jpg"` for picture 0a1b of another set.

    header: what both files say beside their rows; `data_type` is MS COCO where it is missing.
    """
    subtype = str(header.get("data_subtype") or "").replace("test-dev", "test")  # test-dev asks about the test pictures
    if subtype and image_id.isdigit() and header.get("data_type", "mscoco") == "mscoco":
        return f"COCO_{subtype}_{int(image_id):012d}.jpg"
    return f"{image_id}.jpg"
