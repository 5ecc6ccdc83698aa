"""Where pictures stand in a text, for models that see them there (run.interleaved) and not all in front.

    marked("is a like b?", [3, 10], literal)                          "is " PLACE "a like " PLACE "b?"
    cut([("is " PLACE "a?", False), (" no", True)], after)            [("is ", False), ("a?", False), (" no", True)], [1]

Each part has the ids that it has after a special token, which is what processors put in place of a picture.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from vlax.masks import ANSWER
from vlax.rows import Row
from vlax.text import codec
from vlax.text.codec import PLACE
from vlax.text.settings import Settings

TOKEN = "<image>"
Piece = tuple[str, bool]  # a text, and whether it is supervised


class Encoded(NamedTuple):
    """A row as ids. before: how many of them come before each of its pictures."""

    tokens: list[int]
    segments: list[int]
    before: list[int]

    def cut(self, length: int) -> "Encoded":
        """Its beginning. A picture that comes after that is left out: nothing is there to see it."""
        return Encoded(self.tokens[:length], self.segments[:length], [at for at in self.before if at < length])


def marked(text: str, places: Sequence[int], literal: Callable[[str], str]) -> str:
    """What a user wrote, with marks for pictures after so many characters each."""
    ends = [0, *places, len(text)]
    return PLACE.join(literal(text[a:b]) for a, b in itertools.pairwise(ends))


def told(text: str, literal: Callable[[str], str]) -> str:
    """What a user typed for an interleaved model, with a mark for each <image>."""
    return PLACE.join(map(literal, text.split(TOKEN)))


def shown_in(row: Row, turn: int, settings: Settings) -> str:
    """A turn's question, with <image> where its pictures stand unless that is in front."""
    if in_front(row.places, settings):
        return row.turns[turn].question
    question, ends = row.turns[turn].question, [at for number, at in row.places if number == turn]
    return TOKEN.join(question[a:b] for a, b in zip([0, *ends], [*ends, len(question)], strict=True))


def in_front(places: Sequence[tuple[int, int]], settings: Settings) -> bool:
    """Whether the pictures of a dialogue, placed as `Row.places` says, stand where those of one stand that says nothing."""
    return not settings.interleaved or (settings.picture is not None and set(places) <= {(0, 0)})


def wrapped(text: str, pictures: int | None, settings: Settings) -> str:
    """A prompt with what is written around its pictures, so many of which stand in front unless it places them itself; None:
    not known yet, and left for later."""
    if settings.picture is None or pictures is None:
        return text
    text = codec.in_front(text, 0 if PLACE in text else pictures, PLACE)
    return text.replace(PLACE, settings.picture["before"] + PLACE + settings.picture["after"])


def within(places: Sequence[int], prompt: str, literal: Callable[[str], str]) -> tuple[str, Callable[[str], str]]:
    """(the template of a prompt, what makes of a question what goes into it), with the marks of its pictures, which stand after
    so many characters of the question each, or before a prompt that has none."""
    if "{question}" not in prompt:
        return PLACE * len(places) + prompt, literal
    return prompt, lambda question: marked(question, places, literal)


def cut(pieces: Sequence[Piece], after: Callable[[str, str], str]) -> tuple[list[Piece], list[int]]:
    """(the pieces cut where pictures stand, the number of the piece that each picture comes before). after: `Codec.after`."""
    out: list[Piece] = []
    places: list[int] = []
    for text, supervised in pieces:
        first, *others = text.split(PLACE) if PLACE in text else [text]
        out += [(first, supervised)] if first or not others else []
        for part in others:
            places.append(len(out))
            out += [(after(PLACE, part), supervised)] if part else []
    return out, places


def settled(places: Sequence[int], segments: Sequence[int]) -> list[int]:
    """How many ids come before each picture. A loss falls where text is, so at least one id of the prompt stands between a
    picture and an answer: one at a prompt's very end goes before its last id."""
    return [at - 1 if at and (at == len(segments) or segments[at] == ANSWER) else at for at in places]
