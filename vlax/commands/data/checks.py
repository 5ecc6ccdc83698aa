"""What the doctor can find, how grave it is, and the checks of texts.

    text_findings(Row(id="7", task="caption", turns=(Turn("", "a <b>dog</b>"),), ...), Limits())
    ->  [("HTML in the text", "<b>")]

An error is what training must not see: the row goes on the quarantine list. A warning is worth a look, a note is a fact.
"""

import dataclasses
import re
from collections.abc import Callable

from vlax.rows import REFUSED, Row

ERROR, WARNING, NOTE = "error", "warning", "note"

KINDS = {
    # the file
    "unreadable source": ERROR,
    REFUSED: ERROR,
    "missing field": ERROR,
    "unlisted image": ERROR,
    "no annotation": ERROR,
    "duplicate id": ERROR,
    "roles out of order": ERROR,
    "image token without a picture": ERROR,
    "several image tokens": ERROR,
    "unread picture": ERROR,
    "picture on the web": ERROR,
    "no image token": WARNING,
    "unanswered question": WARNING,
    "empty caption": WARNING,
    "odd encoding": NOTE,
    "duplicate row id": WARNING,
    # the text
    "empty text": ERROR,
    "image token in the text": ERROR,
    "invalid unicode": ERROR,
    "replacement characters": WARNING,
    "control characters": WARNING,
    "HTML in the text": WARNING,
    "placeholder text": WARNING,
    "special token in the text": NOTE,
    "long text": WARNING,
    # the picture
    "missing picture": ERROR,
    "picture outside": ERROR,
    "empty file": ERROR,
    "not a picture": ERROR,
    "truncated picture": ERROR,
    "corrupt picture": ERROR,
    "too small": ERROR,
    "too large": ERROR,
    "extreme aspect ratio": ERROR,
    "wrong extension": WARNING,
    "several frames": WARNING,
    "several pictures": NOTE,
    "one colour": WARNING,
    "16-bit picture": WARNING,
    "unusual colours": NOTE,
    "transparency": NOTE,
    "turned by EXIF": NOTE,
    # rows and pictures among each other
    "duplicate row": WARNING,
    "duplicate picture": WARNING,
    "near-duplicate picture": WARNING,
    "same picture as in an evaluation set": ERROR,
    "same name as in an evaluation set": ERROR,
    "same name as in an evaluation set, another picture": WARNING,
    "near duplicate of an evaluation picture": WARNING,
    "pictures shared with another source": NOTE,
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """Where the doctor draws lines.

    max_words  in the texts of a row (question and answer of all its turns)
    tokens     the tokens of a row, for `text_length`; None: not counted
    special    the first special token that a text spells out, "" without any; None: not looked for
    min_side, max_side  pixels, both inclusive; max_aspect: longer side / shorter side
    distance   bits of 64 in which the perceptual hashes of near duplicates may differ
    drop_near_duplicates  near duplicates of evaluation pictures are errors
    """

    max_words: int = 512
    text_length: int = 0
    tokens: Callable[[Row], int] | None = None
    special: Callable[[str], str] | None = None
    min_side: int = 16
    max_side: int = 10_000
    max_aspect: float = 20.0
    distance: int = 4
    drop_near_duplicates: bool = False

    def severity(self, kind: str) -> str:
        if kind == "near duplicate of an evaluation picture" and self.drop_near_duplicates:
            return ERROR
        return KINDS[kind]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One fault and the rows that have it: a row's own, or all rows about a bad picture.

    rows: their ids, or places in the file ("annotations[7]") of rows that a reader refuses.
    """

    kind: str
    severity: str
    source: str
    rows: tuple[str, ...]
    image: str
    detail: str


IMAGE_TOKEN = re.compile(r"<(?:image|img|image_pad|image_placeholder|\|image\|?|\|image_pad\|)>", re.IGNORECASE)
# An element with its attributes, a closing tag, or an entity. "<" in "a < b" and words in angle brackets ("<person>", as
# captions of the web have them for names) are no HTML.
HTML = re.compile(
    r"</?(?:a|b|body|br|code|div|em|font|h[1-6]|head|hr|html|i|li|ol|p|script|span|strong|style|su[bp]|t[dhr]|table|u|ul)"
    r"(?:\s[^<>]*)?/?>|&(?:amp|lt|gt|quot|apos|nbsp|#\d{1,7}|#x[0-9a-f]{1,6});",
    re.IGNORECASE,
)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")
CHARACTERS = (  # (kind, pattern, what exactly: {0} is the match, {1} its first character's number)
    ("image token in the text", IMAGE_TOKEN, "{0}"),
    ("invalid unicode", re.compile(r"[\ud800-\udfff]"), "half a surrogate pair (U+{1:04X}), which no tokenizer takes"),
    ("replacement characters", re.compile("\ufffd"), "U+FFFD: the text was decoded with the wrong encoding"),
    ("control characters", CONTROL, "U+{1:04X}"),
    ("HTML in the text", HTML, "{0}"),
)
# As a whole caption only: as an answer "none" or "n/a" may well be right.
PLACEHOLDERS = {
    *("n/a", "na", "nan", "none", "null", "nil", "undefined", "unknown", "untitled", "todo", "tbd", "test"),
    *("caption", "text", "description", "image", "photo", "picture", "no caption", "no description", "no text", "no image"),
    *("image not found", "image not available", "no image available", "lorem ipsum", "-", "--", "...", "?", "."),
}


def text_findings(row: Row, limits: Limits) -> list[tuple[str, str]]:
    """(kind, what exactly) of all that is odd about the texts of a row; each kind at most once."""
    found: dict[str, str] = {}
    for at, turn in enumerate(row.turns):
        where = f" in exchange {at}" if len(row.turns) > 1 else ""
        task = turn.task or row.task
        if not turn.answer.strip():
            found.setdefault("empty text", f"the answer{where} is {turn.answer!r}")
        if task in ("question", "chat") and not turn.question.strip():
            found.setdefault("empty text", f"the question{where} is {turn.question!r}")
        if task in ("caption", "describe") and " ".join(turn.answer.lower().split()).strip("[]<>()") in PLACEHOLDERS:
            found.setdefault("placeholder text", repr(turn.answer))
        for text in (turn.question, turn.answer):
            for kind, pattern, detail in CHARACTERS:
                if match := pattern.search(text):
                    found.setdefault(kind, detail.format(match[0][:40], ord(match[0][0])) + where)
            if limits.special and (token := limits.special(text)):
                found.setdefault("special token in the text", f"{token}{where}, which is tokenised as text")
    words = sum(len(f"{turn.question} {turn.answer}".split()) for turn in row.turns)
    if words > limits.max_words:
        found["long text"] = f"{words} words, limit {limits.max_words}"
    elif limits.tokens and not {"empty text", "invalid unicode"} & found.keys():
        count = limits.tokens(row)
        if count > limits.text_length:
            found["long text"] = f"{count} tokens, limit {limits.text_length}"
    return list(found.items())
