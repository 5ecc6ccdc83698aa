"""Copies of evaluation pictures under other names: the second net, once the doctor or `prepare` has looked at the pictures."""

import argparse
import io
import json
from types import SimpleNamespace

import damage
import leak_cases
import numpy as np
import pytest
from conftest import tiny, train
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from vlax.commands.data import doctor, prepare
from vlax.data.readers import prints
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.evaluation import trained_on
from vlax.training import exclusion
from vlax.training.stages import StagePlan

TESTS, OTHERS = [11, 12, 13], [21, 22, 23, 24, 25]


@pytest.fixture
def held(tmp_path, monkeypatch):
    """A training set with a copy, half the size and compressed, of each evaluation picture, and its specs."""
    monkeypatch.setenv("VLAX_CACHE", str(tmp_path / "cache"))
    for n in (*TESTS, *OTHERS):
        buffer = io.BytesIO()
        damage.picture(n, (96, 80)).resize((48, 40)).save(buffer, "JPEG", quality=70)
        leak_cases.write(tmp_path / "mine", f"images/photo{n}.jpg", buffer.getvalue())
    for n in TESTS:
        leak_cases.write(tmp_path / "theirs", f"images/p{n}.png", damage.encoded(damage.picture(n, (96, 80)), "PNG"))
    specs = []
    for name, numbers, pattern in (("mine", [*OTHERS[:2], *TESTS, *OTHERS[2:]], "photo{}.jpg"), ("theirs", TESTS, "p{}.png")):
        rows = [{"image": f"images/{pattern.format(n)}", "caption": f"number {n}"} for n in numbers for _ in range(2)]
        specs.append(
            {"kind": "table", "path": leak_cases.write(tmp_path / name, "rows.jsonl", "\n".join(map(json.dumps, rows)))}
        )
    return specs


def plan(folder, mine, theirs, **run) -> StagePlan:
    stage = {"name": "stage9", "suites": {}, "validation": {"v": theirs}, "mixture": {"m": mine}, "epoch_of": ""}
    run = {"data_root": "", "exclude": (), "keep_near_duplicates": False, **run}
    return StagePlan(ConfigDict(run), ConfigDict(stage), epath.Path(folder), {})


def opened(folder, mine, theirs, **run):
    """The training source as a stage opens it."""
    exclusion._pictures.cache_clear()
    this = plan(folder, mine, theirs, **run)
    shown = exclusion.evaluation_pictures(this)
    source = open_source(mine, drop_image_ids=exclusion.names(shown))
    exclusion.leave_out(this, {"m": source}, shown)
    return source, exclusion.unseen(this, [source])


def call(command, *words) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    command.main(parser.parse_args([word if isinstance(word, str) else json.dumps(word) for word in words]))


def said(source) -> list[int]:
    return [int(source[i].turns[0].answer.split()[1]) for i in range(len(source))]


def test_the_doctor_looks_once_and_training_leaves_copies_out(held, tmp_path):
    mine, theirs = held
    before, line = opened(tmp_path / "run", mine, theirs)
    assert (before.dropped, len(before)) == (0, 16)
    assert line.endswith("table-rows: python -m vlax data doctor SOURCE --against EVALUATION_SET does")
    call(doctor, mine, "--against", theirs, f"--out={tmp_path / 'doctor'}")
    after, line = opened(tmp_path / "run", mine, theirs)
    assert line == "" and after.dropped_by == {"name": 0, "hash": 6} and after.dropped == 6
    assert said(after) == [n for n in OTHERS for _ in range(2)]
    assert after.fingerprint != before.fingerprint
    by_name = open_source(mine, drop_image_ids={f"images/photo{n}.jpg" for n in TESTS})
    assert by_name.fingerprint == after.fingerprint, "who left the rows out is no part of it"
    kept, _ = opened(tmp_path / "run", mine, theirs, keep_near_duplicates=True)
    assert kept.fingerprint == before.fingerprint


def test_prepared_sets_bring_their_prints(held, tmp_path):
    sets = [{"kind": "prepared", "path": str(tmp_path / name)} for name in ("a", "b")]
    for spec, out, flag in zip(held, sets, ("--train", "--no-train"), strict=True):
        call(prepare, spec, out["path"], "--image-size=24", "--resize=crop", "--codec=raw", flag)
    source, line = opened(tmp_path / "run", *sets)
    assert line == "" and source.dropped_by == {"name": 0, "hash": 6} and said(source) == [n for n in OTHERS for _ in range(2)]
    table = np.load(tmp_path / "a" / "prints.npy")
    assert table.shape == (8, 56) and prints.from_bytes(table).hashes.all()
    mixed, line = opened(tmp_path / "run", held[0], sets[1])
    assert mixed.dropped == 0 and "table-rows:" in line and "prepared-b" not in line


def test_prints_that_are_not_what_was_written_are_named(tmp_path):
    """By whoever reads them first: those of rows' first pictures, or of the others."""
    (tmp_path / "images").mkdir()
    for name, shade in (("a.png", 40), ("b.png", 90)):
        Image.new("RGB", (24, 24), (shade, 0, 0)).save(tmp_path / "images" / name)
    said = [{"from": "human", "value": "<image> and <image>?"}, {"from": "gpt", "value": "both"}]
    (tmp_path / "two.json").write_text(json.dumps([{"id": "7", "image": ["a.png", "b.png"], "conversations": said}]))
    spec = {"kind": "llava", "annotations": str(tmp_path / "two.json"), "images": str(tmp_path / "images")}
    call(prepare, spec, str(tmp_path / "out"), "--image-size=24", "--codec=raw", "--train")
    source = open_source({"kind": "prepared", "path": str(tmp_path / "out")})
    assert len(source.looks().hashes) == len(source.other_looks()[0]) == 1
    file = tmp_path / "out" / prints.NAME
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for read in (source.looks, source.other_looks):
        with pytest.raises(VlaxError, match=r"out/prints\.npy is damaged: its content is not what was written"):
            read()


def test_a_run_goes_on_with_what_it_began_with(held, tmp_path, monkeypatch):
    """Prints that are made, or deleted, after a run's first checkpoint change nothing of it."""
    mine, theirs = held
    monkeypatch.setattr(exclusion.checkpoints, "recorded_order", lambda directory: 2)
    call(doctor, mine, "--against", theirs, f"--out={tmp_path / 'doctor'}")
    assert opened(tmp_path / "old", mine, theirs)[0].dropped == 0
    monkeypatch.setattr(exclusion.checkpoints, "recorded_order", lambda directory: None)
    source, _ = opened(tmp_path / "new", mine, theirs)
    exclusion.record(plan(tmp_path / "new", mine, theirs), [source])
    monkeypatch.setattr(exclusion.checkpoints, "recorded_order", lambda directory: 2)
    (tmp_path / "cache").rename(tmp_path / "gone")
    again, _ = opened(tmp_path / "new", mine, theirs)
    assert again.dropped_by == {"name": 0, "hash": 6} and again.fingerprint == source.fingerprint


def test_pictures_of_one_colour_and_rows_of_text_look_like_none():
    assert prints.look(Image.new("RGB", (9, 9), (200, 0, 0))) == ""
    two = prints.from_bytes(prints.from_hex(["", prints.look(Image.fromarray(leak_cases.pixels(3)))]))
    assert two.hashes[0] == 0 and two.hashes[1] != 0
    assert prints.near(two.of(np.array([-1, 0, 1, 1])), two.of(np.array([1]))).tolist() == [2, 3]
    assert prints.near(two, prints.joined([two.of(np.array([0]))])).tolist() == []


def test_prepare_leaves_pictures_of_evaluation_sets_out(held, tmp_path, capsys):
    mine, theirs = held
    names = tmp_path / "mine" / "rows.jsonl"
    also = {"kind": "table", "path": leak_cases.write(tmp_path / "mine", "val.jsonl", names.read_text().split("\n")[0])}
    call(prepare, mine, str(tmp_path / "a"), "--image-size=24", "--against", json.dumps(theirs), json.dumps(also))
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["dropped"] == {"name": 2, "hash": 0}
    assert "is compared by name alone" in capsys.readouterr().out
    call(doctor, mine, "--against", theirs, json.dumps(also), f"--out={tmp_path / 'doctor'}")
    call(prepare, mine, str(tmp_path / "b"), "--image-size=24", "--against", json.dumps(theirs), json.dumps(also))
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["dropped"] == {"name": 2, "hash": 6}
    prepared = open_source({"kind": "prepared", "path": str(tmp_path / "b")})
    assert said(prepared) == [n for n in OTHERS[1:] for _ in range(2)]


@pytest.mark.parametrize("looked", (False, True))
def test_scores_on_what_was_trained_on_are_said_to_be_so(held, tmp_path, caplog, looked):
    """By name a picture of the training set's own, by what they show copies of three; a set of other pictures is no matter."""
    mine, theirs = held
    copy = {"kind": "table", "path": leak_cases.write(tmp_path / "mine", "test.jsonl", json.dumps(
        {"image": "images/photo21.jpg", "caption": "number 21"}))}  # fmt: skip
    if looked:
        call(doctor, mine, "--against", theirs, copy, f"--out={tmp_path / 'doctor'}")
    this = plan(tmp_path / "run" / "stage9", mine, {"kind": "scenes"})
    source = open_source(mine)
    this.export.mkdir(parents=True)
    manifest = {"format": 1, "data": {"sources": {source.name: source.fingerprint}, "order": 2}}
    leak_cases.write(tmp_path / "run" / "stage9" / "export", "manifest.json", manifest)

    def found(spec):
        test = open_source(spec, train=False)
        suite = SimpleNamespace(name="custom", suite=None, source=test, rows=[test[i] for i in range(len(test))])
        return trained_on.find([this], [suite])

    facts = {"stage": "stage9", "source": "table-rows", "rows": 1, "name": 1, "hash": 0, "same": True}
    assert found(copy) == {"custom": [facts]}
    assert "WARNING: custom has pictures that the model was trained on: 1 rows in table-rows of stage9" in caplog.text
    near = {"custom": [{**facts, "rows": 3, "name": 0, "hash": 3}]}
    assert found(theirs) == (near if looked else {})


def test_a_stage_says_how_many_rows_each_net_dropped(held, tmp_path):
    mine, theirs = held
    call(doctor, mine, "--against", theirs, f"--out={tmp_path / 'doctor'}")
    config = tiny("stage0", stage__steps=2, stage__batch_size=4, stage__eval_every=0)
    with config.unlocked():
        config.stage.mixture, config.stage.epoch_of = ConfigDict({"m": {**mine, "weight": 1.0}}), ""
        config.stage.validation, config.stage.suites = ConfigDict({"v": theirs}), ConfigDict({})
    exclusion._pictures.cache_clear()
    printed = train(config, tmp_path / "run")
    assert "all with pictures, 6 dropped as evaluation pictures (6 by what they show)" in printed and "leaks  " not in printed
    (export,) = (tmp_path / "run").glob("*/export/manifest.json")
    manifest = json.loads(export.read_text())
    assert manifest["data"]["dropped"] == {"table-rows": {"name": 0, "hash": 6}}
    record = json.loads((export.parent.parent / "near_duplicates.json").read_text())
    assert record == {"m": [4, 5, 6, 7, 8, 9]}
