"""JSON annotation files: captions and questions in formats that differ in names. Each is a row of `FORMATS` over one reader.

    coco       {"images": [{"id": 17, "file_name": "a.jpg"}], "annotations": [{"image_id": 17, "caption": "a dog"}, ...]}
    karpathy   {"images": [{"filename": "a.jpg", "filepath": "val2014", "cocoid": 42, "split": "restval",
                            "sentences": [{"raw": "A dog runs."}, {"raw": "A dog."}]}, ...]}; Flickr's have no cocoid
    vqa        {"questions": [{"question_id": 4, "image_id": 17, "question": "is it red?"}, ...]} and, in a file of its own,
               {"annotations": [{"question_id": 4, "multiple_choice_answer": "no", "answers": [{"answer": "no"}, ...]}, ...]}
    gqa        {"0293": {"question": "Is it dark?", "imageId": "2354", "answer": "yes", "types": {"structural": "verify"}}, ...}
    textvqa    {"data": [{"question_id": 34602, "question": "what brand?", "image_id": "003a", "answers": ["a", ...]}, ...]}
    lxmert     [{"img_id": "train_0001", "sentf": {"pvqa": ["What is shown?", "Is it benign?"]},
                 "labelf": {"pvqa": [{"carcinoid": 1, "tumor": 0.3}, {"no": 1}]}}, ...]: so PathVQA is distributed

Captions: Row(id="17#1", image_id="17", task="caption", ...), one a caption to train on; Row(id="17", references=all, ...), one
a picture to evaluate on. Questions: Row(id="4", task="question", turns=(Turn("is it red?", "no"),), references=all, ...).
"""

import collections
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import NamedTuple

from vlax.data.readers import annotation_answers, leaks, numbers
from vlax.data.readers.annotation_file import File, usual_name
from vlax.data.readers.faults import Faults
from vlax.data.readers.files import Facts, FileSource, Reading
from vlax.data.readers.item_table import Item
from vlax.errors import VlaxError
from vlax.rows import TASKS, RowFault
from vlax.storage.paths import join


class Annotations(FileSource):
    """The rows of one annotations file, or of VQAv2's `questions` with their annotations.

    split  karpathy's: "train", "restval", "val", "test", or several joined by "+". The captions paper's training split of COCO
           is "train+restval"
    """

    def __init__(self, annotations, images, task="caption", *, questions="", split="", reading: Reading):
        if task not in TASKS[:2]:
            raise VlaxError(f"{annotations}: captions have no task {task!r}; the tasks are {', '.join(TASKS[:2])}")
        self._form, self._split, self._reading = FORMATS[reading.kind], split, reading
        self._files = [join(reading.base, path) for path in (questions, annotations) if path]
        self._task = task if self._form.captions else "question"
        super().__init__(reading, str(images), self._files, {"task": task, "split": split})

    def read(self, faults: Faults) -> Generator[Item, None, Facts]:
        form, split = self._form, self._split
        name = self._reading.name(self._files[0].stem, split)
        files = [File(path, shape, name, faults) for path, shape in zip(self._files, form.shapes, strict=True)]
        items = form.read(*files, form, *([split] if split else []))
        yield from _captions(items, self._reading.train) if form.captions else items
        settings = {"split": sorted(set(split.split("+")))} if split else {}
        space = numbers.declared(self._reading.kind, (file.data for file in files))
        return Facts(name, self._task, settings, [file.digest for file in files], {"space": space})


class Format(NamedTuple):
    """What a format calls things; "" where it has no such thing.

    read     (files, format, and a split where it has any) -> an Item a question, or a picture with its captions as references
    shapes   of each of its files: what an error says that was looked for
    rows     the list of entries; "": the file is {id: entry}
    answers  (file, where, row) -> (answer to learn, references, answer type)
    what     of files that are recognised by the fields of their first entry: what they are
    """

    read: Callable[..., Iterable[Item]]
    shapes: tuple[str, ...]
    rows: str = ""
    id: str = ""
    image: str = ""
    answers: Callable = tuple
    captions: bool = False
    what: str = ""


def _captions(pictures: Iterable[Item], train: bool) -> Iterator[Item]:
    """A row for each caption, or for each picture. "" is a faulty caption, which keeps its number: the others' row ids stay."""
    for item in pictures:
        if train:
            numbered = enumerate(item.references)
            yield from (item._replace(id=f"{item.id}#{k}", answer=said, references=()) for k, said in numbered if said)
        elif said := tuple(filter(None, item.references)):
            yield item._replace(answer=said[0], references=said)


def _names(file: File) -> dict[str, str]:
    """{image id: file name} of the list `images`."""
    names = {}
    for where, _, row in file.entries("images"):
        with file.guard(where):
            names[file.id(where, row, "id")] = file.text(where, row, "file_name")
    return names


def _image_id(file: File, where: str, row: dict, names: dict[str, str] | None) -> str:
    image_id = file.id(where, row, "image_id")
    if names is not None and image_id not in names:
        way_out = "add it there or remove the row"
        raise RowFault(f"{where} names image {image_id}, which `images` does not list; {way_out}", "unlisted image")
    return image_id


def _coco(file: File, form: Format) -> Iterator[Item]:
    names = _names(file)
    captions: dict[str, list[str]] = {image_id: [] for image_id in names}
    for where, _, row in file.entries(form.rows):
        with file.guard(where):
            said = captions[_image_id(file, where, row, names)]
            said.append("")
            said[-1] = file.text(where, row, "caption")
    return (Item(image_id, image_id, names[image_id], "", "", tuple(said)) for image_id, said in captions.items())


def _karpathy(file: File, form: Format, split: str) -> Iterator[Item]:
    named = (str(row["split"]) for *_, row in file.entries(form.rows) if isinstance(row, dict) and row.get("split"))
    there = collections.Counter(named)
    wanted = set(split.split("+"))
    if unknown := sorted(wanted - set(there)):
        counts = ", ".join(f"{name} ({count} pictures)" for name, count in there.items())
        raise VlaxError(f"{file.path} has no split {unknown[0]!r}; it has {counts or 'no pictures'}")
    seen: set[str] = set()
    for where, _, row in file.entries(form.rows):
        item = None
        with file.guard(where):
            if file.text(where, row, "split") not in wanted:
                continue
            name = file.text(where, row, "filename")
            image_id = file.id(where, row, form.image) if row.get(form.image) is not None else name
            said = tuple(file.text(where, sentence, "raw") for sentence in file.list(where, row, "sentences"))
            if image_id in seen:
                raise RowFault(f"{where}: picture {image_id} occurs twice; join its sentences in one entry", "duplicate id")
            seen.add(image_id)
            also = (f"{leaks.KEY}coco/{image_id}",) if image_id.isdecimal() and image_id != name else ()
            item = Item(
                image_id, image_id, f"{row['filepath']}/{name}" if row.get("filepath") else name, "", "", said, also=also
            )
        if item:
            yield item


def _add(seen: set[str], where: str, item: Item) -> Item:
    if item.id in seen:
        raise RowFault(f"{where}: question_id {item.id} occurs twice; give every question an id of its own", "duplicate id")
    seen.add(item.id)
    return item


def _questions(file: File, form: Format) -> Iterator[Item]:
    """An entry a question, with its answers."""
    seen: set[str] = set()
    for where, at, row in file.entries(form.rows):
        item = None
        with file.guard(where):
            key = file.id(where, row, form.id) if form.id else str(at)
            image_id, said = file.id(where, row, form.image), form.answers(file, where, row)
            item = _add(seen, where, Item(key, image_id, f"{image_id}.jpg", file.text(where, row, "question"), *said))
        if item:
            yield item


def _vqa(asked: File, answered: File, form: Format) -> Iterator[Item]:
    """Questions and annotations joined by their ids. Where the questions file has `images`, these say the pictures' files."""
    header = collections.ChainMap(asked.data, answered.data)
    names = _names(asked) if "images" in asked.data else None
    answers: dict[str, Exception | tuple] = {}  # what is kept of an annotation: itself it has twenty times the bytes
    for where, _, row in answered.entries("annotations"):
        with answered.guard(where):
            key = answered.id(where, row, form.id)
            try:
                answer, references, kind = form.answers(answered, where, row)
                answers[key] = answer, tuple(map(sys.intern, references)), sys.intern(kind)
            except Exception as error:  # of the question that asks for it
                answers[key] = error
    seen: set[str] = set()
    for where, _, row in asked.entries(form.rows):
        item = None
        with asked.guard(where):
            key = asked.id(where, row, form.id)
            asked.field(where, row, form.image)
            if key not in answers:
                reason = f"{where}: question {key} has no annotation in {answered.path}; the two files must belong together"
                raise RowFault(reason, "no annotation")
            image_id = _image_id(asked, where, row, names)
            file_name = names[image_id] if names is not None else usual_name(header, image_id)
            said = answers[key]
            if isinstance(said, Exception):
                raise said
            item = _add(seen, where, Item(key, image_id, file_name, asked.text(where, row, "question"), *said))
        if item:
            yield item


def _lxmert(file: File, form: Format) -> Iterator[Item]:
    """An entry a picture, its questions in parallel lists; a picture may have several entries, or one without questions."""
    asked = collections.Counter[str]()
    for _, where, row in file.listed():
        made: list[Item] = []
        with file.guard(where):
            image_id = file.id(where, row, form.image)
            for question, labels in _labelled(file, f"{where} ({image_id})", row):
                kind = "yes/no" if labels[0].lower() in ("yes", "no") else "open"
                key = f"{image_id}#{asked[image_id]}"
                asked[image_id] += 1
                made.append(Item(key, image_id, f"{image_id}.jpg", question, labels[0], labels, kind))
        yield from made


def _labelled(file: File, where: str, row: dict) -> list[tuple[str, tuple[str, ...]]]:
    """(question, its labels, heaviest first: that is the answer) of one picture, over all sets that the row names."""
    asked, labelled = file.field(where, row, "sentf"), file.field(where, row, "labelf")
    if not isinstance(asked, dict) or not isinstance(labelled, dict):
        raise VlaxError(f'{where}: "sentf" and "labelf" are not objects; {file.shape}')
    found = []
    for name, questions in asked.items():
        labels = labelled.get(name)
        if not isinstance(questions, list) or not isinstance(labels, list) or len(questions) != len(labels):
            raise VlaxError(f"{where}: sentf.{name} and labelf.{name} are not lists of the same length; {file.shape}")
        for at, (question, weights) in enumerate(zip(questions, labels, strict=True)):
            place = f"{where}, question {at}"
            if not isinstance(question, str) or not question.strip():
                raise RowFault(f"{place} is {question!r}, not a text; mend or remove it", "empty text")
            if not isinstance(weights, dict) or not all(isinstance(w, int | float) for w in weights.values()):
                raise VlaxError(f"{place}: its labels are {weights!r}, not {{answer: weight}}; {file.shape}")
            said = [" ".join(key.split()) for key in sorted(weights, key=weights.__getitem__, reverse=True) if weights[key] > 0]
            if not said or not all(said):
                raise RowFault(f"{place} has no answer ({weights!r}); give it one or remove the question", "empty text")
            found.append((" ".join(question.split()), tuple(said)))
    return found


FORMATS = {
    "coco": Format(_coco, ('COCO captions are {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}',),
                   rows="annotations", captions=True),
    "karpathy": Format(_karpathy, ('Karpathy files are {"images": [{"filename", "split", "sentences": [{"raw"}]}]}',),
                       rows="images", image="cocoid", captions=True),
    "vqa": Format(_vqa, ('VQAv2 questions are {"questions": [{"question_id", "image_id", "question"}]}',
                         'VQAv2 annotations are {"annotations": [{"question_id", "answers": [{"answer"}]}]}'),
                  rows="questions", id="question_id", image="image_id", answers=annotation_answers.annotators),
    "gqa": Format(_questions, ('GQA questions are {QUESTION ID: {"question", "imageId", "answer"}}',),
                  image="imageId", answers=annotation_answers.one, what="GQA questions"),
    "textvqa": Format(_questions, ('TextVQA is {"data": [{"question_id", "question", "image_id", "answers": [TEXT, ...]}]}',),
                      rows="data", id="question_id", image="image_id", answers=annotation_answers.texts,
                      what="TextVQA questions"),
    "lxmert": Format(_lxmert, ('LXMERT rows are {"img_id", "sentf": {SET: [question, ...]}, "labelf": {SET: [{answer: weight}, '
                               '...]}}',), image="img_id"),
}  # fmt: skip
