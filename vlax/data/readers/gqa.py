"""GQA's question files.

{"02930152": {"question": "Is the sky dark?", "imageId": "2354786", "answer": "yes",
              "types": {"structural": "verify", ...}, "isBalanced": true}, ...}
->  Row(id="02930152", image_id="2354786", task="question", turns=(Turn("Is the sky dark?", "yes"),),
        references=("yes",), answer_type="verify", ...)   images/2354786.jpg
"""

from vlax.data.readers.faults import STRICT
from vlax.data.readers.files import FileSource, Item
from vlax.data.readers.listed import identifier
from vlax.data.readers.reading import parse, text
from vlax.errors import VlaxError
from vlax.rows import RowFault
from vlax.storage.paths import join, read_file

SHAPE = 'GQA questions are {QUESTION ID: {"question", "imageId", "answer"}}'


class GqaQuestions(FileSource):
    """One row a question, with one reference. The answer type is the question's structure, where the file has it."""

    def __init__(self, annotations, images, train: bool, *, base="", drop_image_ids=(), limit=None, faults=STRICT):
        path = join(base, annotations)
        name, content = f"gqa-{path.stem}", read_file(path)
        items = []
        for key, row in parse(path, content, SHAPE).items():
            where = f"{path}: question {key}"
            with faults.row(name, where):
                items.append(_item(where, key, row))
        settings = {"kind": "gqa", "train": train}
        super().__init__(name, "question", str(images), base, settings, [content], items, drop_image_ids, limit)


def _item(where: str, key: str, row) -> Item:
    if not isinstance(row, dict):
        raise VlaxError(f"{where} is a {type(row).__name__}, not an object; {SHAPE}")
    if row.get("answer") is None:
        reason = f'{where} has no "answer": a test or challenge file has none to learn or to score; {SHAPE}'
        raise RowFault(reason, "missing field")
    image_id = identifier(where, row, "imageId", SHAPE)
    asks, answer = text(where, row, "question", SHAPE), text(where, row, "answer", SHAPE)
    types = row.get("types")
    answer_type = str(types.get("structural") or "other") if isinstance(types, dict) else "other"
    return Item(key, image_id, f"{image_id}.jpg", asks, answer, (answer,), answer_type)
