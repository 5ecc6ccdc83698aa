"""Evaluation pictures stay out of training whatever container holds them, and nothing else does."""

import argparse
import json

import leak_cases
import numpy as np
import pytest
from leak_cases import WRITERS

from vlax.commands.data import prepare
from vlax.data.readers import leaks, numbers
from vlax.data.sources import open_source

TESTS = [391895, 522418, 184613, 318219]  # of Karpathy's test split of COCO, as the fixture has it
OTHERS = [60623, 554625, 397133, 37777, 252219, 87038, 579902]


@pytest.fixture(scope="module")
def coco_test(tmp_path_factory):
    spec = leak_cases.karpathy(tmp_path_factory.mktemp("karpathy"), TESTS, OTHERS)
    return leaks.evaluation_pictures([open_source(spec, train=False)])


def shown(source) -> list[int]:
    """The numbers of the pictures that its rows show, by their pixels."""
    known = {number: leak_cases.pixels(number).astype(int) for number in [*TESTS, *OTHERS]}
    found = []
    for index in range(len(source)):
        image = np.asarray(source[index].picture.open().convert("RGB").resize((32, 24))).astype(int)
        found.append(min(known, key=lambda number: np.abs(known[number] - image).mean()))
    return found


def prepared(spec, out):
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    prepare.main(parser.parse_args([json.dumps(spec), str(out), "--image-size=24", "--codec=png"]))
    return {"kind": "prepared", "path": str(out)}


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_every_test_picture_is_dropped_and_no_other(tmp_path, coco_test, writer):
    order = [*OTHERS[:3], *TESTS, *OTHERS[3:]]
    (tmp_path / "rows").mkdir()
    spec = writer(tmp_path / "rows", order)
    whole = open_source(spec)
    a_picture = len(whole) // len(order)
    assert sorted(shown(whole)) == sorted([*order] * a_picture)
    left = open_source(spec, drop_image_ids=coco_test)
    assert sorted(shown(left)) == sorted([*OTHERS] * a_picture)
    assert left.dropped == len(TESTS) * a_picture
    again = open_source(prepared(spec, tmp_path / "prepared"), drop_image_ids=coco_test)
    assert shown(again) == shown(left) and again.dropped == left.dropped


@pytest.mark.parametrize("short", (False, True))
def test_flickrs_test_stays_out_of_a_table_with_file_names(tmp_path, short):
    """Flickr's older numbers are short: in a table most of whose files are Flickr's they count, its own count does not."""
    photos = [1000092795 + 7919 * n for n in range(90)] + ([36979 + 977 * n for n in range(9)] if short else [])
    tests, others = photos[::3], [n for n in photos if n not in photos[::3]]
    held_out = open_source(leak_cases.karpathy(tmp_path, tests, others, "flickr30k"), train=False)
    drop = leaks.evaluation_pictures([held_out])
    spec = leak_cases.flickr30k(tmp_path, photos)
    left = open_source(spec, drop_image_ids=drop)
    assert left.dropped == 5 * len(tests) and len(left) == 5 * len(others)
    assert not any(f"/{n}" in key for n in range(100) for key in drop if key.startswith("coco/"))


def test_numbers_of_ones_own_are_not_cocos(tmp_path, coco_test):
    """A count from 0, a part of a count, numbers beyond COCO's, a few small ones: COCO's test has some of each by chance."""
    coco = [*range(40, 90, 3), 391895, *np.random.default_rng(0).choice(581_929, 5000, replace=False).tolist()]
    drop = leaks.evaluation_pictures([open_source(leak_cases.karpathy(tmp_path, coco), train=False)])
    for name, own in (
        ("count", range(200)), ("part", range(800, 1000)), ("few", [42, 43]), ("thinned", range(0, 9000, 9)),
        ("beyond", [*range(0, 2_400_000, 12_000), 391895]),
    ):  # fmt: skip
        (tmp_path / name).mkdir()
        rows = [{"image": f"{n}.jpg", "image_id": int(n), "text": "a dog"} for n in own]
        path = leak_cases.write(tmp_path / name, "rows.jsonl", "\n".join(map(json.dumps, rows)))
        assert open_source({"path": path, "kind": "table"}, drop_image_ids=drop).dropped == 0, name


def test_a_number_counts_within_the_namespace_that_a_file_declares(tmp_path):
    def vqa(name, data_type):
        asked = [{"question_id": n + 1, "image_id": n, "question": "red?"} for n in (3, 17)]
        said = [{"question_id": n + 1, "image_id": n, "answers": [{"answer": "no"}]} for n in (3, 17)]
        listed = [{"id": n, "file_name": f"{name}{n}.jpg"} for n in (3, 17)]
        paths = [
            leak_cases.write(tmp_path, f"{name}_q.json", {"images": listed, "questions": asked, "data_type": data_type}),
            leak_cases.write(tmp_path, f"{name}_a.json", {"annotations": said, "data_type": data_type}),
        ]
        return {"kind": "vqa", "questions": paths[0], "annotations": paths[1], "images": str(tmp_path / name)}

    def dropped(train, test) -> int:
        drop = leaks.evaluation_pictures([open_source(test, train=False)])
        source = open_source({**train, "limit": None}, drop_image_ids=drop - {f"{tmp_path}/none"})
        return source.dropped

    assert dropped(vqa("a", "daquar"), vqa("b", "easy_vqa")) == 0
    assert dropped(vqa("a", "mscoco"), vqa("b", "easy_vqa")) == 0
    more = vqa("a", "easy_vqa")
    content = json.loads((tmp_path / "a_q.json").read_text())
    content["images"].append({"id": 5, "file_name": "a5.jpg"})
    content["questions"].append({"question_id": 9, "image_id": 5, "question": "red?"})
    said = json.loads((tmp_path / "a_a.json").read_text())
    said["annotations"].append({"question_id": 9, "image_id": 5, "answers": [{"answer": "no"}]})
    (tmp_path / "a_q.json").write_text(json.dumps(content))
    (tmp_path / "a_a.json").write_text(json.dumps(said))
    assert dropped(more, vqa("b", "easy_vqa")) == 2  # pictures 3 and 17 of the one set


def test_chance():
    """Poisson's tail by hand: 1 - exp(-2) (1 + 2) for two or more where two are expected."""
    assert numbers.tail(3, 2.0) == pytest.approx(1 - np.exp(-2) * (1 + 2 + 2), rel=1e-12)
    assert numbers.tail(4, 0.034) == pytest.approx(5.42e-8, rel=1e-2)
    assert numbers.tail(2, 2.0) == numbers.tail(0, 0.0) == 1.0


def test_like_named_pictures_of_two_prepared_sets_are_two_pictures(tmp_path):
    """Names within a prepared set are relative to where its pictures lay."""
    specs = []
    for name, numbers_ in (("mine", OTHERS), ("theirs", TESTS), ("mine_too", OTHERS)):
        folder = tmp_path / name.removesuffix("_too")
        leak_cases.files(folder, {n: f"images/p{at}.jpg" for at, n in enumerate(numbers_)})
        rows = [{"image": f"images/p{at}.jpg", "text": "a dog"} for at in range(len(numbers_))]
        path = leak_cases.write(folder, f"{name}.jsonl", "\n".join(map(json.dumps, rows[:2] if name == "mine_too" else rows)))
        specs.append(prepared({"path": path}, tmp_path / f"prepared_{name}"))
    mine, theirs, too = specs

    def dropped(train, test) -> int:
        return open_source(train, drop_image_ids=leaks.evaluation_pictures([open_source(test)])).dropped

    assert dropped(mine, theirs) == 0 and dropped(mine, too) == 2


def test_what_makes_a_source_cocos_by_itself():
    def survey(picked, marked=False):
        found = numbers.Survey()
        for number in picked:
            found.add(leaks.keys("", [str(number)], "", "", str(number * 1000 + 7) if marked else "q"))
        return found

    assert survey([7, 8, 9, 10], marked=True).is_coco and not survey([7, 8, 9, 10]).is_coco
    assert not survey(range(1, 200), marked=True).is_coco, "a count is the source's own, however its questions are numbered"
    through = np.random.default_rng(1).choice(581_929, 500, replace=False) + 1
    assert survey(through).is_coco and not survey([*through, 581_930]).is_coco and not survey(through // 2).is_coco
    assert not survey([0]).is_coco and not survey([]).is_coco


def test_one_test_picture_among_many_numbers_of_coco(tmp_path):
    """One is no more than chance has: the numbers reach through COCO's range, and VQA's questions are made of small ones."""
    through = [int(n) + 1 for n in np.random.default_rng(1).choice(581_929, 300, replace=False)]
    for name, picked, test in (("bare", through, through[5]), ("asked", [7, 8, 9, 10], 9)):
        (tmp_path / name).mkdir()
        rows = [{"image": f"p{at}.jpg", "image_id": n, "question": "what?", "answer": "a dog", "question_id": n * 1000 + 4}
                for at, n in enumerate(picked)]  # fmt: skip
        if name == "bare":
            rows = [{"image": row["image"], "image_id": row["image_id"], "text": "a dog"} for row in rows]
        path = leak_cases.write(tmp_path / name, "rows.jsonl", "\n".join(map(json.dumps, rows)))
        held_out = leak_cases.karpathy(tmp_path / name, [test, 391895], OTHERS)
        drop = leaks.evaluation_pictures([open_source(held_out, train=False)])
        assert open_source({"path": path, "kind": "table"}, drop_image_ids=drop).dropped == 1, name
