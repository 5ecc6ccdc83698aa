"""VQAv2 questions JSON and annotations JSON.

VqaQuestions("questions.json", "annotations.json", "images", train=True)[0]   Row(id="4", task="question", ...)
"""

import collections

from vlax.data.readers.faults import STRICT
from vlax.data.readers.files import FileSource, Item
from vlax.data.readers.reading import field, file_names, parse, rows, text
from vlax.errors import VlaxError
from vlax.rows import RowFault
from vlax.storage.paths import join, read_file

QUESTIONS_SHAPE = 'VQAv2 questions are {"questions": [{"question_id", "image_id", "question"}]}'
ANSWERS_SHAPE = 'VQAv2 annotations are {"annotations": [{"question_id", "answers": [{"answer"}]}]}'


class VqaQuestions(FileSource):
    """VQAv2 questions with their annotations, one row a question; the answer to train on is `multiple_choice_answer`.

    Without that field it is the annotators' most frequent answer. The picture's file is what `images` in the questions
    file says; without one it is COCO_<data_subtype>_<12 digits>.jpg for MS COCO (VQAv2 itself), <image_id>.jpg for others.
    """

    def __init__(self, questions, annotations, images, train: bool, *, base="", drop_image_ids=(), limit=None,
                 faults=STRICT):  # fmt: skip
        asked_path, path = join(base, questions), join(base, annotations)
        name = f"vqa-{asked_path.stem}"
        asked_content, content = read_file(asked_path), read_file(path)
        asked, answered = parse(asked_path, asked_content, QUESTIONS_SHAPE), parse(path, content, ANSWERS_SHAPE)
        names = file_names(asked_path, asked, QUESTIONS_SHAPE, name, faults) if "images" in asked else None
        by_question = {}
        for at, row in enumerate(rows(path, answered, "annotations", ANSWERS_SHAPE)):
            where = f"{path}: annotations[{at}]"
            with faults.row(name, where):
                by_question[str(field(where, row, "question_id", ANSWERS_SHAPE))] = (where, row)
        items, seen = [], set()
        for at, row in enumerate(rows(asked_path, asked, "questions", QUESTIONS_SHAPE)):
            where = f"{asked_path}: questions[{at}]"
            with faults.row(name, where):
                key = str(field(where, row, "question_id", QUESTIONS_SHAPE))
                image_id = str(field(where, row, "image_id", QUESTIONS_SHAPE))
                if key in seen:
                    reason = f"{where}: question_id {key} occurs twice; give every question an id of its own"
                    raise RowFault(reason, "duplicate id")
                seen.add(key)
                if key not in by_question:
                    reason = f"{where}: question {key} has no annotation in {path}; the two files must belong together"
                    raise RowFault(reason, "no annotation")
                if names is not None and image_id not in names:
                    way_out = "add it there or remove the row"
                    raise RowFault(f"{where} names image {image_id}, which `images` does not list; {way_out}", "unlisted image")
                file_name = names[image_id] if names is not None else usual_name(asked, answered, image_id)
                answer, references, answer_type = _answers(*by_question[key])
                asks = text(where, row, "question", QUESTIONS_SHAPE)
                items.append(Item(key, image_id, file_name, asks, answer, references, answer_type))
        files, settings = [asked_content, content], {"kind": "vqa", "train": train}
        super().__init__(name, "question", str(images), base, settings, files, items, drop_image_ids, limit)


def usual_name(asked: dict, answered: dict, image_id: str) -> str:
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
        raise RowFault(f"{where} has no answer; give it one or remove its question", "empty text")
    return answer, references, str(row.get("answer_type", "other"))
