"""What every file format needs: paths, bytes, JSON with errors that name the place, and pictures."""

import io
from typing import BinaryIO

import numpy as np
from etils import epath
from PIL import Image, ImageOps, UnidentifiedImageError

from vlax.data.readers.faults import STRICT, Faults
from vlax.errors import VlaxError
from vlax.rows import RowFault
from vlax.storage.state import load_json


def open_picture(path: str, row_id: str) -> Image.Image:
    """The decoded picture: RGB, upright (EXIF orientation applied). RowFault where it is missing or does not decode; plain
    VlaxError where the storage does not answer, which is no fault of the row."""
    try:
        content = epath.Path(path).read_bytes()
    except FileNotFoundError:
        way_out = "put it there, mend the source's `images` folder or remove the row from the annotations"
        raise RowFault(f"row {row_id}: {path}: the picture is missing; {way_out}", "missing picture") from None
    except OSError as error:
        raise VlaxError(f"row {row_id}: {path} cannot be read ({error}); mend its permissions or the connection") from None
    return decode_picture(io.BytesIO(content), path, row_id)


def decode_picture(file: BinaryIO, name: str, row_id: str) -> Image.Image:
    """The picture in an open file or a BytesIO, as `open_picture`; `name` is what an error calls it."""
    try:
        image = Image.open(file)
        image.load()  # the whole file: a truncated one fails here, where its row is known
        if image.mode.startswith("I;16"):  # Pillow would take all above 255 for white
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        ImageOps.exif_transpose(image, in_place=True)
        return image if image.mode == "RGB" else image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # of broken files Pillow's decoders raise anything: struct.error, IndexError, RuntimeError
        unknown = isinstance(error, UnidentifiedImageError)  # its text is about an object in memory
        what = "it is of no format that Pillow knows" if unknown else str(error).replace("\n", " ")
        reason = f"the picture does not decode ({what})"
        raise RowFault(f"row {row_id}: {name}: {reason}; replace the file or remove the row from the annotations") from None


def parse(path: epath.Path, content: bytes, *shapes: str) -> dict:
    """The JSON object of a file; `shapes` say in an error what was looked for."""
    data = load_json(path, content)
    if not isinstance(data, dict):
        raise VlaxError(f"{path} holds a {type(data).__name__}, not an object; {'; '.join(shapes)}")
    return data


def known_columns(where, columns, known: tuple[str, ...]) -> dict[str, str]:
    """A spec's `columns` as a dict; VlaxError for one that the format does not have."""
    columns = dict(columns or {})
    if unknown := sorted(set(columns) - set(known)):
        raise VlaxError(f"{where}: there is no column {unknown[0]!r}; columns may name {', '.join(known)}")
    return columns


def rows(path: epath.Path, data: dict, key: str, shape: str) -> list[dict]:
    found = data.get(key)
    if not isinstance(found, list):
        raise VlaxError(f'{path} has no list "{key}" (it has: {", ".join(data) or "nothing"}); {shape}')
    return found


def file_names(path: epath.Path, data: dict, shape: str, source: str = "", faults: Faults = STRICT) -> dict[str, str]:
    """{image id: file name} of the `images` list; faulty entries are left to `faults`."""
    names = {}
    for at, row in enumerate(rows(path, data, "images", shape)):
        where = f"{path}: images[{at}]"
        with faults.row(source, where):
            names[str(field(where, row, "id", shape))] = text(where, row, "file_name", shape)
    return names


def field(where: str, row: dict, key: str, shape: str):
    """A field that must be there, of what must be an object."""
    if not isinstance(row, dict):
        raise VlaxError(f"{where} is a {type(row).__name__}, not an object; {shape}")
    if row.get(key) is None:
        raise RowFault(f'{where} has no "{key}"; {shape}', "missing field")
    return row[key]


def text(where: str, row: dict, key: str, shape: str) -> str:
    """A text field with its white space (COCO has stray line ends) reduced to single blanks."""
    value = field(where, row, key, shape)
    if not isinstance(value, str) or not value.strip():
        kind = "empty text" if isinstance(value, str) else "row refused"
        raise RowFault(f'{where}: "{key}" is {value!r}, not a text; mend or remove the row', kind)
    return " ".join(value.split())
