"""Rows from records of named fields: the columns of a parquet file, the JSON members of a tar, TFDS features.

{"caption": ["a dog", "a black dog"]}                   two caption rows to train on; one with both references to evaluate on
{"question": "is it red?", "answer": "no"}              one question row, answer_type "yes/no"
{"question": "what?", "answers": ["a", "b", "a"]}       learns "a", the most frequent; the references are all three
"""

import collections
import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

from vlax.data.readers.item_table import NOWHERE, Item, Place
from vlax.errors import VlaxError
from vlax.rows import TASKS, RowFault

# What the fields of a record may be called; the first that is there is taken.
NAMES = {
    "image": ("image", "img", "picture", "jpg", "image_path", "file_name"),
    "text": ("caption", "captions", "text", "texts", "raw", "sentences"),
    "question": ("question",),
    "answer": ("multiple_choice_answer", "answer"),
    "references": ("answers",),
    "id": ("question_id", "id"),
    "image_id": ("image_id", "image/id", "imgid"),
    "answer_type": ("answer_type",),
}


class Fields(NamedTuple):
    """Which field plays which part; "" where none does."""

    image: str
    text: str
    question: str
    answer: str
    references: str
    id: str
    image_id: str
    answer_type: str

    @property
    def texts(self) -> list[str]:
        return [name for name in self[1:] if name]


def choose(names, columns: Mapping | None, where: str, picture: bool = False) -> Fields:
    """The fields among `names` by their usual names, or as `columns` ({part: name}) says; question and answer before text.

    VlaxError, naming what is there and what was looked for, where neither a text nor a question with an answer is found;
    with `picture` also where no image is, unless columns has "image": "" for rows that are meant to be text alone.
    """
    names, columns = list(names), dict(columns or {})
    for part, name in columns.items():
        if part not in NAMES:
            raise VlaxError(f"{where}: columns names no part {part!r}; the parts are {', '.join(NAMES)}")
        if name and name not in names:
            raise VlaxError(f"{where} has no column {name!r} for {part}; it has {', '.join(names)}")
    found = {part: next((name for name in usual if name in names), "") for part, usual in NAMES.items()}
    if "text" in columns and "question" not in columns:
        found["question"] = ""
    fields = Fields(**{**found, **columns})
    if picture and not fields.image and "image" not in columns:
        raise VlaxError(f"{where} has {', '.join(names)}; no image among them (looked for {', '.join(NAMES['image'])}); name "
                        f"yours: columns={{'image': NAME}}, or {{'image': ''}} for text alone")  # fmt: skip
    if fields.question and (fields.answer or fields.references):
        return fields._replace(text="")
    if not fields.text:
        looked = f"question with answer or answers, or one of {', '.join(NAMES['text'])}"
        way_out = "name yours, for example columns={'text': NAME} or {'question': NAME, 'answer': NAME}"
        raise VlaxError(f"{where} has {', '.join(names) or 'no fields'}; looked for {looked}; {way_out}")
    return fields._replace(question="", answer="", references="", answer_type="")


def task_of(fields: Fields, task: str, where: str) -> str:
    """The task of these rows: question, or for texts what was asked for (caption when nothing was)."""
    fits = ("question",) if fields.question else TASKS[:2]
    if task and task not in fits:
        raise VlaxError(
            f"{where}: {'questions' if fields.question else 'captions'} have no task {task!r}; use {', '.join(fits)}"
        )
    return task or fits[0]


def items(
    where: str, name: str, image_id: str, file_name: str, values: Mapping, fields: Fields, train: bool, place: Place = NOWHERE
) -> list[Item]:
    """The Items of one record: a question is one, captions are one each to train on and one in all to evaluate on.

    where            what an error calls the record
    name, image_id   what it is called where it has no id or image id of its own
    file_name        what its picture is called; "" for a row of text
    place            where that lies in a container
    """
    image_id = _plain(values.get(fields.image_id)) or image_id if file_name else ""
    name = _plain(values.get(fields.id)) or name
    if not fields.question:
        said = texts(where, fields.text, values.get(fields.text))
        if train:
            each = enumerate(said)
            return [Item(f"{name}#{k}", image_id, file_name, "", caption, place=place) for k, caption in each]
        return [Item(name, image_id, file_name, "", said[0], tuple(said), place=place)]
    question = texts(where, fields.question, values.get(fields.question))[0]
    given = values.get(fields.references)
    references = texts(where, fields.references, given) if given is not None and len(given) else []
    answer = _plain(values.get(fields.answer)) or (collections.Counter(references).most_common(1)[0][0] if references else "")
    if not answer:
        raise RowFault(f"{where} has no answer; give it one or remove the row", "missing field")
    kind = _plain(values.get(fields.answer_type)) or ("yes/no" if answer.lower() in ("yes", "no") else "open")
    return [Item(name, image_id, file_name, question, answer, tuple(references) or (answer,), kind, place=place)]


def texts(where: str, field: str, value) -> list[str]:
    """The texts of a field: one, a list, or a list of objects that hold one. VlaxError where one is empty or none is there."""
    if isinstance(value, Mapping):  # a sequence of features, as TFDS hands it over: {"text": [...], "id": [...]}
        value = _inner(value)
    listed = [value] if value is None or isinstance(value, str) else value
    listed = list(listed) if isinstance(listed, (list, tuple)) else [listed]
    said = [_plain(_inner(one) if isinstance(one, Mapping) else one) for one in listed]
    if not said or not all(said):
        raise RowFault(f'{where}: "{field}" is {value!r}, not a text; mend or remove the row', "empty text")
    return said


class Collector:
    """Makes Items of records that each bring their own fields (JSON), and a digest of their values.

    path is what the source was called; columns, task and train are the source's own.
    """

    def __init__(self, path: str, columns: Mapping | None, task: str, train: bool):
        self.path, self.columns, self.train, self._asked = path, columns, train, task
        self._fields: dict[tuple, Fields] = {}
        self._tasks: dict[str, str] = {}
        self._digest = hashlib.sha256()

    def fields(self, values: Mapping, where: str) -> Fields:
        key = tuple(values)
        if key not in self._fields:
            self._fields[key] = choose(values, self.columns, where)
            self._tasks.setdefault(task_of(self._fields[key], self._asked, where), where)
        return self._fields[key]

    def add(self, where: str, name: str, image_id: str, file_name: str, values: Mapping, place: Place = NOWHERE) -> list[Item]:
        """The Items of one record, as `items` has them."""
        self._digest.update(json.dumps([file_name, values], default=str).encode())
        return items(where, name, image_id, file_name, values, self.fields(values, where), self.train, place)

    @property
    def task(self) -> str:
        """The one task of all rows; VlaxError where some are captions and some are questions."""
        if len(self._tasks) > 1:
            raise VlaxError(f"{self.path} mixes captions and questions ({' and '.join(self._tasks.values())}); give them apart")
        return next(iter(self._tasks), "caption")

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


def _inner(value: Mapping):
    return next((value[key] for key in ("text", "raw", "caption", "answer") if key in value), None)


def _plain(value) -> str:
    """A text or number as one line; "" for what is neither."""
    return " ".join(str(value).split()) if isinstance(value, (str, int, float)) else ""
