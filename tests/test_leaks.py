"""Pictures that a score is computed on are found in training sources, whatever release or list names them."""

import argparse
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlax.commands.data import prepare
from vlax.data.readers import leaks
from vlax.data.sources import open_source
from vlax.errors import VlaxError


@pytest.mark.parametrize(
    ("name", "key"),
    (
        ("COCO_val2014_000000391895.jpg", "coco/391895"),
        ("coco/train2017/000000391895.jpg", "coco/391895"),
        ("val2014/COCO_train2014_000000000042.jpg", "coco/42"),
        ("flickr30k/images/1000092795.jpg", "1000092795"),
        ("1000268201_693b08cb0e.jpg", "1000268201"),  # as Flickr8k calls it; Flickr30k has the number alone
        ("val2014/391895.jpg", "coco/391895"), ("COCO_val2014_391895", "coco/391895"), ("391895.jpg", ""), ("391895", ""),
        ("gqa/images/2354786.jpg", "vg/2354786"), ("flickr30k-images/36979.jpg", "flickr/36979"),
        ("https://farm7.staticflickr.com/6116/6255196340_da26cf2c9e_z.jpg", "6255196340"),
        ("http://images.cocodataset.org/val2014/COCO_val2014_000000203564.jpg?x=1.2", "coco/203564"),
        ("12345/123450012.jpg", ""),  # img2dataset's counter, which begins with its shard
        ("a/VizWiz_val_00000012.jpg", "vizwiz_val_00000012"), ("image17.jpg", ""), ("train_0001.jpg", ""),
        ("open/0A1b2c3d4e5f6789.JPG", "0a1b2c3d4e5f6789"),
        ("00000/00000000012.jpg", ""), ("2354786.jpg", ""),  # counters
        ("mine/a.jpg", ""), ("img0001.png", ""), ("", ""),
    ),
)  # fmt: skip
def test_picture_key(name, key):
    assert leaks.picture_key(name) == key


def write(folder, name, files):
    rows = [{"id": i, "file_name": f} for i, f in enumerate(files)]
    captions = [{"image_id": i, "caption": "a dog"} for i, _ in enumerate(files)]
    (folder / name).write_text(json.dumps({"images": rows, "annotations": captions}))


def test_evaluation_pictures_are_dropped_from_training_and_counted(tmp_path):
    """By key across releases, by path in one's own folder; a like-named file of another folder stays."""
    write(tmp_path, "test.json", ["COCO_val2014_000000000007.jpg", "a.jpg"])
    write(tmp_path, "train.json", ["000000000007.jpg", "000000000008.jpg", "a.jpg", "b.jpg"])
    spec = {"kind": "coco", "annotations": "train.json", "images": "pictures"}
    held_out = open_source({**spec, "annotations": "test.json"}, str(tmp_path), train=False)
    drop = leaks.evaluation_pictures([held_out])
    assert drop == {"coco/7", f"{tmp_path}/pictures/COCO_val2014_000000000007.jpg", f"{tmp_path}/pictures/a.jpg"}
    train = open_source(spec, str(tmp_path), drop_image_ids=drop)
    assert [row.image_name.split("/")[-1] for row in map(train.__getitem__, range(len(train)))] == ["000000000008.jpg", "b.jpg"]
    assert train.dropped == 2
    elsewhere = open_source({**spec, "images": "other"}, str(tmp_path), drop_image_ids=drop)
    assert elsewhere.dropped == 1  # COCO's number is one picture everywhere, a.jpg is not


def test_what_was_dropped_is_part_of_the_fingerprint_and_the_place_is_not(tmp_path):
    prints = []
    for folder in (tmp_path / "here", tmp_path / "there"):
        folder.mkdir()
        write(folder, "test.json", ["a.jpg"])
        write(folder, "train.json", ["a.jpg", "b.jpg"])
        spec = {"kind": "coco", "annotations": "train.json", "images": ""}
        held_out = open_source({**spec, "annotations": "test.json"}, str(folder), train=False)
        drop = leaks.evaluation_pictures([held_out])
        prints.append(open_source(spec, str(folder), drop_image_ids=drop).fingerprint)
        assert open_source(spec, str(folder)).fingerprint != prints[-1]
    assert prints[0] == prints[1]


def test_embedded_sources_have_nothing_to_drop():
    assert leaks.evaluation_pictures([open_source({"kind": "scenes", "split": "test", "style": "human", "size": 2})]) == set()


def parquet(path, numbers, name=None):
    pictures = []
    for number in numbers:
        buffer = io.BytesIO()
        Image.new("RGB", (4, 4), (number, 0, 0)).save(buffer, "PNG")
        pictures.append({"bytes": buffer.getvalue(), "path": name and name.format(number)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": pictures, "text": ["a dog"] * len(pictures)}), path)
    return {"kind": "hf", "path": str(path)}


def dropped(train, test) -> int:
    held_out = open_source(test, train=False)
    return open_source(train, drop_image_ids=leaks.evaluation_pictures([held_out])).dropped


def test_rows_of_other_containers_stay(tmp_path):
    """A picture in a container has a place in it and no name: row 3 of one file is not row 3 of another."""
    train, test = parquet(tmp_path / "train.parquet", range(6)), parquet(tmp_path / "test.parquet", range(10, 14))
    assert dropped(train, test) == 0
    with pytest.raises(VlaxError, match=r"no rows are left .* dropped by the leak filter"):
        dropped(train, train)  # the very same rows


def test_names_within_containers_are_known_across_formats(tmp_path):
    """COCO's number in a parquet file keeps the picture out of JSON, parquet and prepared training sets alike."""
    test = parquet(tmp_path / "test.parquet", (7,), "COCO_val2014_{:012d}.jpg")
    assert dropped(parquet(tmp_path / "train.parquet", (6, 7, 8), "{:012d}.jpg"), test) == 1
    (tmp_path / "images").mkdir()
    for number in (7, 8):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / "images" / f"{number:012d}.jpg")
    write(tmp_path, "train.json", ["000000000007.jpg", "000000000008.jpg"])
    raw = {"kind": "coco", "annotations": str(tmp_path / "train.json"), "images": str(tmp_path / "images")}
    assert dropped(raw, test) == 1
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    prepare.main(parser.parse_args([json.dumps(raw), str(tmp_path / "prepared"), "--image-size=8"]))
    prepared = {"kind": "prepared", "path": str(tmp_path / "prepared")}
    assert dropped(prepared, test) == 1
    kept = open_source(prepared)
    assert leaks.evaluation_pictures([kept]) >= {"coco/7", "coco/8"}
