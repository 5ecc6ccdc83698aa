"""Pictures in several fields of a record: which of them are its row's, and in which order.

image_1 image_2 image_3, image image2, jpg_0 jpg_1, img_a img_b     all, by number or letter, the one without first
left_image right_image, photo_before photo_after                    both, by side
image thumbnail, image image_mask                                   the picture; what is made of it is no part of the row
original_image edited_image, image image_2 left_image               not clear: `columns` is to say, {"image": "A+B"}
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from vlax.data.readers.picture_values import PLACES, encoded, like_a_picture

SIDES = ("left", "right", "first", "second", "third", "before", "after")
MARK, SIDE = r"0*\d{1,2}|[a-d]", "|".join(SIDES)  # image_512 is a size
KIN = re.compile(
    rf"(?:(?P<side>{SIDE})_)?(?P<what>image|img|picture|pic|photo|jpg|png)(?:_?(?P<mark>{MARK}|{SIDE}))?"
    rf"(?P<how>_(?:path|file|name|filename|url|bytes|base64))?(?:_?(?P<end>{MARK}))?"
)
SAYS = re.compile(r"(^|_)(image|img|picture|pic|photo|jpg|png|screenshot)s?[a-d\d]*(_|$)")
MADE = re.compile("(^|_)(mask|seg|depth|thumb|preview|heat|edge|b?box|annot|overlay)")  # of a picture, by their names
TELLS = re.compile("(name|file|path|src|source|link|ur[il]|key|id|info|meta)s?$")  # what a picture is called elsewhere


def plain(name: str) -> str:
    """`"Image Path" -> "image_path"`."""
    return re.sub(r"[\s-]+", "_", name.strip().lstrip("\ufeff").lower())


def each(name: str, names: Container[str]) -> list[str]:
    """The fields that a name in `columns` stands for: "left+right" for two, where none is called so."""
    return [name] if name in names or "+" not in name else [one.strip() for one in name.split("+")]


def family(names: Iterable[str], image: str) -> list[str]:
    """The fields of a record's pictures in order: `image` and those that are called as if they went on from it. "": of those
    that go together the only ones, and else none."""
    found: dict[tuple, dict[int, str]] = {}
    clear = True
    for name in names:
        kin = KIN.fullmatch(plain(name)) if isinstance(name, str) else None
        marks = [mark for mark in (kin["side"], kin["mark"], kin["end"]) if mark] if kin else []
        if kin and len(marks) < 2:
            kind, rank = _rank(*marks)
            group = found.setdefault((kin["what"], kin["how"], kind), {})
            clear = clear and rank not in group
            group[rank] = name
    groups = []
    for (what, how, kind), group in found.items():
        first = found.get((what, how, ""), {}) if kind in ("number", "letter") else {}
        groups += [[(first | group)[rank] for rank in sorted(first | group)]] if kind else []
    groups = [group for group in groups if len(group) > 1 and (not image or image in group)]
    return groups[0] if len(groups) == 1 and clear else [image] if image else []


def alone(record: Mapping) -> list[str]:
    """The one field of a picture in a record that is called as if others went on from it, as in records of one picture among
    those of several; none where it is not the only one."""
    kin = {name: KIN.fullmatch(plain(str(name))) for name, value in record.items() if like_a_picture(name, value)}
    found = [name for name, own in kin.items() if own and _rank(own["mark"] or own["end"] or "")[0] in ("number", "letter")]
    return found if len(found) == 1 else []


def _rank(mark: str = "") -> tuple[str, int]:
    """(kind of mark, its place)"""
    if mark.isdecimal():
        return "number", int(mark)
    return ("side", SIDES.index(mark)) if mark in SIDES else ("letter", ord(mark)) if mark else ("", -1)


def unclear(record: Mapping, read: Sequence[str], usual: Container[str]) -> list[str]:
    """The fields of a record that hold other pictures than those that are `read`. usual: what fields are called that name a
    picture's file, too."""
    shown = [record.get(name) for name in read]
    return [
        name
        for name, value in record.items()
        if name not in read and like_a_picture(name, value) and _other(plain(name), value, shown, usual)
    ]


def blank(record: Mapping, read: Sequence[str], usual: Container[str]) -> list[str]:
    """The fields that a record leaves empty in which another of the same fields may have such a picture."""
    names = {name: plain(name) for name, value in record.items() if empty(value) and name not in read}
    return [name for name, own in names.items() if SAYS.search(own) and not MADE.search(own) and own not in usual]


def _other(name: str, value: Any, shown: Sequence[Any], usual: Container[str]) -> bool:
    if MADE.search(name):
        return False
    if holds(value):
        return True
    if name in usual or not SAYS.search(name):
        return False
    named, read = _names(value), _names(shown)
    if (all(map(_address, named)) and not any(map(_address, read))) or (TELLS.search(name) and any(map(_content, shown))):
        return False
    return not {*map(_last, named)} <= {*map(_last, read)}


def empty(value: Any) -> bool:
    if isinstance(value, float):
        return value != value  # NaN, as pandas has it
    return value is None or (
        isinstance(value, str | list | Mapping) and not (value.strip() if isinstance(value, str) else value)
    )


def holds(value: Any) -> bool:
    """Whether a value is a picture itself, as tables have it, or a list of them."""
    if isinstance(value, list):
        return any(map(holds, value))
    content = value.get("bytes") if isinstance(value, Mapping) else value
    return isinstance(content, bytes) and content[8:12] != b"WAVE" and like_a_picture("", content)


def _content(value: Any) -> bool:
    """Whether a value is a picture itself, or stands for a column of them ({"bytes": b""})."""
    if isinstance(value, list):
        return any(map(_content, value))
    content = value.get("bytes") if isinstance(value, Mapping) else value
    return isinstance(content, bytes) or (isinstance(content, str) and encoded(content))


def _names(value: Any) -> list[str]:
    """What a value, or a list of them, names."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in PLACES if value.get(key)), None)
    if isinstance(value, list | tuple):
        return [name for one in value for name in _names(one)]
    return [value.strip()] if isinstance(value, str) and not empty(value) else []


def _address(name: str) -> bool:
    return bool(re.match(r"(https?|ftp)://", name))


def _last(name: str) -> str:
    """What is left of a name without its folders."""
    return re.split(r"[/\\]", name)[-1]
