"""A scene of coloured shapes, and what is said about it: regular captions, human-like captions, questions.

    scene = Scene((Thing("circle", "red", "large", cell=0), Thing("square", "blue", "small", cell=3)))
    describe(scene)             "a large red circle at the top left and a small blue square at the bottom right."
    human_captions(scene, rng)  ("a red circle and a blue box", "big red ball", ...)
    questions(scene, rng)       (Question("is there a red circle?", "yes", "yes/no"), ...)

Everything random is drawn from `rng.random()` alone, whose stream numpy keeps the same from release to release.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "black")
SIZES = ("large", "small")
PLACES = ("top left", "top right", "bottom left", "bottom right")  # of cells 0..3, in reading order

CAPTIONS_PER_SCENE = 5  # as in COCO
QUESTIONS_PER_SCENE = 5  # two yes/no, one number, two others

# What people say instead of the plain word, with weights. The plain word leads, so that a typical caption exists.
_SHAPE_WORDS = {
    "circle": (("circle", 0.75), ("ball", 0.2), ("disc", 0.05)),
    "square": (("square", 0.75), ("box", 0.25)),
    "triangle": (("triangle", 1.0),),
    "cross": (("cross", 0.8), ("plus", 0.2)),
}
_SIZE_WORDS = {"large": (("big", 0.7), ("large", 0.3)), "small": (("small", 0.75), ("little", 0.25))}
_LEADS = (("", 0.65), ("there is ", 0.2), ("a picture of ", 0.08), ("i see ", 0.07))
_MENTIONED = {1: ((1, 1.0),), 2: ((2, 0.8), (1, 0.2)), 3: ((3, 0.55), (2, 0.3), (1, 0.15))}  # of n things, how many
_SAYS_SIZE, _SAYS_PLACE, _SAYS_SOMETHING = 0.3, 0.3, 0.06  # "big red ...", "... on the left", "something red"
_NO_ARTICLE, _SWAPPED, _TYPO = 0.2, 0.25, 0.03


@dataclasses.dataclass(frozen=True)
class Thing:
    """One shape in one cell. `x`, `y` (centre) and `extent` are fractions of the picture's side."""

    shape: str
    colour: str
    size: str
    cell: int
    x: float = 0.5
    y: float = 0.5
    extent: float = 0.3

    @property
    def name(self) -> str:
        """`"red circle"`: unique within a scene."""
        return f"{self.colour} {self.shape}"


@dataclasses.dataclass(frozen=True)
class Scene:
    """1 to 3 things in reading order; `clutter` seeds the background."""

    things: tuple[Thing, ...]
    clutter: int = 0


class Question(NamedTuple):
    """A question about a scene; `answer_type` is "yes/no", "number" or "other", as in VQAv2."""

    text: str
    answer: str
    answer_type: str


def below(rng: np.random.Generator, n: int) -> int:
    """A uniform integer in [0, n)."""
    return int(rng.random() * n)


def shuffled(rng: np.random.Generator, n: int) -> list[int]:
    """0..n-1 in a random order, from `below` alone: numpy may change its own shuffle between versions."""
    left = list(range(n))
    return [left.pop(below(rng, len(left))) for _ in range(n)]


def weighted(rng: np.random.Generator, table):
    """One value of ((value, weight), ...), the weights summing to 1."""
    left = rng.random()
    for value, weight in table:
        left -= weight
        if left < 0:
            return value
    return table[-1][0]


def enumerate_words(phrases: list[str]) -> str:
    """`["a", "b", "c"]` -> `"a, b and c"`."""
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


def describe(scene: Scene) -> str:
    """Every thing in full, in reading order: the one canonical wording."""
    return enumerate_words([f"a {t.size} {t.name} at the {PLACES[t.cell]}" for t in scene.things]) + "."


def human_captions(scene: Scene, rng: np.random.Generator) -> tuple[str, ...]:
    """Five captions as people type them: varied, often incomplete, now and then misspelt."""
    return tuple(_human_caption(scene, rng) for _ in range(CAPTIONS_PER_SCENE))


def _human_caption(scene: Scene, rng: np.random.Generator) -> str:
    things = sorted(scene.things, key=lambda t: t.size != "large")  # the eye falls on large things first
    if len(things) > 1 and rng.random() < _SWAPPED:
        things[0], things[1] = things[1], things[0]
    things = things[: weighted(rng, _MENTIONED[len(things)])]
    lead = weighted(rng, _LEADS)
    article = "" if not lead and rng.random() < _NO_ARTICLE else "a "
    phrases = [_phrase(t, article, rng) for t in things]
    if len(phrases) == 2:
        caption = phrases[0] + _link(things, rng) + phrases[1]
    else:
        caption = enumerate_words(phrases)
        if len(phrases) == 1 and rng.random() < _SAYS_PLACE:
            caption += _loose_place(things[0].cell, rng)
    caption = lead + caption
    return _misspell(caption, rng) if rng.random() < _TYPO else caption


def _phrase(thing: Thing, article: str, rng: np.random.Generator) -> str:
    if article and rng.random() < _SAYS_SOMETHING:
        return f"something {thing.colour}"
    size = weighted(rng, _SIZE_WORDS[thing.size]) + " " if rng.random() < _SAYS_SIZE else ""
    return f"{article}{size}{thing.colour} {weighted(rng, _SHAPE_WORDS[thing.shape])}"


def _link(things: list[Thing], rng: np.random.Generator) -> str:
    """What joins two phrases; a relation that it names is true."""
    link = weighted(rng, ((" and ", 0.7), (" next to ", 0.1), ("relation", 0.2)))
    return f" {_relation(things[0], things[1], rng)} " if link == "relation" else link


def _relation(a: Thing, b: Thing, rng: np.random.Generator) -> str:
    """A true one of "left of", "right of", "above", "below" for a with respect to b."""
    (row_a, column_a), (row_b, column_b) = divmod(a.cell, 2), divmod(b.cell, 2)
    if column_a != column_b and (row_a == row_b or rng.random() < 0.5):
        return "left of" if column_a < column_b else "right of"
    return "above" if row_a < row_b else "below"


def _loose_place(cell: int, rng: np.random.Generator) -> str:
    vertical, horizontal = PLACES[cell].split()
    near = "near" if rng.random() < 0.4 else "at"
    places = (f" {near} the {vertical}", f" on the {horizontal}", f" in the {vertical} {horizontal}")
    return places[below(rng, 3)]


def _misspell(caption: str, rng: np.random.Generator) -> str:
    """Two inner letters of one word swapped: "triangle" -> "trianlge"."""
    words = caption.split()
    long = [i for i, word in enumerate(words) if len(word) > 3]
    if long:
        i = long[below(rng, len(long))]
        at = 1 + below(rng, len(words[i]) - 2)
        words[i] = words[i][:at] + words[i][at + 1] + words[i][at] + words[i][at + 2 :]
    return " ".join(words)


def questions(scene: Scene, rng: np.random.Generator) -> tuple[Question, ...]:
    """Five different questions that the picture answers.

    Each kind is symmetric in its answers, so that the question alone says little: yes and no are a fair coin for every
    string, and colours, shapes and counts have no favourite worth guessing.
    """
    return (_exists(scene, rng), _compares(scene, rng), _counts(scene, rng), _asks_colour(scene, rng), _asks_other(scene, rng))


def _one(scene: Scene, rng: np.random.Generator) -> Thing:
    return scene.things[below(rng, len(scene.things))]


def _exists(scene: Scene, rng: np.random.Generator) -> Question:
    if rng.random() < 0.5:
        return Question(f"is there a {_one(scene, rng).name}?", "yes", "yes/no")
    present = {t.name for t in scene.things}
    near_miss = _one(scene, rng)  # half of what is asked for is there: a model has to bind colour to shape
    while near_miss.name in present:
        if rng.random() < 0.5:
            near_miss = dataclasses.replace(near_miss, colour=COLOURS[below(rng, len(COLOURS))])
        else:
            near_miss = dataclasses.replace(near_miss, shape=SHAPES[below(rng, len(SHAPES))])
    return Question(f"is there a {near_miss.name}?", "no", "yes/no")


def _compares(scene: Scene, rng: np.random.Generator) -> Question:
    answer = "yes" if rng.random() < 0.5 else "no"
    a = _one(scene, rng)
    if len(scene.things) == 1:
        size = a.size if answer == "yes" else SIZES[1 - SIZES.index(a.size)]
        return Question(f"is the {a.name} {size}?", answer, "yes/no")
    others = [t for t in scene.things if t is not a]
    b = others[below(rng, len(others))]
    relation = _relation(a, b, rng)
    if answer == "no":
        a, b = b, a
    return Question(f"is the {a.name} {relation} the {b.name}?", answer, "yes/no")


def _counts(scene: Scene, rng: np.random.Generator) -> Question:
    if rng.random() < 0.7:
        return Question("how many objects are there?", str(len(scene.things)), "number")
    size = SIZES[below(rng, 2)]
    return Question(f"how many {size} objects are there?", str(sum(t.size == size for t in scene.things)), "number")


def _asks_colour(scene: Scene, rng: np.random.Generator) -> Question:
    thing = _one(scene, rng)
    alone = sum(t.shape == thing.shape for t in scene.things) == 1
    what = f"the {thing.shape}" if alone and rng.random() < 0.6 else f"the object at the {PLACES[thing.cell]}"
    return Question(f"what colour is {what}?", thing.colour, "other")


def _asks_other(scene: Scene, rng: np.random.Generator) -> Question:
    thing = _one(scene, rng)
    if rng.random() < 0.2:
        return Question(f"what size is the {thing.name}?", thing.size, "other")
    alone = sum(t.colour == thing.colour for t in scene.things) == 1
    if alone and rng.random() < 0.5:
        return Question(f"what shape is the {thing.colour} object?", thing.shape, "other")
    return Question(f"what shape is at the {PLACES[thing.cell]}?", thing.shape, "other")
