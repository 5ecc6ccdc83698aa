"""What the values of people's rows mean as text: the one reader of captions, answers, ids and choices.

text("  a  dog\\n")  "a dog"      text(1.0)  "1"      text(True)  "true"      text(None)  ""      text(float("nan"))  ""
texts(["a dog", "", {"raw": "a cat"}])              ["a dog", "", "a cat"]
texts({"text": ["a dog", "a cat"]})                 ["a dog", "a cat"]
texts("[{\\"answer\\": \\"yes\\"}, {\\"answer\\": \\"no\\"}]", packed=True)     ["yes", "no"]
chosen("B", ["red", "blue"])  "blue"      chosen(0, ["red", "blue"])  "red"      chosen("blue", ["red", "blue"])  "blue"
"""

import ast
import collections
import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlax.data.readers.columns import LETTERS
from vlax.errors import VlaxError
from vlax.storage.state import load_line

INNER = ("text", "raw", "caption", "answer", "value")  # keys of an object that stands for its text
PACKED_BYTES = 1 << 20  # of a list that is written as text in a cell


def text(value: Any) -> str:
    """A text or a number as one line: whole floats without their ".0" (a column of numbers with a hole in it has them), true
    and false as JSON spells them; "" for nothing and for what is neither."""
    if isinstance(value, str):
        return " ".join((value.replace("\ufeff", "") if "\ufeff" in value else value).split())
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return "" if math.isnan(value) else str(int(value)) if value.is_integer() and abs(value) < 2**63 else repr(value)
    if isinstance(value, bytes):
        return text(value.decode("utf-8", "replace"))
    return ""


def texts(value: Any, packed: bool = False) -> list[str]:
    """The texts of a field: one, a list, or objects that hold one; "" for each that is empty, so that the others keep their
    numbers.

    packed: a text may be that of a list, as cells of CSV have it: JSON, or as Python prints it. ValueError for one that is not.
    """
    if packed and isinstance(value, str) and value.strip():
        value = _unpacked(value)
    if isinstance(value, Mapping):
        value = _inner(value)
    if value is None:
        return []
    listed: Iterable = value if isinstance(value, list | tuple) else [value]
    return [text(_inner(one) if isinstance(one, Mapping) else one) for one in listed]


def _inner(value: Mapping) -> Any:
    return next((value[key] for key in INNER if key in value), None)


def _unpacked(value: str) -> Any:
    if len(value) > PACKED_BYTES:
        raise ValueError(f"{len(value):,} characters, limit {PACKED_BYTES:,}")
    with contextlib.suppress(VlaxError):
        return load_line("a cell", value)
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(reason) from None


def majority(answers: Iterable[str]) -> str:
    """The most frequent answer, of equals the first: `("yes", "no", "no") -> "no"`; "" where all are empty."""
    said = collections.Counter(answer for answer in answers if answer.strip())
    return said.most_common(1)[0][0] if said else ""


def choices(record: Mapping, field: str) -> list[str]:
    """The options of a question: a list, JSON or Python text of one, or columns A, B, ... of their own; none where there are
    none."""
    if not field:
        return []
    value = record.get(field)
    if field == "A":
        return [text(record.get(letter)) for letter in LETTERS if text(record.get(letter))]
    if isinstance(value, str):
        value = value.strip()
        try:
            return texts(value, packed=value[:1] in ("[", "("))
        except ValueError:
            return []
    return texts(value)


def chosen(answer: Any, options: Sequence[str]) -> str:
    """The text of the option that an answer names: by its text, its letter, or its number from 0 on."""
    said = text(answer)
    if said in options:
        return said
    bare = said.strip("(). ")
    number = LETTERS.find(bare.upper()) if len(bare) == 1 and bare.isalpha() else int(bare) if bare.isdecimal() else -1
    return options[number] if 0 <= number < len(options) else said


def lettered(question: str, options: Sequence[str]) -> str:
    """A question with its options below it: "what?\\nA. red\\nB. blue"."""
    return "\n".join([question, *(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))])


def listed(where: str, field: str, value: Any) -> list[str]:
    """All annotators' answers: one, a list of texts, numbers or objects, or in CSV the text of such a list. VlaxError for
    anything else."""
    way_out = 'in CSV it is a JSON list such as ["yes", "no"], or one answer'
    try:
        said = texts(value, packed=isinstance(value, str) and value.strip()[:1] in ("[", "(", "{"))
    except ValueError as error:
        raise VlaxError(f'{where}: "{field}" is not JSON ({error}); {way_out}') from None
    if isinstance(value, int | float | bool) or (isinstance(value, list | tuple) and any(
        not isinstance(one, str | int | float | Mapping | None) for one in value
    )):  # fmt: skip
        raise VlaxError(f'{where}: "{field}" is {value!r}, not a list of texts; mend or remove the row')
    return said
