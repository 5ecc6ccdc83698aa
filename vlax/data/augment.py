"""Augmentation of training pictures, a pure function of (seed, step, row): the same run sees the same pictures again."""

import numpy as np

from vlax.data.rows import Row
from vlax.errors import VlaxError

KINDS = ("flip", "shift")
SHIFT = 1 / 8  # of the side, the farthest that a picture moves


def check(kinds) -> tuple[str, ...]:
    """The kinds as a tuple; VlaxError, naming the valid ones, for another."""
    for kind in kinds:
        if kind not in KINDS:
            raise VlaxError(f"stage.augment: {kind!r} is not one of {', '.join(KINDS)}")
    return tuple(kinds)


def apply(image: np.ndarray, row: Row, kinds: tuple[str, ...], draw: np.ndarray) -> np.ndarray:
    """uint8[H,W,3] -> uint8[H,W,3]. draw: three numbers in 0..1, the row's own at this step.

    flip    mirrored left to right every other time, and never where the text speaks of left or right
    shift   moved by up to SHIFT of the side both ways; what comes in from outside repeats the border
    """
    if "flip" in kinds and draw[0] < 0.5 and not speaks_of_sides(row):
        image = image[:, ::-1]
    if "shift" in kinds:
        reach = int(image.shape[0] * SHIFT)
        down, right = (int(d * (2 * reach + 1)) for d in draw[1:])
        padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        image = padded[down : down + image.shape[0], right : right + image.shape[1]]
    return image


def speaks_of_sides(row: Row) -> bool:
    """Whether a question or an answer has the word left or right in it."""
    words = {word.strip(".,;:?!\"'()") for t in row.turns for word in f"{t.question} {t.answer}".lower().split()}
    return bool(words & {"left", "right", "leftmost", "rightmost"})
