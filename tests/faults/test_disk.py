"""Disks that are full, read-only or not ours: a line with the folder and the free space, whoever raised it; and what is no more
than a picture of a run never ends it."""

import argparse
import errno
import io
import json
import os
import re
import shutil
import subprocess

import pytest
from conftest import tiny, train
from PIL import Image

from vlax import errors
from vlax.commands import front, setup
from vlax.commands.data import prepare
from vlax.errors import VlaxError
from vlax.evaluation import evaluate, samples
from vlax.evaluation.options import Options
from vlax.storage import disk, jsonl
from vlax.training import board, chain, metrics, plots
from vlax.training.listeners import Shown


def mounted(folder, *options: str) -> None:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")


@pytest.fixture
def small(tmp_path):
    """A disk of so many bytes: small("300k") -> its folder."""
    folder = tmp_path / "disk"

    def make(size: str):
        mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")
        return folder

    yield make
    subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


def line_of(caught, folder) -> str:
    """The one line, which is about a place below the folder."""
    text = str(caught.value)
    assert text.startswith(f"{folder}/") or text.startswith(f"{folder}:"), text
    assert "\n" not in text and "orbax-checkpoint-tmp" not in text.partition(", at ")[0]
    return text


@pytest.mark.parametrize("size", ("40k", "300k", "600k"))
def test_training_on_a_full_disk(small, size):
    """The first file that doesn't fit is one of Python's, of tensorstore's or of the export."""
    folder = small(size)
    with pytest.raises(VlaxError) as caught:
        train(tiny("stage0", run__tensorboard=True), folder / "w")
    text = line_of(caught, folder / "w" / "stage0_vision")
    assert re.search(r"the disk is full \(0\.\d of 0\.\d MB are free", text) and "make room there" in text
    assert not (folder / "w" / "stage0_vision" / "export" / "manifest.json").exists()


def test_training_goes_on_when_there_is_room_again(small):
    folder = small("300k")
    with pytest.raises(VlaxError, match="the disk is full"):
        train(tiny("stage0"), folder / "w")
    subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=True)
    assert "export" in train(tiny("stage0"), folder / "w")
    assert (folder / "w" / "stage0_vision" / "export" / "manifest.json").exists()


def test_evaluation_on_a_full_disk_and_a_read_only_one(trained, small):
    config, workdir = trained
    folder = small("20m")
    keep = shutil.ignore_patterns("checkpoints", "eval*", "stage0*", "hf")
    shutil.copytree(workdir, folder / "w", ignore=keep)
    filler = folder / "filler"
    options = Options(twin=False, report_samples=0)
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(VlaxError, match="the disk is full") as caught, disk.explained():
        evaluate.run(config, folder / "w", options)
    line_of(caught, folder / "w" / "stage4" / "eval")
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with pytest.raises(VlaxError, match="the disk is read-only") as caught, disk.explained():
        evaluate.run(config, folder / "w", options)
    line_of(caught, folder / "w" / "stage4")
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


def test_preparing_on_a_full_disk(small, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(6):
        Image.effect_noise((64, 64), 90).save(tmp_path / "images" / f"{number}.png")
    said = [{"image_id": n, "caption": f"noise {n}"} for n in range(6)]
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(6)]
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, "annotations": said}))
    folder = small("100k")
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    line = [
        str(tmp_path / "captions.json"),
        str(folder / "out"),
        f"--images={tmp_path / 'images'}",
        "--image-size=64",
        "--codec=raw",
    ]
    with pytest.raises(VlaxError, match="the disk is full") as caught, disk.explained():
        prepare.main(parser.parse_args(line))
    line_of(caught, folder)


def full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("code", sorted(disk.REFUSED))
@pytest.mark.parametrize("form", ("plain", "cause", "context", "group", "c++"))
def test_a_refusal_is_found_in_every_form(tmp_path, code, form):
    file = str(tmp_path / "8.orbax-checkpoint-tmp" / "d" / "ab")
    refused = OSError(code, os.strerror(code), file)
    try:
        if form == "cause":
            raise RuntimeError("save failed") from refused
        if form == "context":
            try:
                raise refused
            except OSError:
                raise KeyError("in the cleaning up") from None
        if form == "group":
            raise ExceptionGroup("threads", [ValueError("x"), refused])
        raise ValueError(f'RESOURCE_EXHAUSTED: writing: "{file}": {os.strerror(code)} [os=]') if form == "c++" else refused
    except Exception as error:
        text = disk.refusal(error)
    assert text.startswith(f"{tmp_path}: {disk.REFUSED[code]} (") and " MB are free" in text and ", at ab; " in text


def test_a_file_that_the_error_does_not_name_is_the_one_that_was_open(tmp_path):
    """/dev/full refuses every byte, and Python's error of a write has no name."""
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(VlaxError, match=f"{tmp_path}: the disk is full .*, at metrics.jsonl"), disk.explained():
        from etils import epath

        jsonl.append(epath.Path(tmp_path / "metrics.jsonl"), [{"a": 1}])


@pytest.mark.parametrize(
    "error",
    (ValueError("no space"), OSError(errno.ECONNREFUSED, "refused"), PermissionError(errno.EPERM, "kill"), KeyError(28)),
)
def test_other_exceptions_pass(error):
    with pytest.raises(type(error)) as caught, disk.explained():
        raise error
    assert caught.value is error


def test_the_front_says_it_in_a_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(front.importlib, "import_module", full)
    assert front.main(["train"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("vlax: error: ") and "the disk is full" in err and err.count("\n") == 1


def test_the_stacks_of_orbaxs_threads_are_not_shown_and_warnings_are():
    import logging

    def record(path, level=logging.ERROR, trouble=True):
        info = (OSError, OSError("x"), None) if trouble else None
        return logging.LogRecord("absl", level, path, 1, "Failed to run 4 Handler Commit operations", (), info)

    path = "/lib/orbax/checkpoint/_src/futures/future.py"
    assert not setup._worth_reading(record(path))
    assert setup._worth_reading(record(path, logging.WARNING, trouble=False)) and setup._worth_reading(
        record("/lib/grain/x.py")
    )


def test_tensorboard_on_a_full_disk_is_one_warning(tmp_path, monkeypatch, caplog):
    from etils import epath

    writer = metrics.Writer(epath.Path(tmp_path), 0, tensorboard=True)
    writer.write(1, "train", {"loss": 1.0})
    monkeypatch.setattr(board.EventsWriter, "write_event", full)
    for step in range(2, 40):  # more than tensorboardX's queue held
        writer.write(step, "train", {"loss": 1.0, "name": "text"})
    writer.close()
    assert len(metrics.read(epath.Path(tmp_path))) == 39
    assert len([r for r in caplog.records if "TensorBoard's event file was not made (OSError" in r.getMessage()]) == 1


def test_tensorboard_reads_what_is_written(tmp_path):
    from etils import epath
    from tensorboardX.proto.event_pb2 import Event

    writer = metrics.Writer(epath.Path(tmp_path), 4, tensorboard=True)
    writer.write(5, "train", {"loss": 1.5, "name": "text"})
    red, words = Image.new("RGB", (6, 4), "red"), ("is it | red?", "yes", ("yes", "yes", "red"))
    writer.write(6, "validation", {"q accuracy": 1.0}, [Shown("q", "7", red, *words), Shown("q", "8", None, *words)])
    writer.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, events = file.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    assert events[0].file_version == "brain.Event:2" and events[1].step == 5 and events[1].session_log.status == 1
    assert [(e.step, e.summary.value[0].tag, e.summary.value[0].simple_value) for e in events[2:3]] == [(5, "train/loss", 1.5)]
    tags = {e.summary.value[0].tag: e.summary.value[0] for e in events[3:]}
    assert list(tags) == ["validation/q_accuracy", "samples/q/0", "samples/q/text_summary"]
    picture = Image.open(io.BytesIO(tags["samples/q/0"].image.encoded_image_string))
    assert picture.size == (6, 4) and picture.convert("RGB").getpixel((0, 0)) == (255, 0, 0)
    table = tags["samples/q/text_summary"].tensor.string_val[0].decode()
    assert table.endswith("| 7 | is it / red? | yes | yes; red |\n| 8 | is it / red? | yes | yes; red |\n")


@pytest.mark.parametrize("error", (RuntimeError("no font"), OSError(errno.ENOSPC, "full"), VlaxError("a damaged reference")))
def test_a_curve_that_cannot_be_drawn_is_a_warning(trained, tmp_path, monkeypatch, caplog, error):
    def broken(*_):
        raise error

    monkeypatch.setattr(plots, "draw", broken)
    with errors.spared("curves.png"):
        plots.draw()
    assert "curves.png was not made" in caplog.text


def test_training_and_evaluation_end_without_their_pictures(trained, tmp_path, monkeypatch, caplog):
    def broken(*_args, **_kwargs):
        raise RuntimeError("no font")

    monkeypatch.setattr(chain, "draw", broken)  # tests draw none else
    for name in ("sheet", "report"):
        monkeypatch.setattr(samples, name, broken)
    config, workdir = trained
    train(tiny("stage0"), tmp_path)
    assert (tmp_path / "stage0_vision" / "export" / "manifest.json").exists()
    assert evaluate.run(config, workdir, Options(twin=False, report_samples=2, limit=2))
    for name in ("curves.png", "samples.png", "report.html"):
        assert f"{name} was not made (RuntimeError: no font)" in caplog.text
