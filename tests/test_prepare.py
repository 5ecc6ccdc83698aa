"""`prepare` and what reads it back: the same rows and pixels, the same bytes again, damage that is named."""

import argparse
import dataclasses
import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from format_cases import reader
from PIL import Image, JpegImagePlugin

from vlax.commands.data import prepare
from vlax.commands.data.picture_shards import Encoding
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.pipeline import Collator, ImageCache
from vlax.data.batches.quarantine import Quarantine, read_quarantine
from vlax.data.embedded.scenes import SceneSource
from vlax.data.readers import prepared_rows, row_cache, shards, stored
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.rows import Row, Turn
from vlax.storage import state
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder

REPO = Path(__file__).resolve().parents[1]
SIZE = 16
SQUARE = Preprocess(SIZE)
PICTURES = 12


def noise(number, size=(30, 20)):
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8))


@pytest.fixture
def coco(tmp_path):
    """Two captions a picture; picture 3 has the pixels of picture 1."""
    folder = tmp_path / "coco"
    (folder / "images").mkdir(parents=True)
    for n in range(PICTURES):
        noise(1 if n == 3 else n).save(folder / "images" / f"{n}.png")
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(PICTURES)]
    captions = [{"image_id": n, "caption": f"a dog and a cat {k}"} for n in range(PICTURES) for k in range(2)]
    (folder / "c.json").write_text(json.dumps({"images": images, "annotations": captions}))
    return folder


def source(folder, train=True, **given):
    spec = {"kind": "coco", "annotations": "c.json", "images": "images"}
    return open_source(spec, str(folder), train=train, **given)


def make(folder, out, codec="raw", preprocess=SQUARE, train=True, **given):
    """Five pictures a shard."""
    how = Encoding(preprocess, codec, 95)
    given = {"workers": 3, "progress": False, **given}
    return prepare.prepare(given.pop("source", None) or source(folder, train), out, how, train=train, **given)


PER_SHARD = Encoding.per_shard


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(Encoding, "per_shard", lambda self, megabytes: 5)


prepared = reader("prepared")


def digests(out):
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.rglob("*")) if p.is_file()}


def plain(row):
    return dataclasses.replace(row, picture=None)


def test_rows_come_back(coco, tmp_path):
    manifest = make(coco, tmp_path / "out")
    read, given = prepared("out", base=str(tmp_path)), source(coco)
    assert len(read) == len(given) == 2 * PICTURES and read.name == "prepared-out"
    for index in range(len(given)):
        row = pickle.loads(pickle.dumps(read[index]))
        assert plain(row) == plain(given[index])
        np.testing.assert_array_equal(row.picture.pixels(SQUARE), SQUARE.apply(given[index].picture.open()))
        np.testing.assert_array_equal(row.picture.open(), SQUARE.apply(given[index].picture.open()))
    assert read[0].image_name == f"{tmp_path}/out/images-00000-of-00003.array_record: record 0 (0.png)"
    assert read[6].image_name == read[2].image_name and read[6].image_id == "3"  # the same pixels are stored once
    assert manifest["counts"] == {
        "rows": 24, "rows_text_only": 0, "rows_quarantined": 0, "rows_undecodable": 0, "pictures": 11, "pictures_named": 12,
        "pictures_undecodable": 0,
    }  # fmt: skip
    assert [(entry["file"], entry["records"]) for entry in manifest["shards"]] == [
        ("rows-00000-of-00001.arrow", 24),
        ("images-00000-of-00003.array_record", 4),
        ("images-00001-of-00003.array_record", 5),
        ("images-00002-of-00003.array_record", 2),
    ]
    written = digests(tmp_path / "out")
    sealed = json.loads((tmp_path / "out/seal.json").read_text())["files"]
    assert {name: entry["sha256"] for name, entry in sealed.items()} == {n: d for n, d in written.items() if n != "seal.json"}
    files = [*manifest["shards"], *manifest["files"]]
    assert {e["file"]: e["sha256"] for e in files} == {
        n: d for n, d in written.items() if n not in ("manifest.json", "seal.json")
    }
    np.testing.assert_array_equal(
        np.load(tmp_path / "out" / "index.npy")[[0, 3, 4, 5, 11]], [[0, 0], [0, 1], [0, 3], [1, 0], [2, 1]]
    )


def first_format(out):
    """Turns a set into what `prepare` wrote before rows were columns: one JSON object a row, in ArrayRecord."""

    def line(row, picture, name):
        turns = [[t.question, t.answer, *([t.task] if t.task else [])] for t in row.turns]
        values = {"id": row.id, "image_id": row.image_id, "task": row.task, "turns": turns, "references": row.references,
                  "answer_type": row.answer_type, "name": name, "picture": picture}  # fmt: skip
        return state.as_json({key: value for key, value in values.items() if value not in ("", (), -1)}, ensure_ascii=False)

    manifest = json.loads((out / "manifest.json").read_text())
    files = [entry["file"] for entry in manifest["shards"] if entry["file"].startswith("rows")]
    table = prepared_rows.opened(out, manifest, files)[0]
    lines = [line(prepared_rows.row(item, ""), item.place.at, item.file_name) for item in table]
    for file in (*out.glob("rows*"), out / "seal.json"):
        file.unlink()
    facts = shards.write(out / "rows-00000-of-00001.array_record", lines, "group_size:64,zstd:3")
    manifest["shards"] = [facts, *(entry for entry in manifest["shards"] if entry["file"][:4] != "rows")]
    del manifest["captions"]
    (out / "manifest.json").write_text(json.dumps(manifest | {"format": "vlax prepared 1"}))


@pytest.mark.parametrize("large", (False, True))
def test_sets_of_the_first_format_have_the_same_rows(coco, tmp_path, monkeypatch, large):
    monkeypatch.setattr(row_cache, "RECENT", 0.0)
    monkeypatch.setattr(row_cache, "SMALL", 0 if large else 1 << 40)
    monkeypatch.setenv("VLAX_CACHE", str(tmp_path / "cache"))
    make(coco, tmp_path / "out")
    now = prepared(str(tmp_path / "out"))
    rows, names = [plain(row) for row in now], [row.image_name for row in now]
    first_format(tmp_path / "out")
    for _ in range(2):
        read = prepared(str(tmp_path / "out"))
        assert [plain(row) for row in read] == rows and [row.image_name for row in read] == names
        np.testing.assert_array_equal(read[6].picture.pixels(SQUARE), now[6].picture.pixels(SQUARE))
        fewer = prepared(str(tmp_path / "out"), drop_image_ids={"4.png", "7"})
        assert fewer.dropped == 4 and [row.image_id for row in fewer] == [
            row.image_id for row in rows if row.image_id not in ("4", "7")
        ]
        with pytest.raises(VlaxError, match=r"out was not prepared to evaluate on.*prepare the source with --no-train"):
            prepared(str(tmp_path / "out"), train=False)
        monkeypatch.setattr(shards.Reader, "records", lambda self: pytest.fail("rows are read again") if large else [])
        if not large:
            break


def test_turns_that_say_their_own_task_come_back(coco, tmp_path):
    turns = {
        "a": (Turn("", "a dog", "caption"), Turn("why?", "so")),
        "b": (Turn("", ""), Turn("q", "a")),
        "c": (Turn("x", ""),),
    }
    for name, given in turns.items():
        row = Row(name, "p", "chat", given, None, ("r",), "other")
        assert prepared_rows.row(prepared_rows.item(row, 3, "n"), "") == row


def test_rows_of_another_number_than_the_manifest_says_are_refused(coco, tmp_path):
    make(coco, tmp_path / "out")
    (tmp_path / "out" / "seal.json").unlink()
    table = np.load(tmp_path / "out" / "rows.npy")
    for changed in (table[:0], table[1:], table + 1, table.astype(np.int32), table[:, :4]):
        np.save(tmp_path / "out" / "rows.npy", changed)
        with pytest.raises(VlaxError, match=r"rows\.npy does not say where 24 rows are; copy or prepare the set again"):
            prepared(str(tmp_path / "out"))


def test_damaged_rows_are_named_when_they_are_asked_for(coco, tmp_path):
    make(coco, tmp_path / "out")
    file = tmp_path / "out" / "rows-00000-of-00001.arrow"
    content = bytearray(file.read_bytes())
    content[content.index(b"a dog and")] ^= 1
    file.write_bytes(content)
    with pytest.raises(VlaxError, match=r"rows-00000-of-00001\.arrow cannot be read \(it is damaged .*copy or prepare the set"):
        prepared(str(tmp_path / "out"))[0]


def test_pictures_in_a_shard():
    how = Encoding(Preprocess(224), "raw", 95)
    assert PER_SHARD(how, 256) == 256 * 2**20 // (224 * 224 * 3) == 1783
    assert PER_SHARD(Encoding(Preprocess(20000), "raw", 95), 1) == 1


def test_pixels_are_the_same_in_another_shard(coco, tmp_path):
    noise(1).save(coco / "images" / "11.png")
    make(coco, tmp_path / "out")
    read = prepared(str(tmp_path / "out"))
    np.testing.assert_array_equal(read[22].picture.open(), read[2].picture.open())
    assert "images-00000-of-00003.array_record: record 1 (1.png)" in read[22].image_name


def test_every_kind_of_row_comes_back(tmp_path):
    noise(1).save(tmp_path / "a.png")
    turns = [{"from": f, "value": v} for f, v in (("human", "<image>\nwhat?"), ("gpt", "é"), ("human", "why?"), ("gpt", "so"))]
    chats = [{"id": "x", "image": "a.png", "conversations": turns}, {"id": "y", "conversations": turns[2:]}]
    (tmp_path / "chat.json").write_text(json.dumps(chats))
    given = open_source({"kind": "llava", "annotations": "chat.json", "images": ""}, str(tmp_path))
    make(None, tmp_path / "chat", source=given)
    read = prepared(str(tmp_path / "chat"))
    assert [plain(row) for row in (read[0], read[1])] == [plain(row) for row in (given[0], given[1])]
    assert read[1].picture is None and read[0].picture.open().size == (SIZE, SIZE)
    scenes = SceneSource("val", "questions", size=6)
    make(None, tmp_path / "scenes", source=scenes, train=None)
    read = prepared(str(tmp_path / "scenes"), train=False)
    assert [plain(read[i]) for i in range(len(read))] == [plain(scenes[i]) for i in range(len(scenes))]


@pytest.mark.parametrize("codec", ("raw", "png", "jpeg"))
def test_same_input_same_bytes(coco, tmp_path, codec):
    make(coco, tmp_path / "a", codec, workers=1)
    make(coco, tmp_path / "b", codec, workers=4)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    before = digests(tmp_path / "a")
    make(coco, tmp_path / "a", codec)  # finished already: nothing is written
    assert digests(tmp_path / "a") == before


def test_interrupted_and_resumed(coco, tmp_path, monkeypatch):
    make(coco, tmp_path / "whole", "jpeg")
    encode, made = stored.encode, []

    def failing(image, codec, quality):
        made.append(1)
        if len(made) == 8:
            raise KeyboardInterrupt
        return encode(image, codec, quality)

    monkeypatch.setattr(stored, "encode", failing)
    with pytest.raises(KeyboardInterrupt):
        make(coco, tmp_path / "out", "jpeg", workers=1)
    assert not (tmp_path / "out" / "manifest.json").exists()
    with pytest.raises(VlaxError, match=r"out is no prepared set .*; it was begun: give the same prepare command again"):
        prepared(str(tmp_path / "out"))
    made.clear()
    monkeypatch.setattr(stored, "encode", lambda *args: made.append(1) or encode(*args))
    make(coco, tmp_path / "out", "jpeg")
    assert len(made) == PICTURES - 5  # the first shard was whole
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_damaged_shard_of_an_interrupted_run_is_made_again(coco, tmp_path, monkeypatch):
    make(coco, tmp_path / "whole")
    write = prepare.row_shards.write
    monkeypatch.setattr(prepare.row_shards, "write", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make(coco, tmp_path / "out")
    first = tmp_path / "out" / "images-00000-of-00003.array_record"
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(prepare.row_shards, "write", write)
    make(coco, tmp_path / "out")
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_another_preparation_is_not_mixed_in(coco, tmp_path):
    make(coco, tmp_path / "out", "png")
    with pytest.raises(VlaxError, match=r'out was prepared otherwise \(codec \{"name": "png"\}, now \{"name": "raw"\}\)'):
        make(coco, tmp_path / "out", "raw")
    with pytest.raises(VlaxError, match="coco holds other files and nothing prepared"):
        make(coco, coco)


@pytest.fixture(scope="module")
def encoder():
    return Encoder(train_bpe(["caption: a dog and a cat 0 1"] * 4, 300), "plain")


CROP = Preprocess(SIZE, "crop", SIZE + 4)


@pytest.mark.parametrize("codec", ("raw", "png"))
@pytest.mark.parametrize("preprocess", (SQUARE, CROP, Preprocess(SIZE, "pad", SIZE), Preprocess(SIZE, "crop", SIZE, 2)))
def test_training_sees_the_same_pixels(coco, tmp_path, encoder, codec, preprocess):
    make(coco, tmp_path / "out", codec, preprocess)
    batches = []
    for data in (source(coco), prepared(str(tmp_path / "out"))):
        collate = Collator(Mixture([data], [1.0], 3), encoder, 24, preprocess, ImageCache(1 << 20))
        batches.append(collate(np.arange(2 * PICTURES)[:, None], 24))
    assert batches[0].keys() == batches[1].keys() and batches[0]["has_image"].all()
    for key in batches[0]:
        np.testing.assert_array_equal(batches[0][key], batches[1][key], err_msg=key)


def test_another_tower_is_refused(coco, tmp_path, encoder):
    make(coco, tmp_path / "out", preprocess=CROP)
    read = prepared(str(tmp_path / "out"))
    text = r'out was prepared as .*"mode": "crop".*"edge": 20.*, the vision tower takes .*"mode": "squash".*; prepare it again'
    with pytest.raises(VlaxError, match=text):
        Collator(Mixture([read], [1.0], 3), encoder, 24, SQUARE, ImageCache(0))
    with pytest.raises(VlaxError, match=text):
        ImageCache(0).get(read[0].picture, read[0].image_id, SQUARE)
    Collator(Mixture([read], [1.0], 3), encoder, 24, None, ImageCache(0))  # a text-only model takes any
    other_mean = dataclasses.replace(CROP, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))
    pixels = ImageCache(0).get(read[0].picture, read[0].image_id, other_mean)
    assert pixels.shape == (1, SIZE, SIZE, 3)  # the device's part makes no difference
    padded = Preprocess(SIZE, "pad", SIZE)
    assert stored.settings(padded) != stored.settings(dataclasses.replace(padded, mean=(0.1, 0.2, 0.3)))


def test_jpeg_says_how_far_off_it_is(coco, tmp_path):
    manifest = make(coco, tmp_path / "out", "jpeg")
    want = SQUARE.apply(source(coco)[0].picture.open()).astype(int)
    apart = np.abs(np.asarray(prepared(str(tmp_path / "out"))[0].picture.open()).astype(int) - want)
    expected = {"mean_abs": round(float(apart.mean()), 4), "largest": int(apart.max()), "of": 255, "values": SIZE * SIZE * 3}
    assert manifest["difference"] == expected and expected["mean_abs"] > 0  # of picture 0, the only 16th
    assert manifest["codec"] == {"name": "jpeg", "quality": 95, "subsampling": "4:4:4"}
    jpeg = Image.open(io.BytesIO(shards.Reader(str(tmp_path / "out" / "images-00000-of-00003.array_record")).record(0)))
    assert JpegImagePlugin.get_sampling(jpeg) == 0  # 4:4:4
    assert make(coco, tmp_path / "png", "png")["difference"]["largest"] == 0


def test_damaged_pictures_are_dropped_and_named(coco, tmp_path):
    (coco / "images" / "5.png").write_bytes(b"not a picture")
    (coco / "images" / "11.png").unlink()
    with pytest.raises(VlaxError) as caught:
        make(coco, tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(
        "2 of 24 rows are about pictures that cannot be opened, and the drop budget allows 1 (--drop-budget"
    )
    assert "row 5#0: 5.png: the picture does not decode" in message and "give the same command again" in message
    assert (tmp_path / "out" / "dropped.jsonl").read_text().count("\n") == 2
    with pytest.raises(VlaxError, match=r"4 of 24 rows .* allows 3 .*row 11#0: 11\.png: the picture is missing"):
        make(coco, tmp_path / "out", drop_budget=0.1)
    manifest = make(coco, tmp_path / "out", drop_budget=0.2)
    make(coco, tmp_path / "straight", drop_budget=0.2)
    assert digests(tmp_path / "out") == digests(tmp_path / "straight")
    assert (manifest["counts"]["rows"], manifest["counts"]["rows_undecodable"]) == (20, 4)
    read = prepared(str(tmp_path / "out"))
    assert [read[i].id for i in (9, 10)] == ["4#1", "6#0"]
    np.testing.assert_array_equal(read[10].picture.open(), SQUARE.apply(source(coco)[12].picture.open()))
    listed = read_quarantine(str(tmp_path / "out" / "dropped.jsonl"))  # a list as the doctor's
    assert listed.covers("coco-c", "5#1").startswith("5.png: the picture does not decode") and len(listed) == 4


def test_quarantine_is_honoured(coco, tmp_path):
    (coco / "images" / "5.png").write_bytes(b"not a picture")
    quarantine = Quarantine(
        [("coco-c", "5#0", "bad"), ("coco-c", "5#1", "bad"), ("coco-c", "7#1", "odd"), ("other", "0#0", "x")]
    )
    manifest = make(coco, tmp_path / "out", quarantine=quarantine, drop_budget=0.0)
    assert manifest["counts"]["rows_quarantined"] == 3 and manifest["counts"]["pictures_named"] == 11
    ids = [prepared(str(tmp_path / "out"))[i].id for i in range(21)]
    assert ids == [f"{n}#{k}" for n in range(PICTURES) for k in range(2) if n != 5 and (n, k) != (7, 1)]
    with pytest.raises(VlaxError, match="the list has no row of coco-c"):
        make(coco, tmp_path / "other", quarantine=Quarantine([("other", "0#0", "x")]))


def test_leak_filter_limit_task_and_fingerprint(coco, tmp_path):
    make(coco, tmp_path / "out")
    out = str(tmp_path / "out")
    dropped = prepared(out, drop_image_ids={0, "2"}, limit=3)
    assert [dropped[i].id for i in range(len(dropped))] == ["1#0", "1#1", "3#0"] and dropped.dropped == 4
    assert prepared(out, task="describe")[0].task == "describe"
    prints = {prepared(out).fingerprint, dropped.fingerprint, prepared(out, task="describe").fingerprint}
    assert len(prints) == 3
    (tmp_path / "out").rename(tmp_path / "moved")
    assert prepared(str(tmp_path / "moved")).fingerprint in prints
    with pytest.raises(VlaxError, match=r"moved was not prepared to evaluate on.*prepare the source with --no-train"):
        prepared(str(tmp_path / "moved"), train=False)
    make(coco, tmp_path / "val", train=False)
    assert prepared(str(tmp_path / "val"), train=False)[1].references == ("a dog and a cat 0", "a dog and a cat 1")
    with pytest.raises(VlaxError, match=r"no rows are left"):
        prepared(str(tmp_path / "moved"), drop_image_ids=range(PICTURES))
    with pytest.raises(VlaxError, match="has no images, columns or split"):
        prepared(str(tmp_path / "moved"), split="train")


def test_incomplete_copies_are_refused(coco, tmp_path):
    make(coco, tmp_path / "out")
    read, file = prepared(str(tmp_path / "out")), tmp_path / "out" / "images-00001-of-00003.array_record"
    whole = bytearray(file.read_bytes())
    whole[2000:2400] = bytes(400)
    file.write_bytes(whole)
    with pytest.raises(
        VlaxError, match=r"row \d+#0: .*images-00001-of-00003\.array_record is damaged: .*prepare the set again"
    ):
        for index in range(0, 2 * PICTURES, 2):
            read[index].picture.open()
    (tmp_path / "out" / "seal.json").unlink()  # from here on a set as earlier versions wrote it
    read = prepared(str(tmp_path / "out"))
    with pytest.raises(
        VlaxError, match=r"row \d+#0: .*images-00001-of-00003\.array_record: record \d cannot be read \(Corrupted"
    ):
        for index in range(0, 2 * PICTURES, 2):
            read[index].picture.open()
    file.write_bytes(whole[:-1])
    with pytest.raises(VlaxError, match=r"images-00001-of-00003\.array_record is missing or not of \d+ bytes"):
        prepared(str(tmp_path / "out"))
    (tmp_path / "out" / "manifest.json").write_text('{"format": "vlax prepared 0"}')
    with pytest.raises(VlaxError, match=r"is of the format 'vlax prepared 0', not .* 'vlax prepared 2'; prepare the set again"):
        prepared(str(tmp_path / "out"))


def run(*flags):
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    prepare.main(parser.parse_args([str(flag) for flag in flags]))


def test_command_line(coco, tmp_path, capsys):
    spec = json.dumps({"kind": "coco", "annotations": "c.json", "images": "images"})
    flags = ("--data-root", coco, "--image-size", SIZE, "--workers", 2)
    run(spec, tmp_path / "a", *flags, "--codec", "png", "--licence", "CC BY 4.0", "--limit", 6)
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["licence"] == "CC BY 4.0" and manifest["source"]["spec"]["kind"] == "coco"
    assert manifest["counts"]["rows"] == 6 and manifest["train"] is True
    assert '"pictures": 3' in capsys.readouterr().out
    run(coco / "c.json", tmp_path / "b", "--images", coco / "images", *flags, "--no-train", "--resize", "crop", "--edge", "20")
    read = prepared(str(tmp_path / "b"), train=False)
    assert len(read) == PICTURES and read.manifest["preprocess"] == stored.settings(CROP)
    assert 'quality 95: stored pixels are off by {"mean_abs"' in capsys.readouterr().out
    with pytest.raises(VlaxError, match="--image-size=16 --edge=8: a size is at least 1, and an edge at least the size"):
        run(spec, tmp_path / "c", *flags, "--resize", "crop", "--edge", "8")
    with pytest.raises(VlaxError, match=r"--drop-budget=1\.0 --shard-mb=256 --quality=95"):
        run(spec, tmp_path / "c", *flags, "--drop-budget", "1")
    with pytest.raises(VlaxError, match="is not JSON"):
        run("{oops", tmp_path / "c")


def test_a_checkpoint_says_how_pictures_are_resized(coco, tmp_path):
    (tmp_path / "tower").mkdir()
    config = {"model_type": "siglip_vision_model", "image_size": 32, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 1,
              "num_attention_heads": 1, "intermediate_size": 8}  # fmt: skip
    (tmp_path / "tower" / "config.json").write_text(json.dumps(config))
    how = {"do_resize": True, "size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32, "resample": 2}
    (tmp_path / "tower" / "preprocessor_config.json").write_text(json.dumps(how))
    flags = (coco / "c.json", tmp_path / "out", "--images", coco / "images")
    run(*flags, "--vision", tmp_path / "tower", "--image-size", SIZE)
    expected = {"size": SIZE, "mode": "crop", "filter": "bilinear", "edge": 20}
    assert prepared(str(tmp_path / "out")).manifest["preprocess"] == expected
    with pytest.raises(VlaxError, match=r"--resize: .*tower says how its pictures are resized; leave --resize or --vision out"):
        run(*flags, "--vision", tmp_path / "tower", "--resize", "crop")
    with pytest.raises(VlaxError, match="--edge=20: --resize=squash has no edge"):
        run(*flags, "--edge", "20")


def test_prepared_photographs_equal_the_raw_ones(tmp_path):
    folder = REPO.parent / "shared" / "data" / "flickr8k_dev"
    if not folder.exists():
        pytest.skip("development data flickr8k_dev is not here")
    photographs = open_source(
        {"kind": "coco", "annotations": "annotations/captions_val.json", "images": "images", "limit": 60}, str(folder)
    )
    make(None, tmp_path / "out", source=photographs)
    read = prepared(str(tmp_path / "out"))
    for index in range(0, 60, 5):
        np.testing.assert_array_equal(read[index].picture.pixels(SQUARE), SQUARE.apply(photographs[index].picture.open()))
