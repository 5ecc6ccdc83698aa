"""Requests to stop, in every phase of a real process: the exit code, one line, nothing lost; and errors that save first."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import commands
import pytest
from conftest import REPO, tiny, train
from ml_collections import ConfigDict

from vlax.commands import front
from vlax.evaluation import sampling
from vlax.model import exports
from vlax.process import activity, stop, watchdog
from vlax.process.activity import NOW, Interrupted, Lost
from vlax.training import chain, feed, loop, metrics

# A command that gets a signal where the n-th phase of a name has begun, or its step so many is done.
BODY = f"""
import hashlib, os, signal, sys, threading
sys.path[:0] = [{str(REPO)!r}, {str(REPO / "tests")!r}]
from vlax.commands import front
from vlax.process import activity
phase, name, blocked, argv = ARGUMENTS

def strike():
    kill = lambda: os.kill(os.getpid(), getattr(signal, name))
    if not blocked:
        return kill()
    threading.Timer(0.5, kill).start()
    try:  # as XLA does while it compiles: no handler of Python's runs in the main thread
        hashlib.pbkdf2_hmac("sha256", b"", b"", 6 * 10**7)
    finally:
        os.write(1, b"THE MAIN THREAD CAME BACK")

enter, progress = activity.enter, activity.progress
def entering(new):
    enter(new)
    if new.name == phase:
        strike()
def progressing(step, of):
    progress(step, of)
    if f"{{activity.NOW.phase.name}} {{step}}" == phase:
        strike()
activity.enter, activity.progress = entering, progressing
sys.exit(front.main(argv))
"""
CONFIG = """
import sys
sys.path.insert(0, {tests!r})
from conftest import tiny
def get_config():
    return tiny("stage1", stage__eval_every=2)
"""
TRAIN = ["train", "--config=c.py", "--workdir=w"]
EVAL = ["eval", "--config=c.py", "--workdir=w", "--notwin", "--suite=s.toml"]
SUITE = """
task = "caption"
metrics = ["Bleu_1"]
[decoding]
max_new_tokens = 3
[data.test]
kind = "scenes"
split = "test"
style = "ai"
size = 3
"""
GO = "; the same command goes on"
# (where, signal, whether the main thread is blocked, command, exit code, the line)
STRIKES = [
    ("stage0_decoder: build", "SIGTERM", False, TRAIN, 143, f"SIGTERM during stage0_decoder: build: nothing is lost{GO}"),
    ("stage0_decoder: compilation", "SIGTERM", True, TRAIN, 143, f"stage0_decoder: compilation: nothing is lost{GO}"),
    ("stage0_decoder: training 3", "SIGTERM", False, TRAIN, 143, f"SIGTERM: saved step 3 in w/stage0_decoder/checkpoints{GO}"),
    ("stage0_decoder: validation", "SIGTERM", False, TRAIN, 143, f"stage0_decoder: validation: step 4 is saved{GO}"),
    ("stage0_decoder: export", "SIGTERM", False, TRAIN, 143, f"SIGTERM during stage0_decoder: export: step 4 is saved{GO}"),
    ("train: between stages", "SIGTERM", False, TRAIN, 143, f"SIGTERM during train: between stages: nothing is lost{GO}"),
    ("stage0_vision: training 1", "SIGHUP", False, TRAIN, 129, f"SIGHUP: saved step 1 in w/stage0_vision/checkpoints{GO}"),
    ("stage1: training 3", "SIGINT", False, TRAIN, 130, f"SIGINT: saved step 3 in w/stage1/checkpoints{GO}"),
    ("", "", False, TRAIN, 0, "export w/stage1/export"),
    ("eval", "SIGTERM", False, EVAL, 143, f"SIGTERM during eval: the predictions so far are kept{GO}"),
    ("eval", "SIGINT", True, EVAL, 130, f"SIGINT during eval: the predictions so far are kept{GO}"),
    ("data prepare", "SIGTERM", False, ["data", "prepare", "rows", "out"], 143, "the shards that are whole are kept"),
]  # fmt: skip


@pytest.fixture(scope="module")
def struck(tmp_path_factory):
    """(folder, results of all STRIKES, which follow each other in one folder)"""
    folder = tmp_path_factory.mktemp("struck")
    (folder / "c.py").write_text(CONFIG.format(tests=str(REPO / "tests")))
    (folder / "s.toml").write_text(SUITE)
    bodies = [BODY.replace("ARGUMENTS", repr(strike[:4])) for strike in STRIKES]
    return folder, commands.run([["-c", body] for body in bodies], folder, tmp_path_factory.mktemp("notes"), path=REPO)


@pytest.mark.parametrize("number", range(len(STRIKES)), ids=[f"{s[0]} {s[1]}" for s in STRIKES])
def test_a_signal_is_honoured_in_every_phase(struck, number):
    code, out, err = struck[1][number]
    *_, want, line = STRIKES[number]
    assert code == want, (out, err)
    assert line in out + err and "Traceback" not in out + err, (out, err)
    assert "THE MAIN THREAD CAME BACK" not in out
    assert not want or len([x for x in err.splitlines() if x.strip() and "step" not in x.partition("|")[2]]) <= 5, err


def test_a_validation_is_left_once_its_checkpoint_is_whole(struck):
    assert "resuming  at micro-step 4 of 4" in struck[1][4][1]  # of the command after it


def test_after_all_that_the_parameters_are_the_undisturbed_ones(struck, tmp_path):
    train(tiny("stage1", stage__eval_every=2), tmp_path)
    for stage in ("stage0_decoder", "stage0_vision", "stage1"):
        want, got = (exports.read_manifest(where / stage / "export") for where in (tmp_path, struck[0] / "w"))
        assert want["checksums"] == got["checksums"] and want["validation_loss"] == got["validation_loss"]
        records = [[(r["step"], r["kind"]) for r in metrics.read(where / stage)] for where in (tmp_path, struck[0] / "w")]
        assert records[0] == records[1]  # the validation that was cut off was done again, and written once


@pytest.fixture
def vision(tmp_path):
    """(a tiny stage 0 over four updates, its workdir)"""
    return tiny("stage0", stage__eval_every=2), tmp_path / "w"


def run(config, workdir):
    chain.run(config, str(workdir), sampling.sampler)


def test_an_error_of_any_kind_saves_first(vision, monkeypatch, capsys):
    """In the third step, where only update 2 was saved; then the run goes on, and ends as if nothing had been."""
    config, workdir = vision
    progress = activity.progress

    def failing(step, of):
        progress(step, of)
        if step == 3:
            raise ZeroDivisionError("a worker's own")

    monkeypatch.setattr(activity, "progress", failing)
    with pytest.raises(ZeroDivisionError, match="a worker's own"):
        run(config, workdir)
    monkeypatch.undo()
    assert f"saved step 3 in {workdir}/stage0_vision/checkpoints; the same command goes on" in capsys.readouterr().out
    export, limits = loop.handover.export, []
    monkeypatch.setattr(loop.handover, "export", lambda *given: (limits.append(NOW.limit), export(*given)))
    run(config, workdir)
    assert limits and not any(limits)  # an export has no steps: no watchdog looks at how long it takes
    assert "resuming  at micro-step 3 of 4" in capsys.readouterr().out
    train(config, workdir.parent / "alone")
    a, b = (exports.read_manifest(where / "stage0_vision/export") for where in (workdir, workdir.parent / "alone"))
    assert a["checksums"] == b["checksums"]


def test_the_thread_that_builds_batches_ends_with_its_run(monkeypatch):
    """It would keep its batches for as long as the process lives."""
    monkeypatch.setattr(feed, "iterate", lambda *given: iter([{"row": number} for number in range(9)]))
    before = set(threading.enumerate())
    batches = feed.Feed(None, 0, ConfigDict({"threads": 1, "prefetch": 1}))
    assert batches.next() == {"row": 0} and batches.next() == {"row": 1}
    [filler] = set(threading.enumerate()) - before
    batches.close()
    filler.join(60)
    assert not filler.is_alive()


def test_a_validation_that_a_kill_cut_off_is_done_again(vision, monkeypatch, capsys):
    """The last one, whose checkpoint was on disk: the next run begins with it, and knows the best as if nothing had been."""
    config, workdir = vision
    validate, calls = loop.held_out, []

    def killed(*given):
        calls.append(given)
        if len(calls) == 2:
            while not (workdir / "stage0_vision/checkpoints/4").exists():
                time.sleep(0.01)
            raise KeyboardInterrupt  # no Exception: nothing is saved on the way out
        return validate(*given)

    monkeypatch.setattr(loop, "held_out", killed)
    with pytest.raises(KeyboardInterrupt):
        run(config, workdir)
    monkeypatch.undo()
    assert json.loads((workdir / "stage0_vision/validation.json").read_text()).keys() == {"2"}
    run(config, workdir)
    out = capsys.readouterr().out
    assert "resuming  at micro-step 4 of 4" in out and "stage0_vision step 4: held-out loss" in out.split("resuming")[1]
    losses = json.loads((workdir / "stage0_vision/validation.json").read_text())
    assert exports.read_manifest(workdir / "stage0_vision/export")["validation_loss"] == losses["4"]
    kinds = [(record["step"], record["kind"]) for record in metrics.read(workdir / "stage0_vision")]
    assert kinds == [(2, "train"), (2, "validation"), (4, "train"), (4, "validation")]


def test_a_source_that_hangs_ends_the_run_with_what_was_learned(vision, monkeypatch, capsys):
    """Batch number three never comes: no row of it ever returns."""
    config, workdir = vision
    config.stage.eval_every = 0
    config.run.watchdog_minutes, config.run.threads, config.run.prefetch = 0.05, 1, 1
    monkeypatch.setattr(activity, "FIRST", 10_000)
    monkeypatch.setattr(activity, "SLOW", 0)
    monkeypatch.setattr(activity, "COMPILES", 0)
    batch, forever = loop.Feed._fill, threading.Event()

    def hanging(self, iterator):
        def rows():
            for number, found in enumerate(iterator):
                if number == 3:
                    self._batches.collate.at_work[1] = 5
                    forever.wait()
                yield found

        batch(self, rows())

    monkeypatch.setattr(loop.Feed, "_fill", hanging)
    with pytest.raises(
        Lost, match=r"no batch for 3 s; the threads that build batches are at scenes-ai-train:\[5\]\. Mend .*watchdog_minutes"
    ):
        run(config, workdir)
    assert Lost.code == 75 and "saved step 3 in" in capsys.readouterr().out
    forever.set()


def test_the_watchdog_names_phase_and_step_and_writes_all_stacks(tmp_path, monkeypatch):
    ended = []
    moved = threading.Event()
    monkeypatch.setattr(watchdog, "EVERY", 0.01)
    monkeypatch.setattr(watchdog, "LATER", 0)
    monkeypatch.setattr(stop, "now", lambda *end: (ended.append(end), moved.set()))
    with watchdog.watching(tmp_path / "stacks.txt"), activity.phase("stage1: training"), NOW.watched(0.01):
        for step in (1, 2):
            activity.progress(step, 9)
        assert moved.wait(60)
    code, text = ended[0]
    assert code == 75 and re.match(r"vlax: error: stage1: training, after step 2 of 9: nothing has moved for 0 s", text)
    assert "moved.wait" not in text and "test_stop.py" in (tmp_path / "stacks.txt").read_text()


def test_a_process_that_was_stopped_goes_on(tmp_path):
    """By Ctrl-Z, for longer than the watchdog's patience: neither it nor the wait for a batch counts the time."""
    code = f"""
import pathlib, sys, time
from vlax.process import activity, watchdog
activity.AWAY, activity.FIRST, watchdog.EVERY, watchdog.LATER = 0.5, 1, 0.05, 0.0
with watchdog.watching(pathlib.Path({str(tmp_path / "stacks")!r})), activity.phase("training"), activity.NOW.watched(1.0):
    begun = activity.NOW.clock()
    print("begun", flush=True)
    sys.stdin.readline()
    print("waited", activity.NOW.clock() - begun < 1.5, flush=True)
    time.sleep(60)
"""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPO, text=True, **pipes) as child:
        assert child.stdout.readline() == "begun\n"
        child.send_signal(signal.SIGSTOP)
        time.sleep(3)
        child.send_signal(signal.SIGCONT)
        out, err = child.communicate("\n", timeout=60)
    assert out == "waited True\n" and child.returncode == 75  # and then it does hang
    assert re.match(r"vlax: error: training, .* nothing has moved for 1 s", err)


def test_what_is_slow_by_nature_does_not_hang(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(activity.time, "monotonic", lambda: clock[0])
    with NOW.watched(90):
        assert NOW.patience == 3600  # the first step compiles
        for seconds in (50, 2, 3):
            clock[0] += seconds
            NOW.move()
        assert NOW.patience == 2 * 50  # another length may compile
        clock[0] += 20
        NOW.move()
        assert NOW.patience == 20 * 20
        with NOW.anew():
            assert NOW.patience == 3600
    assert NOW.patience == float("inf")


def test_what_cannot_be_saved_within_the_grace_is_not_begun(vision, monkeypatch, capsys):
    config, workdir = vision
    config.run.grace_seconds = 5.0
    progress = activity.progress

    def slow(step, of):
        progress(step, of)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(activity, "progress", slow)
    monkeypatch.setattr(loop.Checkpoints, "seconds", property(lambda self: 9.0, lambda self, value: None), raising=False)
    with pytest.raises(Interrupted):
        run(config, workdir)
    assert re.search(
        r"SIGTERM: step 3 was not saved \(the last save took 9 s, and 5 s are left\); older ones are", capsys.readouterr().out
    )
    assert [path.name for path in (workdir / "stage0_vision/checkpoints").iterdir()] == ["2"]


def test_what_nobody_foresaw_is_two_lines_and_a_file(monkeypatch, capsys):
    def unforeseen(argv, prog):
        raise ZeroDivisionError("division by zero\nand more")

    monkeypatch.setattr(front, "run", unforeseen)
    assert front.main(["train"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "vlax: error: ZeroDivisionError: division by zero"
    assert "in unforeseen" in pathlib.Path(re.search(r"foresaw this. (\S+) says", second)[1]).read_text()


IN_A_FINALISER = """
import gc, os, signal, sys, time
from vlax.process import activity, stop

class Odd:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): pass      # the handler runs here, where nothing that is raised goes on

with stop.listening(), activity.phase("work", "nothing is lost"):
    Odd()
    time.sleep(60)
"""


def test_a_signal_in_a_finaliser_is_honoured_with_one_line():
    """Python drops what is raised there, with a traceback; jax has a garbage collection callback, where signals arrive too."""
    done = subprocess.run([sys.executable, "-c", IN_A_FINALISER], cwd=REPO, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (143, "SIGTERM during work: nothing is lost\n")
