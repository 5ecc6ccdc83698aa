"""Interrupted and killed runs: what they leave behind, and that going on gives the very same parameters."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPO, tiny, train

from vlax.errors import VlaxError
from vlax.evaluation import sampling
from vlax.model import exports
from vlax.process.activity import Interrupted
from vlax.storage import seal
from vlax.training import chain, loop, metrics, session, stages
from vlax.training.replay import replay_stage


def window(steps=4, **fields):
    """Stage 1 with two micro-batches an update, on the finished stage 0 of the shared chain."""
    return tiny("stage1", **{"stage__steps": steps, "stage__accumulate": 2, **fields})


@pytest.fixture
def workdir(trained, tmp_path):
    """A workdir in which stage 0 is finished."""
    for name in ("stage0_vision", "stage0_decoder"):
        shutil.copytree(trained[1] / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="module")
def uninterrupted(trained, tmp_path_factory):
    """(export of an uninterrupted stage 1, its metrics)"""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    for name in ("stage0_vision", "stage0_decoder"):
        shutil.copytree(trained[1] / name, workdir / name)
    train(window(), workdir)
    return exports.load_params(workdir / "stage1" / "export"), metrics.read(workdir / "stage1"), workdir


def interrupt_at(monkeypatch, micro: int) -> None:
    """SIGTERM arrives while micro-step number `micro` (from 1) is being looked at."""
    looked = loop.Loop.settle
    calls = []

    def settle(self, keep):
        if keep:
            calls.append(1)
            if len(calls) == micro:
                os.kill(os.getpid(), signal.SIGTERM)
        looked(self, keep)

    monkeypatch.setattr(loop.Loop, "settle", settle)


def assert_same_params(a, b):
    assert a.keys() == b.keys()
    assert all(a[path].tobytes() == np.asarray(b[path]).tobytes() for path in a)


def losses(records):
    return [(r["step"], r["kind"], r["loss"]) for r in records]


@pytest.mark.parametrize("stop", (3, 5))
def test_going_on_from_the_middle_of_a_window_is_bit_equal(uninterrupted, workdir, monkeypatch, stop, capsys):
    want, want_metrics, _ = uninterrupted
    interrupt_at(monkeypatch, stop)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as stopped:
        chain.run(window(), str(workdir), sampling.sampler)
    monkeypatch.undo()
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert f"SIGTERM: saved step {stop} in {workdir}/stage1/checkpoints" in "".join(capsys.readouterr())
    assert [p.name for p in (workdir / "stage1" / "checkpoints").iterdir()] == [str(stop)]  # odd: mid-window
    shown = train(window(), workdir)
    assert f"resuming  at micro-step {stop} of 8" in shown
    assert_same_params(want, exports.load_params(workdir / "stage1" / "export"))
    got = metrics.read(workdir / "stage1")
    assert [(r["step"], r["kind"]) for r in got] == [(r["step"], r["kind"]) for r in want_metrics]
    assert losses(got)[-1] == losses(want_metrics)[-1]  # the validation loss
    assert "differs" not in _replay(window(), workdir)


@pytest.mark.slow  # beside the one above, and what a first moment in bfloat16 is in test_optimizer.py
def test_a_first_moment_in_bfloat16_goes_on_bit_equal_too(workdir, tmp_path, monkeypatch):
    low, whole = window(stage__bf16_momentum=True), tmp_path / "whole"
    for name in ("stage0_vision", "stage0_decoder"):
        shutil.copytree(workdir / name, whole / name)
    train(low, whole)
    interrupt_at(monkeypatch, 3)
    with pytest.raises(Interrupted):
        chain.run(low, str(workdir), sampling.sampler)
    monkeypatch.undo()
    assert "resuming  at micro-step 3 of 8" in train(low, workdir)
    assert_same_params(exports.load_params(whole / "stage1" / "export"), exports.load_params(workdir / "stage1" / "export"))
    with pytest.raises(VlaxError, match=r"made with another config \(stage.bf16_momentum: true -> false\)"):
        train(window(), workdir)


class PowerCut(BaseException):
    """Nobody has the time to save anything."""


def test_a_run_that_died_goes_on_from_its_last_checkpoint(workdir, uninterrupted, monkeypatch):
    """As a kill -9 does, nothing is saved on the way out; a half-written line is left in metrics.jsonl."""
    want, want_metrics, _ = uninterrupted
    looked, calls = loop.Loop.settle, []

    def die(self, keep):
        calls.append(keep)
        if calls.count(loop.IN_FLIGHT) == 7:
            self.checkpoints.wait()
            raise PowerCut
        looked(self, keep)

    monkeypatch.setattr(loop.Loop, "settle", die)
    config = window(stage__eval_every=2, run__log_every=1)
    with pytest.raises(PowerCut):
        train(config, workdir)
    monkeypatch.undo()
    with (workdir / "stage1" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "ki')
    assert "resuming  at micro-step 4 of 8" in train(config, workdir)
    assert_same_params(want, exports.load_params(workdir / "stage1" / "export"))
    got = metrics.read(workdir / "stage1")
    assert [(r["step"], r["kind"]) for r in got] == [
        (1, "train"), (2, "train"), (2, "validation"), (3, "train"), (4, "train"), (4, "validation"),
    ]  # fmt: skip
    assert losses(got)[-1] == losses(want_metrics)[-1]


def _replay(config, workdir) -> str:
    plan = stages.chain(config, workdir)[-1]
    return replay_stage(session.build(plan))


def test_replay_compares_with_the_record(uninterrupted, tmp_path, trained):
    workdir = uninterrupted[2]
    assert _replay(window(), workdir) == "stage1: the first 8 losses are bit-equal to the record"
    shutil.copytree(workdir, tmp_path / "w")
    record = tmp_path / "w" / "stage1" / "first_losses.json"
    values = json.loads(record.read_text())
    record.write_text(json.dumps([*values[:2], np.nextafter(values[2], 1e9), *values[3:]]))
    with pytest.raises(VlaxError, match=r"replay of stage1 differs at step 2: loss sum .*, recorded "):
        _replay(window(), tmp_path / "w")
    record.unlink()
    with pytest.raises(VlaxError, match="no record to replay: train the stage first"):
        _replay(window(), tmp_path / "w")


def test_frozen_parts_are_bit_equal_to_the_parents(trained):
    _, workdir = trained
    for child, parent, frozen in (
        ("stage1", "stage0_vision", "vision"), ("stage1", "stage0_decoder", "decoder"), ("stage2", "stage1", "decoder"),
        ("stage3", "stage2", "vision"), ("stage4", "stage3", "vision"),
    ):  # fmt: skip
        mine, theirs = (exports.read_manifest(workdir / name / "export")["checksums"] for name in (child, parent))
        assert mine[frozen] == theirs[frozen], (child, parent)
        stored = exports.load_params(workdir / child / "export", parts=(frozen,))
        assert exports.module_checksums(stored)[frozen] == mine[frozen]
    learned = [exports.read_manifest(workdir / f"stage{n}" / "export")["checksums"] for n in (1, 2, 3, 4)]
    assert len({c["projector"] for c in learned}) == 4 and len({c["decoder"] for c in learned}) == 3


def test_manifests_say_where_everything_comes_from(trained):
    _, workdir = trained
    manifest = exports.read_manifest(workdir / "stage3" / "export")
    assert manifest["stage"] == "stage3" and manifest["mask"] == "image_bidirectional" and manifest["template_name"] == "plain"
    parent = manifest["parents"]["vision"]
    assert parent["stage"] == "stage2"
    assert exports.read_manifest(parent["path"]) == exports.read_manifest(workdir / "stage2" / "export")
    assert manifest["trained"] == {"projector": "^projector/", "decoder": "^decoder/"}
    assert set(manifest["data"]["sources"]) == {"scenes-ai-train", "scenes-human-train"}
    assert manifest["versions"]["jax"] == jax.__version__ and manifest["micro_steps"] == 4
    hashes = [exports.read_manifest(p / "export") for p in sorted(workdir.glob("stage*"))]
    assert len(hashes) == 6 and len({h["tokenizer"] for h in hashes}) == 1


def test_asked_again_it_finishes_at_once(trained, monkeypatch):
    config, workdir = trained
    monkeypatch.setattr(session, "build", None)  # nothing is built, let alone run
    assert train(config, workdir).strip() == f"stage4 is finished: {workdir}/stage4/export"


def test_free_fields_may_change_and_others_not(trained):
    _, workdir = trained
    train(tiny("stage4", run__log_every=1, stage__eval_every=2, run__mesh__data=1), workdir)
    with pytest.raises(VlaxError, match=r"stage3 was made with another config \(stage.beta2: 0.98 -> 0.9\)"):
        train(tiny("stage4", parents__stage3__beta2=0.9), workdir)


def test_changed_data_are_refused(workdir, monkeypatch):
    interrupt_at(monkeypatch, 1)
    with pytest.raises(Interrupted):
        train(window(), workdir)
    monkeypatch.undo()
    from vlax.data.embedded import scenes

    monkeypatch.setattr(scenes, "DRAWING", 99)  # what a mended annotation file does to its fingerprint
    with pytest.raises(VlaxError, match=r"the training data changed since the checkpoint at step 1 \(row plan "):
        train(window(), workdir)


def test_another_tokenizer_or_prompts_in_the_parent_are_refused(workdir):
    path = workdir / "stage0_vision" / "export" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "templates": "0123"}))
    seal.write(path.parent)
    with pytest.raises(VlaxError, match=r"stage stage1: its parent .*stage0_vision/export was trained with other templates"):
        train(window(), workdir)


def test_the_export_of_another_stage_in_the_place_of_the_parents_is_refused(trained, workdir):
    shutil.rmtree(workdir / "stage0_vision" / "export")
    shutil.copytree(trained[1] / "stage2" / "export", workdir / "stage0_vision" / "export")
    text = r"stage1: .*stage0_vision/export holds the export of stage2, not of stage0_vision; copy"
    with pytest.raises(VlaxError, match=text):
        train(window(), workdir)


def test_a_loss_that_is_not_finite_stops_the_run(workdir, monkeypatch):
    """At micro-step 5, with a checkpoint of update 2 behind it: that one stays, and the rows are named."""
    real = session.build

    def build(plan):
        built = real(plan)
        step, calls = built.train_step, []

        def poisoned(state, frozen, batch):
            calls.append(1)
            if len(calls) == 6:
                frozen = {path: value * jnp.nan for path, value in frozen.items()}
            return step(state, frozen, batch)

        built.train_step = poisoned
        return built

    monkeypatch.setattr(session, "build", build)
    with pytest.raises(VlaxError) as error:
        train(window(stage__eval_every=2), workdir)
    text = str(error.value)
    assert text.startswith(
        "stage stage1 stopped at step 5: loss nan, gradient norms: projector nan; rows: scenes-ai-train:train/"
    )
    assert "the checkpoint at step 4 is intact" in text and "Lower --config.stage.learning_rate" in text
    monkeypatch.undo()
    plan = stages.chain(window(), workdir)[-1]
    built = session.build(plan)
    with jax.set_mesh(built.mesh):
        running = loop.Loop(built)
        running.restore()
    assert running.begin == 4 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(running.state["params"]))


CONFIG = """
    import sys
    sys.path.insert(0, {tests!r})
    from conftest import tiny
    def get_config():
        return tiny("stage0", run__compilation_cache={cache!r}, stage__steps=STEPS, stage__eval_every=25)
"""


def start(config: pathlib.Path, workdir: pathlib.Path) -> subprocess.Popen:
    command = [sys.executable, "train.py", f"--config={config}", f"--workdir={workdir}"]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_checkpoint(process, directory: pathlib.Path) -> None:
    while process.poll() is None and not any(p.name.isdigit() for p in directory.glob("*")):
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]


@pytest.mark.slow
def test_sigterm_and_kill_of_the_real_command(tmp_path):
    """A run that is terminated, killed and started a third time against one that was left alone."""
    steps = 200
    config = tmp_path / "small.py"
    text = textwrap.dedent(CONFIG).format(tests=str(REPO / "tests"), cache=str(REPO / ".cache" / "xla"))
    config.write_text(text.replace("STEPS", str(steps)))
    workdir = tmp_path / "w"
    checkpoints = workdir / "stage0_vision" / "checkpoints"
    alone = start(config, tmp_path / "alone")
    process = start(config, workdir)
    wait_for_checkpoint(process, checkpoints)
    process.terminate()
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 143, out
    # In the validation that follows a save there is nothing more to save.
    told = re.search(r"SIGTERM(?:: saved| during stage0_vision: validation[^:]*:) step (\d+)", out)
    assert told and "the same command goes on" in out and "Traceback" not in out, out
    saved = int(told[1])

    process = start(config, workdir)
    for _ in range(3000):
        if process.poll() is not None or any(p.name.isdigit() and int(p.name) > saved for p in checkpoints.glob("*")):
            break
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    process = start(config, workdir)
    out = process.communicate(timeout=120)[0]
    assert process.returncode == 0 and "resuming  at micro-step" in out, out
    assert alone.wait(timeout=120) == 0
    alone.stdout.close()
    name = "stage0_vision/export"
    assert_same_params(exports.load_params(tmp_path / "alone" / name), exports.load_params(workdir / name))
    steps_seen = [(r["step"], r["kind"]) for r in metrics.read(workdir / "stage0_vision")]
    assert len(set(steps_seen)) == len(steps_seen)


def test_a_mistake_in_the_last_stage_is_found_before_the_first_is_trained(tmp_path):
    config = tiny("stage2")
    config.stage.trainable.projector = "^projektor/"
    with pytest.raises(VlaxError, match="matches no parameter"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run/stage0_vision").exists() and not (tmp_path / "run/stage0_decoder").exists()
