"""Rows from records of named fields: lines of JSON or CSV, columns of parquet, JSON members of a tar, TFDS features.

{"caption": ["a dog", "a black dog"]}                   two caption rows to train on; one with both references to evaluate on
{"question": "is it red?", "answer": "no"}              one question row, answer_type "yes/no"
{"question": "what?", "answers": ["a", "b", "a"]}       learns "a", the most frequent; the references are all three
{"question": "what?", "choices": ["red", "blue"], "answer": 1}                         learns "blue"
{"messages": [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "a dog"}]}      one chat row

What fields are called stands in `columns.py`, what their values mean in `values.py`, `dialogue.py` and `picture_values.py`.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

from vlax.data.readers import answers, dialogue, picture_fields, picture_values, unfold, values
from vlax.data.readers import columns as naming
from vlax.data.readers.called import Called
from vlax.data.readers.columns import Fields
from vlax.data.readers.faults import Faults
from vlax.data.readers.held import Held
from vlax.data.readers.item_table import NOWHERE, Item
from vlax.data.readers.splits import Splits
from vlax.errors import VlaxError
from vlax.rows import TASKS, RowFault, Turn

SHAPE = (
    'a row has "image" and "text", or "image", "question" and "answer", or "image" and "messages"; '
    'others are named by columns={"text": "THEIR NAME", ...}'
)
FORMS = ("text", "letter")  # what is learned of a question with choices


@dataclasses.dataclass
class Records:
    """Makes Items of the records of one source.

    where, columns, task, split, choices, strip, skip_multi_image   of its spec
    train     one row a caption
    faults, source   who is told what is odd about rows, and of which source
    shape     what errors say that was looked for
    listed    rows of a list that people write: a caption has its row's id and no number, an answer type is "other" by itself

    `tasks` are those of the rows so far, `skipped` counts rows with several pictures, `most` is what a row of the others has of
    them, `digest` goes over all values.
    """

    where: str
    train: bool
    faults: Faults
    source: str
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    task: str = ""
    split: str = ""
    choices: str = ""
    strip: str = ""
    skip_multi_image: bool = False
    shape: str = SHAPE
    listed: bool = False

    def __post_init__(self) -> None:
        self.columns = naming.given(self.where, self.columns, dialogue.TAGS)
        self.tasks: dict[str, str] = {}
        self.skipped = self.most = 0
        self._splits = Splits(self.split)
        self._seen: set[str] = set()
        self._tags = {key: self.columns[key] for key in dialogue.TAGS if self.columns.get(key)}
        self._fields: dict[tuple[tuple, bool], tuple[Fields, list[str]]] = {}
        self.called, self._digest = Called(), hashlib.sha256()
        if self.task and self.task not in TASKS:
            raise VlaxError(f"{self.where}: there is no task {self.task!r}; the tasks are {', '.join(TASKS)}")
        if self.choices and self.choices not in FORMS:
            raise VlaxError(f"{self.where}: choices={self.choices!r} is not one of {', '.join(FORMS)}")

    def fields(self, record: Mapping, where: str, held: bool = False) -> Fields:
        """Which fields of a record play which parts: found once for all records of the same fields. held: its container has its
        pictures, so that the record may say of them what it likes."""
        key, empty = (tuple(record), held), picture_fields.empty
        if key not in self._fields or not all(empty(record[name]) for name in self._fields[key][1]):
            given = {part: naming.asked(part, name, record) for part, name in self.columns.items() if part in naming.NAMES}
            known = {part: [name for name in names if name in record] for part, names in given.items()}
            own = {part: "+".join(names) for part, names in known.items()}
            self._seen |= {name for names in known.values() for name in names}
            if not self._fields and (missing := self._missing()):
                there = ", ".join(map(str, record))
                raise VlaxError(f"{where} has no column {missing!r} (it has: {there}); mend `columns`")
            found = naming.choose(record, own, where, record, self.listed)
            if not held:
                naming.check_others(found, self.columns, where, record)
            talk = naming.named(record, "messages")
            if talk and not record[talk]:
                return found  # another row may show that they are messages, or that they are not
            self._fields[key] = found, [] if held else picture_fields.blank(record, found.images, naming.PICTURED)
        return self._fields[key][0]

    def taken(self, names: Iterable[str]) -> None:
        """Notes fields that the container keeps to itself, so that no record shows them."""
        self._seen |= {*names}

    def _missing(self) -> str:
        """A column that the spec names and no record has had; "" for none."""
        given = [own for own in self.columns.items() if all(own) and own[0] in naming.NAMES]
        names = (one for own in given for one in naming.asked(*own, self._seen))
        return next((name for name in names if name not in self._seen), "")

    def digested(self, file_name: str, record: Mapping) -> None:
        """Takes a record into the digest."""
        self._digest.update(json.dumps([file_name, record], default=str).encode())

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def items(self, where: str, name: str, record: Mapping, held: Held | None = None) -> list[Item]:
        """The Items of one record: none where it is of another split, or has several pictures and may be skipped.

        where  what an error calls the record
        name   what it is called where it has no id of its own
        held   its picture, where the container holds it; otherwise it is one that the record names or has

        RowFault, VlaxError where a reader can't take it.
        """
        folded = unfold.unfolded(record)
        names = [name] if len(folded) == 1 else [f"{name}#{k}" for k in range(len(folded))]
        return [item for own, one in zip(names, folded, strict=True) for item in self._items(where, own, one, held)]

    def _items(self, where: str, name: str, record: Mapping, held: Held | None) -> list[Item]:
        fields = self.fields(record, where, bool(held))
        if fields.split and not self._splits.wanted(record.get(fields.split)):
            return []
        talk = self._talk(where, record, fields)
        pictures = [] if "image" in self.columns and not fields.image else self._pictures(where, record, fields, held)
        pictures = dialogue.together(pictures, talk)
        count = len(pictures) + (held.count if held else 0)
        if count > 1 and self.skip_multi_image:
            self.skipped += 1
            return []
        if held and pictures:
            raise VlaxError(f"{where} has pictures of its own and names others ({pictures[0].name}, ...); remove the row")
        self.most = max(self.most, count)
        blank = self._blank(record, fields, name, pictures, held)
        made = self._chat(where, talk, blank, count, bool(held)) if talk else self._told(where, record, fields, blank)
        for item in made:
            self.tasks.setdefault(item.task, where)
        return made

    @property
    def settings(self) -> dict[str, object]:
        """For a fingerprint: what a spec says beside its columns and its split."""
        most = self.most if self.most > 1 else 0
        own = {"choices": self.choices, "skip_multi_image": self.skip_multi_image, "pictures": most}
        return {key: value for key, value in own.items() if value}

    @property
    def first_task(self) -> str:
        """The source's: what was asked for, or the first row's."""
        return self.task or next(iter(self.tasks), "caption")

    def check(self) -> None:
        """When all were seen: VlaxError where they are of several splits and none of these is named, or lack a named column."""
        if self._fields and (missing := self._missing()):
            there = ", ".join(dict.fromkeys(str(name) for names, _ in self._fields for name in names))
            raise VlaxError(f"{self.where} has no column {missing!r} (it has: {there}); mend `columns`")
        self._splits.check(self.where)

    def _talk(self, where: str, record: Mapping, fields: Fields) -> dialogue.Dialogue | None:
        if not fields.messages or record.get(fields.messages) is None:
            return None
        talk = dialogue.read(where, fields.messages, record[fields.messages], self._tags, self.shape)
        if talk.unanswered:
            self._note(where, "unanswered question", f"{where}: its last question has no answer and is left out")
        system = str(record.get(fields.system) or "") if fields.system else ""
        return talk._replace(system=[system, *talk.system])

    def _pictures(self, where: str, record: Mapping, fields: Fields, held: Held | None) -> list[picture_values.Named]:
        for name in naming.MOVING:
            if record.get(name):
                raise dialogue.moving(where, name)
        if held:
            return []
        found = picture_values.pictures(f'{where}: "{fields.image}"', fields.pictures(record))
        if not found and (unread := naming.unread_pictures(record, fields)):
            picture_values.check_address(where, str(record[unread[0]]).strip())
            raise RowFault(
                f"{where}: its field {unread[0]!r} looks like a picture, and nothing reads it; say what it is: "
                f"columns={{'image': {'+'.join(unread)!r}}}, or learn the texts alone with {{'image': ''}}", "unread picture"
            )  # fmt: skip
        return found

    def _blank(
        self, record: Mapping, fields: Fields, name: str, pictures: Sequence[picture_values.Named], held: Held | None
    ) -> Item:
        """An Item with all that a row has besides its texts."""
        own = values.text(record.get(fields.image_id)) if fields.image_id else ""
        image_id = (own or held.id or held.name) if held else ""
        if pictures:
            together = " ".join(picture.name for picture in pictures)
            image_id = together if self.listed else own or together
        also = {*((held.id, *held.called) if held else ()), *self.called(record)}
        files = (
            list(held.names) or [held.name] * held.count
            if held
            else [picture.name.removeprefix(self.strip) for picture in pictures]
        )
        called, *more = files or [""]
        contents = [picture.content for picture in pictures] or [b""]
        return Item(
            id=values.text(record.get(fields.id)) or name, image_id=image_id, file_name=called, question="", answer="",
            place=held.place if held else NOWHERE, inline=contents[0],
            also=tuple(sorted(also - {"", image_id, called})) if called else (), more=tuple(more),
            insets=tuple(contents[1:]) if any(contents[1:]) else (),
        )  # fmt: skip

    def _chat(self, where: str, talk: dialogue.Dialogue, blank: Item, pictures: int, held: bool) -> list[Item]:
        task = self.task or "chat"
        if task == "question":
            raise VlaxError(f"{self.where}: conversations have no task {task!r}; the tasks are caption, describe, chat")
        if task != "chat" and len(talk.turns) > 1:
            raise VlaxError(f"{where} has {len(talk.turns)} exchanges; task={task!r} takes single ones. Use task=chat")
        turns, note, places = dialogue.without_tokens(where, talk.turns, pictures)
        if note and not held:  # in a column of its own a picture needs no placeholder
            self._note(where, dialogue.TOKEN_FAULTS[0], note)
        asked = "\n".join(text for text in (*talk.system, turns[0].question) if text)
        first, before = Turn("" if task != "chat" else asked, turns[0].answer), len(asked) - len(turns[0].question)
        blank = blank._replace(question=first.question, answer=first.answer, later=tuple(turns[1:]), task=task)
        return [blank._replace(references=(turns[-1].answer,), stands=dialogue.stands(places, before))]

    def _told(self, where: str, record: Mapping, fields: Fields, blank: Item) -> list[Item]:
        """Of a question, or of captions."""
        question = answers.question(record, fields)
        if blank.more and question.count(dialogue.TOKEN) == 1 + len(blank.more):
            [asked], _, places = dialogue.without_tokens(where, [Turn(question, "")], 1 + len(blank.more))
            question, blank = asked.question, blank._replace(stands=dialogue.stands(places))
        own = values.text(record.get(fields.task)) if fields.task and self.listed else ""
        task = own or self.task or ("question" if question else "caption")
        if task not in TASKS or bool(question) != (task in TASKS[2:]):
            fits = ", ".join(TASKS[2:] if question else TASKS[:2])
            of = f"{where}: the task {task!r} does not fit a row {'with' if question else 'without'} a question"
            raise VlaxError(f"{of}; use {fits}")
        blank = blank._replace(task=task)
        if question:
            return [answers.asked(where, record, fields, blank, question, self.choices == "letter", self.listed, self.shape)]
        made, empty = answers.captioned(where, record, fields, blank, self.train, self.listed, self.shape)
        if empty:
            self._note(where, "empty caption", f"{where}: {empty} of its captions are empty")
        return made

    def _note(self, where: str, kind: str, text: str) -> None:
        self.faults.note(self.source, where.rpartition(": ")[2], kind, text)
