"""What a row says of its pictures, in all the ways that people write it.

pictures(where, "a.jpg")                                   [Named("a.jpg")]
pictures(where, [{"bytes": b"...", "path": None}])          [Named("1f2e...", b"...")]
pictures(where, "data:image/png;base64,iVBOR...")          [Named("90c4...", b"\\x89PNG...")]
pictures(where, {"url": "file:///data/a%20b.jpg"})          [Named("/data/a b.jpg")]
pictures(where, None)                                      []
"""

import base64
import binascii
import hashlib
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

from vlax.errors import VlaxError
from vlax.rows import RowFault

ENDING = re.compile(r"\.(jpe?g|png|webp|gif|bmp|tiff?|jp2|heic|avif|ppm|pgm)$", re.IGNORECASE)
PACKED = re.compile(r"(/9j/|iVBOR|R0lGOD|UklGR|Qk0|SUkq|TU0A)[A-Za-z0-9+/=_\s-]{40,}")  # how files begin, in base64
HELD = ("bytes", "data", "base64", "b64")  # keys of a picture's content
PLACES = ("path", "image", "url", "image_url", "file_name", "filename", "file", "name", "source", "file_path")
DOWNLOAD = "download it first (img2dataset fetches whole lists of addresses) and name the file"


class Named(NamedTuple):
    """A picture as a row gives it: the name of its file, or a name that its content makes, and the content."""

    name: str
    content: bytes = b""


def pictures(where: str, value: Any) -> list[Named]:
    """All of a row's pictures, in order; none for nothing ("", None, NaN, an empty struct). RowFault for an address on the web,
    for base64 that is none; VlaxError for what is no picture at all."""
    if value is None or value != value or value == "" or value == b"":
        return []
    if isinstance(value, str):
        return [_named(where, value)] if value.strip() else []
    if isinstance(value, bytes | bytearray | memoryview):
        return [content(bytes(value))]
    if isinstance(value, Mapping):
        return _of_mapping(where, value)
    if isinstance(value, list | tuple):
        return [one for each in value for one in pictures(where, _no_number(where, value, each))]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [Named(str(int(value)) if value == int(value) else str(value))]
    raise _no_picture(where, value)


def content(given: bytes, name: str = "") -> Named:
    """A picture by its bytes, which name it where nothing else does."""
    return Named(name or hashlib.sha256(given).hexdigest()[:20], given)


def like_a_picture(name: object, value: Any) -> bool:
    """Whether a field that nobody reads looks like a picture: by its ending, its bytes, or its name and an address."""
    if isinstance(value, list | tuple):
        return bool(value) and like_a_picture(name, value[0])
    if isinstance(value, Mapping):
        return any(isinstance(value.get(key), bytes) for key in HELD) or any(
            like_a_picture(name, value.get(key)) for key in PLACES
        )
    if isinstance(value, bytes):
        return value[:4] in (b"\x89PNG", b"RIFF", b"GIF8") or value[:2] in (b"\xff\xd8", b"BM")
    if not isinstance(value, str) or (len(value) > 4096 and not encoded(value)):
        return False
    text = value.strip()
    if "\n" in text or (" " in text and "/" not in text and "\\" not in text and not ENDING.search(text)):
        return False
    address = re.match(r"(https?|ftp)://", text)
    if address:
        return bool(ENDING.search(text.split("?")[0])) or bool(re.search("image|img|photo|picture", str(name), re.IGNORECASE))
    return bool(encoded(text) or (ENDING.search(text) and len(text.split()) <= 8))


def encoded(text: str) -> bool:
    """Whether a text is a picture in base64, by how it begins."""
    return text.startswith("data:image") or bool(PACKED.match(text))


def _named(where: str, text: str) -> Named:
    text = text.strip()
    if text.startswith("data:"):
        head, comma, packed = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RowFault(f"{where}: its picture {text[:40]!r}... is no base64 data: address; mend or remove the row")
        return content(_decoded(where, packed))
    if PACKED.match(text):
        return content(_decoded(where, text))
    if text.startswith("file:"):
        return Named(urllib.parse.unquote(urllib.parse.urlsplit(text).path))
    check_address(where, text)
    return Named(text)


def check_address(where: str, name: str) -> None:
    """RowFault for a picture that lies on the web: nothing is fetched while training."""
    if re.match(r"(https?|ftp)://", name, re.IGNORECASE):
        raise RowFault(f"{where}: its picture is the address {name[:120]}; {DOWNLOAD}", "picture on the web")


def _decoded(where: str, packed: str) -> bytes:
    try:
        return base64.b64decode(re.sub(r"\s+", "", packed).replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RowFault(f"{where}: its picture is no base64 ({error}); mend or remove the row", "corrupt picture") from None


def _of_mapping(where: str, value: Mapping) -> list[Named]:
    held = next((value[key] for key in HELD if value.get(key)), None)
    places = [value[key] for key in PLACES if value.get(key)]
    if isinstance(held, bytes | bytearray | memoryview):
        return [content(bytes(held), next((place for place in places if isinstance(place, str)), ""))]
    if isinstance(held, str):
        return [content(_decoded(where, held.rpartition(",")[2]))]
    if places:
        return pictures(where, places[0])
    if any(value.values()) and not {*HELD, *PLACES} & value.keys():
        raise _no_picture(where, value)
    return []


def _no_number(where: str, whole: Any, one: Any) -> Any:
    if isinstance(one, int | float) and one == one:
        raise _no_picture(where, whole)
    return one


def _no_picture(where: str, value: Any) -> VlaxError:
    return VlaxError(f"{where} is {str(value)[:80]!s}, not a file name or a list of them; mend or remove the row")
