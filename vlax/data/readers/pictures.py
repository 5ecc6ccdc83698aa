"""Encoded pictures, decoded with errors that name the place."""

import errno
import functools
import io
import os
import posixpath
import unicodedata
from collections.abc import Collection
from typing import BinaryIO

from etils import epath
from PIL import EpsImagePlugin, Image, ImageOps, UnidentifiedImageError

from vlax.data.readers.picture_values import check_address
from vlax.errors import VlaxError
from vlax.images import as_rgb
from vlax.rows import RowFault, making
from vlax.storage.paths import irregular, remote

PICTURE_BYTES = 512 << 20  # of one encoded picture; Pillow itself refuses those of more than 179 million pixels

_outside = False


def allow_outside(on: bool) -> None:
    """Whether pictures may lie outside their source's folders, for this process (run.allow_outside)."""
    global _outside
    _outside = on


def resolved(path: str) -> str:
    """Where a path leads, by its `..` and its symbolic links; on an object store, where there are none, by its text."""
    if remote(path):
        return posixpath.normpath(path)
    folder, name = os.path.split(path)
    if name in ("", ".", "..") or os.path.islink(path):
        return os.path.realpath(path)
    return os.path.join(_real_folder(folder), name)


@functools.lru_cache(1 << 12)
def _real_folder(folder: str) -> str:
    """Folders are few, and on a network disk each part of a path is a question."""
    return os.path.realpath(folder)


def open_picture(path: str, row_id: str, roots: Collection[str] = ()) -> Image.Image:
    """The decoded picture (`images.as_rgb`). Errors as `read_picture`; RowFault where it does not
    decode."""
    return decode_picture(io.BytesIO(read_picture(path, row_id, roots)), path, row_id)


def read_picture(path: str, row_id: str, roots: Collection[str] = ()) -> bytes:
    """The bytes of a picture's file. roots: the folders (`resolved`) that it must lie in; none: it may lie anywhere.

    RowFault where it is missing, leads out of the roots, is no regular file (which is never opened: a FIFO waits for ever) or
    has more than PICTURE_BYTES; plain VlaxError where the storage does not answer, which is no fault of the row.
    """
    where = f"row {row_id}: {path}" if row_id else path
    with making(where):  # a file name may be no file name at all
        check_address(where, path)
        real = resolved(found(path))
        if roots and not _outside and not any(f"{real}/".startswith(f"{root.rstrip('/')}/") for root in roots):
            text = f"{where} leads outside of {' and '.join(roots)}; set --config.run.allow_outside=True (--allow-outside of "
            raise RowFault(f"{text}`vlax data`) if this is meant, or remove the row", "picture outside")
        try:
            path = found(path)
            if fault := irregular(path, PICTURE_BYTES):
                way_out = "put a picture there or remove the row" if row_id else "give the path of a picture"
                raise RowFault(f"{where} {fault}; {way_out}", "not a picture")
            return epath.Path(path).read_bytes()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
                way_out = "put it there, mend the source's `images` folder or remove the row from the annotations"
                way_out = way_out if row_id else "give the path of a picture that is there"
                raise RowFault(f"{where}: the picture is missing; {way_out}", "missing picture") from error
            raise VlaxError(f"{where} cannot be read ({error}); mend its permissions or the connection") from None


ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


def found(path: str) -> str:
    """The file that a name means: itself, or, where there is no such file, the one of the same letters in the other form of
    Unicode (macOS writes é as two), with / for Windows' backslashes, or with the ending (and COCO's zeros) that ids lack."""
    if remote(path) or os.path.lexists(path):
        return path
    plain = path.replace("\\", "/")
    forms = [form for form in (plain, *(unicodedata.normalize(kind, plain) for kind in ("NFC", "NFD"))) if form != path]
    folder, name = os.path.split(plain)
    names = [name, *([f"{int(name):012d}"] if name.isdecimal() and len(name) < 12 else [])]  # COCO's numbers have 12 places
    bare = [] if os.path.splitext(name)[1].lower() in ENDINGS else [
        os.path.join(folder, one + ending) for one in names for ending in ENDINGS
    ]  # fmt: skip
    return next((form for form in (*forms, *bare) if os.path.lexists(form)), path)


@functools.cache
def formats() -> tuple[str, ...]:
    """What Pillow decodes by itself: for EPS it would run Ghostscript, and that the program in the file."""
    Image.init()
    return tuple(name for name in Image.OPEN if name != EpsImagePlugin.EpsImageFile.format)


def decode_picture(file: BinaryIO, name: str, row_id: str) -> Image.Image:
    """The picture in an open file or a BytesIO, as `open_picture`; `name` is what an error calls it."""
    try:
        image: Image.Image = Image.open(file, formats=formats())
        image.load()  # the whole file: a truncated one fails here, where its row is known
        ImageOps.exif_transpose(image, in_place=True)
        plain = image.mode == "RGB" and not image.has_transparency_data  # as most photographs, which are not copied
        return image if plain else as_rgb(image)
    except Exception as error:  # of broken files Pillow's decoders raise anything: struct.error, IndexError, MemoryError
        unknown = isinstance(error, UnidentifiedImageError)  # its text is about an object in memory
        what = "it is of no format that Pillow knows" if unknown else str(error).replace("\n", " ")
        reason = f"the picture does not decode ({what})"
        where, way_out = (f"row {row_id}: {name}", " or remove the row from the annotations") if row_id else (name, "")
        raise RowFault(f"{where}: {reason}; replace the file{way_out}") from None
