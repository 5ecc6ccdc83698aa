"""The embedded data set: pictures of one to three coloured shapes, drawn when asked for, with captions and questions.

    SceneSource("train", "ai")[0]          Row(id="train/0",   task="describe", image_id="scene-train-0", ...)
    SceneSource("train", "human")[7]       Row(id="train/1#2", task="caption",  image_id="scene-train-1", ...)
    SceneSource("test",  "human")[7]       Row(id="test/7",    task="caption",  references=(5 captions), ...)
    SceneSource("test",  "questions")[38]  Row(id="test/7?3",  task="question", references=(answer,) * 10, ...)
    SceneSource("train", "text")[3]        Row(id="train/t3",  task="describe", image_id="", picture=None, ...)

Row i is a pure function of (seed, split, style, i): integers seed the generators, so every process and machine sees the same.
"""

import functools
import hashlib
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vlax.data.embedded.scene_text import (
    CAPTIONS_PER_SCENE,
    COLOURS,
    QUESTIONS_PER_SCENE,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    below,
    describe,
    human_captions,
    questions,
    shuffled,
    weighted,
)
from vlax.errors import VlaxError
from vlax.rows import Picture, Row, Turn

STYLES = ("ai", "human", "questions", "dialogue", "text")
SPLITS = ("train", "val", "test")
DEFAULT_SIZES = {"train": 6000, "val": 300, "test": 300}  # scenes
NATIVE_PIXELS = 64  # the side of a rendered picture
DRAWING = 1  # count up when `render` changes its pictures: it is part of the fingerprint

# Every arrangement belongs to one split, by a hash of what is where: of ten buckets val and test have one each. Without
# this most one-thing test scenes would also be in train, since there are only 192 of them.
_BUCKETS = {"train": range(8), "val": range(8, 9), "test": range(9, 10)}
STREAM_PICTURE, STREAM_WORDS = 0, 1  # separate generators, so that new wordings leave the pictures as they are

THINGS = ((1, 0.4), (2, 0.4), (3, 0.2))  # how many things a scene has, with weights
EXTENT = {"large": 0.40, "small": 0.24}  # of the picture's side: 13 and 8 pixels of 32
RGB = {
    "red": (218, 45, 45),
    "green": (45, 160, 75),
    "blue": (45, 95, 215),
    "yellow": (243, 202, 40),
    "purple": (150, 65, 185),
    "black": (45, 45, 50),
}


def scene_at(split: str, index: int, seed: int = 0, text_only: bool = False) -> Scene:
    """The index-th scene of a split. Text-only rows have scenes of their own stream."""
    rng = generator(seed, split, index, int(text_only), STREAM_PICTURE)
    while True:
        scene = _draw_scene(rng)
        what = ";".join(f"{t.cell} {t.size} {t.name}" for t in scene.things)
        if hashlib.sha256(what.encode()).digest()[0] % 10 in _BUCKETS[split]:
            return scene


def generator(seed: int, split: str, index: int, family: int, stream: int) -> np.random.Generator:
    """What row `index` is drawn from. Families: 0 scenes, 1 text-only scenes, 2 cells (`cells.py`)."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, SPLITS.index(split), index, family, stream))))


def _draw_scene(rng: np.random.Generator) -> Scene:
    cells = [0, 1, 2, 3]
    chosen = sorted(cells.pop(below(rng, len(cells))) for _ in range(weighted(rng, THINGS)))
    things, taken = [], set()
    for cell in chosen:
        while True:  # colour and shape together name one thing, so that questions can point at it
            pair = COLOURS[below(rng, len(COLOURS))], SHAPES[below(rng, len(SHAPES))]
            if pair not in taken:
                break
        taken.add(pair)
        size = SIZES[below(rng, 2)]
        extent = EXTENT[size] * (0.96 + 0.08 * rng.random())
        slack = 0.5 - extent - 0.02  # what the cell leaves free, less a margin
        x, y = (0.25 + 0.5 * at + slack * (rng.random() - 0.5) for at in (cell % 2, cell // 2))
        things.append(Thing(pair[1], pair[0], size, cell, round(x, 4), round(y, 4), round(extent, 4)))
    return Scene(tuple(things), clutter=below(rng, 2**31))


def render(scene: Scene, pixels: int = NATIVE_PIXELS) -> Image.Image:
    """Draws a scene as RGB of pixels x pixels: 4-fold supersampled, so that edges are smooth at 32 as well as at 128."""
    side = 4 * pixels
    rng = np.random.Generator(np.random.PCG64(scene.clutter))
    tint = 222 + 26 * rng.random(3)
    picture = Image.new("RGB", (side, side), tuple(int(v) for v in tint))
    draw = ImageDraw.Draw(picture)
    _draw_clutter(draw, tint, side, rng)
    for thing in scene.things:
        shade = 22 * (rng.random() - 0.5)
        fill = tuple(int(min(255, max(0, v + shade))) for v in RGB[thing.colour])
        _draw_thing(draw, thing, side, fill)
    return picture.reduce(4)


def _draw_clutter(draw: ImageDraw.ImageDraw, tint: np.ndarray, side: int, rng: np.random.Generator) -> None:
    """Faint lines and dots: pixels differ from scene to scene, and nothing in them can be taken for a thing."""
    lines, dots = 2 + below(rng, 3), 4 + below(rng, 5)
    for x0, y0, x1, y1, tone in rng.random((lines, 5)).tolist():
        colour = tuple(int(v + 20 * tone - 14) for v in tint)
        draw.line([x0 * side, y0 * side, x1 * side, y1 * side], fill=colour, width=side // 48)
    for x, y, radius, tone in rng.random((dots, 4)).tolist():
        colour = tuple(int(v + 20 * tone - 14) for v in tint)
        reach = (0.008 + 0.014 * radius) * side
        draw.ellipse([x * side - reach, y * side - reach, x * side + reach, y * side + reach], fill=colour)


def _draw_thing(draw: ImageDraw.ImageDraw, thing: Thing, side: int, fill: tuple[int, ...]) -> None:
    x, y, half = thing.x * side, thing.y * side, thing.extent * side / 2
    if thing.shape == "circle":
        draw.ellipse([x - half, y - half, x + half, y + half], fill=fill)
    elif thing.shape == "square":
        half *= 0.9  # a full square would look larger than the circle of its size
        draw.rectangle([x - half, y - half, x + half, y + half], fill=fill)
    elif thing.shape == "triangle":
        draw.polygon([(x, y - half), (x + half, y + 0.9 * half), (x - half, y + 0.9 * half)], fill=fill)
    else:
        arm = 0.36 * half
        draw.rectangle([x - half, y - arm, x + half, y + arm], fill=fill)
        draw.rectangle([x - arm, y - half, x + arm, y + half], fill=fill)


def check_split(kind: str, split: str, seed: int, size: int | None) -> None:
    """Raises VlaxError for a split, seed or size that an embedded source does not have."""
    if split not in SPLITS:
        raise VlaxError(f"{kind}: there is no split {split!r}; the splits are {', '.join(SPLITS)}")
    if seed < 0 or (size is not None and size < 1):
        raise VlaxError(f"{kind}: seed {seed} and size {size}: the seed must be 0 or more, the size at least 1 (or None)")


class SceneSource:
    """Rows about embedded scenes (the Source protocol of `rows.py`). `size` counts scenes, not rows.

    "ai"         describe: the complete canonical caption; one row a scene
    "human"      caption: five human-like captions; a row for each (train) or one row with all as references (val, test)
    "questions"  question: five a scene, with answers
    "dialogue"   the same questions, all of a scene in one row of several turns
    "text"       one text-only row a scene: a description, a caption and four questions
    """

    def __init__(self, split: str, style: str, seed: int = 0, size: int | None = None):
        check_split("scenes", split, seed, size)
        if style not in STYLES:
            raise VlaxError(f"scenes: there is no style {style!r}; the styles are {', '.join(STYLES)}")
        self.split, self.style, self.seed = split, style, seed
        self.name = f"scenes-{style}-{split}"
        self._size = DEFAULT_SIZES[split] if size is None else size
        self._per_scene = {"human": CAPTIONS_PER_SCENE if split == "train" else 1, "questions": QUESTIONS_PER_SCENE}.get(
            style, 1
        )
        self._made: dict[int, list[Row]] = {}  # rows by scene: text is small, and every epoch asks again

    @functools.cached_property
    def fingerprint(self) -> str:
        """Over the settings and the first scenes with their words: a change of the generator shows, one of comments doesn't."""
        digest = hashlib.sha256(repr((DRAWING, RGB, self.name, self.seed, self._size)).encode())
        for index in range(min(self._size, 16)):
            scene = scene_at(self.split, index, self.seed, self.style == "text")
            digest.update(repr((scene, [(r.id, r.turns, r.references) for r in self._rows(index)])).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return self._size * self._per_scene

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, no row {index}")
        scene, at = divmod(index, self._per_scene)
        return self._rows(scene)[at]

    def _rows(self, index: int) -> list[Row]:
        if index not in self._made:
            self._made[index] = self._make_rows(index)
        return self._made[index]

    def _make_rows(self, index: int) -> list[Row]:
        text_only = self.style == "text"
        scene = scene_at(self.split, index, self.seed, text_only)
        words = generator(self.seed, self.split, index, int(text_only), STREAM_WORDS)
        if text_only:
            return [Row(f"{self.split}/t{index}", "", "describe", _paragraph(scene, words), None)]
        key = f"{self.split}/{index}"
        about: dict[str, Any] = {
            "image_id": f"scene-{self.split}-{index}" + (f"-seed{self.seed}" if self.seed else ""),
            "picture": Picture(f"scene {key} (rendered)", functools.partial(render, scene)),
        }
        if self.style == "ai":
            caption = describe(scene)
            return [Row(key, task="describe", turns=(Turn("", caption),), references=(caption,), **about)]
        if self.style == "dialogue":
            asked = questions(scene, words)
            # In a fixed order a question's place would give its type away, and the first place would see one type alone.
            turns = tuple(Turn(asked[i].text, asked[i].answer) for i in shuffled(words, len(asked)))
            return [Row(key, task="question", turns=turns, references=tuple(t.answer for t in turns), **about)]
        if self.style == "questions":
            return [
                Row(f"{key}?{i}", task="question", turns=(Turn(q, a),), references=(a,) * 10, answer_type=kind, **about)
                for i, (q, a, kind) in enumerate(questions(scene, words))
            ]
        captions = human_captions(scene, words)
        if self.split == "train":
            return [Row(f"{key}#{i}", task="caption", turns=(Turn("", c),), **about) for i, c in enumerate(captions)]
        return [Row(key, task="caption", turns=(Turn("", captions[0]),), references=captions, **about)]


def _paragraph(scene: Scene, words: np.random.Generator) -> tuple[Turn, ...]:
    """The description of a scene and then captions and questions in any order; in one paragraph of four the description has no
    fixed place either. What follows can be told from what came before, so a language model that learns from such text learns to
    look back at what it was told, as one trained on real documents does."""
    captions, asked = human_captions(scene, words), questions(scene, words)
    turns = [Turn("", captions[0], "caption")]
    turns += [Turn(asked[i].text, asked[i].answer, "question") for i in shuffled(words, len(asked))[:4]]
    described = Turn("", describe(scene), "describe")
    if below(words, 4):
        return (described, *(turns[i] for i in shuffled(words, len(turns))))
    turns.append(described)
    return tuple(turns[i] for i in shuffled(words, len(turns)))
