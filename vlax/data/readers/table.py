"""Files of rows: JSON lines, a JSON list or an object that holds one, CSV or TSV with a header.

    {"image": "a.jpg", "text": "a dog runs"}                                    Row(id="0", task="caption", ...)
    {"image": "a.jpg", "question": "is it red?", "answer": "no"}                Row(id="1", task="question", ...)
    {"image": "", "text": "dogs run"}                                           Row(id="2", image_id="", picture=None, ...)
    {"id": "q4", "image": "b.jpg", "question": "where?", "answers": ["here", "there", "here"], "answer_type": "other"}

    image,text                       the same in CSV; `answers` is a JSON list there: "[""here"", ""there""]"
    a.jpg,a dog runs

    [{"id": "7", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"},
                                                     {"from": "gpt", "value": "A dog."}]}]
    ->  Row(id="7#0", image_id="a.jpg", task="chat", turns=(Turn("What is it?", "A dog."),), ...)

Dialogues are the kinds `llava` and `sharegpt`, which read alike. Their other names are given by `columns`, whose keys are also
those that a `dataset_info.json` has under "tags":

    columns={"messages": "dialogue", "images": "pictures", "role_tag": "speaker", "content_tag": "says",
             "user_tag": "visitor", "assistant_tag": "guide"}

With task="caption" or "describe" the instruction of a single exchange gives way to vlax's own prompt, which is what the
alignment stages want of LLaVA-Pretrain, whose instructions are paraphrases of one another.
"""

import csv
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from etils import epath

from vlax.data.readers import cells
from vlax.data.readers import columns as naming
from vlax.data.readers.annotation_file import File
from vlax.data.readers.answers import one_picture_each
from vlax.data.readers.faults import Faults
from vlax.data.readers.files import Facts
from vlax.data.readers.item_table import Item
from vlax.data.readers.picture_values import ENDING
from vlax.data.readers.record_source import RecordSource
from vlax.data.readers.records import SHAPE, Records
from vlax.errors import VlaxError
from vlax.rows import RowFault
from vlax.storage.paths import join
from vlax.storage.state import load_json, load_line

SHAPES = {
    "table": SHAPE,
    "llava": 'LLaVA rows are {"id", "image", "conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}, ...]}',
    "sharegpt": 'ShareGPT rows are {"messages": [{"role": "user", "content"}, {"role": "assistant", "content"}, ...], '
    '"images": [FILE]}',
}


class Table(RecordSource):
    """One row a line; to evaluate on, the captions of one picture are the references of one row.

    annotations  what the kinds of dialogues call path
    images       the folder of the pictures; "": the table's own

    As many <image> go from the questions of a dialogue as it has pictures, since the picture always comes first; `faults` notes
    rows that have fewer. A system message goes before the first question, with a line end: it conditions the answers and is not
    learned. VlaxError names the row that is at fault.
    """

    def find(self) -> Iterable[epath.Path]:
        return [join(self.reading.base, self.path)]

    def pictures_in(self, images: str) -> str:
        return images or str(epath.Path(self.path).parent)

    def read(self, faults: Faults) -> Generator[Item, None, Facts]:
        place, shape = join(self.reading.base, self.path), SHAPES[self.reading.kind]
        name = self.reading.name(place.stem, self.split)
        made = self.records(name, faults, shape=shape, listed=True)
        file = File(place, shape, name, faults)
        items = self._items(file, made)
        yield from items if self.reading.train or self.reading.kind != "table" else one_picture_each(items)
        settings = {"columns": self.columns, "strip": self.strip, "split": self.split}
        own = {key: value for key, value in settings.items() if value}
        return self.facts(name, made, own, [file.digest])._replace(numbered=False)

    def _items(self, file: File, made: Records) -> Iterator[Item]:
        seen: set[str] = set()
        for at, where, row in table_rows(file):
            found: list[Item] = []
            with file.guard(where):
                items = made.items(where, str(at), row)
                if self.reading.kind != "table":  # ids recur in published dialogues: LLaVA-Instruct has several rows a picture
                    items = [item._replace(id=f"{row.get('id', 'row')}#{at}") for item in items]
                if again := [item.id for item in items if item.id in seen]:
                    way_out = "mend it, or number the rows with columns={'id': ''}"
                    raise RowFault(f"{where}: the id {again[0]} occurs twice; {way_out}", "duplicate id")
                seen.update(item.id for item in items)
                found = items
            yield from found


def table_rows(file: File) -> Iterator[tuple[int, str, dict]]:
    """(number, where, {column: value}) of every row: JSON, or text with a header and cells."""
    if file.start == b"{" and not file.lines and (held := inner_list(file.path, file.content)):
        for at, row in enumerate(held):
            yield at, f"{file.path}: row {at}", row
    elif file.start in (b"{", b"["):
        yield from file.listed()
    else:
        yield from _cells(file)


def inner_list(path: epath.Path, content: bytes) -> list[dict]:
    """The rows of one JSON object that holds them; none for JSON lines.

    {"questions": [{...}, ...]}, {"data": [...]}        its longest list of objects
    {"a.jpg": "a dog", "b.jpg": ["a cat", "a tom"]}     {"image": "a.jpg", "text": "a dog"}, ...
    {"17": {"image": "a.jpg", "text": "a dog"}}         {"id": "17", "image": "a.jpg", "text": "a dog"}, ...
    """
    end = content.find(b"\n")
    try:
        whole = load_line(path, content[: end if end >= 0 else None])
        if end >= 0 and content[end : end + 4096].strip():
            return []
    except VlaxError:
        try:
            whole = load_json(path, content)
        except VlaxError:
            return []  # JSON lines of which the first is damaged
    return inside(path, whole)


def inside(path: object, whole: Any) -> list[dict]:
    """The rows inside one JSON value; none where it is a row itself."""
    if not isinstance(whole, dict):
        return []
    try:
        naming.choose(whole, {}, str(path), whole, listed=True)
        return []  # one row, with its messages or its answers
    except VlaxError:
        lists = [[row for row in value if isinstance(row, dict)] for value in whole.values() if isinstance(value, list)]
    if whole and all(ENDING.search(name) for name in whole):
        return [{"image": name, **(value if isinstance(value, dict) else {"text": value})} for name, value in whole.items()]
    if whole and all(isinstance(value, dict) for value in whole.values()):
        return [{"id": name, **value} for name, value in whole.items()]
    return max(lists, key=len, default=[])


def _cells(file: File) -> Iterator[tuple[int, str, dict]]:
    """Of CSV and the like."""
    text, encoding = cells.decoded(file.content)
    if not text.strip():
        raise VlaxError(f"{file.path} is no text; export it as UTF-8")
    if encoding == "Windows-1252":
        file.faults.note(file.source, "", "odd encoding", f"{file.path} is not UTF-8 and was read as Windows-1252")
    names, rows = cells.table(text)
    at = -1
    try:
        for at, (line, row) in enumerate(rows):
            where = f"{file.path}: line {line}"
            found = None
            with file.guard(where):
                found = cells.record(where, names, row)
            if found is not None:
                yield at, where, found
    except csv.Error as error:
        raise VlaxError(f"{file.path}: row {at + 1} is not CSV ({error}); export it again") from None
