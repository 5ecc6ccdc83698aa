"""AnyRes as LLaVA-OneVision has it (arXiv 2408.03326): one picture whole, and larger in parts whose tokens are sewn together,
cut to the picture's shape, shrunk where they are very many, and given a token of its own at the end of each row.

A picture is one array, uint8[(1+P)*size + 1, size, 3]: the whole; below it its parts in reading order and blanks up to the P
that there may be; and a last line of pixels whose first bytes are its `Cut`, so that pixels and places never come apart.
All is as transformers' LlavaOnevisionProcessor and `pack_image_features` have it, to the last rounding.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vlax.errors import VlaxError

SHRUNK = 1.1  # sides of so many times what `most` allows are shrunk to it
GREATEST = 64  # parts a side


class Cut(NamedTuple):
    """Where the tokens of a picture lie: `columns` parts side by side; of the grid sewn of them `height` x `width` tokens from
    (`top`, `left`) on; in so many `rows` of `across` tokens once they are shrunk, a newline after each."""

    columns: int
    top: int
    left: int
    height: int
    width: int
    rows: int
    across: int


WHOLE = Cut(0, 0, 0, 0, 0, 1, 0)  # the whole alone, and a newline after it: one of several pictures


@dataclasses.dataclass(frozen=True)
class AnyRes:
    """grids: (rows, columns) of parts that a picture may be shown in, in the checkpoint's order; side: tokens a side of a part;
    most: parts whose tokens are not shrunk, roughly."""

    grids: tuple[tuple[int, int], ...]
    side: int
    most: int = 9

    def __post_init__(self) -> None:
        grids = tuple((int(rows), int(columns)) for rows, columns in self.grids)
        object.__setattr__(self, "grids", grids)
        if not grids or min(min(one) for one in grids) < 1 or max(max(one) for one in grids) > GREATEST or self.most < 1:
            raise VlaxError(f"{self}: give grids of 1 to {GREATEST} parts a side, and at least 1 for most")

    @property
    def parts(self) -> int:
        """P: the most that a picture is shown in, beside the whole."""
        return max(rows * columns for rows, columns in self.grids)

    def within(self, parts: int) -> "AnyRes":
        """The same with grids of at most so many parts; all of them where none has as few."""
        few = tuple(one for one in self.grids if one[0] * one[1] <= parts)
        return dataclasses.replace(self, grids=few or self.grids)

    def best(self, height: int, width: int, size: int) -> tuple[int, int]:
        """The grid of parts of `size` pixels that keeps most of a picture's pixels, of several the one with least to spare.

        AnyRes(((1, 1), (1, 2), (2, 1), (2, 2)), 27).best(480, 640, 384) == (2, 2)
        """
        found, kept, spare = self.grids[0], 0, math.inf
        for grid in self.grids:
            tall, wide = grid[0] * size, grid[1] * size
            scale = min(wide / width, tall / height)
            real = min(int(width * scale) * int(height * scale), width * height)
            if real > kept or (real == kept and wide * tall - real < spare):
                found, kept, spare = grid, real, wide * tall - real
        return found

    def cut(self, height: int, width: int, size: int) -> Cut:
        """Of a picture of so many pixels."""
        rows, columns = self.best(height, width, size)
        tall, wide = rows * self.side, columns * self.side
        top = left = 0
        if width / height > wide / tall:
            top = (tall - int(round(height * (wide / width), 7))) // 2
        else:
            left = (wide - int(round(width * (tall / height), 7))) // 2
        return self._shrunk(columns, top, left, tall - 2 * top, wide - 2 * left)

    def _shrunk(self, columns: int, top: int, left: int, height: int, width: int) -> Cut:
        ratio = math.sqrt(height * width / (self.most * self.side**2))
        rows, across = (int(height // ratio), int(width // ratio)) if ratio > SHRUNK else (height, width)
        return Cut(columns, top, left, height, width, rows, across)

    @property
    def longest(self) -> int:
        """Tokens of a picture at most."""
        return _longest(self)

    def shown(self, image: Image.Image, size: int, resample: int) -> np.ndarray:
        """uint8[(1+P)*size + 1, size, 3] of an RGB picture that stands alone."""
        rows, columns = self.best(image.height, image.width, size)
        tall, wide = rows * size, columns * size
        x, y = wide / image.width, tall / image.height
        shape = min(math.ceil(image.width * y), wide), min(math.ceil(image.height * x), tall)
        shape = (wide, shape[1]) if x < y else (shape[0], tall)
        sheet = Image.new("RGB", (wide, tall))
        sheet.paste(image.resize(shape, resample), ((wide - shape[0]) // 2, (tall - shape[1]) // 2))
        parts = np.asarray(sheet).reshape(rows, size, columns, size, 3).swapaxes(1, 2).reshape(-1, size, 3)
        whole = np.asarray(image.resize((size, size), resample))
        return self.together(np.concatenate([whole, parts]), self.cut(image.height, image.width, size))

    def together(self, views: np.ndarray, cut: Cut) -> np.ndarray:
        """`shown` of views below each other, uint8[n*size,size,3], and their Cut."""
        size = views.shape[1]
        if size * 3 < 2 * len(cut):
            raise VlaxError(f"pictures of {size} pixels a side are too small for parts; give an image_size of at least 5")
        out = np.zeros(((1 + self.parts) * size + 1, size, 3), np.uint8)
        out[: len(views)] = views
        out[-1].reshape(-1)[: 2 * len(cut)] = np.array(cut, "<u2").view(np.uint8)
        return out


@functools.lru_cache(maxsize=64)
def _longest(a: AnyRes) -> int:
    """Over all grids, and all that can be cut from them above and below or on both sides."""
    most = 1
    for rows, columns in a.grids:
        tall, wide = rows * a.side, columns * a.side
        cuts = [a._shrunk(columns, top, 0, tall - 2 * top, wide) for top in range((tall + 1) // 2)]
        cuts += [a._shrunk(columns, 0, left, tall, wide - 2 * left) for left in range((wide + 1) // 2)]
        most = max(most, *(cut.rows * (cut.across + 1) for cut in cuts))
    return a.side**2 + most


def cuts(image: Any) -> Any:
    """int32[...,7], the fields of each picture's Cut. image: uint8[...,H,W,3], of NumPy or JAX."""
    line = image[..., -1, :5, :].reshape(*image.shape[:-3], 15)[..., :14].astype("int32")
    return line[..., 0::2] + 256 * line[..., 1::2]


def tokens(image: Any, side: int) -> Any:
    """int32[...]: how many tokens each picture has, uint8[...,H,W,3]."""
    found = cuts(image)
    return side**2 + found[..., 5] * (found[..., 6] + 1)


def views(image: np.ndarray, side: int) -> np.ndarray:
    """uint8[n,size,size,3]: the whole and the parts that a picture has, without blanks."""
    size, cut = image.shape[1], Cut(*cuts(image).tolist())
    every: np.ndarray = image[:-1].reshape(-1, size, size, 3)
    return every[: 1 + (2 * cut.top + cut.height) // side * cut.columns]


def drawn(image: np.ndarray, side: int) -> np.ndarray:
    """uint8[h,w,3] for people: the parts as they lie, or the whole where there are none."""
    every, cut = views(image, side), Cut(*cuts(image).tolist())
    if not cut.columns:
        whole: np.ndarray = every[0]
        return whole
    size = every.shape[1]
    lines = every[1:].reshape(-1, cut.columns, size, size, 3).swapaxes(1, 2)
    return lines.reshape(-1, cut.columns * size, 3)
