"""Encoded pictures, decoded with errors that name the place."""

import io
from typing import BinaryIO

import numpy as np
from etils import epath
from PIL import Image, ImageOps, UnidentifiedImageError

from vlax.errors import VlaxError
from vlax.rows import RowFault


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
        image: Image.Image = Image.open(file)
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
