"""Which pictures of a tar's sample are a row's, and in which order.

KEY.jpg                                          the picture
KEY.jpg KEY.1.jpg KEY.2.jpg, KEY.img0.png ...    all of them, the one without a number first
KEY.left.jpg KEY.right.jpg, and in KEY.json "images": ["left.jpg", "right.jpg"]        those that it lists, in its order
KEY.jpg KEY.seg.png                              the picture; what is neither numbered nor listed is no part of the row
KEY.jpg KEY.png                                  not clear: columns={"image": "jpg"} or {"image": "jpg+png"} is to say
"""

import io
import re
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath
from PIL import Image

from vlax.data.readers.picture_values import PLACES
from vlax.data.readers.pictures import decode_picture
from vlax.rows import RowFault

NUMBERED = re.compile(r"(?:img|image|pic|picture|photo|frame|page|view)?[._-]?(\d+)", re.IGNORECASE)
ENDINGS = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm", "pgm")
USUAL = tuple(f".{one}" for one in ENDINGS[:4])  # KEY.tif beside one of these is something else
WAY_OUT = (
    'number them (KEY.0.jpg, KEY.1.jpg), list them in KEY.json, "images": ["KEY.a.jpg", "KEY.b.jpg"], or say which are its '
    "row's, in order: columns={{'image': {!r}}}"
)


class Inside(NamedTuple):
    """A picture of a sample. name: of its member; part: of that name what lies between key and ending; header, at, size: where
    its header and its content begin, and bytes of the content."""

    name: str
    part: str
    header: int
    at: int
    size: int


def listed(value: Any) -> list[str]:
    """The names that a sample's JSON gives its pictures; those of other forms are left out."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in PLACES if value.get(key)), None)
    if isinstance(value, str):
        return [value] if value else []
    return [name for one in value for name in listed(one)] if isinstance(value, list | tuple) else []


def endings(columns: Mapping[str, str]) -> list[str]:
    """The members that `columns` names as pictures ("left.jpg+right.jpg"); none where it names a field of the JSON."""
    names = (columns.get("image") or columns.get("images") or "").lower().split("+")
    return names if all(name.rpartition(".")[2] in ENDINGS for name in names) else []


def chosen(where: str, inside: Sequence[Inside], names: Sequence[str], given: Sequence[str] = ()) -> list[Inside]:
    """The row's pictures. names: as its JSON lists them; given: `endings`, in place of all else. RowFault where it isn't clear
    which they are, or some aren't there."""
    if not inside:
        return []
    there, ended = ", ".join(one.name for one in inside), {_ending(one): one for one in inside}
    if missing := [name for name in given if name not in ended]:
        raise RowFault(f"{where} has {there}, and no {', '.join(missing)}; mend or remove the sample", "missing picture")
    if given:
        return [ended[name] for name in given]
    known: dict[str, Inside] = {}
    for one in inside:
        base = one.name.rpartition("/")[2]
        for name in (one.name, base, base.partition(".")[2]):
            known.setdefault(name, one)
    if names and all(name in known for name in names):
        return [known[name] for name in names]
    numbers = {one: int(number[1]) for one in inside if (number := NUMBERED.fullmatch(one.part))}
    plain = [one for one in inside if not one.part]
    usual = [one for one in plain if one.name.lower().endswith(USUAL)]
    found = (usual or plain)[:1] + sorted(numbers, key=lambda one: numbers[one])
    way_out = WAY_OUT.format("+".join(ended))
    if len(set(numbers.values())) < len(numbers) or len(usual) > 1:
        of = "no" if len(usual) > 1 else "one"
        raise RowFault(f"{where} has two pictures of {of} number among {there}; {way_out}", "unread picture")
    if not found:
        raise RowFault(f"{where} has {there}, and nothing says that they are its pictures; {way_out}", "unread picture")
    if len(names) > 1 and len(names) != len(found):
        raise RowFault(
            f"{where} lists {len(names)} pictures ({', '.join(names)[:200]}), and the tar has {there}; name these, or mend or "
            f"remove the sample", "missing picture",
        )  # fmt: skip
    return found


def _ending(one: Inside) -> str:
    return one.name.rpartition("/")[2].partition(".")[2].lower()


def span(pictures: Iterable[Inside]) -> tuple[int, int]:
    """(where the first header begins, bytes up to the end of the last content)"""
    begin, end = min(one.header for one in pictures), max(one.at + one.size for one in pictures)
    return begin, end - begin


def open_among(
    file: str, begin: int, size: int, member: str, name: str, row_id: str, kind: type[tarfile.TarInfo]
) -> Image.Image:
    """The picture in a member between two places of a tar; RowFault where it is not there (any more)."""
    with epath.Path(file).open("rb") as opened:
        opened.seek(begin)
        try:
            with tarfile.open(fileobj=opened, mode="r:", tarinfo=kind) as tar:
                for one in iter(tar.next, None):
                    if one.name.removeprefix("./").lstrip("/") == member:
                        opened.seek(one.offset_data)
                        return decode_picture(io.BytesIO(opened.read(one.size)), name, row_id)
                    if one.offset_data >= begin + size:
                        break
        except tarfile.TarError as error:
            raise RowFault(f"row {row_id}: {file} cannot be read ({error}); fetch it again", "corrupt picture") from None
    raise RowFault(f"row {row_id}: {name} is not where it was; did the tar change?", "missing picture")
