"""Pictures that a score is computed on are found in training sources, whatever release or list names them."""

import json

import pytest

from vlax.data import leaks
from vlax.data.sources import open_source


@pytest.mark.parametrize(
    ("name", "key"),
    (
        ("COCO_val2014_000000391895.jpg", "coco/391895"),
        ("coco/train2017/000000391895.jpg", "coco/391895"),
        ("val2014/COCO_train2014_000000000042.jpg", "coco/42"),
        ("flickr30k/images/1000092795.jpg", "1000092795"),
        ("1000268201_693b08cb0e.jpg", ""),  # Flickr8k's own names carry a second number: its path tells
        ("open/0A1b2c3d4e5f6789.JPG", "0a1b2c3d4e5f6789"),
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
