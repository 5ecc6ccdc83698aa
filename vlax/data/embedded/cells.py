"""The second embedded domain: drawn tissue under a microscope, with questions as pathologists ask them.

    CellSource("test")[1]   Row(id="test/0?1", image_id="cell-test-0", task="question", references=(answer,) * 10, ...)

It looks nothing like the scenes of `scenes.py` and has words of its own, so adapting to it is a real change of domain. The
slides are drawings: they teach the code path of a pathology data set, not pathology.
"""

import dataclasses
import functools
import hashlib
import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vlax.data.embedded.scene_text import Question, below, weighted
from vlax.data.embedded.scenes import NATIVE_PIXELS, STREAM_PICTURE, STREAM_WORDS, check_split, generator
from vlax.rows import Picture, Row, Turn

DEFAULT_SIZES = {"train": 1500, "val": 200, "test": 200}  # slides
QUESTIONS_PER_SLIDE = 3
DRAWING = 1  # count up when `render` changes its pictures: it is part of the fingerprint
_FAMILY = 2

KINDS = ("round cells", "spindle cells", "lymphocytes")  # which cells predominate
ARRANGEMENTS = ("scattered", "clustered")
FINDINGS = ("gland", "vessel", "mitotic figures", "necrosis")  # every slide shows exactly one
ENLARGED = ((0, 0.25), (1, 0.25), (2, 0.25), (3, 0.25))  # how many nuclei are enlarged, with weights

_NUCLEUS = {  # per kind: half axes as fractions of the side, colour, and how many
    "round cells": (0.040, 0.037, (112, 70, 150), 26),
    "spindle cells": (0.075, 0.020, (122, 76, 156), 26),
    "lymphocytes": (0.023, 0.022, (58, 32, 105), 60),
}
_CIRCLE = [(math.cos(i * math.pi / 8), math.sin(i * math.pi / 8)) for i in range(16)]
_PRESENT = {"gland": "a gland", "vessel": "a vessel"}  # with their article; the others go without


@dataclasses.dataclass(frozen=True)
class Slide:
    """What a slide shows; `layout` seeds where everything lies."""

    kind: str
    arrangement: str
    finding: str
    enlarged: int
    layout: int = 0


def slide_at(split: str, index: int, seed: int = 0) -> Slide:
    """The index-th slide of a split."""
    rng = generator(seed, split, index, _FAMILY, STREAM_PICTURE)
    return Slide(
        kind=KINDS[below(rng, len(KINDS))],
        arrangement=ARRANGEMENTS[below(rng, len(ARRANGEMENTS))],
        finding=FINDINGS[below(rng, len(FINDINGS))],
        enlarged=weighted(rng, ENLARGED),
        layout=below(rng, 2**31),
    )


def questions(slide: Slide, rng: np.random.Generator) -> tuple[Question, ...]:
    """Three different questions: one yes/no on the finding, one open, and one of either sort.

    A yes/no question first tosses for its answer and then names what fits it, so that no string favours yes or no.
    """
    opens = [_ask_finding, _ask_kind, _ask_enlarged, _ask_arrangement]
    first, second = opens.pop(below(rng, 4)), opens.pop(below(rng, 3))
    other = second(slide, rng) if rng.random() < 0.6 else _confirm_cells(slide, rng)
    return (_confirm_finding(slide, rng), other, first(slide, rng))


def _named(rng: np.random.Generator, values: tuple[str, ...], true: str) -> tuple[str, str]:
    """A value to ask about and the answer: the true one with "yes" or another with "no", a fair coin."""
    if rng.random() < 0.5:
        return true, "yes"
    others = [v for v in values if v != true]
    return others[below(rng, len(others))], "no"


def _confirm_finding(slide: Slide, rng: np.random.Generator) -> Question:
    finding, answer = _named(rng, FINDINGS, slide.finding)
    what = _PRESENT.get(finding, finding)
    if rng.random() < 0.5:
        return Question(f"does the image show {what}?", answer, "yes/no")
    return Question(f"{'are' if finding == 'mitotic figures' else 'is'} {what} present?", answer, "yes/no")


def _confirm_cells(slide: Slide, rng: np.random.Generator) -> Question:
    if rng.random() < 0.5:
        kind, answer = _named(rng, KINDS, slide.kind)
        return Question(f"do {kind} predominate?", answer, "yes/no")
    arrangement, answer = _named(rng, ARRANGEMENTS, slide.arrangement)
    return Question(f"are the cells {arrangement}?", answer, "yes/no")


def _ask_finding(slide: Slide, rng: np.random.Generator) -> Question:
    return Question(("what is seen in the image?", "what does the image show?")[below(rng, 2)], slide.finding, "other")


def _ask_kind(slide: Slide, rng: np.random.Generator) -> Question:
    return Question("what kind of cells predominate?", slide.kind, "other")


def _ask_enlarged(slide: Slide, rng: np.random.Generator) -> Question:
    return Question("how many nuclei are enlarged?", str(slide.enlarged), "number")


def _ask_arrangement(slide: Slide, rng: np.random.Generator) -> Question:
    return Question("how are the cells arranged?", slide.arrangement, "other")


def render(slide: Slide, pixels: int = NATIVE_PIXELS) -> Image.Image:
    """Draws a slide as RGB of pixels x pixels, 4-fold supersampled."""
    side = 4 * pixels
    rng = np.random.Generator(np.random.PCG64(slide.layout))
    stain = np.array((236, 188, 212)) + 14 * (rng.random(3) - 0.5)
    picture = Image.new("RGB", (side, side), _rgb(stain))
    draw = ImageDraw.Draw(picture)
    for x, y, length, tone in rng.random((14, 4)).tolist():  # fibres of the stroma
        _blob(draw, side, x, y, 0.1 + 0.25 * length, 0.012, 6.3 * tone, _rgb(stain + 26 * (tone - 0.6)))
    taken = [_place(rng, [], 0.22, margin=0.24)]  # (x, y, radius) of what nuclei keep clear of; the finding is first
    for _ in range(slide.enlarged):
        taken.append(_place(rng, taken, 0.10, margin=0.11))
    _draw_nuclei(draw, side, slide, taken, rng)
    for x, y, _ in taken[1:]:
        _blob(draw, side, x, y, 0.098, 0.088, 6.3 * rng.random(), (150, 104, 182))
        _blob(draw, side, x, y, 0.032, 0.032, 0.0, (74, 30, 96))
    _draw_finding(draw, side, slide.finding, taken[0], rng)
    return picture.reduce(4)


def _rgb(colour) -> tuple[int, ...]:
    return tuple(int(min(255, max(0, v))) for v in colour)


def _blob(draw, side: int, x: float, y: float, half_length: float, half_width: float, angle: float, fill) -> None:
    """An ellipse turned by `angle` (radians); all lengths as fractions of the side."""
    cos, sin = math.cos(angle), math.sin(angle)
    around = [(half_length * u, half_width * v) for u, v in _CIRCLE]
    draw.polygon([((x + u * cos - v * sin) * side, (y + u * sin + v * cos) * side) for u, v in around], fill=fill)


def _free(x: float, y: float, radius: float, taken: list) -> bool:
    return not any((x - a) ** 2 + (y - b) ** 2 <= (radius + r) ** 2 for a, b, r in taken)


def _place(rng: np.random.Generator, taken: list, radius: float, margin: float) -> tuple[float, float, float]:
    """A free disc inside the picture (the last try where none of 200 is free)."""
    for _ in range(200):
        x, y = (margin + (1 - 2 * margin) * rng.random() for _ in range(2))
        if _free(x, y, radius, taken):
            break
    return x, y, radius


def _draw_nuclei(draw, side: int, slide: Slide, taken: list, rng: np.random.Generator) -> None:
    long, wide, colour, count = _NUCLEUS[slide.kind]
    grain = 3.2 * rng.random()  # spindle cells lie along one direction
    clustered, spread = slide.arrangement == "clustered", 0.09 if slide.kind == "lymphocytes" else 0.11
    centres = [_place(rng, taken, 0.05, margin=0.15)[:2] for _ in range(2)]
    nuclei: list[tuple[float, float, float]] = []
    for x, y, angle, tone in rng.random((8 * count, 4)).tolist():
        if len(nuclei) == count:
            break
        if clustered:  # a triangular spread about one of two centres
            cx, cy = centres[len(nuclei) % 2]
            x, y = cx + 2 * spread * (x + rng.random() - 1), cy + 2 * spread * (y + rng.random() - 1)
        apart = 0.45 * long if clustered else 1.05 * long
        if _free(x, y, 0.02, taken) and _free(x, y, apart, nuclei):
            nuclei.append((x, y, 0.6 * long))
            turn = grain + 0.5 * (angle - 0.5) if slide.kind == "spindle cells" else 6.3 * angle
            _blob(draw, side, x, y, long, wide, turn, _rgb(v + 28 * (tone - 0.5) for v in colour))


def _draw_finding(draw, side: int, finding: str, place: tuple[float, float, float], rng: np.random.Generator) -> None:
    (x, y, _), angle = place, 6.3 * rng.random()
    if finding == "gland":  # a white lumen inside a ring of nuclei
        _blob(draw, side, x, y, 0.20, 0.18, angle, (214, 150, 196))
        for i in range(14):
            u, v = x + 0.165 * math.cos(i * math.pi / 7), y + 0.155 * math.sin(i * math.pi / 7)
            _blob(draw, side, u, v, 0.030, 0.024, i * math.pi / 7, (104, 62, 148))
        _blob(draw, side, x, y, 0.12, 0.105, angle, (250, 246, 249))
    elif finding == "vessel":  # full of red blood cells
        _blob(draw, side, x, y, 0.20, 0.17, angle, (226, 150, 170))
        _blob(draw, side, x, y, 0.17, 0.14, angle, (205, 40, 50))
        for u, v in (rng.random((9, 2)) - 0.5).tolist():
            _blob(draw, side, x + 0.19 * u, y + 0.19 * v, 0.026, 0.026, 0.0, (228, 78, 78))
    elif finding == "mitotic figures":  # black bars in cleared cells
        for i in range(3):
            u, v = x + 0.12 * math.cos(angle + i * 2.1), y + 0.12 * math.sin(angle + i * 2.1)
            _blob(draw, side, u, v, 0.088, 0.082, 0.0, (250, 232, 242))
            _blob(draw, side, u, v, 0.062, 0.026, angle + 1.3 * i, (24, 12, 38))
    else:  # necrosis: a pale yellowish field with debris
        for turn in (0.0, 2.0, 4.1):
            _blob(draw, side, x + 0.05 * math.cos(turn), y + 0.05 * math.sin(turn), 0.19, 0.14, turn, (226, 206, 150))
        for u, v in (rng.random((16, 2)) - 0.5).tolist():
            _blob(draw, side, x + 0.3 * u, y + 0.3 * v, 0.009, 0.009, 0.0, (150, 118, 110))


class CellSource:
    """Three question rows a slide (the Source protocol of `rows.py`). `size` counts slides, not rows."""

    def __init__(self, split: str, seed: int = 0, size: int | None = None):
        check_split("cells", split, seed, size)
        self.split, self.seed, self.name = split, seed, f"cells-{split}"
        self._size = DEFAULT_SIZES[split] if size is None else size
        self._made: dict[int, list[Row]] = {}

    @functools.cached_property
    def fingerprint(self) -> str:
        """Over the settings and the first slides with their questions."""
        digest = hashlib.sha256(repr((DRAWING, _NUCLEUS, self.name, self.seed, self._size)).encode())
        for index in range(min(self._size, 16)):
            turns = [(r.id, r.turns) for r in self._rows(index)]
            digest.update(repr((slide_at(self.split, index, self.seed), turns)).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return self._size * QUESTIONS_PER_SLIDE

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, no row {index}")
        slide, at = divmod(index, QUESTIONS_PER_SLIDE)
        return self._rows(slide)[at]

    def _rows(self, index: int) -> list[Row]:
        if index not in self._made:
            slide = slide_at(self.split, index, self.seed)
            asked = questions(slide, generator(self.seed, self.split, index, _FAMILY, STREAM_WORDS))
            about: dict[str, Any] = {
                "image_id": f"cell-{self.split}-{index}" + (f"-seed{self.seed}" if self.seed else ""),
                "picture": Picture(f"slide {self.split}/{index} (rendered)", functools.partial(render, slide)),
            }
            key = f"{self.split}/{index}"
            self._made[index] = [
                Row(f"{key}?{i}", task="question", turns=(Turn(q, a),), references=(a,) * 10, answer_type=kind, **about)
                for i, (q, a, kind) in enumerate(asked)
            ]
        return self._made[index]
