"""A look at one picture: does it decode as training decodes it, is it what its name says, and what does it show.

look(row, Limits())
    ->  Look(findings=(("wrong extension", "a file named .png holds a JPEG"),), digest=b"...", hash=0x8f..., colours=uint8[48])
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import os
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from vlax.commands.data.checks import Limits
from vlax.data.readers import phash, prints
from vlax.data.readers.pictures import decode_picture
from vlax.errors import VlaxError
from vlax.rows import Row, making

TURNED = 0x0112  # the EXIF tag for orientation
PLAIN_MODES = ("RGB", "L", "P", "RGBA", "RGBX", "LA", "PA", "1")


@dataclasses.dataclass(frozen=True, eq=False)
class Look:
    """What is kept of a picture. findings: (kind, what exactly); digest: of its pixels, b"" where it does not decode; hash and
    colours: see phash.py, None for a picture of one colour, which would be near to all others of that colour."""

    findings: tuple[tuple[str, str], ...]
    digest: bytes = b""
    hash: int | None = None
    colours: np.ndarray | None = None


def look(row: Row, limits: Limits) -> Look:
    """A Look at the picture of a row that has one. It decodes through the reader's own function, so that what passes here
    passes in training."""
    assert row.picture is not None, "only rows with a picture are looked at"
    path, decode = row.picture.path, row.picture.open
    findings: list[tuple[str, str]] = []
    if row.picture.read:
        try:
            with making(path):
                content = row.picture.read()
        except VlaxError as error:
            return Look(((getattr(error, "kind", "missing picture"), str(error).removeprefix(f"row {row.id}: ")),))
        if not content:
            return Look((("empty file", f"{path} has no bytes"),))
        findings = header(path, content, limits)
        if any(kind == "too large" for kind, _ in findings):  # not decoded: it may be made to fill the memory
            return Look(tuple(findings))
        decode = functools.partial(decode_picture, io.BytesIO(content), path, row.id)
    try:
        image = decode().convert("RGB")
    except Exception as error:  # a VlaxError, or whatever a source lets through
        return Look((*findings, (fault(error), str(error).removeprefix(f"row {row.id}: "))))
    findings += shape(image.size, limits)
    extrema: Any = image.getextrema()  # (low, high) a band
    spread = max(high - low for low, high in extrema)
    digest = hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).digest()
    if spread <= prints.FLAT:
        return Look((*findings, ("one colour", f"all pixels are {image.getpixel((0, 0))}")), digest)
    return Look(tuple(findings), digest, *phash.fingerprint(image))


def fault(error: BaseException) -> str:
    """The kind of a picture that did not decode, by what Pillow raised below the reader's error."""
    chain, below = [error], error.__cause__ or error.__context__
    while below is not None:
        chain.append(below)
        below = below.__cause__ or below.__context__
    if any(isinstance(e, FileNotFoundError) for e in chain):
        return "missing picture"
    if any(isinstance(e, Image.DecompressionBombError) for e in chain):
        return "too large"
    if any(isinstance(e, UnidentifiedImageError) for e in chain):
        return "not a picture"
    return "truncated picture" if any("truncated" in str(e).lower() for e in chain) else "corrupt picture"


def shape(size: tuple[int, int], limits: Limits) -> list[tuple[str, str]]:
    """What is absurd about a width and height in pixels."""
    short, long = min(size), max(size)
    pixels = f"{size[0]} x {size[1]} pixels"
    if long > limits.max_side:
        return [("too large", f"{pixels}, limit {limits.max_side} a side")]
    if short < limits.min_side:
        return [("too small", f"{pixels}, limit {limits.min_side} a side")]
    if long > limits.max_aspect * short:
        return [("extreme aspect ratio", f"{pixels}, limit {limits.max_aspect:g} : 1")]
    return []


def header(path: str, content: bytes, limits: Limits) -> list[tuple[str, str]]:
    """What a file says about itself before it is decoded; where its header is broken, what could be read of it."""
    found: list[tuple[str, str]] = []
    with contextlib.suppress(Exception):  # struct.error, IndexError, RuntimeError, ...: decoding says what is wrong
        image = Image.open(io.BytesIO(content))
        if max(image.size) > limits.max_side:
            found += shape(image.size, limits)
        extension = os.path.splitext(path)[1].lower()
        named = extensions().get(extension)
        if named and named != image.format and {named, image.format} != {"JPEG", "MPO"}:
            found.append(("wrong extension", f"a file named {extension} holds a {image.format}"))
        if image.mode.startswith("I") or image.mode == "F":
            found.append(("16-bit picture", f"mode {image.mode}; see that it does not come out white, or save it with 8 bits"))
        elif image.mode not in PLAIN_MODES:
            found.append(("unusual colours", f"mode {image.mode}, converted to RGB"))
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            found.append(("transparency", f"mode {image.mode}; the colours below are used as they are"))
        if getattr(image, "is_animated", False) and image.format != "MPO":  # an MPO is a camera's JPEG with a preview
            found.append(("several frames", f"an animated {image.format}; the first frame is used"))
        if "exif" in image.info and (turned := image.getexif().get(TURNED, 1)) not in (0, 1):
            found.append(("turned by EXIF", f"orientation {turned}, turned upright when read"))
    return found


@functools.cache
def extensions() -> dict[str, str]:
    """{".jpg": "JPEG", ...} of all that Pillow reads."""
    Image.init()
    return dict(Image.registered_extensions())
