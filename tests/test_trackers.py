"""Trackers in their local modes: what was logged is read back. Where a package is absent its test skips."""

import importlib.util
import json
import logging
import time

import pytest
from conftest import tiny
from etils import epath
from PIL import Image

from vlax.errors import VlaxError
from vlax.training import stages
from vlax.training.listeners import Progress, Shown
from vlax.training.trackers import tracker

RED = Image.new("RGB", (6, 4), "red")
SHOWN = [Shown("q", "7", RED, "is it red?", "yes", ("yes", "yes", "red")), Shown("q", "8", None, "and now?", "no", ("no",))]


def plan_of(tmp_path, *names):
    """Stage 1 of a chain, which takes both towers from stages before it."""
    return stages.chain(tiny("stage1", run__trackers=names), epath.Path(tmp_path) / "mine")[-1]


def trained(plan, pause=0.0):
    """What the loop and eval.py tell: two updates, a validation, a resumption that does the second one again, a report. pause:
    seconds between them, where a tracker's folders are called after the second in which they were made."""
    rate = {"learning_rate/projector": 1e-3, "memory_gib/host": 1.5}
    with tracker.following(plan) as heard:
        for step in (1, 2):
            for one in heard:
                one(Progress("stage1", "train", step, 3, {"loss": 4.0 / step, **rate}))
    time.sleep(pause)
    with tracker.following(plan) as heard:
        for one in heard:
            one(Progress("stage1", "train", 2, 3, {"loss": 2.0, **rate}))
            one(Progress("stage1", "validation", 2, 3, {"loss": 1.25, "loss/captions": 1.25, "q accuracy": 0.5}, SHOWN))
    report = plan.directory / "eval" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("<p>the report</p>")
    time.sleep(pause)
    tracker.attach(plan, [report], {"q accuracy[yes/no]": 0.75})


def test_a_tracker_that_is_not_there_is_an_error_at_once(monkeypatch):
    with pytest.raises(VlaxError, match=r"'wandbb', and there are tensorboard, wandb, .*did you mean 'wandb'"):
        tracker.check(["wandbb"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(VlaxError, match=r"not installed: pip install 'vlax\[mlflow\]'"):
        tracker.check(["tensorboard", "mlflow"])
    tracker.check(["tensorboard"])


def test_a_tracker_that_fails_is_one_warning(tmp_path, monkeypatch, caplog):
    """The others hear of all of it, and the run's own error is the one that is raised."""
    heard = []

    class Broken:
        def begin(self, about):
            heard.append(about)

        def record(self, progress):
            raise ConnectionError("no route to host\nmore")

        def end(self, whole):
            heard.append("closed")

    class Sound(Broken):
        def record(self, progress):
            heard.append(progress.step)

        def end(self, whole):
            heard.append(whole)

    monkeypatch.setattr(tracker, "_make", lambda name: {"wandb": Broken, "mlflow": Sound}[name]())
    plan = plan_of(tmp_path, "wandb", "tensorboard", "mlflow")
    with pytest.raises(ZeroDivisionError), caplog.at_level(logging.WARNING), tracker.following(plan) as listeners:
        for step in (1, 2):
            for one in listeners:
                one(Progress("stage1", "train", step, 3, {"loss": 1.0}))
        raise ZeroDivisionError
    assert heard[2:] == [1, 2, "closed", False]
    assert [record.getMessage() for record in caplog.records] == [
        "WARNING: wandb failed (ConnectionError: no route to host); the run goes on without it"
    ]
    about = heard[0]
    assert (about.name, about.group, about.config["stage"]["name"]) == ("mine/stage1", "mine", "stage1")
    first = stages.chain(tiny("stage1"), epath.Path(tmp_path) / "mine")[0]
    assert about.parents["decoder"] == {"stage": "stage0_decoder", "id": tracker.of(first).id}
    assert about.id != about.parents["vision"]["id"] and about.id == tracker.of(plan).id


def offline_records(data):
    """The records of a .wandb file: 7 bytes, then LevelDB's log, blocks of 32 kB with parts that begin [crc, size, kind]."""
    assert data[:4] == b":W&B"
    at, parts = 7, b""
    while at + 7 <= len(data):
        room = 32768 - at % 32768
        if room < 7:
            at += room
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    from vlax.training.trackers.wandb import has_key

    assert not has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert has_key()
    (tmp_path / "netrc").unlink()
    plan = plan_of(tmp_path, "wandb")
    trained(plan, pause=1.0)
    values, runs, files, summary = [], [], set(), {}
    for path in sorted((tmp_path / "mine" / "stage1" / "wandb").glob("offline-run-*/*.wandb")):
        for record in map(Record.FromString, offline_records(path.read_bytes())):
            if record.HasField("history"):
                values.append(
                    {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                )
            elif record.HasField("run"):
                runs.append(record.run)
            elif record.HasField("artifact"):
                files.update(entry.path for entry in record.artifact.manifest.contents)
            elif record.HasField("summary"):
                summary |= {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
                }
    assert {(run.run_id, run.display_name, run.run_group, run.project) for run in runs} == {
        (tracker.of(plan).id, "mine/stage1", "mine", "vlax")
    }
    assert [(v["update"], v["train/loss"], v["train/learning_rate/projector"]) for v in values if "train/loss" in v] == [
        (1, 4.0, 1e-3), (2, 2.0, 1e-3), (2, 2.0, 1e-3),
    ]  # fmt: skip
    [validation] = [v for v in values if "validation/loss" in v]
    assert validation["validation/q accuracy"] == 0.5 and validation["samples/q/_type"] == "table-file"
    assert validation["samples/q/nrows"] == 2 and "report.html" in files
    assert summary["eval/q accuracy[yes/no]"] == 0.75


def test_mlflow_in_a_folder(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    plan = plan_of(tmp_path, "mlflow")
    trained(plan)
    client = mlflow.MlflowClient(tracking_uri=f"file://{tmp_path}/mine/mlruns")
    experiment = client.get_experiment_by_name("vlax")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.tags["mlflow.runName"] == "mine/stage1"
    assert json.loads(run.data.tags["vlax.parents"])["vision"]["stage"] == "stage0_vision"
    assert run.data.params["stage.name"] == "stage1" and run.data.params["run.seed"] == "0"
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(1, 4.0), (2, 2.0), (2, 2.0)]
    assert run.data.metrics["train/learning_rate.projector"] == 1e-3 and run.data.metrics["train/memory_gib.host"] == 1.5
    assert run.data.metrics["validation/q accuracy"] == 0.5 and run.data.metrics["eval/q accuracy_yes.no_"] == 0.75
    assert run.data.metrics["validation/loss"] == run.data.metrics["validation/loss.captions"] == 1.25
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"config.json", "report.html", "samples"} <= files
    picture = Image.open(client.download_artifacts(run.info.run_id, "samples/q/2-0.png"))
    assert picture.size == (6, 4) and picture.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    rows = json.loads(epath.Path(client.download_artifacts(run.info.run_id, "samples/q/2.json")).read_text())["samples"]
    assert [(row["row"], row["model"]) for row in rows] == [("7", "yes"), ("8", "no")]


def test_trackio_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio")
    monkeypatch.delenv("TRACKIO_SPACE_ID", raising=False)
    plan = plan_of(tmp_path, "trackio")
    trained(plan)
    from trackio.sqlite_storage import SQLiteStorage

    name = f"mine/stage1 {tracker.of(plan).id[:8]}"
    [run] = trackio.Api().runs("vlax")
    assert run.name == name and run.config["parents"]["vision"]["stage"] == "stage0_vision"
    logs = SQLiteStorage.get_logs("vlax", name)
    assert [(log["step"], log["train/loss"]) for log in logs if "train/loss" in log] == [(1, 4.0), (2, 2.0), (2, 2.0)]
    [validation] = [log for log in logs if "validation/loss" in log]
    assert validation["validation/q accuracy"] == 0.5 and validation["samples/q/1"] == "and now? no (no)"
    picture = Image.open(next((tmp_path / "trackio").rglob(validation["samples/q/0"]["file_path"].rpartition("/")[2])))
    assert picture.size == (6, 4) and validation["samples/q/0"]["caption"] == "is it red? yes (yes; red)"
    assert [log["eval/q accuracy[yes/no]"] for log in logs if "eval/q accuracy[yes/no]" in log] == [0.75]
    assert b"<p>the report</p>" in {path.read_bytes() for path in (tmp_path / "trackio").rglob("*") if path.is_file()}
