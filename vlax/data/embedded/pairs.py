"""Questions about two pictures, as NLVR asks them (arXiv 1811.00491): of the scenes of `scenes.py`, are both the same?

    PairSource("test")[3]   Row(id="test/3", task="question", turns=(Turn("are both pictures the same?", "no"),),
                                picture=Picture(...), others=(Picture(...),), answer_type="yes/no", ...)

A fair coin is tossed for the answer, so that neither the question nor either of the pictures tells anything of it.
"""

import functools
import hashlib

from vlax.data.embedded.scene_text import Scene, below
from vlax.data.embedded.scenes import DRAWING, RGB, STREAM_PICTURE, check_split, generator, render, scene_at
from vlax.rows import Picture, Row, Turn

DEFAULT_SIZES = {"train": 24_000, "val": 400, "test": 1000}  # rows
QUESTION = "are both pictures the same?"
_FAMILY = 3


def pair_at(split: str, index: int, seed: int = 0) -> tuple[Scene, Scene]:
    """The two scenes of row `index`, both of the split: the same one, or two of as many things, so that counting won't do."""
    rng = generator(seed, split, index, _FAMILY, STREAM_PICTURE)
    first = scene_at(split, below(rng, 2**31), seed)
    if rng.random() < 0.5:
        return first, first
    while True:
        second = scene_at(split, below(rng, 2**31), seed)
        if len(second.things) == len(first.things) and _what(second) != _what(first):
            return first, second


def _what(scene: Scene) -> set[tuple[int, str, str]]:
    return {(thing.cell, thing.size, thing.name) for thing in scene.things}


class PairSource:
    """One row a pair (the Source protocol of `rows.py`)."""

    def __init__(self, split: str, seed: int = 0, size: int | None = None):
        check_split("pairs", split, seed, size)
        self.split, self.seed, self.name = split, seed, f"pairs-{split}"
        self._size = DEFAULT_SIZES[split] if size is None else size

    @functools.cached_property
    def fingerprint(self) -> str:
        """Over the settings and the first pairs."""
        digest = hashlib.sha256(repr((DRAWING, RGB, QUESTION, self.name, self.seed, self._size)).encode())
        for index in range(min(self._size, 16)):
            digest.update(repr(pair_at(self.split, index, self.seed)).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, no row {index}")
        scenes, key = pair_at(self.split, index, self.seed), f"{self.split}/{index}"
        answer = "yes" if scenes[0] == scenes[1] else "no"
        first, second = (
            Picture(f"pair {key} {side} (rendered)", functools.partial(render, scene))
            for side, scene in zip("ab", scenes, strict=True)
        )
        about = f"pair-{self.split}-{index}" + (f"-seed{self.seed}" if self.seed else "")
        return Row(key, about, "question", (Turn(QUESTION, answer),), first, (answer,) * 10, "yes/no", (second,))
