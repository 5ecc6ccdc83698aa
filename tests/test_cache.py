"""The folder of what is computed once, and who computes it."""

import subprocess
import sys
import threading

import pytest

from vlax.storage import cache


def test_folder_is_what_the_environment_says_then_what_training_says_then_home(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_chosen", None)
    monkeypatch.delenv("VLAX_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "vlax"
    cache.beside("gs://bucket/run")  # objects can't be mapped into memory
    assert cache.folder() == tmp_path / ".cache" / "vlax"
    cache.beside(tmp_path / "runs" / "one")
    assert cache.folder() == tmp_path / "runs" / "vlax-cache"
    monkeypatch.setenv("VLAX_CACHE", "~/kept")
    assert cache.folder() == tmp_path / "kept" and not (tmp_path / "kept").exists()


HOLDER = """import pathlib, sys
from vlax.storage import cache
with cache.alone(pathlib.Path(sys.argv[1])):
    print("in", flush=True)
    sys.stdin.read(1)
"""


def test_one_process_at_a_time_and_a_dead_one_is_nobody(tmp_path):
    path, entered = tmp_path / "new" / "lengths", threading.Event()

    def enter() -> None:
        with cache.alone(path):
            entered.set()

    def start() -> subprocess.Popen:
        held = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert held.stdout.readline() == b"in\n"
        return held

    holder = start()
    waits = threading.Thread(target=enter)
    waits.start()
    assert not entered.wait(0.2)
    holder.kill()
    holder.communicate()
    assert entered.wait(60)
    waits.join()


def test_a_folder_that_cannot_be_made_is_an_oserror(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError), cache.alone(tmp_path / "file" / "lengths"):
        pass
