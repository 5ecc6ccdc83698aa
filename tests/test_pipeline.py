"""The batch contract, the global row plan and its independence of hosts."""

import collections
import dataclasses
import functools
import re

import numpy as np
import pytest
from PIL import Image

from vlax.data.batches.mixture import Mixture
from vlax.data.batches.pipeline import Collator, HostBatches, ImageCache, iterate
from vlax.data.batches.row_plan import Plan
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.images.anyres import AnyRes
from vlax.rows import Picture, Row, Turn
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder

PIXELS, LENGTH, BATCH = 8, 10, 8
SQUARE = Preprocess(PIXELS)
opened: collections.Counter = collections.Counter()


def picture(number: int) -> Image.Image:
    opened[number] += 1
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (11, 13, 3)).astype(np.uint8))


class Words:
    """A source of numbered rows; row 2 is text only, row 4 has a long answer."""

    def __init__(self, name, rows, fingerprint="f", folder="p"):
        self.name, self.rows, self.fingerprint, self.folder = name, rows, fingerprint, folder

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        answer = "a dog and a cat and a dog" if index == 4 else "a cat"
        image = None if index == 2 else Picture(f"{self.folder}/{index}", functools.partial(picture, index))
        return Row(f"r{index}", "" if index == 2 else str(index), "caption", (Turn("", answer),), image)


@pytest.fixture(scope="module")
def encoder():
    return Encoder(train_bpe(["caption: a dog and a cat"] * 4, 300), "plain")


@pytest.fixture
def make(encoder):
    """make(weights={"a": 1, "b": 1}, ..., hosts=, host=) -> HostBatches"""

    def build(sizes=(10, 7), weights=(1.0, 0.5), seed=0, shuffle=True, steps=12, overlong="drop", capacity=1 << 20, **host):
        mixture = Mixture([Words(f"s{i}", size) for i, size in enumerate(sizes)], weights[: len(sizes)], seed, shuffle)
        collate = Collator(mixture, encoder, LENGTH, SQUARE, ImageCache(capacity), overlong)
        return HostBatches(collate, Plan(mixture, BATCH, LENGTH), steps, **host)

    return build


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_contract(make, encoder):
    batches = make()
    batch = batches[0]
    assert {key: (value.shape, str(value.dtype)) for key, value in batch.items()} == {
        "image": ((BATCH, 1, PIXELS, PIXELS, 3), "uint8"),
        "has_image": ((BATCH, 1), "bool"),
        "tokens": ((BATCH, LENGTH), "int32"),
        "segment": ((BATCH, LENGTH), "int32"),
        "example": ((BATCH, LENGTH), "int32"),
        "owner": ((BATCH, 1), "int32"),
        "before": ((BATCH, 1), "int32"),
        "row": ((BATCH, 1), "int64"),
    }
    mixture = batches.collate.mixture
    for i, row_id in enumerate(mixture.ids(0, BATCH)):
        row = mixture.row(row_id)
        tokens, segments = encoder.encode(row)
        if len(tokens) > LENGTH:  # overlong: filler
            assert batch["row"][i] == -1 and not batch["segment"][i].any()
            continue
        pad = [0] * (LENGTH - len(tokens))
        assert batch["row"][i] == row_id
        assert batch["tokens"][i].tolist() == tokens + pad and batch["segment"][i].tolist() == segments + pad
        assert batch["example"][i].tolist() == [1] * len(tokens) + pad
        assert batch["has_image"][i] == (row.picture is not None)
        want = SQUARE.apply(row.picture.open()) if row.picture else np.zeros((PIXELS, PIXELS, 3))
        np.testing.assert_array_equal(batch["image"][i, 0], want)


@pytest.mark.parametrize("hosts", (2, 4))
def test_a_batch_is_the_same_on_any_number_of_hosts(make, hosts):
    one, parts = make(), [make(host=h, hosts=hosts) for h in range(hosts)]
    for step in (0, 3, 11, 3):  # in any order, again and again
        slices = [part[step] for part in parts]
        assert_equal(one[step], {key: np.concatenate([s[key] for s in slices]) for key in slices[0]})
        assert_equal(one[step], make()[step])
    assert parts[0].collate.mixture.plan_hash == one.collate.mixture.plan_hash


def test_the_seed_changes_the_order(make):
    one, other = make().collate.mixture, make(seed=1).collate.mixture
    assert (one.epoch(0) != other.epoch(0)).any() and (one.epoch(0) != one.epoch(1)).any()


def test_an_epoch_is_one_pass_over_the_first_source_and_weights_give_the_rest(make):
    mixture = make(sizes=(10, 7), weights=(1.0, 0.5)).collate.mixture
    assert mixture.epoch_size == 15
    second: collections.Counter = collections.Counter()
    for number in range(7):
        ids = mixture.ids(number * 15, number * 15 + 15)
        assert sorted(i for i in ids if i < 10) == list(range(10))
        assert sum(i >= 10 for i in ids) == 5
        second.update(int(i) - 10 for i in ids if i >= 10)
    assert second == dict.fromkeys(range(7), 5)  # 35 rows: five whole passes over the second source


def test_ids_do_not_depend_on_how_they_are_cut(make):
    mixture = make().collate.mixture
    whole = mixture.ids(0, 50)
    np.testing.assert_array_equal(np.concatenate([mixture.ids(b, min(b + 9, 50)) for b in range(0, 50, 9)]), whole)


def test_plan_hash(encoder):
    def plan(weights=(1.0, 0.5), seed=0, rows=7, fingerprint="f", shuffle=True):
        return Mixture([Words("a", 10), Words("b", rows, fingerprint)], weights, seed, shuffle).plan_hash

    others = (plan((1.0, 0.6)), plan(seed=1), plan(rows=8), plan(fingerprint="g"), plan(shuffle=False))
    assert len({plan(), *others}) == 6 and plan() == plan()


def test_unshuffled_rows_come_in_file_order_and_end_in_filler(make):
    batches = make(sizes=(11,), shuffle=False, steps=2)
    rows = np.concatenate([batches[0]["row"], batches[1]["row"]])[:, 0]
    assert rows.tolist() == [0, 1, 2, 3, -1, 5, 6, 7, 8, 9, 10, -1, -1, -1, -1, -1]  # row 4 is too long
    filler = {key: value[3:] for key, value in batches[1].items()}
    assert not filler["segment"].any() and not filler["example"].any() and not filler["has_image"].any()
    assert not filler["image"].any()


def test_dropped_rows_are_counted_and_named_once(make):
    batches = make(sizes=(10,))
    for step in range(5):  # four epochs
        batches[step]
    left_out = batches.collate.left_out
    assert left_out.counts == {"dropped": 1}
    assert re.fullmatch(rf"s0:r4 \(\d+ tokens, limit {LENGTH}\)", left_out.named["dropped"][0])


def test_cut_loses_the_answers_end_and_never_the_image(make, encoder):
    batches = make(sizes=(10,), shuffle=False, overlong="cut")
    batch = batches[0]
    assert batches.collate.left_out.counts == {"cut": 1}
    tokens, segments = encoder.encode(Words("s0", 10)[4])
    assert len(tokens) > LENGTH and batch["row"][4] == 4 and batch["has_image"][4]
    assert batch["tokens"][4].tolist() == tokens[:LENGTH] and batch["segment"][4].tolist() == segments[:LENGTH]
    np.testing.assert_array_equal(batch["image"][4, 0], SQUARE.apply(picture(4)))


def test_errors_by_name(make, encoder):
    with pytest.raises(VlaxError, match=r"stage.overlong='dorp' is not one of drop, cut"):
        make(overlong="dorp")
    with pytest.raises(VlaxError, match="data source s1 has no rows"):
        make(sizes=(3, 0))
    with pytest.raises(VlaxError, match="data source s1 has weight 0"):
        make(weights=(1.0, 0))
    with pytest.raises(VlaxError, match="8 rows does not divide over 3 hosts"):
        make(hosts=3)
    assert make().collate.mixture.name(11) == "s1:r1" and make().collate.mixture.name(-1) == "filler"


def test_the_image_cache_is_bounded():
    source, size = Words("s", 10), PIXELS * PIXELS * 3
    cache = ImageCache(3 * size + 1)
    opened.clear()
    for _ in range(2):
        for index in (0, 1, 3, 5, 6):
            np.testing.assert_array_equal(
                cache.get(source[index].picture, source[index].image_id, SQUARE)[0], SQUARE.apply(picture(index))
            )
    assert cache.size == 3 * size
    # each reference above opens once more: cached pictures are opened 1 + 2 times, the others 2 + 2
    assert opened == {0: 3, 1: 3, 3: 3, 5: 4, 6: 4}


def test_a_picture_is_kept_once_whether_it_stands_alone_or_not(encoder):
    """But where one that stands alone is shown in parts, all in one slot."""

    class Twice(Words):
        def __getitem__(self, index):
            row = super().__getitem__(0)
            return dataclasses.replace(row, others=super().__getitem__(1).pictures) if index else row

    def kept(preprocess, tiles):
        cache, mixture = ImageCache(1 << 20), Mixture([Twice("s", 2)], [1.0], 0, False)
        collate = Collator(mixture, encoder, LENGTH, preprocess, cache, images=2, tiles=tiles)
        batch = collate(np.array([[0], [1]]), LENGTH)
        assert batch["has_image"].sum(1).tolist() == [1, 2]
        return len(cache._images), batch["image"].shape

    assert kept(SQUARE, 0) == (2, (2, 2, PIXELS, PIXELS, 3))
    parts = dataclasses.replace(SQUARE, anyres=AnyRes(((1, 1), (1, 2)), 1))
    assert kept(parts, 2) == (3, (2, 2, 3 * PIXELS + 1, PIXELS, 3))


def test_the_image_cache_tells_sources_of_one_name_apart():
    """captions.json of a train folder and of a validation folder: one name, the same image ids, other pictures."""
    train, val = Words("coco-captions", 10, folder="train"), Words("coco-captions", 10, folder="val")
    cache = ImageCache(1 << 20)
    cache.get(train[0].picture, train[0].image_id, SQUARE)
    other = dataclasses.replace(val[0], picture=Picture(val[0].image_name, functools.partial(picture, 99)))
    np.testing.assert_array_equal(cache.get(other.picture, other.image_id, SQUARE)[0], SQUARE.apply(picture(99)))


@pytest.mark.parametrize("hosts", (1, 2))
def test_micro_batches_are_consecutive_rows(make, hosts):
    whole = make()[1]
    parts = [make(micro_batches=2, host=h, hosts=hosts)[1] for h in range(hosts)]
    assert parts[0]["tokens"].shape == (2, BATCH // 2 // hosts, LENGTH)
    stacked = {key: np.concatenate([p[key] for p in parts], axis=1) for key in whole}  # hosts share every micro-batch
    assert_equal(whole, {key: value.reshape(BATCH, *value.shape[2:]) for key, value in stacked.items()})


def test_iterate_from_the_middle_equals_the_tail(make):
    batches = make(steps=6)
    tail = list(iterate(batches, start=4, threads=2, prefetch=3))
    assert len(tail) == 2
    for step, batch in enumerate(tail, 4):
        assert_equal(batch, batches[step])
    assert list(iterate(batches, start=6)) == []


def test_errors_of_rows_come_through_grains_threads(encoder):
    class Broken(Words):
        def __getitem__(self, index):
            raise VlaxError("row r0: pictures/0: the picture does not decode")

    collate = Collator(Mixture([Broken("s", 4)], [1.0], 0), encoder, LENGTH, SQUARE, ImageCache(0))
    with pytest.raises(VlaxError, match="row r0: pictures/0"):
        next(iterate(HostBatches(collate, Plan(collate.mixture, 2, LENGTH), 2)))


@pytest.mark.parametrize("mode", ("RGB", "L", "RGBA", "P"))
def test_resize_is_pillows_bicubic_of_rgb(mode):
    image = picture(5).convert(mode)
    want = np.asarray(image.convert("RGB").resize((PIXELS, PIXELS), Image.Resampling.BICUBIC))
    got = SQUARE.apply(image)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, want)


def test_augmentation_follows_the_position(make):
    """The same pictures for any number of hosts and any micro-batch, and others in the next epoch."""
    collate = dataclasses.replace(make().collate, augment=("shift",))
    plan, half = (Plan(collate.mixture, rows, LENGTH) for rows in (BATCH, BATCH // 2))
    whole = HostBatches(collate, plan, 12)[3]["image"]
    parts = [HostBatches(collate, plan, 12, host, 2)[3]["image"] for host in range(2)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    micro = [HostBatches(collate, half, 24)[6 + i]["image"] for i in range(2)]
    np.testing.assert_array_equal(whole, np.concatenate(micro))
    plain = HostBatches(dataclasses.replace(collate, augment=()), plan, 12)[3]["image"]
    assert (whole != plain).any()
