"""What the fields of people's rows are called: the one table of names, for tables, parquet, tars, records and recognition.

    choose({"img_name": "a.jpg", "question": "red?", "answer": "no"}, {}, "a.json")
    ->  Fields(image="img_name", question="question", answer="answer", ...)

Names are compared without regard to case, blanks and hyphens. Of several that could play a part the first in `NAMES` is
taken, and ours are the first.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from vlax.data.readers import picture_fields, picture_values
from vlax.data.readers.picture_fields import plain as plain
from vlax.errors import VlaxError
from vlax.rows import RowFault

NAMES = {
    "image": ("image", "images", "img", "picture", "pictures", "photo", "photos", "jpg", "image_path", "image_file",
              "image_name", "image_filename", "img_path", "img_file", "img_name", "img_filename", "picture_path", "photo_path",
              "file_name", "filename", "file_path", "filepath", "file", "path", "image_paths", "image_files", "image_bytes",
              "image_base64", "image_base64_str", "image_data", "image_url", "img_url", "photo_url"),
    "text": ("text", "caption", "captions", "description", "sentence", "sentences", "raw", "texts", "comment", "caption_text",
             "alt", "alt_text", "caption_str"),
    "question": ("question", "query", "prefix", "prompt", "instruction", "problem"),
    "answer": ("answer", "multiple_choice_answer", "response", "label", "suffix", "output", "outputs", "completion", "solution",
               "correct_choice_idx", "ground_truth", "gt_answer", "correct_answer", "target", "reply"),
    "answers": ("answers", "labels", "direct_answers", "reference_answers"),
    "id": ("id", "question_id"),
    "image_id": ("image_id", "image/id", "imgid", "img_id", "cocoid", "coco_id", "imageid"),
    "answer_type": ("answer_type",),
    "task": ("task",),
    "messages": ("messages", "conversations", "conversation", "dialogue", "dialog", "texts", "qa_pairs"),
    "system": ("system", "system_prompt"),
    "choices": ("choices", "options"),
    "split": ("split",),
}  # fmt: skip
PICTURED = frozenset((*NAMES["image"], *NAMES["image_id"]))  # fields that say something of the picture
SAME = {"references": "answers", "images": "image", "conversations": "messages"}  # what `columns` may call a part besides
ASKED = ("question", "query")  # names that say that a row asks, with an answer or without
LETTERS = "ABCDEFGHIJ"  # columns of one option each, as tables of multiple choice have them
TALKS = {"role", "from", "content", "speaker", "user", "human", "question", "query", "prompt", "instruction", "input", "q"}
FOLDED = ("history", "completion", "instruction", "questions")  # what `unfold.py` looks at, besides
NUMBERED = re.compile(r"(caption|text|sentence|description|comment)[_ ]?\d+", re.IGNORECASE)
MOVING = ("video", "videos", "audio", "audios")


class Fields(NamedTuple):
    """Which field plays which part; "" where none does. others: further fields of pictures, in order."""

    image: str = ""
    text: str = ""
    question: str = ""
    answer: str = ""
    answers: str = ""
    id: str = ""
    image_id: str = ""
    answer_type: str = ""
    task: str = ""
    messages: str = ""
    system: str = ""
    choices: str = ""
    split: str = ""
    others: tuple[str, ...] = ()

    @property
    def images(self) -> list[str]:
        """The fields of pictures."""
        return [self.image, *self.others] if self.image else []

    @property
    def texts(self) -> list[str]:
        """The fields to read besides the pictures."""
        return [name for name in dict.fromkeys(self[1:-1]) if name]

    def pictures(self, record: Mapping) -> Any:
        """What a record says of its pictures; a list of what each of several fields says, of those that say something."""
        if not self.others:
            return record.get(self.image) if self.image else None
        return [record[name] for name in self.images if not picture_fields.empty(record.get(name))]

    @property
    def asks(self) -> bool:
        return bool(self.question and (self.answer or self.answers))

    def list(self) -> list:
        """For a fingerprint: as it was before there were dialogues, for rows that have none of what came with them."""
        own = self._replace(text="") if self.asks else self._replace(question="", answer="", answers="", answer_type="")
        later = {part: getattr(self, part) for part in ("messages", "choices", "others") if getattr(self, part)}
        return [*own[:8], *([later] if later else [])]


def named(names: Iterable[str], part: str) -> str:
    """The field among `names` that plays a part by its name; "" for none."""
    there = {plain(name): name for name in reversed([*names]) if isinstance(name, str)}
    return next((there[usual] for usual in NAMES[part] if usual in there), "")


def given(where: object, columns: Mapping | None, more: Iterable[str] = ()) -> dict[str, str]:
    """A spec's `columns` by part; VlaxError for a part that there is not. more: further keys that the format takes."""
    more, known = (*more,), {}
    for part, name in dict(columns or {}).items():
        part = part if part in more else SAME.get(part, part)
        if part not in NAMES and part not in more:
            raise VlaxError(f"{where}: columns names no part {part!r}; the parts are {', '.join((*NAMES, *more))}")
        known[part] = name
    return known


def choose(
    names: Iterable[str], columns: Mapping[str, str], where: str, first: Mapping[str, Any] | None = None, listed: bool = False
) -> Fields:
    """The fields among `names` by their usual names, or as `columns` ({part: name}, of `given`) says.

    first   a record of these fields, where there is one: a field of a usual name that holds something else plays no part
    listed  of a file of rows: an image id names the picture where nothing else does

    RowFault names what there is, the nearest reading and the `columns` to paste, where there is neither a text, nor a question
    with an answer, nor a dialogue; questions without answers are never taken for captions.
    """
    names = [*names]
    columns = {part: name for part, name in columns.items() if part in NAMES}
    for part, whole in columns.items():
        if name := next((one for one in asked(part, whole, names) if one and one not in names), ""):
            way_out = f"mend `columns`, or leave {part} out to have it found"
            raise VlaxError(f"{where} has no column {name!r} for {part} (it has: {', '.join(map(str, names))}); {way_out}")
    found = {part: columns[part] if part in columns else named(names, part) for part in NAMES}
    found["image"], *others = images(names, columns, first) or [""]
    holds = [
        name
        for name, value in (first or {}).items()
        if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes) and not picture_fields.MADE.search(plain(name))
    ]
    if "image" not in columns and len(holds) == 1 and isinstance((first or {}).get(found["image"]), str):
        found["image"], others = holds[0], []  # a picture before the name of one
    value = (first or {}).get(found["messages"])
    if "messages" not in columns and not _is_dialogue(value) and (value or found["messages"] == found["text"]):
        found["messages"] = ""  # of a row without any, its name alone tells
    if found["messages"] and found["messages"] == found["text"]:
        found["text"] = ""
    if "text" in columns and "question" not in columns:
        found["question"] = ""
    fields = Fields(**found, others=tuple(others))
    if listed and not fields.image and "image" not in columns:
        fields = fields._replace(image=fields.image_id)
    if fields.choices == "" and {"A", "B"} <= {*names}:
        fields = fields._replace(choices="A")
    if fields.messages or fields.asks:
        return fields
    if fields.question and plain(fields.question) in ASKED and "text" not in columns:
        other = f"; or leave the question out and learn {fields.text!r}: columns={{'question': ''}}" if fields.text else ""
        raise RowFault(
            f"{where} has {', '.join(map(str, names))}: questions without answers are nothing to learn from or to score on; "
            f"name the answers: columns={{'answer': NAME}}{other}",
            "missing field",
        )
    if not fields.text:
        raise RowFault(f"{where} has {', '.join(map(str, names)) or 'no fields'}; {_nearest(names, first)}", "missing field")
    return fields


def asked(part: str, name: str, names: Iterable[str]) -> list[str]:
    """The fields that a name in `columns` stands for: of pictures those of "left+right"."""
    return picture_fields.each(name, [*names]) if part == "image" else [name]


def images(names: Iterable[str], columns: Mapping[str, str], first: Mapping[str, Any] | None = None) -> list[str]:
    """The fields of pictures, in order, as `columns` says or by their names; numbers in the first record are none. A record may
    have one of those that are numbered."""
    if "image" in columns:
        return [name for name in asked("image", columns["image"], names) if name]
    numbers = {name for name, value in (first or {}).items() if isinstance(value, int | float) and value == value}
    held = [name for name in names if name not in numbers]
    return picture_fields.family(held, named(names, "image")) or picture_fields.alone(first or {})


def check_image(names: Iterable[str], fields: Fields, columns: Mapping | None, where: str, first: Mapping) -> None:
    """VlaxError where a table has no picture and nobody said that it is meant to be text alone, or has others beside them.

    first: a record, with {"bytes": b""} for what a column of pictures holds.
    """
    check_others(fields, columns, where, first)
    if fields.image or "image" in (columns or {}) or "images" in (columns or {}):
        return
    like = "+".join(unread_pictures(first, fields)) or "NAME"
    raise VlaxError(f"{where} has {', '.join(names)}; no image among them (looked for {_usual('image')}); name "
                    f"yours: columns={{'image': {like!r}}}, or {{'image': ''}} for text alone")  # fmt: skip


def _usual(part: str, shown: int = 6) -> str:
    """The first names of a part, for an error."""
    names = NAMES[part]
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _nearest(names: list[str], first: Mapping[str, Any] | None) -> str:
    """What was looked for, and the `columns` that come nearest to what there is."""
    values = first or {}
    texts = [n for n in names if isinstance(values.get(n), str) and not picture_values.like_a_picture(n, values[n])]
    image = named(names, "image") or next((n for n in names if picture_values.like_a_picture(n, values.get(n))), "")
    longest = max(texts, key=lambda n: len(values[n]), default="NAME")
    paste = {**({"image": image} if image and not named(names, "image") else {}), "text": longest}
    return (
        f"looked for question with answer or answers, for messages, or one of {_usual('text')}; name yours, for example "
        f"columns={paste} or {{'question': NAME, 'answer': NAME}}"
    )


def _is_dialogue(value: Any) -> bool:
    """Whether a value is a list of messages, or JSON text of one, and not of captions."""
    if isinstance(value, str):
        return bool(re.match(r"\s*\[\s*\{", value))
    if not isinstance(value, list | tuple) or not value:
        return False
    if all(isinstance(one, list | tuple) and len(one) == 2 for one in value):
        return True
    return all(isinstance(one, Mapping) for one in value) and any(TALKS & one.keys() for one in value)


def check_others(fields: Fields, columns: Mapping | None, where: str, record: Mapping) -> None:
    """RowFault where a record has pictures in other fields than those that are read, and nobody said which are meant."""
    if not fields.image or "image" in (columns or {}) or "images" in (columns or {}):
        return
    if more := picture_fields.unclear(record, fields.images, PICTURED):
        every, own = "+".join((*fields.images, *more)), "+".join(fields.images)
        raise RowFault(
            f"{where} has pictures in {', '.join((*fields.images, *more))}, and nothing says which are its row's and in which "
            f"order: columns={{'image': {every!r}}} for all of them, {{'image': {own!r}}} for no other", "unread picture"
        )  # fmt: skip


def unread_pictures(record: Mapping, fields: Fields) -> list[str]:
    """The fields that look like pictures and play no part."""
    used = {*fields.images, *fields.texts}
    like = [str(name) for name, value in record.items() if name not in used and picture_values.like_a_picture(name, value)]
    return [name for name in like if not picture_fields.MADE.search(plain(name))] or like
