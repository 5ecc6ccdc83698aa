"""Layouts in which people publish and keep their data: what each is read as, pictures included, and what is refused."""

import gzip
import json
from pathlib import Path

import layout_cases as cases
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vlax.data.readers.faults import Faults
from vlax.data.recognise.recognise import recognise
from vlax.data.sources import open_source
from vlax.errors import VlaxError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "cases"


def opened(path, faults=None, train=True, **fields):
    spec = {**recognise(path).spec, **fields}
    return open_source(spec, train=train, **({"faults": faults} if faults else {}))


def seen(row) -> str:
    """The colour that a row's picture shows."""
    pixel = np.asarray(row.picture.open())[8, 12]
    return min(cases.COLOURS, key=lambda name: np.abs(pixel.astype(int) - cases.COLOURS[name]).sum())


def rows(source):
    return [source[at] for at in range(len(source))]


@pytest.mark.parametrize("write", cases.QUESTIONS, ids=lambda write: write.__name__)
def test_questions(tmp_path, write):
    found = rows(opened(write(tmp_path)))
    assert [row.task for row in found] == ["question"] * 4
    assert [(row.turns[0].question, row.turns[0].answer) for row in found] == [
        (cases.ASKED, colour) for colour in cases.COLOURS
    ]
    assert [seen(row) for row in found] == list(cases.COLOURS) and len({row.image_id for row in found}) == 4


@pytest.mark.parametrize("write", cases.DIALOGUES, ids=lambda write: write.__name__)
def test_dialogues(tmp_path, write):
    found = rows(opened(write(tmp_path)))
    assert [row.task for row in found] == ["chat"] * 4
    assert [[(turn.question, turn.answer) for turn in row.turns] for row in found] == [
        [(cases.ASKED, colour)] for colour in cases.COLOURS
    ]
    assert [seen(row) for row in found] == list(cases.COLOURS)


@pytest.mark.parametrize("write", cases.CAPTIONS, ids=lambda write: write.__name__)
def test_captions(tmp_path, write):
    each = 2 if write in cases.TWICE else 1
    path = write(tmp_path)
    found, scored = rows(opened(path)), rows(opened(path, train=False))
    assert [row.task for row in found] == ["caption"] * 4 * each
    assert [seen(row) for row in found] == [colour for colour in cases.COLOURS for _ in range(each)]
    for row in found:
        said = row.turns[0].answer
        assert row.turns[0].question == "" and seen(row) in said and len(said.split()) >= 3 and "never" not in said
    assert [(seen(row), len(row.references)) for row in scored] == [(colour, each) for colour in cases.COLOURS]


def test_answers_and_ids_of_columns_with_holes(tmp_path):
    faults = Faults(collect=True)
    found = rows(opened(cases.answers_with_holes(tmp_path), faults))
    assert [row.turns[0].answer for row in found] == ["1", "2", "3"]
    assert [(fault.row, fault.kind) for fault in faults.found] == [("train.parquet row 2", "missing field")]


def test_choices_by_letter(tmp_path):
    path = cases.scienceqa(tmp_path)
    first, second = rows(opened(path, choices="letter"))[:2]
    assert first.turns[0].question == f"{cases.ASKED}\nA. red\nB. green"
    assert (first.turns[0].answer, second.turns[0].answer, second.references) == ("A", "B", ("B",))
    assert opened(path).fingerprint != opened(path, choices="letter").fingerprint
    with pytest.raises(VlaxError, match="choices='number' is not one of text, letter"):
        opened(path, choices="number")


def test_exchanges_before_the_last(tmp_path):
    row = {"query": "and now?", "response": "a cat", "history": [["what?", "a dog"]], "images": ["a.jpg"]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (row,) = rows(opened(str(tmp_path / "rows.jsonl")))
    assert [(turn.question, turn.answer) for turn in row.turns] == [("what?", "a dog"), ("and now?", "a cat")]
    row = {"instruction": "Name it.", "input": "A or B?", "output": "A", "image": "a.jpg"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert opened(str(tmp_path / "rows.jsonl"))[0].turns[0].question == "Name it. A or B?"


def test_the_first_row_may_be_the_odd_one(tmp_path):
    talk = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "a dog"}]
    lines = [
        {"image": "a.jpg", "conversations": None, "text": "a cat"},
        {"image": "b.jpg", "conversations": talk, "text": None},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    cat, dog = rows(open_source({"kind": "table", "path": str(tmp_path / "rows.jsonl")}))
    assert (cat.task, cat.turns[0].answer, dog.task, dog.turns[0].answer) == ("caption", "a cat", "chat", "a dog")
    none, some = {"image": "a.jpg", "texts": []}, {"image": "b.jpg", "texts": [{"user": "what?", "assistant": "a hen"}]}
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, (none, some))))
    (hen,) = rows(open_source({"kind": "table", "path": str(tmp_path / "texts.jsonl")}, faults=Faults(collect=True)))
    assert (hen.task, hen.turns[0].answer) == ("chat", "a hen")
    pq.write_table(pa.Table.from_pylist([{**line, "image": cases._held()[0]} for line in lines]), tmp_path / "rows.parquet")
    assert [row.task for row in rows(opened(str(tmp_path / "rows.parquet")))] == ["caption", "chat"]


def test_all_references_of_a_row_are_kept(tmp_path):
    row = opened(cases.vizwiz(tmp_path), train=False)[0]
    assert (row.references, row.answer_type) == (("red", "red", "unsuitable"), "other")


def test_splits_of_a_column(tmp_path):
    path = cases.split_column(tmp_path)
    assert recognise(path).spec["split"] == "train" and len(opened(path, split="validation")) == 2
    spec = {"kind": "hf", "path": path}
    with pytest.raises(VlaxError, match=r"splits train \(4 rows\), val \(2 rows\), test \(2 rows\); name one: split='train'"):
        open_source(spec)
    with pytest.raises(VlaxError, match=r"no rows of the split 'dev2'; it holds train \(4 rows\), val"):
        open_source({**spec, "split": "dev2"})


def test_columns_of_other_names(tmp_path):
    names = cases._files(tmp_path)
    lines = [json.dumps({"scan": name, "finding": f"a {colour} square"}) for colour, name in names.items()]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    path = str(tmp_path / "rows.jsonl")
    with pytest.raises(VlaxError, match=r"first row has scan, finding; .*columns=\{'image': 'scan', 'text': 'finding'\}"):
        recognise(path)
    found = recognise(path, columns={"image": "scan", "text": "finding"})
    assert [seen(row) for row in rows(open_source(found.spec))] == list(cases.COLOURS)


def test_questions_without_answers_are_no_captions(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"image": "a.jpg", "question": "red?", "caption": "a dog"}')
    with pytest.raises(VlaxError, match=r"questions without answers .*learn 'caption': columns=\{'question': ''\}"):
        open_source({"kind": "table", "path": str(tmp_path / "rows.jsonl")})
    source = open_source({"kind": "table", "path": str(tmp_path / "rows.jsonl"), "columns": {"question": ""}})
    assert source[0].turns[0].answer == "a dog"


def test_pictures_that_nobody_reads_are_no_text(tmp_path):
    """Where a row says that it has a picture, it is one of a picture, or a fault."""
    rows = {"scan": "a/b.jpg"}, {"image": "http://x.org/a.jpg"}, {"video": "a.mp4"}
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({**row, "text": "a dog"}) for row in (*rows, {"note": "x"})))
    faults = Faults(collect=True)
    source = open_source({"kind": "table", "path": str(tmp_path / "rows.jsonl")}, faults=faults)
    assert len(source) == 1 and source[0].picture is None
    assert [fault.kind for fault in faults.found] == ["unread picture", "picture on the web", "not a picture"]


def test_one_row_is_enough_and_a_row_may_be_long(tmp_path):
    names = cases._files(tmp_path)
    (tmp_path / "one.jsonl").write_text(json.dumps({"scan": names["red"], "finding": "a red square"}))
    with pytest.raises(VlaxError, match=r"columns=\{'image': 'scan', 'text': 'finding'\}"):
        recognise(str(tmp_path / "one.jsonl"))
    found = recognise(str(tmp_path / "one.jsonl"), columns={"image": "scan", "text": "finding"})
    assert [seen(row) for row in rows(open_source(found.spec))] == ["red"]
    address = cases._data_address("blue")  # a picture of over a megabyte: blanks end base64
    long = [{"image": address + " " * (1 << 20), "text": f"a blue square {n}"} for n in range(2)]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, long)))
    found = recognise(str(tmp_path / "long.jsonl"))
    assert found.note == "rows hold their pictures" and [seen(row) for row in rows(open_source(found.spec))] == ["blue"] * 2


def test_a_picture_beside_something_that_moves(tmp_path):
    """Rows of which a container holds the picture are not taken for more than they are, either."""
    table = pa.table({"image": cases._held()[:2], "text": ["a", "b"], "video": ["a.mp4", None]})
    pq.write_table(table, tmp_path / "rows.parquet")
    faults = Faults(collect=True)
    assert len(opened(str(tmp_path / "rows.parquet"), faults)) == 1 and "has video" in faults.found[0].text


def test_a_picture_named_twice_is_one(tmp_path):
    row = json.loads(Path(cases.qwen(tmp_path)).read_text().split("\n")[0])
    (tmp_path / "rows.jsonl").write_text(json.dumps({**row, "images": ["images/red.png"]}))
    assert [seen(row) for row in rows(opened(str(tmp_path / "rows.jsonl")))] == ["red"]


def test_packed_files_are_to_be_unpacked(tmp_path):
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b"{}"))
    with pytest.raises(
        VlaxError, match=r"rows.jsonl.gz is not recognised: it holds the first bytes .* \(gzip: gunzip it first\)"
    ):
        recognise(str(tmp_path / "rows.jsonl.gz"))


def test_shared_cases_open():
    if not SHARED.exists():
        pytest.skip("the cases to develop on are not here")
    counts = {}
    for path in sorted(SHARED.iterdir()):
        if path.suffix in (".json", ".jsonl", ".csv", ".txt", ".parquet"):
            faults = Faults(collect=True)
            try:
                source = opened(str(path), faults)
            except VlaxError as error:
                counts[path.name] = str(error)
                continue
            counts[path.name] = sum(row.picture is not None for row in rows(source)), len(source), len(faults.found)
    refused = {"llava_url.json", "llava_video.json"}
    assert {name for name, count in counts.items() if isinstance(count, str)} == refused
    fours = {"qwen_inline.jsonl", "qwen_file_url.jsonl", "openai_inline.jsonl", "llava_other_key.json", "llava_file_url.json",
             "llava_base64.json", "llava_human_last.json", "coco_float_ids.json", "answer_list.jsonl", "answer_list.parquet",
             "cauldron.parquet", "trl.parquet", "onevision.parquet", "chartqa.parquet", "paligemma.jsonl"}  # fmt: skip
    assert {name: counts[name] for name in fours} == dict.fromkeys(fours, (4, 4, 0))
    assert counts["captions_list.jsonl"] == counts["Flickr8k.token.txt"] == counts["kaggle30k.csv"] == (8, 8, 0)
    assert counts["llava_textmix.json"] == (4, 5, 0) and counts["null_caption.jsonl"] == (3, 3, 1)
    assert counts["captions_holes.parquet"] == (3, 3, 1) and counts["splitcolumn.parquet"] == (2, 2, 0)
