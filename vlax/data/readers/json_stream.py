"""A large JSON file, one element at a time: what Python's own parser makes of it, without a text or a tree of all of it.

[{"image": "a.jpg"}, {"image": "b.jpg"}]      ("", 0, {"image": "a.jpg"}), ("", 1, {"image": "b.jpg"})
{"info": {}, "images": [{"id": 1}]}           ("info", ALONE, {}), ("images", BEGINS, []), ("images", 0, {"id": 1})
"""

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from etils import epath

from vlax.errors import VlaxError
from vlax.storage.paths import read_file
from vlax.storage.state import load_json

CHUNK = 4 << 20  # bytes that are read at once; more where one element is longer
ALONE, BEGINS = -1, -2  # in place of a number: a value that is no list; the begin of a list
NUMBER = 4  # characters after a number by which it is known not to go on: "1" may become "1.5", "1e9" or "1e+9"
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def members(path: epath.Path, local: str) -> Iterator[tuple[str, int, Any]]:
    """(key, number, element) of the lists in a file's object, "" being the key of a file that is a list, and its other values.

    local: where the file is on this host. VlaxError, when it is reached, for what is no JSON: that of reading it as a whole.
    """
    try:
        with Path(local).open("rb") as file:
            text = _Text(file)
            if text.take("[{") == "[":
                yield "", BEGINS, []
                yield from _elements(text, "")
            else:
                yield from _object(text)
            if text.next():
                raise ValueError("more follows")
    except (ValueError, RecursionError) as error:
        load_json(path, read_file(path))
        raise VlaxError(f"{path} is not JSON as vlax reads large files ({error}); write it again") from None


def _object(text: "_Text") -> Iterator[tuple[str, int, Any]]:
    if text.next() == "}":
        text.take("}")
        return
    while True:
        if text.next() != '"':
            raise ValueError("a key is missing")
        key = text.value()
        text.take(":")
        if text.next() == "[":
            text.take("[")
            yield key, BEGINS, []
            yield from _elements(text, key)
        else:
            yield key, ALONE, text.value()
        if text.take(",}") == "}":
            return


def _elements(text: "_Text", key: str) -> Iterator[tuple[str, int, Any]]:
    """Of a list whose bracket was taken."""
    if text.next() == "]":
        text.take("]")
        return
    number = 0
    while True:
        yield key, number, text.value()
        number += 1
        if text.take(",]") == "]":
            return


class _Text:
    """The part of a file's text that is looked at."""

    def __init__(self, file: BinaryIO):
        self._file, self._decoder = file, codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._ended = "", 0, False

    def _more(self) -> None:
        content = self._file.read(max(CHUNK, len(self._text) - self._at))
        self._ended = not content
        self._text, self._at = self._text[self._at :] + self._decoder.decode(content, final=self._ended), 0

    def next(self) -> str:
        """The next character that is no space, which stays; "" at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def take(self, wanted: str) -> str:
        """The next character, one of `wanted`; ValueError for another."""
        found = self.next()
        if not found or found not in wanted:
            raise ValueError(f"{found!r} where {wanted!r} was looked for")
        self._at += 1
        return found

    def value(self) -> Any:
        self.next()
        while True:
            ended = self._ended
            try:
                found, end = _DECODER.raw_decode(self._text, self._at)
                if end + NUMBER <= len(self._text) or ended:
                    self._at = end
                    return found
            except json.JSONDecodeError:
                if ended:
                    raise
            self._more()
