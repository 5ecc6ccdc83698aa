"""Pictures in several fields of a record: all of them in a clear order, or one error, and never some of them in silence."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from format_cases import reader
from PIL import Image

from vlax.commands.data.source_argument import columns as parsed
from vlax.data.readers import columns, picture_fields
from vlax.data.readers.faults import Faults
from vlax.data.recognise.recognise import recognise
from vlax.data.sources import open_source
from vlax.errors import VlaxError

table, hf, array_records = map(reader, ("table", "hf", "arrayrecord"))
ASKED = {"question": "same?", "answer": "no"}


def png(number):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def reds(source):
    """Of each row, the numbers that `png` was given."""
    return [[int(np.asarray(p.open())[0, 0, 0]) for p in source[at].pictures] for at in range(len(source))]


@pytest.fixture
def folder(tmp_path):
    for number in range(1, 5):
        (tmp_path / f"p{number}.png").write_bytes(png(number))
    return tmp_path


def lines(folder, *rows):
    (folder / "t.jsonl").write_text("\n".join(json.dumps(ASKED | {"id": str(at)} | row) for at, row in enumerate(rows)))
    return str(folder / "t.jsonl")


@pytest.mark.parametrize(
    ("names", "image", "found"),
    [
        ("image_10 image_2 image_1 label", "", "image_1 image_2 image_10"),
        ("image image2 image_caption", "image", "image image2"),
        ("jpg_0 jpg_1", "", "jpg_0 jpg_1"),
        ("img_b img_a img_w", "", "img_a img_b"),
        ("Right Image,Left Image", "", "Left Image,Right Image"),
        ("photo_after photo_before", "", "photo_before photo_after"),
        ("image_path_2 image_path_1 image_path", "image_path", "image_path image_path_1 image_path_2"),
        ("image_1 image_2 left_image right_image", "", ""),
        ("image image_1 image_a", "image", "image"),
        ("image_1 image1 image_2", "", ""),
        ("image left_image right_image", "image", "image"),
        ("image_1 other", "", ""),
        ("image image_512", "image", "image"),
        ("image_001 image_002", "", "image_001 image_002"),
        ("file_name", "file_name", "file_name"),
    ],
)
def test_fields_that_belong_together(names, image, found):
    apart = "," if "," in names else " "
    assert picture_fields.family(names.split(apart), image) == [name for name in found.split(apart) if name]


def test_rows_of_a_table(folder):
    """With and without the second, by name and by `columns`, recognised and not."""
    path = lines(folder, {"image_2": "p2.png", "image_1": "p1.png"}, {"image_1": "p3.png", "image_2": None})
    assert reds(table(path)) == [[1, 2], [3]]
    found = recognise(path)
    assert "columns" not in found.spec and found.spec["images"] == str(folder)
    more = {"image_1": "p1.png", "image_2": "p2.png"}
    several = lines(folder, more, {**more, "image_3": "p3.png"}, {"image_1": "p4.png"}, {"image_1": None})
    found = recognise(several).spec
    assert reds(open_source(found)) == [[1, 2], [1, 2, 3], [4], []]
    path = lines(folder, {"image_2": "p2.png", "image_1": "p1.png"}, {"image_1": "p3.png", "image_2": None})
    assert reds(table(path, columns=parsed("image=image_2+image_1"))) == [[2, 1], [3]]
    assert reds(table(path, columns={"image": "image_1"})) == [[1], [3]]  # who says so wants no other
    assert table(path)[0].image_id == "p1.png p2.png"
    path = lines(folder, {"image": "p1.png"}, {"image": "p2.png", "image_b": "p3.png"}, {"image": "p4.png", "image_2": 7})
    assert reds(table(path)) == [[1], [2, 3], [4]]
    path = lines(folder, {"image": "p1.png", "image_2": float("nan")}, {"image": "p2.png", "image_2": "p3.png"})
    assert reds(table(path)) == [[1], [2, 3]]
    (folder / "t.csv").write_text("image,image_2,question,answer\np1.png,p2.png,same?,no\np3.png,,same?,no\n")
    assert reds(table(str(folder / "t.csv"))) == [[1, 2], [3]]
    with pytest.raises(VlaxError, match="has no column 'image_3'"):
        table(path, columns={"image": "image+image_3"})


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"image": "p1.png", "edited_image": "p2.png"}, "in image, edited_image, .*'image\\+edited_image'} for all of them"),
        ({"image": "p1.png", "image_2": "p2.png", "left_image": "p3.png"}, "in image, image_2, left_image, .*{'image': 'image"),
        ({"original_image": "p1.png", "edited_image": "p2.png"}, "columns={'image': 'original_image\\+edited_image'}"),
        ({"image": "p1.png", "knowledge_image": "p2.png"}, "in image, knowledge_image, "),
    ],
)
def test_an_order_that_is_not_clear_is_a_fault(folder, row, fault):
    """Of each row, whatever the first one of its kind has."""
    nothing = None if "original_image" in row else [] if "left_image" in row else float("nan")
    path = lines(folder, {"image": "p4.png"}, {name: nothing for name in row} | {"image": "p4.png"}, row)
    with pytest.raises(VlaxError, match=fault):
        table(path)
    faults = Faults(collect=True)
    assert reds(table(path, faults=faults)) == [[4], [4]]
    assert [(one.row, one.kind) for one in faults.found] == [("line 3", "unread picture")]


@pytest.mark.parametrize(
    "more",
    [
        {"image_mask": "p2.png"},
        {"thumbnail_image": "p2.png"},
        {"image_full": "train2017/p1.png"},
        {"file_name": "p2.png"},
        {"original_image_url": "http://a.example/p2.png"},
        {"image_h": 480, "image_d": 3},
        {"image_info": {"file_name": "a/p1.png", "width": 6}},
        {"image_meta": {"url": "http://a.example/p2.png"}},
        {"image_urls": ["http://a.example/p2.png"]},
        {"image_list": ["a/p1.png"]},
    ],
)
def test_other_fields_are_no_other_pictures(folder, more):
    assert reds(table(lines(folder, {"image": "p1.png", **more}))) == [[1]]


def parquet(folder, **fields):
    many = len(next(iter(fields.values())))
    pq.write_table(pa.table(fields | {name: [text] * many for name, text in ASKED.items()}), folder / "t.parquet")
    return str(folder / "t.parquet")


def struct(*numbers, path=None):
    return [n and {"bytes": png(n), "path": path and path.format(n)} for n in numbers]


def test_columns_of_a_parquet_file(folder):
    path = parquet(folder, right_image=struct(2, 4, 2), left_image=struct(1, None, 1))
    assert reds(hf(path)) == [[1, 2], [4], [1, 2]]
    assert len({hf(path)[at].image_id for at in range(3)}) == 3
    first, other, again = (hf(path, train=False)[at].image_id for at in range(3))
    assert first == again != other and " " not in other
    assert reds(hf(path, columns={"image": "right_image"})) == [[2], [4], [2]]
    assert reds(hf(path, columns={"image": "right_image+left_image"})) == [[2, 1], [4], [2, 1]]
    assert hf(path).fingerprint != hf(path, columns={"image": "left_image"}).fingerprint
    named = hf(parquet(folder, image_1=struct(1, path="x{}.png"), image_2=struct(2, path="x{}.png")))
    assert reds(named) == [[1, 2]] and named[0].image_id == "x1.png x2.png"
    assert {"x1.png", "x2.png"} <= {name for called in named.pictures() for name in called.names}
    assert reds(hf(parquet(folder, image_a=["p1.png"], image_b=["p3.png"]), images=str(folder))) == [[1, 3]]
    table = pa.table({"image1": struct(3), "image2": struct(4), **{name: [text] for name, text in ASKED.items()}})
    with pa.ipc.new_stream(str(folder / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert reds(hf(str(folder / "t.arrow"))) == [[3, 4]]


def test_columns_of_a_parquet_file_that_are_not_clear(folder):
    wanted = r"has pictures in image, edited, and .*columns=\{'image': 'image\+edited'\}"
    with pytest.raises(VlaxError, match=wanted):
        hf(parquet(folder, image=struct(1), edited=struct(2)))
    both = {"image": "image+edited"}
    assert reds(hf(parquet(folder, image=struct(1), edited=struct(2)), columns=both)) == [[1, 2]]
    with pytest.raises(VlaxError, match=r"columns=\{'image': 'before\+after'\}, or \{'image': ''\} for text"):
        hf(parquet(folder, before=struct(1), after=struct(2)))
    with pytest.raises(VlaxError, match=r"some hold pictures and some name files; give those of one kind: .*'image_1'\}"):
        hf(parquet(folder, image_1=struct(1), image_2=["p2.png"]))
    sound = [{"bytes": b"RIFF\0\0\0\0WAVEfmt ", "path": "a.wav"}]
    assert reds(hf(parquet(folder, image=struct(1), image_mask=struct(2), speech=sound, vector=[b"\1\2"]))) == [[1]]


def test_names_beside_the_columns_of_a_parquet_file(folder):
    """A held picture's name in another field is no other one; a mask, or a struct of other things, is none at all."""
    assert reds(hf(parquet(folder, image=struct(1), image_file_name=["x.png"]))) == [[1]]
    with pytest.raises(VlaxError, match="has pictures in image, edited_image"):
        hf(parquet(folder, image=struct(1), edited_image=["p2.png"]))
    path = parquet(folder, image=["p1.png"], image_info=[{"width": 6}])
    assert reds(hf(path, images=str(folder))) == [[1]]
    assert reds(hf(parquet(folder, image=["p1.png"], mask=struct(2)), images=str(folder))) == [[1]]


def test_a_field_that_stays_empty_is_looked_at_once(folder, monkeypatch):
    looked, choose = [], columns.choose
    monkeypatch.setattr(columns, "choose", lambda *given: looked.append(given) or choose(*given))
    assert len(table(lines(folder, *[{"image": "p1.png", "edited_image": None}] * 9))) == 9 and len(looked) == 1


def test_lists_with_paths_are_told_apart_to_evaluate_on(folder):
    path = parquet(folder, images=[struct(1, 2, path="a{}.png"), struct(3, path="a{}.png")])
    assert reds(hf(path, train=False)) == [[1, 2], [3]]
    assert len({hf(path, train=False)[at].image_id for at in range(2)}) == 2


def test_array_records_that_name_several(folder):
    writer = ArrayRecordWriter(str(folder / "a.array_record"), "group_size:1")
    named = ASKED | {"image_1": "x.png", "image_2": "y.png"}
    for number, more in enumerate(({"picture_bytes": [len(png(1)), len(png(2))]}, {})):
        line = json.dumps(named | {"id": str(number)} | more).encode()
        writer.write(line + b"\n" + png(1) + (png(2) if more else b""))
    writer.close()
    faults = Faults(collect=True)
    assert reds(array_records(str(folder / "a.array_record"), faults=faults)) == [[1, 2]]
    assert "names 2 pictures and holds 1" in faults.found[0].text


def test_a_column_may_be_called_with_a_plus(folder):
    assert columns.images(["a+b", "a"], {"image": "a+b"}) == ["a+b"]
    assert reds(table(lines(folder, {"a+b": "p2.png"}), columns={"image": "a+b"})) == [[2]]
