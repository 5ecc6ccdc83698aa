"""What every data source yields: rows of text with at most one image, addressable by index.

    Row(id="17#0", image_id="17", task="caption", turns=(Turn("", "a dog runs"),), picture=Picture(...), ...)
    Row(id="q4",   image_id="17", task="question", turns=(Turn("is it red?", "no"),), picture=Picture(...), ...)
    Row(id="t9",   image_id="",   task="caption", turns=(Turn("", "a dog runs"),), picture=None)   # text only

A source holds no decoded pixels: `picture.open` decodes when it is called, so that planning an epoch (lengths, mixture, order)
touches text alone.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np
from PIL import Image

from vlax.errors import VlaxError
from vlax.images import Preprocess

REFUSED = "row refused"
TASKS = ("caption", "describe", "question", "chat")


@dataclasses.dataclass(frozen=True)
class Turn:
    """One exchange. `question` is empty where the task's own prompt says it all (caption, describe); `task` is the row's
    unless the turn names its own."""

    question: str
    answer: str
    task: str = ""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture that is decoded when it is asked for.

    name  its file, its place in a container, or what is rendered: what errors call it
    open  decodes it (PIL, any mode or size)
    path  its own file; "" for one in a container, or rendered
    """

    name: str
    open: Callable[[], Image.Image]
    path: str = ""

    def pixels(self, preprocess: Preprocess) -> np.ndarray:
        """uint8[size,size,3] as the vision tower wants it."""
        return preprocess.apply(self.open())


@dataclasses.dataclass(frozen=True)
class Row:
    """One training or evaluation row.

    id          unique in its source; errors, predictions and the quarantine list name it
    image_id    rows about one picture share it ("" without a picture): twins, leak filters and caches go by it
    task        one of TASKS: it selects the prompt template (`prompts.py`)
    turns       what is asked and answered, in order
    picture     None for a text-only row
    references  evaluation: every reference caption, or all annotators' answers
    answer_type evaluation: how scores are broken down ("yes/no", "number", "other", ...)
    """

    id: str
    image_id: str
    task: str
    turns: tuple[Turn, ...]
    picture: Picture | None
    references: tuple[str, ...] = ()
    answer_type: str = ""

    @property
    def image_name(self) -> str:
        """What errors and predictions call the picture; "" without one."""
        return self.picture.name if self.picture else ""


class RowFault(VlaxError):
    """One row, or its picture, is at fault, and the rest of its source is not: training may leave it out.

    kind: what the doctor counts it as (`checks.KINDS`).
    """

    def __init__(self, text: str, kind: str = REFUSED):
        super().__init__(text)
        self.kind = kind


class Source(Protocol):
    """Random access to rows (grain's RandomAccessDataSource protocol) plus what identifies them."""

    name: str  # short, for logs and errors
    fingerprint: str  # hex digest of everything that the rows are made from

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row: ...
