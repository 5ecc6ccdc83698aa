"""TextVQA's own JSON (`TextVQA_0.5.1_val.json`).

{"data": [{"question_id": 34602, "question": "what is the brand of this camera?", "image_id": "003a8ae2ef43b901",
           "answers": ["nous les gosses", "dakota", "clos culombu", "dakota digital", "dakota", ...]}, ...]}
->  Row(id="34602", image_id="003a8ae2ef43b901", task="question", turns=(Turn("what is ...?", "dakota"),),
        references=(all ten, in order), ...)   images/003a8ae2ef43b901.jpg
"""

from vlax.data.readers.faults import STRICT
from vlax.data.readers.files import FileSource, Item
from vlax.data.readers.listed import identifier, majority
from vlax.data.readers.reading import parse, rows, text
from vlax.errors import VlaxError
from vlax.rows import RowFault
from vlax.storage.paths import join, read_file

SHAPE = 'TextVQA is {"data": [{"question_id", "question", "image_id", "answers": [TEXT, ...]}]}'


class TextVqa(FileSource):
    """One row a question; the answer to train on is the most frequent one, all ten are references."""

    def __init__(self, annotations, images, train: bool, *, base="", drop_image_ids=(), limit=None, faults=STRICT):
        path = join(base, annotations)
        name, content = f"textvqa-{path.stem}", read_file(path)
        items, seen = [], set()
        for at, row in enumerate(rows(path, parse(path, content, SHAPE), "data", SHAPE)):
            where = f"{path}: data[{at}]"
            with faults.row(name, where):
                item = _item(where, row)
                if item.id in seen:
                    reason = f"{where}: question_id {item.id} occurs twice; give every question an id of its own"
                    raise RowFault(reason, "duplicate id")
                seen.add(item.id)
                items.append(item)
        settings = {"kind": "textvqa", "train": train}
        super().__init__(name, "question", str(images), base, settings, [content], items, drop_image_ids, limit)


def _item(where: str, row: dict) -> Item:
    key, image_id = identifier(where, row, "question_id", SHAPE), identifier(where, row, "image_id", SHAPE)
    given = row.get("answers")
    if given is None:
        raise RowFault(f'{where} has no "answers": the test file has none to learn or to score; {SHAPE}', "missing field")
    if not isinstance(given, list) or not all(isinstance(answer, str) for answer in given) or not majority(given):
        raise VlaxError(f'{where}: "answers" is {given!r}, not a list of texts; {SHAPE}')
    asks = text(where, row, "question", SHAPE)
    return Item(key, image_id, f"{image_id}.jpg", asks, majority(given), tuple(given), "other")
