"""Augmentation of training pictures, a pure function of (seed, position, row): the same run sees the same pictures again.

    flip     mirrored left to right every other time, and never where the text speaks of left or right
    shift    moved by up to SHIFT of the side both ways; what comes in from outside repeats the border
    crop     a random part of the picture, enlarged to the whole; never where the text counts or says where things are
    colour   brightness, contrast and saturation changed by up to COLOUR each

`crop` is for the vision stages (stage 0, captions of photographs): what it cuts away may be what a question is about. `colour`
leaves hues alone, since texts name colours. `flip` and `crop` know English words only, and neither reads what is written in a
picture: a set about scene text (TextVQA) is better off without `flip`.
"""

import math
import re
from collections.abc import Iterable

import numpy as np
from PIL import Image

from vlax.errors import VlaxError
from vlax.rows import Row

KINDS = ("flip", "shift", "crop", "colour")
DRAWS = 10  # random numbers a row: 0 flip, 1-2 shift, 3-6 crop, 7-9 colour. New kinds take further ones: old runs stay
SHIFT = 1 / 8  # of the side, the farthest that a picture moves
CROP_AREA = 0.5, 1.0  # share of the picture's area, uniform
CROP_ASPECT = 3 / 4, 4 / 3  # width to height of the part, uniform in its logarithm; a square picture has 1
COLOUR = 0.25  # farthest that brightness, contrast and saturation go from 1
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # grey of R, G, B (ITU-R BT.601)

# Left or right: "left-hand", "leftmost", "top-left", "rightwards" and "upright" count, and so do "all right" and "leftover", to
# be on the safe side; "bright", "fright" and "wright" do not.
SIDES = re.compile(r"left|(?<![bfw])right")
# Where in the picture something is.
PLACES = re.compile(r"\b(top|bottom|upper\w*|lower\w*|corners?|edges?|borders?|middle|cent(er|re)s?|cent(er|re)d|central)\b")
# How many there are, or whether something is there.
COUNTS = re.compile(
    r"\d|\bhow (many|much)\b|\b(numbers?|amounts?) of\b|\bcount(s|ed|ing)?\b|\btotal\b|\b(is|are) there\b"
    r"|\b(two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozens?|pairs?|couples?|both|several)\b"
)


def check(kinds: Iterable[str]) -> tuple[str, ...]:
    """The kinds as a tuple; VlaxError, naming the valid ones, for another."""
    for kind in kinds:
        if kind not in KINDS:
            raise VlaxError(f"stage.augment: {kind!r} is not one of {', '.join(KINDS)}")
    return tuple(kinds)


def apply(image: np.ndarray, row: Row, kinds: tuple[str, ...], draw: np.ndarray) -> np.ndarray:
    """uint8[H,W,3] -> uint8[H,W,3], the kinds in the order crop, flip, shift, colour.

    draw: DRAWS numbers in 0..1, the row's own at its position in the global order.
    """
    if "crop" in kinds and not any(speaks_of(row, words) for words in (SIDES, PLACES, COUNTS)):
        image = crop(image, *draw[3:7])
    if "flip" in kinds and draw[0] < 0.5 and not speaks_of(row, SIDES):
        image = image[:, ::-1]
    if "shift" in kinds:
        image = shift(image, *draw[1:3])
    if "colour" in kinds:
        image = colour(image, *draw[7:10])
    return image


def shift(image: np.ndarray, down: float, right: float) -> np.ndarray:
    """Moved; 0.5 of both keeps the picture as it is."""
    reach = int(image.shape[0] * SHIFT)
    down, right = (int(d * (2 * reach + 1)) for d in (down, right))
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    return padded[down : down + image.shape[0], right : right + image.shape[1]]


def crop_box(
    height: int, width: int, area: float, aspect: float, down: float, right: float
) -> tuple[float, float, float, float]:
    """(left, upper, right, lower) of the part in pixels, not rounded. A side that would be longer than the picture's is cut to
    it, so that area 1 keeps at least 0.87 of the picture; area 1 and aspect 0.5 (a ratio of 1) keep all of it.
    """
    share = CROP_AREA[0] + (CROP_AREA[1] - CROP_AREA[0]) * area
    low, high = (math.log(ratio) for ratio in CROP_ASPECT)
    ratio = math.exp(low + (high - low) * aspect)
    wide = width * min(1.0, math.sqrt(share * ratio))
    tall = height * min(1.0, math.sqrt(share / ratio))
    x, y = (width - wide) * right, (height - tall) * down
    return x, y, min(x + wide, width), min(y + tall, height)


def crop(image: np.ndarray, area: float, aspect: float, down: float, right: float) -> np.ndarray:
    """A part of the picture, resized to the picture's own size by a bicubic filter (Inception's crop, arXiv 1409.4842)."""
    height, width = image.shape[:2]
    box = crop_box(height, width, area, aspect, down, right)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box))


def colour(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """Brightness scales, contrast moves pixels from or to the mean grey, saturation from or to their own grey; 0.5 keeps.

    The three are one affine map of a pixel, rounded and clipped to 0..255 once, at the end.
    """
    b, c, s = (1 + COLOUR * (2 * d - 1) for d in (brightness, contrast, saturation))
    mix = b * c * (s * np.eye(3, dtype=np.float32) + (1 - s) * LUMA)  # [out, in]
    mean = float(image.reshape(-1, 3).mean(0, dtype=np.float32) @ LUMA)
    moved = image.reshape(-1, 3).astype(np.float32) @ mix.T.astype(np.float32) + np.float32(b * (1 - c) * mean)
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8).reshape(image.shape)


def speaks_of(row: Row, words: re.Pattern[str]) -> bool:
    """Whether a question or an answer has one of the words: SIDES, PLACES or COUNTS."""
    return any(words.search(f"{turn.question} {turn.answer}".lower()) for turn in row.turns)
