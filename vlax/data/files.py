"""Rows from a user's own files: COCO captions JSON and VQAv2 questions + annotations JSON.

    CocoCaptions("captions_train.json", "images", train=True)[1]   Row(id="17#1", image_id="17", task="caption", ...)
    CocoCaptions("captions_val.json", "images", train=False)[0]    Row(id="17", references=("a dog runs", ...), ...)
    VqaQuestions("questions.json", "annotations.json", "images", train=True)[0]   Row(id="4", task="question", ...)

Annotation files are read and checked at once; pictures are opened only when a row's `open_image` is called.
"""

import collections
import functools
import hashlib
import json
from typing import NamedTuple

from etils import epath
from PIL import Image, ImageOps

from vlax.data.rows import TASKS, Row, Turn
from vlax.errors import VlaxError

COCO_SHAPE = 'COCO captions are {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'
QUESTIONS_SHAPE = 'VQAv2 questions are {"questions": [{"question_id", "image_id", "question"}]}'
ANSWERS_SHAPE = 'VQAv2 annotations are {"annotations": [{"question_id", "answers": [{"answer"}]}]}'


def open_picture(path: str, row_id: str) -> Image.Image:
    """The decoded picture: RGB, upright (EXIF orientation applied). VlaxError where it is missing or does not decode."""
    try:
        with epath.Path(path).open("rb") as file:
            image = Image.open(file)
            image.load()  # the whole file: a truncated one fails here, where its row is known
        return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError:
        reason, way_out = "the picture is missing", "put it there, mend the source's `images` folder"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow's decoders raise
        reason, way_out = f"the picture does not decode ({error})".replace("\n", " "), "replace the file"
    raise VlaxError(f"row {row_id}: {path}: {reason}; {way_out} or remove the row from the annotations")


class Item(NamedTuple):
    """What is kept of a row until it is asked for."""

    id: str
    image_id: str
    file_name: str
    question: str
    answer: str
    references: tuple[str, ...] = ()
    answer_type: str = ""
    later: tuple[Turn, ...] = ()  # of a dialogue, after the first exchange


class FileSource:
    """The half of the file sources that does not know the format (the Source protocol of `rows.py`).

    `base` is prefixed to the relative paths and stays out of the fingerprint: the same data elsewhere is the same data.
    Rows about a picture in `drop_image_ids` are left out and counted in `dropped`; then `limit` keeps the first rows.
    """

    def __init__(self, name: str, task: str, images: str, base: str, settings: dict, files: list[bytes], items, drop, limit):
        if limit is not None and limit < 1:
            raise VlaxError(f"{name}: limit is {limit}; give at least 1, or None for all rows")
        drop = frozenset(str(i) for i in drop)
        kept = [item for item in items if item.image_id not in drop]
        self.name, self.task = name, task
        self.dropped = len(items) - len(kept)
        self._items = kept[:limit]
        if not self._items:
            raise VlaxError(
                f"{name}: no rows are left ({len(items)} read, {self.dropped} dropped by the leak filter); mend the file"
            )
        self._images = join(base, images)
        settings = {**settings, "task": task, "images": images, "limit": limit, "drop": sorted(drop)}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for content in files:
            digest.update(hashlib.sha256(content).digest())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} rows, no row {index}")
        item = self._items[index]
        path = str(self._images / item.file_name)
        return Row(
            id=item.id,
            image_id=item.image_id,
            task=self.task,
            turns=(Turn(item.question, item.answer), *item.later),
            open_image=functools.partial(open_picture, path, item.id) if item.file_name else None,
            image_name=path if item.file_name else "",
            references=item.references,
            answer_type=item.answer_type,
        )


class CocoCaptions(FileSource):
    """COCO captions: one row per caption to train on, one per picture with all references to evaluate on."""

    def __init__(self, annotations, images, train: bool, task="caption", *, base="", drop_image_ids=(), limit=None):
        if task not in TASKS[:2]:
            raise VlaxError(f"{annotations}: captions have no task {task!r}; the tasks are {', '.join(TASKS[:2])}")
        path = join(base, annotations)
        content = read_file(path)
        data = parse(path, content)
        names = _file_names(path, data, COCO_SHAPE)
        captions: dict[str, list[str]] = {image_id: [] for image_id in names}
        for at, row in enumerate(_rows(path, data, "annotations", COCO_SHAPE)):
            where = f"{path}: annotations[{at}]"
            image_id = str(field(where, row, "image_id", COCO_SHAPE))
            if image_id not in names:
                raise VlaxError(f"{where} names image {image_id}, which `images` does not list; add it there or remove the row")
            captions[image_id].append(_text(where, row, "caption", COCO_SHAPE))
        if train:
            items = [Item(f"{i}#{k}", i, names[i], "", c) for i, said in captions.items() for k, c in enumerate(said)]
        else:
            items = [Item(i, i, names[i], "", said[0], tuple(said)) for i, said in captions.items() if said]
        settings = {"kind": "coco", "train": train}
        super().__init__(f"coco-{path.stem}", task, str(images), base, settings, [content], items, drop_image_ids, limit)


class VqaQuestions(FileSource):
    """VQAv2 questions with their annotations, one row a question; the answer to train on is `multiple_choice_answer`.

    Without that field it is the annotators' most frequent answer. The picture's file is what `images` in the questions
    file says; without one it is COCO_<data_subtype>_<12 digits>.jpg for MS COCO (VQAv2 itself), <image_id>.jpg for others.
    """

    def __init__(self, questions, annotations, images, train: bool, *, base="", drop_image_ids=(), limit=None):
        asked_path, path = join(base, questions), join(base, annotations)
        asked_content, content = read_file(asked_path), read_file(path)
        asked, answered = parse(asked_path, asked_content), parse(path, content)
        names = _file_names(asked_path, asked, QUESTIONS_SHAPE) if "images" in asked else None
        by_question = {}
        for at, row in enumerate(_rows(path, answered, "annotations", ANSWERS_SHAPE)):
            where = f"{path}: annotations[{at}]"
            by_question[str(field(where, row, "question_id", ANSWERS_SHAPE))] = (where, row)
        items, seen = [], set()
        for at, row in enumerate(_rows(asked_path, asked, "questions", QUESTIONS_SHAPE)):
            where = f"{asked_path}: questions[{at}]"
            key = str(field(where, row, "question_id", QUESTIONS_SHAPE))
            image_id = str(field(where, row, "image_id", QUESTIONS_SHAPE))
            if key in seen:
                raise VlaxError(f"{where}: question_id {key} occurs twice; give every question an id of its own")
            if key not in by_question:
                raise VlaxError(f"{where}: question {key} has no annotation in {path}; the two files must belong together")
            if names is not None and image_id not in names:
                raise VlaxError(f"{where} names image {image_id}, which `images` does not list; add it there or remove the row")
            seen.add(key)
            file_name = names[image_id] if names is not None else _usual_name(asked, answered, image_id)
            answer, references, answer_type = _answers(*by_question[key])
            text = _text(where, row, "question", QUESTIONS_SHAPE)
            items.append(Item(key, image_id, file_name, text, answer, references, answer_type))
        files, settings = [asked_content, content], {"kind": "vqa", "train": train}
        name = f"vqa-{asked_path.stem}"
        super().__init__(name, "question", str(images), base, settings, files, items, drop_image_ids, limit)


def _usual_name(asked: dict, answered: dict, image_id: str) -> str:
    """`"COCO_train2014_000000000042.jpg"` for picture 42 of VQAv2, `"0a1b.jpg"` for picture 0a1b of another set."""
    header = {**answered, **asked}
    subtype = str(header.get("data_subtype") or "").replace("test-dev", "test")  # test-dev asks about the test pictures
    if subtype and image_id.isdigit() and header.get("data_type", "mscoco") == "mscoco":
        return f"COCO_{subtype}_{int(image_id):012d}.jpg"
    return f"{image_id}.jpg"


def _answers(where: str, row: dict) -> tuple[str, tuple[str, ...], str]:
    """The answer to learn, all annotators' answers in order, and the answer type of one annotation."""
    given = field(where, row, "answers", ANSWERS_SHAPE)
    if not isinstance(given, list) or not all(isinstance(a, dict) and "answer" in a for a in given):
        raise VlaxError(f'{where}: "answers" is not a list of {{"answer": TEXT}}; {ANSWERS_SHAPE}')
    references = tuple(str(a["answer"]) for a in given)
    said = collections.Counter(r for r in references if r.strip())
    answer = str(row.get("multiple_choice_answer") or "").strip() or (said.most_common(1)[0][0] if said else "")
    if not answer:
        raise VlaxError(f"{where} has no answer; give it one or remove its question")
    return answer, references, str(row.get("answer_type", "other"))


def join(base, path) -> epath.Path:
    """`"/data" + "a.json" -> /data/a.json`; a path that says where it starts (`/a.json`, `gs://b/a.json`) stays."""
    return epath.Path(path) if "://" in str(path) else epath.Path(base) / path


def read_file(path: epath.Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise VlaxError(f"there is no file {path}; mend the path in the data source or --config.run.data_root=DIR") from None
    except OSError as error:
        raise VlaxError(f"{path} cannot be read ({error}); mend the path or its permissions") from None


def parse(path: epath.Path, content: bytes) -> dict:
    try:
        data = json.loads(content)
    except ValueError as error:
        raise VlaxError(f"{path} is not JSON ({error}); fetch or export it again") from None
    if not isinstance(data, dict):
        raise VlaxError(
            f"{path} holds a {type(data).__name__}, not an object; {COCO_SHAPE}; {QUESTIONS_SHAPE}; {ANSWERS_SHAPE}"
        )
    return data


def _rows(path: epath.Path, data: dict, key: str, shape: str) -> list[dict]:
    rows = data.get(key)
    if not isinstance(rows, list):
        raise VlaxError(f'{path} has no list "{key}" (it has: {", ".join(data) or "nothing"}); {shape}')
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            raise VlaxError(f"{path}: {key}[{at}] is a {type(row).__name__}, not an object; {shape}")
    return rows


def _file_names(path: epath.Path, data: dict, shape: str) -> dict[str, str]:
    """{image id: file name} of the `images` list."""
    rows = [(f"{path}: images[{at}]", row) for at, row in enumerate(_rows(path, data, "images", shape))]
    return {str(field(where, row, "id", shape)): _text(where, row, "file_name", shape) for where, row in rows}


def field(where: str, row: dict, key: str, shape: str):
    if row.get(key) is None:
        raise VlaxError(f'{where} has no "{key}"; {shape}')
    return row[key]


def _text(where: str, row: dict, key: str, shape: str) -> str:
    """A text field with its white space (COCO has stray line ends) reduced to single blanks."""
    text = field(where, row, key, shape)
    if not isinstance(text, str) or not text.strip():
        raise VlaxError(f'{where}: "{key}" is {text!r}, not a text; mend or remove the row')
    return " ".join(text.split())
