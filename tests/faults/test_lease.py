"""One writer a folder: the second is refused by name, and what a kill left never blocks."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import REPO, tiny, train
from test_containers import bucket  # noqa: F401  (a fixture: gs:// in memory)

from vlax.errors import VlaxError
from vlax.process import lease

HOLDER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from vlax.process import lease
with lease.hold(sys.argv[2]):
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that writes into the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(REPO), str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "holds\n"
    yield process
    process.kill()
    process.wait()


def left(folder, **changes):
    """A lease that another machine wrote a minute ago."""
    content = {"id": "a", "host": "elsewhere", "pid": 7, "command": "train.py", "since": "today", "renewed": time.time() - 60}
    (folder / lease.NAME).write_text(json.dumps(content | changes))


def test_the_second_is_refused_by_the_name_of_the_first_until_a_kill(holder, tmp_path):
    with pytest.raises(VlaxError) as caught, lease.hold(tmp_path):
        pass
    for words in (
        f"pid {holder.pid} on ",
        " since 20",
        HOLDER.splitlines()[0],
        f"stop it (kill {holder.pid})",
        "another folder",
    ):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert json.loads((tmp_path / lease.NAME).read_text())["pid"] == holder.pid  # it is left, and does not matter
    with lease.hold(tmp_path):
        assert json.loads((tmp_path / lease.NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / lease.NAME).exists()


@pytest.mark.parametrize("how", ("end", "error", "release_all"))
def test_it_is_given_back(tmp_path, how):
    with contextlib.suppress(VlaxError), lease.hold(tmp_path, tmp_path / "deeper"):
        assert len(list(tmp_path.rglob(lease.NAME))) == 2
        if how == "error":
            raise VlaxError("a mistake")
        if how == "release_all":
            lease.release_all()
            assert not list(tmp_path.rglob(lease.NAME))
    assert not list(tmp_path.rglob(lease.NAME))
    with lease.hold(tmp_path):
        pass


def test_a_second_one_in_the_same_process_is_refused_and_the_first_stays(tmp_path):
    with lease.hold(tmp_path):
        with pytest.raises(VlaxError, match="another process writes there"), lease.hold(tmp_path):
            pass
        assert (tmp_path / lease.NAME).exists()


def test_other_hosts_take_none(tmp_path):
    with lease.hold(tmp_path / "w", on=False):
        assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("age", (60.0, 1e6, -1e6))
def test_one_of_another_machine_that_is_not_renewed_was_left(tmp_path, monkeypatch, age):
    """A clock that was set back, too, makes none eternal; an old one costs no wait."""
    monkeypatch.setattr(lease, "STALE", 60.3)
    monkeypatch.setattr(lease, "LOOK", 0.05)
    if age < 0:
        monkeypatch.setattr(lease, "STALE", 0.3)
    left(tmp_path, renewed=time.time() - age)
    with lease.hold(tmp_path):
        assert json.loads((tmp_path / lease.NAME).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("place", ("disk", "bucket"))
def test_one_of_another_machine_that_is_renewed_is_respected(tmp_path, bucket, monkeypatch, place):  # noqa: F811
    """On the disk, too, where a network disk's lock may not reach from machine to machine."""
    from etils import epath

    monkeypatch.setattr(lease, "LOOK", 0.05)
    folder = epath.Path(tmp_path if place == "disk" else f"{bucket}/w")
    left(folder)
    other = threading.Timer(0.3, lambda: left(folder, renewed=time.time()))
    other.start()
    with pytest.raises(VlaxError, match=r"pid 7 on elsewhere since today .*ssh elsewhere kill 7"), lease.hold(folder):
        pass
    other.join()
    assert json.loads((folder / lease.NAME).read_text())["host"] == "elsewhere"


def test_in_a_bucket_it_is_renewed_and_given_back(bucket, monkeypatch):  # noqa: F811
    from etils import epath

    monkeypatch.setattr(lease, "RENEW", 0.05)
    path = epath.Path(f"{bucket}/w") / lease.NAME
    with lease.hold(path.parent):
        first = json.loads(path.read_bytes())
        until = time.monotonic() + 20
        while (now := json.loads(path.read_bytes())) == first and time.monotonic() < until:
            time.sleep(0.02)
        assert now["renewed"] > first["renewed"] and now["id"] == first["id"]
    assert not path.exists()


def test_a_writer_that_finds_its_lease_taken_leaves(tmp_path):
    """It was frozen for longer than a lease lasts: what it would write now spoils another's work."""
    code = HOLDER.replace("from vlax.process import lease", "from vlax.process import lease\nlease.RENEW = 0.1")
    process = subprocess.Popen([sys.executable, "-c", code, str(REPO), str(tmp_path)], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    assert process.stdout.readline() == "holds\n"
    part = tmp_path / "part"
    part.mkdir()
    left(part)
    (part / lease.NAME).replace(tmp_path / lease.NAME)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and "pid 7 on elsewhere" in err and err.count("\n") == 1


@pytest.mark.parametrize("content", (b"", b"{", b"\xff\x00", b'{"pid": 1}', b"[]"))
def test_a_damaged_lease_does_not_block(tmp_path, content):
    (tmp_path / lease.NAME).write_bytes(content)
    with lease.hold(tmp_path):
        assert json.loads((tmp_path / lease.NAME).read_text())["pid"] == os.getpid()


def test_where_nothing_can_be_written_there_is_none(tmp_path, monkeypatch):
    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)
    with lease.hold(tmp_path):
        pass


def test_two_trainings_of_one_workdir_and_two_evaluations_are_refused_and_one_of_each_is_not(trained, tmp_path):
    from vlax.evaluation import evaluate
    from vlax.evaluation.options import Options

    config, workdir = trained
    with lease.hold(workdir), pytest.raises(VlaxError, match=f"{workdir}: another process writes there"):
        train(config, workdir)
    options = Options(blind=True, report_samples=0)
    with lease.hold(workdir), lease.hold(workdir / "stage4" / "eval"):
        assert evaluate.run(config, workdir, options)
    with lease.hold(workdir / "stage4" / "eval-blind"), pytest.raises(VlaxError, match="eval-blind: another process writes"):
        evaluate.run(tiny("stage4"), workdir, options)


def test_two_preparations_of_one_folder_are_refused_and_its_own_lease_is_no_other_file(tmp_path, capsys):
    import argparse

    from vlax.commands.data import prepare

    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    args = parser.parse_args(
        ['{"kind": "scenes", "split": "val", "style": "ai", "size": 2}', str(tmp_path / "out"), "--image-size=16"]
    )
    with lease.hold(tmp_path / "out"), pytest.raises(VlaxError, match="out: another process writes there"):
        prepare.main(args)
    prepare.main(args)
    assert (tmp_path / "out" / "manifest.json").exists() and not (tmp_path / "out" / lease.NAME).exists()
