"""How a prepared set keeps pictures: resized as a vision tower wants them, in one of three codecs.

    raw     uint8[size,size,3] as it is
    png     the same pixels, packed without loss
    jpeg    4:4:4 (no colour is thinned out), a third of png's bytes, and other pixels: the manifest says how far off

What the pixels depend on (`settings`) is kept beside them, so that they are never taken for those of another tower.
"""

import io
import json

import numpy as np
from PIL import Image

from vlax.errors import VlaxError
from vlax.images import Preprocess

FORMAT = "vlax prepared 2"  # which is written
FORMATS = ("vlax prepared 1", FORMAT)  # which are read
BYTES_PER_PIXEL = {"raw": 3.0, "png": 1.8, "jpeg": 0.55}  # of photographs at 224; shards are cut by it, before any is encoded
FILTERS = {filter.name.lower(): int(filter) for filter in Image.Resampling}


def settings(preprocess: Preprocess) -> dict:
    """The part of a Preprocess that the pixels depend on: mean and std are the device's, but for the colour of a padding.

    settings(Preprocess(224))               {"size": 224, "mode": "squash", "filter": "bicubic"}
    settings(Preprocess(224, "crop", 256))  {"size": 224, "mode": "crop", "filter": "bicubic", "edge": 256}
    """
    filters = {number: name for name, number in FILTERS.items()}
    how = {"size": preprocess.size, "mode": preprocess.mode, "filter": filters[int(preprocess.resample)]}
    if preprocess.mode != "squash":
        how["edge"] = preprocess.edge
    if preprocess.mode == "pad":
        how["fill"] = [int(x * 255) for x in preprocess.mean]
    return how


def check(stored: dict, preprocess: Preprocess, where: str) -> None:
    """VlaxError unless pictures that were stored by some settings are those that a tower's Preprocess would make."""
    wanted = settings(preprocess)
    if stored != wanted:
        raise VlaxError(f"{where} was prepared as {json.dumps(stored)}, the vision tower takes {json.dumps(wanted)}; "
                        f"prepare it again, with --vision=DIR of this tower or its --image-size and --resize")  # fmt: skip


def encode(image: np.ndarray, codec: str, quality: int) -> bytes:
    """image: uint8[size,size,3]. The same bytes for the same pixels, codec, quality and version of Pillow."""
    if codec == "raw":
        return image.tobytes()
    buffer = io.BytesIO()
    if codec == "png":
        Image.fromarray(image).save(buffer, "PNG")
    else:
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling="4:4:4")
    return buffer.getvalue()


def decode(content: bytes, codec: str, size: int) -> np.ndarray:
    """uint8[size,size,3]; ValueError or OSError for bytes that are not such a picture."""
    if codec == "raw":
        return np.frombuffer(content, np.uint8).reshape(size, size, 3)
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))
