"""LXMERT's JSON, in which PathVQA is distributed (`pvqa_train.json`): one entry a picture, its questions in parallel lists.

    [{"img_id": "train_0001", "sentf":  {"pvqa": ["What is shown?", "Is it benign?"]},
                              "labelf": {"pvqa": [{"carcinoid": 1, "tumor": 0.3}, {"no": 1}]}}, ...]
    ->  Row(id="train_0001#0", image_id="train_0001", task="question", turns=(Turn("What is shown?", "carcinoid"),),
            references=("carcinoid", "tumor"), answer_type="open", ...)
        Row(id="train_0001#1", ..., references=("no",), answer_type="yes/no", ...)   images/train_0001.jpg

A picture without questions makes no row.
"""

import collections

from vlax.data.readers.faults import STRICT
from vlax.data.readers.files import FileSource, Item
from vlax.data.readers.listed import identifier, listed
from vlax.data.readers.reading import field
from vlax.errors import VlaxError
from vlax.rows import RowFault
from vlax.storage.paths import join, read_file

SHAPE = 'LXMERT rows are {"img_id", "sentf": {SET: [question, ...]}, "labelf": {SET: [{answer: weight}, ...]}}'


class LxmertQuestions(FileSource):
    """One row a question; the answer to train on is the label of most weight, the references are all labels by weight."""

    def __init__(self, annotations, images, train: bool, *, base="", drop_image_ids=(), limit=None, faults=STRICT):
        path = join(base, annotations)
        name, content = f"lxmert-{path.stem}", read_file(path)
        items = []
        asked = collections.Counter()  # questions so far by picture: one may have several entries
        for _, where, row in listed(path, content, SHAPE, name, faults):
            with faults.row(name, where):
                image_id = identifier(where, row, "img_id", SHAPE)
                for question, labels in _questions(f"{where} ({image_id})", row):
                    kind = "yes/no" if labels[0].lower() in ("yes", "no") else "open"
                    key = f"{image_id}#{asked[image_id]}"
                    asked[image_id] += 1
                    items.append(Item(key, image_id, f"{image_id}.jpg", question, labels[0], labels, kind))
        settings = {"kind": "lxmert", "train": train}
        super().__init__(name, "question", str(images), base, settings, [content], items, drop_image_ids, limit)


def _questions(where: str, row: dict) -> list[tuple[str, tuple[str, ...]]]:
    """(question, its labels, heaviest first) of one picture, over all sets that the row names."""
    asked, labelled = field(where, row, "sentf", SHAPE), field(where, row, "labelf", SHAPE)
    if not isinstance(asked, dict) or not isinstance(labelled, dict):
        raise VlaxError(f'{where}: "sentf" and "labelf" are not objects; {SHAPE}')
    found = []
    for name, questions in asked.items():
        labels = labelled.get(name)
        if not isinstance(questions, list) or not isinstance(labels, list) or len(questions) != len(labels):
            raise VlaxError(f"{where}: sentf.{name} and labelf.{name} are not lists of the same length; {SHAPE}")
        for at, (question, weights) in enumerate(zip(questions, labels, strict=True)):
            place = f"{where}, question {at}"
            if not isinstance(question, str) or not question.strip():
                raise RowFault(f"{place} is {question!r}, not a text; mend or remove it", "empty text")
            if not isinstance(weights, dict) or not all(isinstance(w, int | float) for w in weights.values()):
                raise VlaxError(f"{place}: its labels are {weights!r}, not {{answer: weight}}; {SHAPE}")
            said = [
                " ".join(answer.split()) for answer in sorted(weights, key=weights.get, reverse=True) if weights[answer] > 0
            ]
            if not said or not all(said):
                raise RowFault(f"{place} has no answer ({weights!r}); give it one or remove the question", "empty text")
            found.append((" ".join(question.split()), tuple(said)))
    return found
