"""Containers: parquet and arrow, WebDataset, TFDS, ArrayRecord: rows, pictures at random access, errors."""

import importlib
import io
import json
import pickle
import shutil
import sys
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from format_cases import reader, tfds_builder
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

from vlax.commands.data import prepare
from vlax.commands.data.picture_shards import Encoding
from vlax.data.readers import shards, table_file
from vlax.data.readers.faults import Faults
from vlax.data.readers.table_file import RowGroups
from vlax.errors import VlaxError
from vlax.images import Preprocess

hf, webdataset, array_records, tfds_split, prepared = map(reader, ("hf", "webdataset", "arrayrecord", "tfds", "prepared"))


def png(number):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def red(row):
    """Which picture a row opens: the number that `png` was given."""
    return np.asarray(pickle.loads(pickle.dumps(row)).picture.open())[0, 0, 0]


def rows(source):
    return [source[i] for i in range(len(source))]


def ids(source):
    return [row.id for row in rows(source)]


def vqa_table(numbers, path=None):
    return pa.table(
        {
            "image": [{"bytes": png(n), "path": path and path.format(n // 2)} for n in numbers],
            "question": [f"is it {n}?" for n in numbers],
            "answer": ["yes" if n % 2 else "a dog" for n in numbers],
        }
    )


@pytest.fixture
def pathvqa(tmp_path):
    folder = tmp_path / "pathvqa" / "data"
    folder.mkdir(parents=True)
    pq.write_table(vqa_table(range(5)), folder / "train-00000-of-00002.parquet", row_group_size=2)
    pq.write_table(vqa_table(range(5, 8)), folder / "train-00001-of-00002.parquet", row_group_size=2)
    pq.write_table(vqa_table([9], "a{}.jpg"), folder / "validation-00000-of-00001.parquet")
    (folder / "README.md").write_text("not data")
    return tmp_path / "pathvqa"


def test_parquet_questions(pathvqa):
    source = hf("pathvqa", split="train", base=str(pathvqa.parent))
    assert [int(red(row)) for row in rows(source)] == list(range(8)) and red(source[4]) == 4
    row = source[5]
    assert (row.id, row.task, row.answer_type) == ("data/train-00001-of-00002:0", "question", "yes/no")
    assert (row.turns[0].question, row.turns[0].answer, row.references) == ("is it 5?", "yes", ("yes",))
    assert source[0].answer_type == "open" and row.image_name.endswith("train-00001-of-00002.parquet: row 0")
    assert len({row.image_id for row in rows(source)}) == 8  # nothing says that they share pictures
    assert [len(hf(str(pathvqa), split=name)) for name in ("validation", "val", "train")] == [1, 1, 8]
    assert ids(hf(f"{pathvqa}/data/validation-*.parquet")) == ["validation-00000-of-00001:0"]


def test_parquet_splits_are_named(pathvqa):
    with pytest.raises(VlaxError, match="holds the splits train, validation; name one: split='train'"):
        hf(str(pathvqa))
    with pytest.raises(VlaxError, match="no files of the split 'test'; it holds train, validation"):
        hf(str(pathvqa), split="test")
    with pytest.raises(VlaxError, match="holds no parquet or arrow files"):
        hf(str(pathvqa.parent / "pathvqa" / "data" / "*.csv"))
    with pytest.raises(VlaxError, match="there is no file or folder"):
        hf(str(pathvqa / "other"))


def test_rows_share_an_image_id_where_the_struct_says_so(tmp_path):
    pq.write_table(vqa_table(range(4), "a{}.jpg"), tmp_path / "t.parquet")
    source = hf(str(tmp_path / "t.parquet"))
    assert [row.image_id for row in rows(source)] == ["a0.jpg", "a0.jpg", "a1.jpg", "a1.jpg"]
    assert [int(red(row)) for row in rows(source)] == [0, 1, 2, 3]  # each row's own bytes all the same
    assert ids(hf(str(tmp_path / "t.parquet"), drop_image_ids={"a0.jpg"})) == ["t:2", "t:3"]


@pytest.mark.parametrize("form", ("parquet", "arrow"))
def test_questions_about_one_picture_share_its_id_on_evaluation(tmp_path, form):
    """Without paths, as PathVQA is published, it is the bytes that tell: a blind twin must not be given its own picture."""
    table, path = vqa_table([5, 5, 7, 5]), tmp_path / f"t.{form}"
    if form == "parquet":
        pq.write_table(table, path, row_group_size=2)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    a, b, c, d = (row.image_id for row in rows(hf(str(path), train=False)))
    assert a == b == d != c
    assert len({row.image_id for row in rows(hf(str(path)))}) == 4  # training reads no picture before it needs one


def test_text_is_read_without_pictures(pathvqa, monkeypatch):
    read, whole = [], pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda self, n, columns: read.append(columns) or whole(self, n, None, columns)
    )
    file = str(pathvqa / "data" / "validation-00000-of-00001.parquet")
    (batch,) = table_file.TableFile(file).texts(["question"], ["image"], True)
    assert batch.to_pylist() == [{"question": "is it 9?", "image": "a4.jpg"}]
    assert read == [["question", "image.path"]]


def test_a_row_group_is_read_once_for_all_threads(pathvqa, monkeypatch):
    source, reads, whole = hf(str(pathvqa), split="train"), [], table_file._open
    monkeypatch.setattr(table_file, "_GROUPS", RowGroups(1 << 20))
    monkeypatch.setattr(table_file, "_open", lambda file, metadata=None: reads.append(file) or whole(file, metadata))
    with ThreadPoolExecutor(4) as pool:
        assert [int(n) for n in pool.map(red, rows(source) * 3)] == list(range(8)) * 3
    assert len(reads) == 5  # groups of 2 + 2 + 1 and 2 + 1 rows
    small = RowGroups(1)
    for group in (0, 1, 2, 0):
        small.get((source._files[0], group, "image"))
    assert len(reads) == 9 and len(small._kept) == 1 and small.size == next(iter(small._kept.values())).nbytes


def caption_table():
    return pa.table({"image_path": ["a.png", "b.png"], "raw": [["a dog", "a  black dog"], ["a cat"]], "note": ["x", "y"]})


def test_captions_and_pictures_in_a_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.png").write_bytes(png(7))
    pq.write_table(caption_table(), tmp_path / "t.parquet")
    source = hf("t.parquet", "images", base=str(tmp_path))
    assert [(row.id, row.image_id, row.turns[0].answer) for row in rows(source)] == [
        ("t:0#0", "a.png", "a dog"),
        ("t:0#1", "a.png", "a black dog"),
        ("t:1#0", "b.png", "a cat"),
    ]
    assert red(source[2]) == 7 and source[0].task == "caption"
    assert hf("t.parquet", "images", task="describe", base=str(tmp_path))[0].task == "describe"
    to_evaluate = hf("t.parquet", "images", False, base=str(tmp_path))
    assert [(row.id, row.references) for row in rows(to_evaluate)] == [("t:0", ("a dog", "a black dog")), ("t:1", ("a cat",))]
    other = hf("t.parquet", "images", columns={"text": "note", "image": ""}, base=str(tmp_path))
    assert (other[1].turns[0].answer, other[1].image_id, other[1].picture) == ("y", "", None)


def test_fingerprints_follow_the_text_and_not_the_place(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        pq.write_table(caption_table(), tmp_path / folder / "t.parquet")
    one, two = (hf("t.parquet", base=str(tmp_path / folder)) for folder in ("a", "b"))
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint != hf("t.parquet", columns={"text": "note"}, base=str(tmp_path / "a")).fingerprint
    pq.write_table(caption_table().set_column(2, "note", [["x", "z"]]), tmp_path / "b" / "t.parquet")
    assert one.fingerprint == hf("t.parquet", base=str(tmp_path / "a")).fingerprint
    pq.write_table(caption_table().set_column(1, "raw", [[["a cow"], ["a cat"]]]), tmp_path / "b" / "t.parquet")
    assert one.fingerprint != hf("t.parquet", base=str(tmp_path / "b")).fingerprint


@pytest.mark.parametrize("form", (pa.ipc.new_stream, pa.ipc.new_file))
def test_arrow_files_of_save_to_disk(tmp_path, form):
    for split, numbers in {"train": range(4), "test": range(4, 6)}.items():
        (tmp_path / "set" / split).mkdir(parents=True)
        table = vqa_table(numbers, "a{}.jpg")
        with form(str(tmp_path / "set" / split / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    (tmp_path / "set" / "train" / "cache-1a2b.arrow").write_bytes(b"a filter's leavings")
    source = hf("set", split="train", base=str(tmp_path))
    assert [int(red(row)) for row in rows(source)] == [0, 1, 2, 3] and source[3].id == "train/data-00000-of-00001:3"
    assert [row.image_id for row in rows(source)] == ["a0.jpg", "a0.jpg", "a1.jpg", "a1.jpg"]


def test_answers_of_several_annotators(tmp_path):
    answers = [[{"answer": "cat"}, {"answer": "dog"}, {"answer": "dog"}], [{"answer": "1"}]]
    columns = {"question_id": [7, 8], "image_id": [3, 3], "image": [png(0), png(1)], "question": ["what?", "how many?"]}
    pq.write_table(pa.table({**columns, "answers": answers}), tmp_path / "t.parquet")
    source = hf(str(tmp_path / "t.parquet"))
    assert [(r.id, r.image_id, r.turns[0].answer, r.references) for r in rows(source)] == [
        ("7", "3", "dog", ("cat", "dog", "dog")),
        ("8", "3", "1", ("1",)),
    ]
    assert red(source[1]) == 1


def test_text_is_taken_before_questions_where_columns_says_so(tmp_path):
    table = {"image": [png(0)], "caption": ["a dog"], "question": ["is it?"], "answer": ["no"]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    assert hf(str(tmp_path / "t.parquet"))[0].turns[0].question == "is it?"
    row = hf(str(tmp_path / "t.parquet"), columns={"text": "caption"})[0]
    assert (row.task, row.turns[0].question, row.turns[0].answer) == ("caption", "", "a dog")


def test_ids_that_recur_are_told_apart(tmp_path):
    pq.write_table(pa.table({"id": ["a", "a"], "image": [png(0), png(1)], "text": ["x", "y"]}), tmp_path / "t.parquet")
    assert ids(hf(str(tmp_path / "t.parquet"))) == ["a#0@0", "a#0@1"]


@pytest.mark.parametrize(
    ("table", "given", "text"),
    [
        (
            {"image": ["a"], "label": [1]},
            {},
            "has image, label; looked for question with answer or answers, .* text, caption",
        ),
        ({"pic": ["a"], "text": ["x"]}, {}, r"no image among them .*columns=\{'image': 'NAME'\}, or \{'image': ''\} for text"),
        ({"pic": ["a.jpg"], "text": ["x"]}, {}, r"no image among them .*columns=\{'image': 'pic'\}"),
        (
            {"image": ["a"], "text": ["x"]},
            {"columns": {"txt": "text"}},
            "columns names no part 'txt'; the parts are image, text",
        ),
        (
            {"image": ["a"], "text": ["x"]},
            {"columns": {"text": "x"}},
            r"has no column 'x' for text \(it has: image, text\)",
        ),
        (
            {"image": ["a"], "text": ["x"]},
            {"task": "question"},
            "'question' does not fit a row without a question; use caption",
        ),
        (
            {"image": [3], "text": ["x"]},
            {},
            "the image column 'image' is int64; it should be struct<bytes, path>, binary, a path or a list",
        ),
        ({"image": ["a", "b"], "text": ["x", " "]}, {}, r"t\.parquet row 1: \"text\" is ' ', not a text; its columns are"),
        ({"image": ["a"], "question": ["x"], "answer": [""]}, {}, r"t\.parquet row 0 has no answer"),
    ],
)
def test_table_errors(tmp_path, table, given, text):
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(VlaxError, match=text) as caught:
        hf(str(tmp_path / "t.parquet"), **given)
    assert "\n" not in str(caught.value)


def test_faulty_rows_and_pictures(tmp_path):
    struct = [{"bytes": b"no picture", "path": "a.jpg"}, {"bytes": None, "path": None}, {"bytes": None, "path": "b.png"}]
    (tmp_path / "b.png").write_bytes(png(5))
    pq.write_table(pa.table({"image": [*struct, struct[0]], "text": ["x", "y", "z", ""]}), tmp_path / "t.parquet")
    faults = Faults(collect=True)
    source = hf("t.parquet", base=str(tmp_path), faults=faults)
    assert [(fault.row, fault.kind) for fault in faults.found] == [("t.parquet row 3", "empty text")]
    with pytest.raises(VlaxError, match=r"row t:0#0: .*t\.parquet: row 0: the picture does not decode"):
        source[0].picture.open()
    assert (source[1].picture, source[1].image_id, source[1].turns[0].answer) == (None, "", "y")  # a row of text
    assert red(source[2]) == 5
    (tmp_path / "t.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(VlaxError, match=r"t\.parquet is not parquet"):
        hf("t.parquet", base=str(tmp_path))


def tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            content = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def test_webdataset_captions(tmp_path):
    tar(tmp_path / "s" / "pairs-008.tar", {"0.jpg": png(1), "0.txt": "a dog\n", "./1.txt": "no picture"})
    tar(tmp_path / "s" / "pairs-009.tar", {"b/0.json": '{"caption": ["x", "y"]}', "b/0.seg.png": b"", "b/0.PNG": png(2)})
    tar(tmp_path / "s" / "pairs-010.tar", {"0.webp": png(3), "0.cls": "7"})
    source = webdataset("s/pairs-{008..010}.tar", base=str(tmp_path))
    assert [(row.id, row.image_id, row.turns[0].answer) for row in rows(source)] == [
        ("pairs-008/0#0", "pairs-008/0", "a dog"),
        ("pairs-008/1#0", "", "no picture"),
        ("pairs-009/b/0#0", "pairs-009/b/0", "x"),
        ("pairs-009/b/0#1", "pairs-009/b/0", "y"),
        ("pairs-010/0#0", "pairs-010/0", "7"),
    ]
    assert source[1].picture is None and [int(red(source[i])) for i in (0, 2, 3, 4)] == [1, 2, 2, 3]
    assert ids(webdataset("s", base=str(tmp_path))) == ids(source)
    assert webdataset("s", train=False, base=str(tmp_path))[2].references == ("x", "y")
    assert source.fingerprint == webdataset("s/pairs-{008..010}.tar", base=str(tmp_path)).fingerprint
    with pytest.raises(VlaxError, match=r"there is no file .*pairs-011\.tar \(1 of 4 are missing\)"):
        webdataset("s/pairs-{008..011}.tar", base=str(tmp_path))


def test_webdataset_questions_and_shards_of_one_name(tmp_path):
    for number, folder in enumerate("ab"):
        question = {"question": "is it?", "answer": "no", "image_id": number, "file_name": "0.jpg"}
        tar(tmp_path / folder / "0.tar", {"0.jpg": png(number), "0.json": json.dumps(question)})
    source = webdataset(str(tmp_path))
    assert [(r.id, r.image_id, r.task, r.answer_type) for r in rows(source)] == [
        ("a/0/0", "0", "question", "yes/no"),
        ("b/0/0", "1", "question", "yes/no"),
    ]
    assert [int(red(row)) for row in rows(source)] == [0, 1]
    tar(tmp_path / "a" / "0.tar", {"0.jpg": png(0), "0.txt": "a dog"})
    assert [row.task for row in rows(webdataset(str(tmp_path)))] == ["caption", "question"]


def test_webdataset_errors(tmp_path):
    tar(tmp_path / "a.tar", {"0.jpg": png(0), "0.txt": "a dog", "1.jpg": png(1), "1.txt": "a cat"})
    whole = (tmp_path / "a.tar").read_bytes()
    for cut in (512 * 6 + 100, 512 * 5 + 100, 512 * 4 + 10):  # in a header, in data, in padding
        (tmp_path / "a.tar").write_bytes(whole[:cut])
        with pytest.raises(VlaxError, match=r"a\.tar is (not a whole tar|damaged or cut off).*fetch it again"):
            webdataset(str(tmp_path / "a.tar"))
    (tmp_path / "a.tar").write_bytes(whole[: 512 * 4] + b"x" * 512 + whole[512 * 5 :])  # a damaged header
    with pytest.raises(VlaxError, match=r"a\.tar is damaged or cut off at byte 2048"):
        webdataset(str(tmp_path / "a.tar"))
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as file:
        file.add(__file__, "0.txt")
    with pytest.raises(VlaxError, match=r"b\.tar\.gz is compressed.*unpack the tar itself \(gunzip b\.tar\.gz\)"):
        webdataset(str(tmp_path / "b.tar.gz"))
    tar(tmp_path / "c.tar", {"notes.md": "x"})
    with pytest.raises(VlaxError, match=r"c\.tar holds no samples; a sample is KEY\.jpg"):
        webdataset(str(tmp_path / "c.tar"))
    tar(tmp_path / "c.tar", {"0.jpg": png(0), "1.jpg": png(1), "1.txt": "x"})
    with pytest.raises(VlaxError, match=r"c\.tar 0 has no text"):
        webdataset(str(tmp_path / "c.tar"))
    faults = Faults(collect=True)
    assert ids(webdataset(str(tmp_path / "c.tar"), faults=faults)) == ["c/1#0"] and faults.found[0].row == "c.tar 0"


def reds(row):
    """As `red`, of all pictures."""
    return [int(np.asarray(pickle.loads(pickle.dumps(picture)).open())[0, 0, 0]) for picture in row.pictures]


def test_webdataset_rows_of_several_pictures(tmp_path):
    """By their numbers, whatever their order in the tar; by the names that the JSON lists; what is neither is no part."""
    asked = {"question": "same?", "answer": "no"}
    tar(tmp_path / "p.tar", {
        "a.1.png": png(2), "a.0.png": png(1), "a.10.png": png(3), "a.txt": "three",
        "b.png": png(4), "b.img1.PNG": png(5), "b.seg.png": png(99), "b.json": json.dumps(asked),
        "d/c.right.png": png(7), "d/c.left.png": png(6),
        "d/c.json": json.dumps(asked | {"images": ["c.left.png", "right.png"]}),
        "e.0.png": png(8), "e.json": json.dumps(asked | {"image": "elsewhere.png"}),
        "f.0.png": png(9), "f.1.png": png(10), "f.json": json.dumps({"images": [{"path": "x.png"}, {"path": "y.png"}],
            "messages": [{"role": "user", "content": "<image>this or <image>that?"}, {"role": "assistant", "content": "a"}]}),
    })  # fmt: skip
    source = webdataset("p.tar", base=str(tmp_path))
    assert [reds(row) for row in rows(source)] == [[1, 2, 3], [4, 5], [6, 7], [8], [9, 10]]
    assert ids(source) == ["p/a#0", "p/b", "p/d/c", "p/e", "p/f"]
    assert [row.image_id for row in rows(source)] == ["p/a", "p/b", "p/d/c", "p/e", "p/f"]
    assert source[4].places == ((0, 0), (0, 8)) and source[0].pictures[1].name == f"{tmp_path}/p.tar: p/a.1.png"
    assert len(webdataset("p.tar", base=str(tmp_path), skip_multi_image=True)) == 1
    found = {name for called in source.pictures() for name in called.names}
    assert {"p/a.0.png", "p/a.10.png"} <= found


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"a.left.png": png(1), "a.right.png": png(2)}, r"p\.tar a has a.left.png, a.right.png, and nothing says that"),
        ({"a.1.png": png(1), "a.img1.png": png(2)}, "two pictures of one number among a.1.png, a.img1.png; number them"),
        (
            {"a.0.png": png(1), "a.json": '{"images": ["x", "y"], "caption": "z"}'},
            r"lists 2 pictures \(x, y\), and the tar has a.0",
        ),
        ({"a.mp4": b"film"}, "a has a.mp4: vlax sees single pictures"),
        (
            {"a.jpg": png(1), "a.PNG": png(2)},
            r"two pictures of no number among a.jpg, a.PNG; .*=\{'image': 'jpg\+png'\}",
        ),
    ],
)
def test_webdataset_pictures_that_are_not_clear_are_faults(tmp_path, members, fault):
    """And never rows of text, or of fewer pictures."""
    tar(tmp_path / "p.tar", {"a.txt": "what", **members, "b.png": png(3), "b.txt": "a dog"})
    with pytest.raises(VlaxError, match=fault):
        webdataset("p.tar", base=str(tmp_path))
    assert ids(webdataset("p.tar", base=str(tmp_path), faults=Faults(collect=True))) == ["p/b#0"]


def test_tars_of_webdatasets_own_writer(tmp_path):
    """Captions, classes, questions; one picture, numbered ones, and two of which `columns` says the order."""
    import webdataset as real

    asked = {"question": "same?", "answer": "no"}
    image = {number: Image.open(io.BytesIO(png(number))) for number in range(1, 7)}
    samples = {
        "one": [{"__key__": "a/b.c/0", "png": image[1], "txt": "a dog"}, {"__key__": "1", "png": image[2], "cls": 7},
                {"__key__": "2", "0.png": image[3], "1.png": image[4], "json": asked}],
        "two": [{"__key__": "3", "left.png": image[5], "right.png": image[6], "json": asked}],
    }  # fmt: skip
    for name, written in samples.items():
        with real.TarWriter(str(tmp_path / f"{name}.tar")) as writer:
            for sample in written:
                writer.write(sample)
    source = webdataset("one.tar", base=str(tmp_path))
    assert ids(source) == ["one/a/b.c/0#0", "one/1#0", "one/2"]
    assert [row.turns[0].answer for row in rows(source)] == ["a dog", "7", "no"]
    assert [reds(row) for row in rows(source)] == [[1], [2], [3, 4]]
    source = webdataset("two.tar", base=str(tmp_path), columns={"image": "right.png+left.png"})
    assert [reds(row) for row in rows(source)] == [[6, 5]] and source[0].turns[0].question == "same?"


def test_webdataset_members_that_columns_names(tmp_path):
    """In its order, in place of numbers and lists; a sample without one of them is a fault, one without any is text."""
    asked = json.dumps({"question": "same?", "answer": "no", "image": "a.right.png"})
    tar(tmp_path / "p.tar", {"a.left.png": png(1), "a.RIGHT.png": png(2), "a.json": asked, "b.left.png": png(3), "b.txt": "b",
                             "c.txt": "c"})  # fmt: skip
    faults = Faults(collect=True)
    source = webdataset("p.tar", base=str(tmp_path), columns={"image": "right.png+left.png"}, faults=faults)
    assert [reds(row) for row in rows(source)] == [[2, 1], []] and ids(source) == ["p/a", "p/c#0"]
    assert faults.found[0].text.endswith("p.tar b has b.left.png, and no right.png; mend or remove the sample")
    assert [reds(row) for row in rows(webdataset("p.tar", base=str(tmp_path), columns={"image": "left.png"}))] == [[1], [3], []]


def records(path, contents):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for content in contents:
        writer.write(content)
    writer.close()


def test_array_records(tmp_path):
    lines = [json.dumps({"id": str(n), "image_id": "a", "caption": f"dog {n}"}).encode() + b"\n" + png(n) for n in range(3)]
    records(tmp_path / "x.array_record-00000-of-00002", lines)
    records(
        tmp_path / "x.array_record-00001-of-00002",
        [b'{"text": "alone", "image_id": "c"}', b'{"text": "path", "image": "b.png"}'],
    )
    (tmp_path / "b.png").write_bytes(png(9))
    source = array_records(str(tmp_path), str(tmp_path))
    assert [(row.id, row.image_id, row.turns[0].answer) for row in rows(source)] == [
        ("0#0", "a", "dog 0"),
        ("1#0", "a", "dog 1"),
        ("2#0", "a", "dog 2"),
        ("x.array_record-00001-of-00002:0#0", "", "alone"),
        ("x.array_record-00001-of-00002:1#0", "b.png", "path"),
    ]
    assert source[3].picture is None and [int(red(source[i])) for i in (0, 1, 2, 4)] == [0, 1, 2, 9]
    assert len(array_records(str(tmp_path / "x.array_record-{00000..00001}-of-00002"), str(tmp_path))) == 5


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\n\x10\n\x0e\n\x04text", "record 0 is tf.train.Example; if tensorflow_datasets wrote it"),
        (b"\x82\xa4text", "record 0 is msgpack; a record is one line of JSON"),
        (pickle.dumps({"text": "x"}), "record 0 is a pickle"),
        (png(0), "record 0 is a bare PNG"),
        (b"a dog", "record 0 is not JSON"),
        (b"[1]", "record 0 begins with a list, not an object"),
    ],
)
def test_records_of_other_kinds_are_named(tmp_path, content, text):
    records(tmp_path / "x.array_record", [content])
    with pytest.raises(VlaxError, match=text):
        array_records(str(tmp_path / "x.array_record"))


def test_array_record_files_are_whole_or_refused(tmp_path):
    records(tmp_path / "x.array_record", [b'{"text": "a"}\n' + np.random.default_rng(0).bytes(9000)] * 9)
    whole = (tmp_path / "x.array_record").read_bytes()
    (tmp_path / "cut.array_record").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VlaxError, match=r"cut\.array_record is not a whole ArrayRecord file"):
        array_records(str(tmp_path / "cut.array_record"))
    damaged = bytearray(whole)
    damaged[1000:1010] = b"0123456789"
    (tmp_path / "bad.array_record").write_bytes(damaged)
    with pytest.raises(VlaxError, match=r"bad\.array_record: records from 0 on cannot be read \(Corrupted"):
        array_records(str(tmp_path / "bad.array_record"))


def test_array_records_of_several_pictures(tmp_path):
    def record(number, shown, **more):
        values = {"id": str(number), "question": "same?", "answer": "no", **more}
        return json.dumps(values).encode() + b"\n" + b"".join(shown)

    two = [png(1), png(2)]
    each = [len(one) for one in two]
    records(tmp_path / "a.array_record", [record(0, two, picture_bytes=each), record(1, [png(3)], images=["x.png"])])
    assert [reds(row) for row in rows(array_records(str(tmp_path)))] == [[1, 2], [3]]
    for more, fault in (
        ({"picture_bytes": [1, 2]}, rf"picture_bytes is \[1, 2\], and {sum(each)} bytes follow; of several"),
        ({"images": ["x.png", "y.png"]}, "names 2 pictures and holds 1; of several, .picture_bytes. lists the bytes of each"),
    ):
        records(tmp_path / "a.array_record", [record(0, two, **more), record(1, [png(3)])])
        with pytest.raises(VlaxError, match=fault):
            array_records(str(tmp_path))
        assert ids(array_records(str(tmp_path), faults=Faults(collect=True))) == ["1"]


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A builder prepared as array_record without TensorFlow, which tfds needs for other formats, and to encode arrays."""
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "image/id": np.int64,
        "captions": tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()}),
        "title": tfds.features.Text(),
    }

    def example(n):
        captions = [{"id": n, "text": f"a dog {n}"}, {"id": n, "text": "a cat"}]
        return {"image": io.BytesIO(png(n)), "image/id": 10 + n, "captions": captions, "title": f"title {n}"}

    splits = {"train": {n: example(n) for n in range(3)}, "val": {7: example(7)}}
    return tfds_builder(tmp_path_factory.mktemp("tfds"), "TinyCaptions", features, splits)


def test_tfds_without_tensorflow(tfds_folder):
    source = tfds_split(tfds_folder, split="train")
    found = sorted((row.image_id, int(red(row)), row.turns[0].answer) for row in rows(source))
    assert found == [(str(10 + n), n, text) for n in range(3) for text in ("a cat", f"a dog {n}")]
    assert ids(source)[:3] == ["train:0#0", "train:0#1", "train:1#0"]
    to_evaluate = tfds_split(tfds_folder, train=False, split="val")
    assert [(row.id, row.references) for row in rows(to_evaluate)] == [("val:0", ("a dog 7", "a cat"))]
    assert tfds_split(tfds_folder, split="val", columns={"text": "title", "image": "image"})[0].turns[0].answer == "title 7"
    assert len(tfds_split(tfds_folder, split="train[:2]")) == 4
    assert source.fingerprint == tfds_split(tfds_folder, split="train").fingerprint != to_evaluate.fingerprint
    assert "tensorflow" not in sys.modules


@pytest.mark.slow
def test_tfds_sequences_of_images(tmp_path):
    """Two, one and no picture in a row; written by tfds itself."""
    import tensorflow_datasets as tfds

    pictures = tfds.features.Sequence(tfds.features.Image(encoding_format="png"))
    features = {"images": pictures, "question": tfds.features.Text(), "answer": tfds.features.Text()}

    examples = {
        count: {"images": [io.BytesIO(png(10 * count + n)) for n in range(count)], "question": f"which of {count}?",
                "answer": "none"} for count in range(3)
    }  # fmt: skip
    where = tfds_builder(tmp_path, "TinyPairs", features, {"train": examples})
    source = tfds_split(where)
    shown = {row.turns[0].question: reds(row) for row in rows(source)}
    assert shown == {"which of 0?": [], "which of 1?": [10], "which of 2?": [20, 21]}
    assert len({picture.name for row in rows(source) for picture in row.pictures}) == 3
    assert len(tfds_split(where, skip_multi_image=True)) == 2 and "tensorflow" not in sys.modules


@pytest.mark.slow
def test_tfds_features_of_one_image_each(tmp_path):
    """As NLVR2's: read in the order of their names, where that is clear."""
    import tensorflow_datasets as tfds

    def where(*names):
        features = {name: tfds.features.Image(encoding_format="png") for name in names}
        features |= {"question": tfds.features.Text(), "answer": tfds.features.Text()}
        example = {name: io.BytesIO(png(n)) for n, name in enumerate(names, 1)} | {"question": "same?", "answer": "no"}
        return tfds_builder(tmp_path, "Pairs" + "".join(names).title().replace("_", ""), features, {"train": {0: example}})

    both = where("right_image", "left_image")
    assert reds(tfds_split(both)[0]) == [2, 1]
    assert reds(tfds_split(both, columns={"image": "right_image+left_image"})[0]) == [1, 2]
    assert reds(tfds_split(both, columns={"image": "right_image"})[0]) == [1]
    assert reds(tfds_split(where("image", "image_mask"))[0]) == [1]
    with pytest.raises(VlaxError, match=r"pictures in image, edited_image, and .* columns=\{'image': 'image\+edited_image'\}"):
        tfds_split(where("image", "edited_image"))


def test_tfds_errors(tfds_folder, tmp_path):
    with pytest.raises(VlaxError, match="holds the splits train, val; name one: split='train'"):
        tfds_split(tfds_folder)
    with pytest.raises(VlaxError, match=r"has no split 'test'.*it holds train, val"):
        tfds_split(tfds_folder, split="test")
    with pytest.raises(VlaxError, match=r"is no prepared tfds builder .*; perhaps .*tiny_captions/1\.0\.0"):
        tfds_split(str(epath.Path(tfds_folder).parent.parent))
    with pytest.raises(VlaxError, match="feature 'title' is no image but a Text; name the image feature"):
        tfds_split(tfds_folder, split="val", columns={"image": "title"})
    shutil.copytree(tfds_folder, tmp_path / "tfrecord")
    info = json.loads((tmp_path / "tfrecord" / "dataset_info.json").read_text())
    (tmp_path / "tfrecord" / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(
        VlaxError, match=r"prepared as tfrecord.*tfds build tiny_captions --file_format=array_record.*tensorflow-cpu"
    ):
        tfds_split(str(tmp_path / "tfrecord"), split="train")


def test_names_and_splits():
    assert shards.expand("p-{08..10}.tar") == ["p-08.tar", "p-09.tar", "p-10.tar"]
    assert shards.expand("{a,b}/{0..1}") == ["a/0", "a/1", "b/0", "b/1"]
    assert shards.split_of("data/train-00000-of-00002.parquet") == "train"
    assert shards.split_of("default/validation/0000.parquet") == "validation"
    assert shards.split_of("data-00000-of-00001.arrow") == shards.split_of("latest.tar") == ""
    assert shards.split_of("train/data-00000-of-00001.arrow") == "train"
    assert shards.split_of("human/data-00000-of-00001.arrow") == "human" and shards.split_of("human/a.arrow") == ""
    with pytest.raises(VlaxError, match=r"counts down; write \{1..3\}"):
        shards.expand("{3..1}")


class Bucket(MemoryFileSystem):
    """Stands in for an object store: no place that C++ could open."""

    protocol, store, pseudo_dirs = ("gs", "gcs"), {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        path = str(path).removeprefix("gs://").strip("/")
        return f"/{path}" if path else ""


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    from etils.epath import backend

    for name in ("gs", "gcs"):
        monkeypatch.setitem(importlib.import_module("fsspec.registry")._registry, name, Bucket)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    backend._FileSystemSpecBackend._get_filesystem.cache_clear()
    yield "gs://bucket"
    backend._FileSystemSpecBackend._get_filesystem.cache_clear()
    Bucket.store.clear()


def test_containers_in_an_object_store(bucket, tmp_path):
    table = vqa_table(range(3))
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=1)
    with pa.ipc.new_stream(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    tar(tmp_path / "t.tar", {"0.jpg": png(1), "0.txt": "a dog"})
    records(tmp_path / "t.array_record", [b'{"text": "a dog"}\n' + png(2)])
    for name in ("t.parquet", "t.arrow", "t.tar", "t.array_record"):
        epath.Path(tmp_path / name).copy(f"{bucket}/set/{name}", overwrite=True)
    for name in ("t.parquet", "t.arrow"):
        assert [int(red(row)) for row in rows(hf(f"set/{name}", base=bucket))] == [0, 1, 2]
    assert red(webdataset("set", base=bucket)[0]) == 1
    assert red(array_records("t.array_record", base=f"{bucket}/set")[0]) == 2
    copies = {path: path.stat().st_mtime_ns for path in (tmp_path / "vlax-shards").iterdir()}
    assert red(array_records("t.array_record", base=f"{bucket}/set")[0]) == 2
    assert copies == {path: path.stat().st_mtime_ns for path in (tmp_path / "vlax-shards").iterdir()} and len(copies) == 2


def test_prepare_into_an_object_store(bucket, tmp_path):
    pq.write_table(vqa_table(range(3)), tmp_path / "t.parquet")
    source, how = hf(str(tmp_path / "t.parquet")), Encoding(Preprocess(4), "raw", 95)
    for out in (f"{bucket}/out", tmp_path / "out"):
        prepare.prepare(source, out, how, workers=1, progress=False)
    read = prepared("out", base=bucket)
    assert [int(red(row)) for row in rows(read)] == [0, 1, 2]
    files = {path.name: path.read_bytes() for path in epath.Path(f"{bucket}/out").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
