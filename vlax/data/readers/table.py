"""Tables of one's own: JSON lines, a JSON list, CSV or TSV with a header.

    {"image": "a.jpg", "text": "a dog runs"}                                    Row(id="0", task="caption", ...)
    {"image": "a.jpg", "question": "is it red?", "answer": "no"}                Row(id="1", task="question", ...)
    {"image": "", "text": "dogs run"}                                           Row(id="2", image_id="", picture=None, ...)
    {"id": "q4", "image": "b.jpg", "question": "where?", "answers": ["here", "there", "here"], "answer_type": "other"}

    image,text                       the same in CSV; `answers` is a JSON list there: "[""here"", ""there""]"
    a.jpg,a dog runs

The columns `id`, `answer` (the most frequent of `answers` then), `answers`, `answer_type` and `task` may be missing.
"""

import csv
import io
import json
from collections.abc import Generator, Iterable, Iterator

from etils import epath

from vlax.data.readers.annotation_file import File, known_columns, majority
from vlax.data.readers.faults import Faults
from vlax.data.readers.files import Facts, FileSource, Reading
from vlax.data.readers.item_table import Item
from vlax.errors import VlaxError
from vlax.rows import TASKS, RowFault
from vlax.storage.paths import join
from vlax.storage.state import LINE_BYTES, load_line

COLUMNS = ("image", "text", "question", "answer", "id", "answers", "answer_type", "task")
csv.field_size_limit(LINE_BYTES)  # by itself csv ends at a cell of 128 KiB, and with it the file
SHAPE = (
    'a table has the columns "image" and "text", or "image", "question" and "answer"; '
    'others are named by columns={"text": "THEIR NAME", ...}'
)


class Table(FileSource):
    """One row a line; to evaluate on, the captions of one picture are the references of one row.

    images   the folder of the pictures; "": the table's own
    task     what captions are for ("caption", "describe") or questions ("question", "chat"); "": caption and question
    columns  {one of COLUMNS: its name in the file}
    strip    what the file names in the table begin with and the folder `images` does not have
    """

    def __init__(self, path, images="", task="", *, columns=None, strip="", reading: Reading):
        if task and task not in TASKS:
            raise VlaxError(f"{path}: there is no task {task!r}; the tasks are {', '.join(TASKS)}")
        self._columns, self._place = known_columns(path, columns, COLUMNS), join(reading.base, path)
        self._asked, self._strip, self._reading = task, strip, reading
        given = {"task": task, "columns": columns, "strip": strip}
        super().__init__(reading, str(images) or str(epath.Path(path).parent), [self._place], given)

    def read(self, faults: Faults) -> Generator[Item, None, Facts]:
        name, columns, place = self._reading.name(self._place.stem), self._columns, self._place
        file = File(place, SHAPE, name, faults)
        found = table_rows(file)
        missing = sorted(name for name in columns.values() if name and found and not any(name in row for *_, row in found))
        if missing:
            raise VlaxError(f"{place} has no column {missing[0]!r} (it has: {', '.join(found[0][2])}); mend `columns`")
        tasks: list[str] = []
        items = self._items(file, found, tasks)
        yield from items if self._reading.train else _grouped(items)
        extra = {"columns": columns, "strip": self._strip}
        settings = {key: value for key, value in extra.items() if value}
        return Facts(name, self._asked or (tasks[0] if tasks else "caption"), settings, [file.digest])

    def _items(self, file: File, found: Iterable[tuple[int, str, dict]], tasks: list[str]) -> Iterator[Item]:
        """tasks: gets that of the first row."""
        names = {column: self._columns.get(column, column) for column in COLUMNS}
        seen: set[str] = set()
        for at, where, row in found:
            item = None
            with file.guard(where):
                made = _item(where, {key: row.get(column) for key, column in names.items()}, row, at, self._asked, self._strip)
                if made.id in seen:
                    way_out = "mend it, or number the rows with columns={'id': ''}"
                    raise RowFault(f"{where}: the id {made.id} occurs twice; {way_out}", "duplicate id")
                seen.add(made.id)
                item = made
            if item:
                tasks[:] = tasks or [item.task]
                yield item


def table_rows(file: File) -> list[tuple[int, str, dict]]:
    """(number, where, {column: value}) of every row: JSON, or text with a header and cells split by comma, tab or semicolon."""
    path, content = file.path, file.content
    if content.lstrip()[:1] in (b"{", b"["):
        return file.listed()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise VlaxError(f"{path} is not UTF-8 text ({error}); export it as UTF-8") from None
    reader, found = cells(text, strict=True), []
    try:
        for at, row in enumerate(reader):
            where = f"{path}: line {reader.line_num}"
            with file.guard(where):
                if None in row or None in row.values():
                    there = sum(value is not None for key, value in row.items() if key is not None) + len(row.get(None, ()))
                    way_out = "put texts with commas or line ends in double quotes"
                    raise VlaxError(f"{where} has {there} cells under {len(reader.fieldnames or ())} column names; {way_out}")
                found.append((at, where, row))
    except csv.Error as error:
        raise VlaxError(f"{path}: line {reader.line_num} is not CSV ({error}); export it again") from None
    return found


def cells(text: str, strict: bool = False) -> csv.DictReader:
    """Rows of cells that are split by what the header has most of. csv.Sniffer would go by the texts too, which are full of
    commas, and has no answer for a single column."""
    delimiter = max(",\t;", key=text.split("\n", 1)[0].count)
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)


def _item(where: str, row: dict, whole: dict, at: int, task: str, strip: str) -> Item:
    """What is kept of a row; `row` goes by our column names, `whole` by the file's."""
    text = {key: _text(where, key, value) for key, value in row.items() if key != "answers"}
    asks = bool(text["question"])
    own = text["task"] or task or ("question" if asks else "caption")
    if own not in TASKS or asks != (own in TASKS[2:]):
        fits = ", ".join(TASKS[2:] if asks else TASKS[:2])
        raise VlaxError(f"{where}: the task {own!r} does not fit a row {'with' if asks else 'without'} a question; use {fits}")
    references = _references(where, row["answers"]) if asks else ()
    answer = text["answer"] or majority(references) if asks else text["text"]
    if not answer:
        needed = "answer" if asks else "text (nor a question)"
        there = ", ".join(map(str, whole)) or "none"
        raise RowFault(f"{where} has no {needed}; its columns are {there}. {SHAPE}", "empty text")
    if asks:
        references = references or (answer,)
    key, kind = text["id"] or str(at), text["answer_type"] or ("other" if asks else "")
    name = text["image"].removeprefix(strip)
    return Item(key, text["image"], name, text["question"], answer, references, kind, task=own)


def _text(where: str, key: str, value) -> str:
    """A cell as text with single blanks; numbers and true/false are spelt as JSON spells them."""
    if isinstance(value, dict | list):
        raise VlaxError(f'{where}: "{key}" is a {type(value).__name__}, not a text; {SHAPE}')
    if isinstance(value, str):
        return value.strip() if key == "image" else " ".join(value.split())
    return "" if value is None else json.dumps(value)


def _references(where: str, value) -> tuple[str, ...]:
    """All annotators' answers: a list, or in CSV the JSON text of one."""
    if isinstance(value, str) and value.strip():
        value = load_line(f'{where}: "answers"', value, 'in CSV it is a JSON list such as ["yes", "no"]')
    if not value:
        return ()
    if not isinstance(value, list) or not all(isinstance(answer, str | int | float) for answer in value):
        raise VlaxError(f'{where}: "answers" is {value!r}, not a list of texts; mend or remove the row')
    return tuple(_text(where, "answers", answer) for answer in value)


def _grouped(items: Iterable[Item]) -> list[Item]:
    """Captions of one picture (and task) joined: the first row's id and answer, all of their texts as references."""
    joined: dict[tuple, list[Item]] = {}
    for item in items:
        own = (item.id,) if item.question or not item.image_id else (item.image_id, item.task)
        joined.setdefault(own, []).append(item)
    return [
        same[0] if same[0].question else same[0]._replace(references=tuple(item.answer for item in same))
        for same in joined.values()
    ]
