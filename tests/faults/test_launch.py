"""The supervisor of processes, on toys of a few lines, and two real processes that train together."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from conftest import REPO, tiny, train

from vlax.commands import front
from vlax.process import stop, supervise
from vlax.process.activity import NOW

HEAD = """
import json, os, signal, sys, time
from pathlib import Path
index, folder = int(os.environ["INDEX"]), Path(os.environ["FOLDER"])
def doing(phase, step=0, of=0):
    Path(os.environ["VLAX_ACTIVITY"]).write_text(json.dumps({"phase": phase, "step": step, "of": of}))
def stop(number, frame):
    (folder / f"{index}.stopped").write_text(str(number))
    sys.exit(128 + number)
for number in (15, 2, 1):
    signal.signal(number, stop)
(folder / f"{index}.pid").write_text(str(os.getpid()))
def wait():
    while True:
        time.sleep(0.05)
"""


@pytest.fixture
def launch(tmp_path, monkeypatch, capfd):
    """launch(code, count) -> (exit code, stdout, stderr) of toy hosts that run `code` after HEAD."""
    monkeypatch.setattr(supervise, "OWN_END", 1.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def run(code: str, count: int = 2):
        environments = [{**os.environ, "INDEX": str(index), "FOLDER": str(tmp_path)} for index in range(count)]
        result = supervise.run([sys.executable, "-c", HEAD + code], environments)
        return result, *capfd.readouterr()

    return run


def when(*files: Path, then) -> threading.Thread:
    """Calls `then` when the files are there."""

    def watch():
        until = time.monotonic() + 30
        while not all(file.exists() and file.read_text() for file in files) and time.monotonic() < until:
            time.sleep(0.02)
        then()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def gone(pid: int) -> bool:
    """Whether a process has ended, for which it is waited."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        stat = Path(f"/proc/{pid}/stat")
        if not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def test_output_of_the_first_passes_and_that_of_the_others_says_whose_it_is(launch):
    code = """
print("out", flush=True)
os.write(2, b"whole\\n\\r 10%|x\\r 20%|xx")
os.write(2, b"\\nE1127 14:15:05.793743    4208 coordination_service.cc:518] noise\\nend")
print(sorted(k for k in os.environ if k in ("VLAX_LAUNCHED", "VLAX_ACTIVITY")), file=sys.stderr)
"""
    result, out, err = launch(code)
    assert result == 0
    assert sorted(out.splitlines()) == ["[1] out", "out"]
    assert "noise" not in err and "end['VLAX_ACTIVITY', 'VLAX_LAUNCHED']\n" in err
    mine = "".join(line for line in err.splitlines(keepends=True) if not line.startswith("[1] "))
    assert "\r 10%|x\r 20%|xx\n" in mine and "[1] whole\n" in err


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
def test_signals_are_passed_on_and_the_exit_code_is_that_of_the_children(launch, tmp_path, number):
    pids = [tmp_path / f"{index}.pid" for index in (0, 1)]
    when(*pids, then=lambda: os.kill(os.getpid(), number))
    previous = signal.getsignal(number)
    with stop.listening():  # as the front has it: the parent does not leave before its children
        result, _, err = launch("wait()")
        assert not NOW.requested
    assert result == 128 + number and err == ""
    assert [(tmp_path / f"{index}.stopped").read_text() for index in (0, 1)] == [str(int(number))] * 2
    assert signal.getsignal(number) == previous


def test_a_death_is_one_sentence_and_the_others_are_ended(launch, tmp_path):
    code = """
if index == 1:
    doing("stage1: training", 17, 60)
    os.kill(os.getpid(), 9)
while not (folder / "1.pid").exists():
    time.sleep(0.01)
wait()
"""
    result, _, err = launch(code)
    assert result == 75 and err.count("\n") == 1
    assert err.startswith(
        "vlax: error: host 1 of 2 died (SIGKILL: or was memory short?) at stage1: training, step 17 of 60; the others"
    )
    assert err.endswith("Give the same command again: it goes on from the last checkpoint\n")
    assert (tmp_path / "0.stopped").read_text() == str(int(signal.SIGTERM))


def test_the_sentence_stands_on_a_line_of_its_own_below_a_bar(launch):
    code = 'sys.stderr.write("\\rstage1:  33%|###   | 8/24"); sys.stderr.flush(); time.sleep(0.5); os.kill(os.getpid(), 9)'
    result, _, err = launch(code, 1)
    assert result == 75 and "8/24\nvlax: error: the process of this host died" in err


def test_what_a_death_from_c_writes_goes_to_a_file_that_is_named(launch):
    code = """
os.write(2, b"before\\nF1127 14:15:05.794507    4215 client.h:80] Terminating ... 1 unexpectedly tried to connect "
            b"with a different incarnation.\\n\\nRPC: /xla\\n*** Check failure stack trace: ***\\n    @  0x7f40fba40634\\n")
signal.signal(signal.SIGABRT, signal.SIG_DFL)
os.abort()
"""
    result, _, err = launch(code, count=1)
    assert result == 75
    assert err.splitlines()[0] == "before" and len(err.splitlines()) == 2
    assert "the process of this host died (SIGABRT) at its start: two processes joined as the same host" in err
    log = Path(re.search(r"what it wrote is in (\S+)\. ", err)[1])
    assert b"*** Check failure stack trace" in log.read_bytes()


def test_one_that_stays_stopped_is_named_and_killed(launch, monkeypatch):
    monkeypatch.setattr(supervise, "FROZEN", 0.5)
    result, _, err = launch("doing('stage2: export')\nif index == 0: os.kill(os.getpid(), signal.SIGSTOP)\nwait()")
    assert result == 75 and err.count("\n") == 1
    assert "host 0 of 2 died (stopped for 0 s, so it was killed) at stage2: export; the others were ended" in err


def test_one_that_is_stopped_for_a_moment_goes_on(launch, tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "FROZEN", 20.0)
    code = "os.kill(os.getpid(), signal.SIGSTOP)"
    pid = tmp_path / "0.pid"
    when(pid, then=lambda: (time.sleep(1), os.kill(int(pid.read_text()), signal.SIGCONT)))
    assert launch(code, count=1) == (0, "", "")


def test_a_traceback_about_the_death_of_another_is_not_shown_and_its_own_is(launch):
    code = """
if index:
    (folder / "dies").touch()
    os.kill(os.getpid(), 9)
while not (folder / "dies").exists():
    time.sleep(0.01)
time.sleep(0.05)
raise ValueError("connection reset by peer")
"""
    result, _, err = launch(code)
    assert result == 75 and err.count("\n") == 1
    result, _, err = launch("raise ValueError('a bug')", count=1)
    assert result == 1 and "Traceback" in err and "ValueError: a bug" in err and "died (exit code 1)" in err


@pytest.mark.parametrize("code", (2, 75))
def test_one_that_told_its_reason_is_not_explained_and_its_code_is_returned(launch, tmp_path, code):
    result, _, err = launch(f"if index: print('vlax: error: x', file=sys.stderr); sys.exit({code})\nwait()")
    assert (result, err) == (code, "[1] vlax: error: x\n")
    assert (tmp_path / "0.stopped").exists()


def test_one_that_does_not_end_is_killed(launch, tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "GRACE", 0.5)
    code = "signal.signal(15, signal.SIG_IGN)\n(folder / 'deaf').touch()\nwait()"
    result, _, _ = launch(f"if index: sys.exit(2 * (folder / 'deaf').exists() or 2)\n{code}")
    assert result == 2 and gone(int((tmp_path / "0.pid").read_text()))


def test_children_end_with_a_parent_that_is_killed(tmp_path):
    parent = f"""
import os, sys
sys.path.insert(0, {str(REPO)!r})
from vlax.process import stop, supervise
from vlax.process.activity import NOW
environment = {{**os.environ, "INDEX": "0", "FOLDER": {str(tmp_path)!r}}}
supervise.run([sys.executable, "-c", {HEAD + "wait()"!r}], [environment, environment | {{"INDEX": "1"}}])
"""
    process = subprocess.Popen([sys.executable, "-c", parent])
    pids = [tmp_path / f"{index}.pid" for index in (0, 1)]
    when(*pids, then=process.kill).join()
    process.wait()
    assert all(gone(int(pid.read_text())) for pid in pids)
    assert (tmp_path / "0.stopped").read_text() == str(int(signal.SIGTERM))  # it is asked, and may save


def test_the_command_line(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(supervise, "run", lambda command, environments: asked.append((command, environments)) or 0)
    line = ["launch", "--processes=2", "--devices-per-process=4", "--", "train", "--config=stage3", "--workdir=w"]
    assert front.main(line) == 0
    ((command, environments),) = asked
    assert command[1:] == ["-m", "vlax", "train", "--config=stage3", "--workdir=w", "--config.run.distributed=true"]
    assert [e["PROCESS_ID"] for e in environments] == ["0", "1"] and environments[1]["JAX_LOCAL_DEVICE_IDS"] == "4,5,6,7"
    assert len({e["COORDINATOR_ADDRESS"] for e in environments}) == 1 and environments[0]["NUM_PROCESSES"] == "2"
    for wrong, text in ((["--processes=2"], "there is no command"), (["--processes=2", "--", "ask"], "'ask' does not run in"),
                        (["--", "train"], "--processes"), (["--processes=0", "--", "train"], "at least 1")):  # fmt: skip
        assert front.main(["launch", *wrong]) == 2
        assert text in capsys.readouterr().err


def test_a_distributed_run_is_the_child_of_one_that_survives_it(monkeypatch):
    """And the child, which has the environment of a child, starts none."""
    asked = []
    monkeypatch.setattr(supervise, "run", lambda command, environments: asked.append(command) or 7)
    assert front.main(["train", "--config=stage3", "--config.run.distributed=true"]) == 7
    assert asked == [[sys.executable, *sys.orig_argv[1:]]]


FIELDS = {"stage__steps": 12, "stage__eval_every": 4, "stage__validation": {}, "run__threads": 0}
CONFIG = f"""
import sys
sys.path[:0] = [{str(REPO / "tests")!r}]
from conftest import tiny
def get_config():
    return tiny("stage0", **{FIELDS})
"""


def host(number: int, parent: int) -> int:
    """The process id of a host by its environment; PROCESS_ID is the launcher's doing."""
    for folder in Path("/proc").iterdir():
        try:
            mine = f") S {parent} " in (folder / "stat").read_text() or f") R {parent} " in (folder / "stat").read_text()
            if mine and f"PROCESS_ID={number}\0".encode() in (folder / "environ").read_bytes():
                return int(folder.name)
        except OSError:
            continue
    raise AssertionError(f"host {number} is not running")


def test_two_real_processes_train_until_one_is_killed_and_go_on(tmp_path):
    (tmp_path / "c.py").write_text(CONFIG)
    stage = tmp_path / "w" / "stage0_vision"
    command = [sys.executable, "-m", "vlax", "launch", "--processes=2", "--devices_per_process=1", "--", "train"]
    command += [f"--config={tmp_path}/c.py", f"--workdir={tmp_path}/w"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(REPO / ".cache" / "xla"), "TMPDIR": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=REPO, env=environment, text=True, **pipes)
    until = time.monotonic() + 120
    while not (stage / "checkpoints" / "4").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(host(1, process.pid), signal.SIGKILL)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    *_, last = err.splitlines()
    assert last.startswith("vlax: error: host 1 of 2 died (SIGKILL: or was memory short?) at ")
    assert "Traceback" not in err and "coordination" not in err and "    @  " not in err
    assert "2 process(es)" in out
    config = tiny("stage0", **FIELDS)
    assert "resuming  at micro-step 4 of 12" in train(config, tmp_path / "w")  # one process alone goes on, too
