"""Sources by spec: the embedded kinds, COCO and VQAv2 files, and the text of every error."""

import json
import pickle
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from PIL import Image

from vlax.data.readers.pictures import open_picture
from vlax.data.sources import open_source
from vlax.errors import VlaxError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
COCO = {
    "images": [{"id": 17, "file_name": "a.png"}, {"id": 18, "file_name": "b.png"}],
    "annotations": [
        {"id": 1, "image_id": 17, "caption": "a dog runs\n"},
        {"id": 2, "image_id": 18, "caption": "a cat"},
        {"id": 3, "image_id": 17, "caption": "a  dog"},
    ],
}
QUESTIONS = {"questions": [{"question_id": 4, "image_id": 17, "question": "is it red?"}]}
ANSWERS = {
    "data_type": "mscoco",
    "data_subtype": "train2014",
    "annotations": [
        {
            "question_id": 4,
            "image_id": 17,
            "answer_type": "yes/no",
            "multiple_choice_answer": "no",
            "answers": [{"answer": "yes"}, {"answer": "no"}, {"answer": "no"}],
        }
    ],
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (6, 4), "red").save(tmp_path / "images" / "a.png")
    write(tmp_path / "coco.json", COCO)
    write(tmp_path / "q.json", QUESTIONS)
    write(tmp_path / "a.json", ANSWERS)
    return tmp_path


def write(path, data):
    path.write_text(json.dumps(data))


def coco(root, **fields):
    return open_source({"kind": "coco", "annotations": "coco.json", "images": "images", **fields}, str(root))


def vqa(root, **fields):
    return open_source({"kind": "vqa", "questions": "q.json", "annotations": "a.json", "images": "images", **fields}, str(root))


def ids(source):
    return [source[i].id for i in range(len(source))]


def test_embedded_kinds():
    assert open_source({"kind": "scenes", "split": "val", "style": "ai", "size": 5})[4].id == "val/4"
    assert open_source({"kind": "cells", "split": "test", "seed": None})[1].id == "test/0?1"


def test_coco_rows_for_training(root):
    source = coco(root)
    assert ids(source) == ["17#0", "17#1", "18#0"]
    row = source[0]
    assert (row.image_id, row.task, row.turns[0].question, row.turns[0].answer) == ("17", "caption", "", "a dog runs")
    assert row.image_name == str(root / "images" / "a.png")
    assert pickle.loads(pickle.dumps(row)).picture.open().size == (6, 4)
    assert coco(root, task="describe")[0].task == "describe"


def test_coco_rows_for_evaluation(root):
    source = coco(root, train=False)
    assert ids(source) == ["17", "18"]
    assert source[0].references == ("a dog runs", "a dog")


def test_vqa_rows(root):
    row = vqa(root)[0]
    assert (row.id, row.image_id, row.task, row.answer_type) == ("4", "17", "question", "yes/no")
    assert (row.turns[0].question, row.turns[0].answer) == ("is it red?", "no")
    assert row.references == ("yes", "no", "no")
    assert row.image_name.endswith("images/COCO_train2014_000000000017.jpg")


def test_vqa_file_names_and_missing_fields(root):
    write(root / "q.json", {**QUESTIONS, "images": [{"id": 17, "file_name": "a.png"}]})
    assert vqa(root)[0].picture.open().size == (6, 4)
    question = {"question_id": "x1", "image_id": "0a1b", "question": "what is it?"}
    write(root / "q.json", {"questions": [question]})
    answers = [{"answer": word} for word in ("dog", "cat", "cat")]
    write(root / "a.json", {"annotations": [{"question_id": "x1", "image_id": "0a1b", "answers": answers}]})
    row = vqa(root)[0]
    assert row.image_name.endswith("images/0a1b.jpg")
    assert (row.id, row.turns[0].answer, row.answer_type) == ("x1", "cat", "other")
    write(root / "q.json", {"data_type": "mscoco", "data_subtype": "test-dev2015", "questions": [{**question, "image_id": 9}]})
    assert vqa(root)[0].image_name.endswith("COCO_test2015_000000000009.jpg")


def test_leak_filter_limit_and_fingerprint(root, tmp_path_factory):
    spec = {"kind": "coco", "annotations": "coco.json", "images": "images"}
    source = open_source(spec, str(root), drop_image_ids={17})
    assert (ids(source), source.dropped) == (["18#0"], 2)
    assert coco(root).dropped == 0 and ids(coco(root, limit=2)) == ["17#0", "17#1"]
    prints = {coco(root).fingerprint, coco(root, limit=2).fingerprint, source.fingerprint, coco(root, train=False).fingerprint}
    assert len(prints) == 4
    elsewhere = tmp_path_factory.mktemp("copy")
    write(elsewhere / "coco.json", COCO)
    assert coco(elsewhere).fingerprint == coco(root).fingerprint
    write(elsewhere / "coco.json", {**COCO, "info": "changed"})
    assert coco(elsewhere).fingerprint != coco(root).fingerprint
    with pytest.raises(VlaxError, match=r"no rows are left \(3 read, 3 dropped by the leak filter\)"):
        open_source(spec, str(root), drop_image_ids={"17", "18"})


def test_pictures_come_upright_and_in_rgb(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("L", (6, 4)).save(path, exif=exif)
    picture = open_picture(str(path), "r")
    assert (picture.size, picture.mode) == ((4, 6), "RGB")


def test_bad_pictures_are_named(root):
    with pytest.raises(VlaxError, match=r"row 18#0: .*b\.png: the picture is missing; put it there"):
        coco(root)[2].picture.open()
    (root / "images" / "b.png").write_bytes(b"not a picture")
    with pytest.raises(VlaxError, match=r"row 18#0: .*b\.png: the picture does not decode .*replace the file"):
        coco(root)[2].picture.open()
    whole = (root / "images" / "a.png").read_bytes()
    (root / "images" / "b.png").write_bytes(whole[: len(whole) // 2 + 8])
    with pytest.raises(VlaxError, match="does not decode"):
        coco(root)[2].picture.open()


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"kind": "tar"}, "no kind 'tar'; the kinds are scenes, cells, pairs, coco, karpathy, llava, sharegpt, vqa, gqa"),
        ({"split": "val"}, "no kind None"),
        ({"kind": "scenes", "split": "val"}, "style is missing; scenes has the fields split, style and, if wanted, seed, size"),
        ({"kind": "scenes", "split": "val", "style": "ai", "sice": 3}, "no field 'sice'"),
        ({"kind": "scenes", "split": "val", "style": "ai", "size": "3"}, "size is '3'; it should be of type int"),
        ({"kind": "table", "path": "t.csv", "columns": "text"}, "columns is 'text'; it should be of type dict"),
        (
            {"kind": "vqa", "questions": "v2_OpenEnded_mscoco_test-dev2015_questions.json", "images": "i"},
            r"vqa: annotations is missing; questions without answers \(test, test-dev\) are nothing to learn from",
        ),
        ({"path": "mine.csv"}, "reads mine.csv from the data root.*--config.run.data_root=DIR"),
        ({"kind": "scenes", "split": "dev", "style": "ai"}, "the splits are train, val, test"),
        ({"kind": "scenes", "split": "val", "style": "x"}, "the styles are ai, human, questions, dialogue, text"),
        (
            {"kind": "coco", "annotations": "c.json", "images": "i"},
            "reads c.json from the data root.*--config.run.data_root=DIR",
        ),
    ],
)
def test_spec_errors(spec, text):
    with pytest.raises(VlaxError, match=text):
        open_source(spec)


def test_a_spec_with_a_path_and_no_kind_is_recognised(root):
    """... its own fields stay, and the rows are those of the spec that names everything: the data may move."""
    source = open_source({"path": "coco.json", "limit": 2}, str(root))
    assert source.fingerprint == coco(root, limit=2).fingerprint and ids(source) == ["17#0", "17#1"]
    assert open_source({"path": str(root / "a.json")}, train=False)[0].id == "4"
    images = [{"filename": "a.png", "split": name, "sentences": [{"raw": name}]} for name in ("train", "val")]
    write(root / "k.json", {"images": images})
    answers = [open_source({"path": "k.json", **own}, str(root))[0].turns[0].answer for own in ({}, {"split": "val"})]
    assert answers == ["train", "val"]
    with pytest.raises(VlaxError, match="coco: there is no field 'split'"):
        open_source({"path": "coco.json", "split": "val"}, str(root))


def test_specs_as_ml_collections_holds_them(root):
    (root / "rows.csv").write_text("image,says\na.png,a dog\n")
    spec = ConfigDict({"kind": "table", "path": "rows.csv", "columns": {"text": "says"}, "limit": None})
    assert open_source(spec, str(root))[0].turns[0].answer == "a dog"


def replaced(data, key, **fields):
    return {**data, key: [{**row, **fields} for row in data[key]]}


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("coco.json", "{oops", r"coco\.json is not JSON"),
        ("coco.json", [], r"coco\.json holds a list, not an object"),
        ("coco.json", {"dataset": []}, r'coco\.json has no list "images" \(it has: dataset\); COCO captions are'),
        ("coco.json", {"images": [3], "annotations": []}, r"coco\.json: images\[0\] is a int, not an object"),
        (
            "coco.json",
            {**COCO, "annotations": [{"image_id": 99, "caption": "x"}]},
            r"annotations\[0\] names image 99.*remove the row",
        ),
        ("coco.json", replaced(COCO, "annotations", caption=" "), r"annotations\[0\]: \"caption\" is ' ', not a text"),
        ("coco.json", replaced(COCO, "annotations", image_id=None), r'annotations\[0\] has no "image_id"'),
        ("q.json", {"questions": QUESTIONS["questions"] * 2}, r"questions\[1\]: question_id 4 occurs twice"),
        ("q.json", replaced(QUESTIONS, "questions", question_id=5), r"question 5 has no annotation in .*a\.json"),
        ("q.json", {**QUESTIONS, "images": []}, r"questions\[0\] names image 17, which `images` does not list"),
        ("a.json", replaced(ANSWERS, "annotations", answers="no"), r'a\.json: annotations\[0\]: "answers" is not a list'),
        ("a.json", replaced(ANSWERS, "annotations", answers=[], multiple_choice_answer=""), r"annotations\[0\] has no answer"),
    ],
)
def test_file_errors(root, file, content, text):
    (root / file).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(VlaxError, match=text) as caught:
        coco(root) if file == "coco.json" else vqa(root)
    assert "\n" not in str(caught.value)


def test_missing_files_and_bad_limits(root):
    with pytest.raises(VlaxError, match=r"there is no file .*none\.json; mend the path .* --config\.run\.data_root=DIR"):
        coco(root, annotations="none.json")
    with pytest.raises(VlaxError, match="limit is 0"):
        coco(root, limit=0)
    with pytest.raises(VlaxError, match="no task 'question'"):
        coco(root, task="question")


def shared(folder):
    if not (SHARED / folder).exists():
        pytest.skip(f"development data {folder} is not here")
    return SHARED / folder


def test_real_coco_captions():
    folder, spec = shared("flickr8k_dev"), {"kind": "coco", "annotations": "annotations/captions_val.json"}
    source = open_source({**spec, "images": "images"}, str(folder), train=False)
    assert len(source) == 300 and all(len(source[i].references) == 5 for i in range(300))
    assert min(source[0].picture.open().size) == 224


def test_real_vqa_questions():
    folder = shared("easy_vqa")
    files = {"questions": "annotations/questions_val.json", "annotations": "annotations/annotations_val.json"}
    source = open_source({"kind": "vqa", "images": "images", **files}, str(folder), train=False)
    assert len(source) == 924 and source[0].picture.open().size == (64, 64)
    assert len(source[0].references) == 10


def test_real_textvqa_format_with_string_ids():
    folder = shared("formats/vqav2_textvqa")
    files = {"questions": "val_questions_vqa_format.json", "annotations": "val_annotations_vqa_format.json"}
    row = open_source({"kind": "vqa", "images": "images", **files}, str(folder))[0]
    assert row.image_name.endswith("/003a8ae2ef43b901.jpg") and len(set(row.references)) > 2
