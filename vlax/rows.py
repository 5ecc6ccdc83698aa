"""What every data source yields: rows of text with pictures, one or none as a rule, addressable by index.

    Row(id="17#0", image_id="17", task="caption", turns=(Turn("", "a dog runs"),), picture=Picture(...), ...)
    Row(id="q4",   image_id="17", task="question", turns=(Turn("is it red?", "no"),), picture=Picture(...), ...)
    Row(id="t9",   image_id="",   task="caption", turns=(Turn("", "a dog runs"),), picture=None)   # text only
    Row(id="n3",   image_id="a b", task="question", turns=(Turn("is b larger?", "no"),), picture=..., others=(Picture(...),))

A source holds no decoded pixels: `picture.open` decodes when it is called, so that planning an epoch (lengths, mixture, order)
touches text alone.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
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

    name    its file, its place in a container, or what is rendered: what errors call it
    decode  what `open` calls
    path    its own file; "" for one in a container, or rendered
    read    the bytes of that file; None for one in a container, or rendered
    """

    name: str
    decode: Callable[[], Image.Image]
    path: str = ""
    read: Callable[[], bytes] | None = None

    def open(self) -> Image.Image:
        """The decoded picture (PIL, any mode or size); VlaxError, RowFault where the picture is at fault."""
        with making(self.name):
            return self.decode()

    def pixels(self, preprocess: Preprocess) -> np.ndarray:
        """uint8[size,size,3] as the vision tower wants it; errors as `open`."""
        with making(self.name):
            return preprocess.apply(self.open())

    def views(self, preprocess: Preprocess, tiles: int = 0, alone: bool = True) -> np.ndarray:
        """uint8[n,size,size,3]: `pixels`, and then up to `tiles` parts of the picture (`Preprocess.views`); alone: whether its
        row has no other."""
        if not tiles:
            return self.pixels(preprocess)[None]
        with making(self.name):
            return preprocess.views(self.open(), tiles, alone)


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
    others      pictures after the first one; then `image_id` stands for all of them together
    places      where the text has its pictures, in order: (turn, characters of its question before the picture); () where it
                does not say so of all of them
    """

    id: str
    image_id: str
    task: str
    turns: tuple[Turn, ...]
    picture: Picture | None
    references: tuple[str, ...] = ()
    answer_type: str = ""
    others: tuple[Picture, ...] = ()
    places: tuple[tuple[int, int], ...] = ()

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """All of them, in order."""
        return () if self.picture is None else (self.picture, *self.others)

    @property
    def image_name(self) -> str:
        """What errors and predictions call the picture, or all of several; "" without one."""
        return ", ".join(picture.name for picture in self.pictures)

    def showing(self, pictures: Sequence[Picture]) -> "Row":
        """The same with other pictures."""
        return dataclasses.replace(self, picture=pictures[0] if pictures else None, others=tuple(pictures[1:]))


class RowFault(VlaxError):
    """One row, or its picture, is at fault, and the rest of its source is not: training may leave it out.

    kind: what the doctor counts it as (`checks.KINDS`).
    """

    def __init__(self, text: str, kind: str = REFUSED):
        super().__init__(text)
        self.kind = kind


def as_fault(name: str, error: Exception) -> VlaxError:
    """A VlaxError as it is. Anything else that was raised while one row was made is that row's fault: a reader, a decoder or a
    tokenizer met what its author did not think of, and the next row may well be sound."""
    if isinstance(error, VlaxError):
        return error
    said = " ".join(str(error).split())[:200].encode("utf-8", "backslashreplace").decode()
    return RowFault(f"{name}: {type(error).__name__} ({said}); mend or remove the row")


@contextlib.contextmanager
def making(name: str) -> Iterator[None]:
    """Around all that is done with one row, wherever that is: VlaxError is what it raises, by `as_fault`."""
    try:
        yield
    except VlaxError:
        raise
    except Exception as error:
        raise as_fault(name, error) from error


class Source(Protocol):
    """Random access to rows (grain's RandomAccessDataSource protocol) plus what identifies them."""

    name: str  # short, for logs and errors
    fingerprint: str  # hex digest of everything that the rows are made from

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row: ...
