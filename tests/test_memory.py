"""What is freed is kept by programs of our own on a CPU, and by nothing else. Page faults are counted, not seconds."""

import os
import subprocess
import sys

import pytest
from conftest import REPO

from vlax.commands import front
from vlax.process import memory

PAGES, TIMES = 24_576, 10
# A thread like XLA's touches 96 MB, more than an arena of its own may hold, again and again; how many of its pages were new.
TOUCH = f"""
import resource, threading
from vlax.process import memory
kept, found = memory.keep(), []
def work():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({TIMES}):
        bytearray({PAGES} * 4096)[::4096] = bytes(range(256)) * {PAGES // 256}
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=work)
thread.start(), thread.join()
print(kept, found[0], memory.kept())
"""


def touch(**variables):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
    done = subprocess.run([sys.executable, "-c", TOUCH], cwd=REPO, env=environment, check=True, capture_output=True, text=True)
    kept, faults, after = done.stdout.split()
    assert kept == after
    return kept, int(faults)


@pytest.mark.skipif(sys.platform != "linux" or os.confstr("CS_GNU_LIBC_VERSION") is None, reason="no glibc here")
def test_what_is_freed_is_touched_once_where_it_is_kept(monkeypatch):
    for name in ("GLIBC_TUNABLES", memory.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    kept, faults = touch()
    assert kept == "True" and faults < 2 * PAGES
    kept, faults = touch(VLAX_KEEP_MEMORY="0")
    assert kept == "False" and faults > (TIMES - 1) * PAGES
    assert touch(JAX_PLATFORMS="cuda")[0] == "False"


def test_a_device_with_memory_of_its_own_is_known_by_its_plugin(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(memory.importlib.metadata, "entry_points", lambda group: ())
    monkeypatch.setattr(memory.importlib.util, "find_spec", lambda name: None)
    assert memory.cpu_alone()
    monkeypatch.setattr(memory.importlib.util, "find_spec", lambda name: name == "libtpu" or None)
    assert not memory.cpu_alone()
    monkeypatch.setattr(memory.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(memory.importlib.metadata, "entry_points", lambda group: (group,))
    assert not memory.cpu_alone()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert memory.cpu_alone()


def test_only_programs_that_train_and_evaluate_keep_what_they_free(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(memory, "keep", lambda: asked.append(sys.argv))
    monkeypatch.setattr(front, "run", lambda line, prog: 0)
    monkeypatch.setattr(sys, "argv", ["vlax", "runs"])
    assert [front.main(), front.main(["train"]), front.main(["eval"])] == [0, 0, 0] and not asked  # called by another program
    assert front.main(["train"], "python train.py") == 0 and len(asked) == 1
    for number, command in enumerate(("eval", "findings"), 2):
        monkeypatch.setattr(sys, "argv", ["vlax", command])
        assert front.main() == 0 and len(asked) == number
