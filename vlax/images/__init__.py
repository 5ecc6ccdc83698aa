"""How a picture becomes the uint8 square that a vision tower takes."""

import dataclasses

import numpy as np
from PIL import Image, ImageOps

from vlax.errors import VlaxError
from vlax.images.anyres import WHOLE, AnyRes

NARROW = 64  # sides of 64 : 1
LONGEST = 16_384  # pixels a side
MOST = 1 << 16  # pixels a side of what a tower sees
BAND = 256  # rows
SHOWN = 4096  # pixels a side of a padded picture for people


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """PIL image -> uint8[size,size,3].

    mode    "squash": resize to the square, whatever the shape. "crop": resize the shorter edge to `edge`, cut the middle.
            "pad": first pad the shorter side with the mean colour to a square, then as "crop".
            Memory and time stay bounded, whatever the shape: a crop takes of a picture that is longer than NARROW times its
            width only the middle; one to pad with a side above LONGEST is shrunk to that, and its square resized by bands.
    resample  Pillow's filter number: 0 nearest, 1 lanczos, 2 bilinear, 3 bicubic
    mean, std of the normalisation (x / 255 - mean) / std, which VisionConfig carries
    anyres    how a picture that stands alone is shown in parts, all of them one array (`anyres.py`); None: it is not
    """

    size: int
    mode: str = "squash"
    edge: int = 0
    resample: int = Image.Resampling.BICUBIC
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    anyres: AnyRes | None = None

    def __post_init__(self) -> None:
        if isinstance(self.anyres, dict):  # as JSON has it
            object.__setattr__(self, "anyres", AnyRes(**self.anyres))
        sizes = type(self.size) is int and type(self.edge) is int and 0 < self.size <= MOST and 0 <= self.edge <= MOST
        three = all(len(x) == 3 and all(isinstance(n, int | float) for n in x) for x in (self.mean, self.std))
        known = self.mode in ("squash", "crop", "pad") and self.resample in list(Image.Resampling)
        if not sizes or not three or not known or (self.mode != "squash" and self.edge < self.size):
            raise VlaxError(f"{self} is no way to resize pictures: a size up to {MOST:,}, an edge at least as large (but to "
                            "squash), squash, crop or pad, one of Pillow's filters, mean and std of three colours")  # fmt: skip

    def at(self, size: int) -> "Preprocess":
        """The same for another image size; the margin that a crop cuts away keeps its share."""
        return dataclasses.replace(self, size=size, edge=round(self.edge * size / self.size))

    def apply(self, image: Image.Image) -> np.ndarray:
        image = image if image.mode == "RGB" else as_rgb(image)
        if self.mode == "squash":
            return np.asarray(image.resize((self.size, self.size), self.resample))
        if self.mode == "pad":
            image = self._padded(image)
        else:
            image = _middle(image, NARROW * min(image.size))
            width, height = image.size
            short, long = self.edge, int(self.edge * max(width, height) / min(width, height))
            image = image.resize((short, long) if width <= height else (long, short), self.resample)
        left, top = (image.width - self.size) // 2, (image.height - self.size) // 2
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def views(self, image: Image.Image, tiles: int, alone: bool = True) -> np.ndarray:
        """uint8[n,size,size,3]: the whole picture, and where that loses detail up to `tiles` parts of it in reading order, cut
        out of the picture stretched to their `grid` (the AnyRes of LLaVA-NeXT, with the whole as in InternVL). With `anyres`
        one array has them all, uint8[1,height,size,3], and of a picture that does not stand alone only the whole."""
        if self.anyres is not None:
            if alone:
                return self.anyres.shown(as_rgb(image), self.size, self.resample)[None]
            return self.anyres.together(self.apply(image), WHOLE)[None]
        whole, (columns, rows) = self.apply(image), grid(image.size, self.size, tiles)
        if columns * rows == 1:
            return whole[None]
        wide, tall = columns * self.size, rows * self.size
        image = image if image.mode == "RGB" else as_rgb(image)
        parts = np.asarray(image.resize((wide, tall), self.resample)).reshape(rows, self.size, columns, self.size, 3)
        return np.concatenate([whole[None], parts.swapaxes(1, 2).reshape(-1, self.size, self.size, 3)])

    def slots(self, tiles: int) -> int:
        """Those of a batch that a picture takes at most; tiles: parts that it is shown in."""
        return 1 + tiles if self.anyres is None else 1

    @property
    def height(self) -> int:
        """Pixels of what a slot of a batch holds, which is `size` wide."""
        return self.size if self.anyres is None else (1 + self.anyres.parts) * self.size + 1

    def frame(self, image: Image.Image) -> Image.Image:
        """What of the picture the tower sees, from edge to edge, in the picture's own resolution."""
        image = as_rgb(image)
        if self.mode == "squash":
            return image
        if self.mode == "pad":
            image.thumbnail((SHOWN, SHOWN))
            image = _pad_to_square(image, self._colour)
        side = max(1, round(min(image.size) * self.size / self.edge))
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.crop((left, top, left + side, top + side))

    @property
    def _colour(self) -> tuple[int, ...]:
        """What a picture is padded with: the mean."""
        return tuple(int(x * 255) for x in self.mean)

    def _padded(self, image: Image.Image) -> Image.Image:
        """The picture padded to a square and resized to `edge`, bit for bit, without the square: Pillow resizes rows first and
        columns then, so bands of rows will do."""
        if (side := max(image.size)) > LONGEST:
            image = image.resize([max(1, round(length * LONGEST / side)) for length in image.size], self.resample)
        side, edge = max(image.size), self.edge
        left, top = (side - image.width) // 2, (side - image.height) // 2
        blank = Image.new("RGB", (side, 1), self._colour).resize((edge, 1), self.resample)
        rows = blank.resize((edge, side), Image.Resampling.NEAREST)
        for begin in range(0, image.height, BAND):
            part = image.crop((0, begin, image.width, min(begin + BAND, image.height)))
            band = Image.new("RGB", (side, part.height), self._colour)
            band.paste(part, (left, 0))
            rows.paste(band.resize((edge, part.height), self.resample), (0, top + begin))
        return rows.resize((edge, edge), self.resample)


def grid(shape: tuple[int, int], size: int, tiles: int) -> tuple[int, int]:
    """(columns, rows) of at most so many tiles of `size` pixels that keep most pixels of a picture of `shape` (width, height),
    the fewest of several.

    [grid(shape, 224, 4) for shape in ((200, 200), (448, 448), (900, 200), (200, 600))] == [(1, 1), (2, 2), (4, 1), (1, 3)]
    """
    width, height = shape

    def kept(columns: int, rows: int) -> int:
        scale = min(columns * size / width, rows * size / height, 1.0)
        return int(width * scale) * int(height * scale)

    every = [(columns, rows) for rows in range(1, tiles + 1) for columns in range(1, tiles // rows + 1)] or [(1, 1)]
    return max(every, key=lambda one: (kept(*one), -one[0] * one[1]))


def _middle(image: Image.Image, long: int) -> Image.Image:
    """At most the middle `long` pixels of the longer side."""
    left, top = (max(0, (side - long) // 2) for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top)) if left or top else image


def as_rgb(image: Image.Image) -> Image.Image:
    """An RGB copy, as people see the picture and towers are to: upright (EXIF orientation), 16-bit and floating-point grey in 8
    bits, white where it is transparent, since what lies under transparent pixels is often black.

    VlaxError for grey values of no range that is known.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    if not image.has_transparency_data:
        return image.convert("RGB")  # copies RGB, too
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _eight_bits(grey: np.ndarray) -> np.ndarray:
    """uint8[H,W]: Pillow itself would take all above 255 for white."""
    least, most = grey.min(), grey.max()
    if grey.dtype.kind in "iu" and least >= 0 and most < 1 << 16:
        return (grey >> 8).astype(np.uint8)
    if grey.dtype.kind == "f" and least >= 0 and most <= 1:
        return np.round(grey * 255).astype(np.uint8)
    raise VlaxError(
        f"its grey values ({grey.dtype}) run from {least:g} to {most:g}, where 16 bits have 0 to 65,535 and floating point "
        "0 to 1; convert it to 8 bits"
    )


def _pad_to_square(image: Image.Image, colour: tuple[int, ...]) -> Image.Image:
    side = max(image.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
