"""The storage room: state files that are whole or the old ones, JSON lines on disks and in buckets, paths."""

import json
import os
import pathlib
import re

import pytest
from conftest import tiny
from etils import epath
from test_containers import bucket  # noqa: F401  (a fixture)

from vlax.errors import VlaxError
from vlax.storage import jsonl, paths, state
from vlax.training import metrics, plots, stages

STEPS = range(1, 7)


@pytest.fixture(params=("disk", "bucket"))
def folder(request, tmp_path):
    path = epath.Path(tmp_path if request.param == "disk" else request.getfixturevalue("bucket")) / "stage"
    path.mkdir(parents=True, exist_ok=True)
    return path


def log(directory, resumed_at: int, steps) -> None:
    """One process that logs these steps, and validates every third."""
    jsonl._chunks.clear()  # a process of its own
    writer = metrics.Writer(directory, resumed_at, tensorboard=False)
    for step in steps:
        writer.write(step, "train", {"loss": 1 / step, "run": resumed_at})
        if step % 3 == 0:
            writer.write(step, "validation", {"loss/held out": 2 / step})
    writer.close()


def seen(directory) -> list[tuple[int, str, int]]:
    return [(line["step"], line["kind"], line.get("run", -1)) for line in metrics.read(directory)]


def test_a_resumed_run_has_each_step_once(folder):
    log(folder, 0, STEPS)
    log(folder, 3, range(4, 9))  # it died after step 6, and goes on from the checkpoint of step 3
    want = [(1, "train", 0), (2, "train", 0), (3, "train", 0), (3, "validation", -1), (4, "train", 3), (5, "train", 3),
            (6, "train", 3), (6, "validation", -1), (7, "train", 3), (8, "train", 3)]  # fmt: skip
    assert seen(folder) == want
    log(folder, 8, ())  # nothing is left to do, and nothing is lost
    assert seen(folder) == want
    log(folder, 0, (1,))  # from scratch
    assert seen(folder) == [(1, "train", 0)]


def test_a_folder_that_moved_from_a_bucket_to_a_disk_goes_on(bucket, tmp_path):  # noqa: F811
    log(epath.Path(bucket) / "stage", 0, STEPS)
    (tmp_path / "stage").mkdir()
    for file in (epath.Path(bucket) / "stage").iterdir():
        file.copy(tmp_path / "stage" / file.name)
    log(epath.Path(tmp_path) / "stage", 4, (5, 6))
    assert [step for step, kind, _ in seen(epath.Path(tmp_path) / "stage") if kind == "train"] == list(STEPS)


@pytest.mark.parametrize("tail", (b'{"step": 7, "ki', b'{"step": 7, "ki\n', b'"a text"\n', b'{"kind": "train"}\n'))
def test_a_damaged_end_costs_its_line_alone(tail, tmp_path):
    """Of a finished stage too, whose curves are drawn with those of the others."""
    config = tiny("stage0")
    [plan] = stages.chain(config, tmp_path)[-1:]
    log(plan.directory, 0, STEPS)
    whole, file = plots.curves(config, tmp_path), plan.directory / "metrics.jsonl"
    before = file.read_bytes()
    file.write_bytes(before + tail)
    assert plots.curves(config, tmp_path) == whole and whole["training loss"][plan.name][-1] == [6, 0.1667]
    log(plan.directory, 6, ())
    assert file.read_bytes() == before


def test_mending_cuts_the_torn_tail_alone(tmp_path):
    path = epath.Path(tmp_path) / "predictions.jsonl"
    jsonl.mend(path)  # not there yet
    jsonl.append(path, [{"a": 1}])
    damaged = path.read_bytes() + b"not JSON, but a whole line\n"
    path.write_bytes(damaged + b'{"a"')
    assert [entry for _, entry in jsonl.read(path)] == [{"a": 1}, None]
    jsonl.mend(path)
    assert path.read_bytes() == damaged
    jsonl.append(path, [{"a": 2}])
    assert [where for where, _ in jsonl.read(path)] == [f"{path}:{line}" for line in (1, 2, 3)]


def test_a_bucket_gets_one_numbered_file_a_call(bucket):  # noqa: F811
    path = epath.Path(bucket) / "stage" / "metrics.jsonl"
    (path.parent / "metrics-old.jsonl").write_text("somebody's own\n")
    jsonl.append(path, [{"a": 1}, {"a": 2}])
    jsonl.append(path, [{"a": 3}])
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "metrics-000000.jsonl", "metrics-000001.jsonl", "metrics-old.jsonl",
    ]  # fmt: skip
    jsonl.prune(path, lambda entry: entry["a"] == 2)
    assert [entry for _, entry in jsonl.read(path)] == [{"a": 2}]
    assert (path.parent / "metrics-old.jsonl").read_text() == "somebody's own\n"


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch):
    file, done = tmp_path / "manifest.json", []
    state.write_json(file, {"old": 1})

    def killed(source, target):
        assert json.loads(pathlib.Path(source).read_text()) == {"new": 2} and os.path.dirname(source) == str(tmp_path)
        raise KeyboardInterrupt

    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: done.append(sync(file)))
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        state.write_json(file, {"new": 2})
    assert done  # before the rename, or a power cut might leave an empty file
    assert state.read(file, "") == {"old": 1}
    monkeypatch.undo()
    state.write_json(file, {"new": 2})
    assert state.read(file, "") == {"new": 2} and [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_two_processes_that_write_one_file_at_once_both_succeed(tmp_path):
    file = tmp_path / "config.json"
    with state.replacing(file) as one, state.replacing(file) as other:  # as every host of a run does when a stage begins
        one.write_text("{}")
        other.write_text('{"whole": 1}')
    assert state.read(file, "") == {} and [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_state_is_laid_out_as_asked(folder):
    state.write_json(folder / "a.json", {"b": "é", "a": [1]}, end="\n", indent=1, sort_keys=True, ensure_ascii=False)
    assert (folder / "a.json").read_bytes() == '{\n "a": [\n  1\n ],\n "b": "é"\n}\n'.encode()
    assert [path.name for path in folder.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("content", "kind", "text"),
    ((b"", dict, "is empty"), (b" \n", dict, "is empty"), (b'{"a', dict, r"is not JSON \(Unterminated .*\)"),
     (b"\xff\xfe{", dict, r"is not JSON \(.*\)"), (b"[1]", dict, "is not a JSON object"), (b"{}", list, "is not a JSON list"),
     (None, dict, r"cannot be read \(.*\)")),
)  # fmt: skip
def test_a_state_file_that_cannot_be_read(folder, content, kind, text):
    if content is not None:
        (folder / "state.json").write_bytes(content)
    with pytest.raises(VlaxError, match=f"^{re.escape(str(folder))}/state.json {text}; go on$"):
        state.read(folder / "state.json", "go on", kind)


def test_an_empty_config_of_a_stage_says_the_way_out(tmp_path):
    plan = stages.chain(tiny("stage0"), tmp_path)[-1]
    stages.record_identity(plan)
    (plan.directory / "checkpoints" / "1").mkdir(parents=True)
    stages.check_identity(plan)
    (plan.directory / "config.json").write_bytes(b"")
    with pytest.raises(VlaxError, match=r"config\.json is empty; delete it if the stage was started with this very config"):
        stages.check_identity(plan)
    (plan.directory / "config.json").unlink()
    stages.check_identity(plan)


def test_paths(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert [str(paths.absolute(path)) for path in ("a/../b", "/a", "gs://b/a")] == [f"{tmp_path}/b", "/a", "gs://b/a"]
    assert str(paths.absolute("~/a")) == os.path.expanduser("~/a")
    assert [str(paths.join("/data", path)) for path in ("a", "/a", "gs://b/a")] == ["/data/a", "/a", "gs://b/a"]
    assert [paths.rooted(path) for path in ("a/b", "", "/a", "gs://b/a")] == [False, False, True, True]


def test_a_folder_is_read_in_place_or_as_a_copy(folder):
    (folder / "a.txt").write_text("a")
    with paths.local_folder(folder) as local:
        assert (pathlib.Path(local) / "a.txt").read_text() == "a"
        assert (local == str(folder)) == (not paths.remote(folder))
    assert os.path.exists(local) == (not paths.remote(folder))
    assert paths.sha256(folder / "a.txt") == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
