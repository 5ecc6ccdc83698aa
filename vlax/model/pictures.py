"""What users hand over as pictures."""

import dataclasses
import io
import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from vlax.data.readers.pictures import decode_picture, open_picture
from vlax.errors import VlaxError
from vlax.images import as_rgb
from vlax.models.vlm import VLMConfig

ROOMS = (1, 2, 4, 9, 16)  # parts that programs for pictures in parts have room for, below the most


def opened(image: Any) -> Image.Image:
    """The picture, as training sees it: of a path, a PIL image, uint8[H,W], [H,W,1], [H,W,3] or [H,W,4], the bytes of a file or
    a file that is open. VlaxError for anything else."""
    if isinstance(image, Image.Image):
        return as_rgb(image)
    if isinstance(image, str | os.PathLike):
        return open_picture(str(image), "")
    if hasattr(image, "read"):
        return decode_picture(image, "the open file", "")
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_picture(io.BytesIO(image), f"these {len(image)} bytes", "")
    array = np.asarray(image) if hasattr(image, "__array__") else np.zeros(())
    if array.dtype == np.uint8 and (array.ndim == 2 or array.shape[2:] in ((1,), (3,), (4,))):
        return as_rgb(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array))
    given = f"{array.dtype}{list(array.shape)}" if array.ndim else type(image).__name__
    raise VlaxError(
        "a picture is a path, a PIL image, uint8[H,W], [H,W,1], [H,W,3] or [H,W,4], the bytes of a file or an open one, "
        f"not {given}"
    )


def is_one(images: Any) -> bool:
    """Whether this is one picture and no list of them."""
    return not isinstance(images, list | tuple) and not (hasattr(images, "__array__") and np.ndim(images) == 4)


def roomy(config: VLMConfig, images: Sequence[Sequence[Image.Image]]) -> VLMConfig:
    """The same model with room for no more parts than one of these pictures has; it chooses the same ones for each of them.

    images: of each row.
    """
    preprocess, sewn = config.tower.preprocess, config.anyres
    if sewn is None:
        return config
    alone = [each[0] for each in images if len(each) == 1]
    most = max((math.prod(sewn.best(p.height, p.width, preprocess.size)) for p in alone), default=1)
    fewer = sewn.within(next((parts for parts in ROOMS if parts >= most), sewn.parts))
    return dataclasses.replace(config, preprocess=dataclasses.replace(preprocess, anyres=fewer))
