"""How fast a stage says that it runs, and the trace of some of its updates."""

import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny, train

from vlax.errors import VlaxError
from vlax.model import exports
from vlax.training import metrics, peaks, planning, profile, ranges, throughput
from vlax.training.throughput import Counts, counts

# A packed row of two examples, the second without a picture, and a row of filler.
BATCH = {
    "example": np.array([[1, 1, 1, 2, 2, 0], [0, 0, 0, 0, 0, 0]], np.int32),
    "has_image": np.array([[True, False], [False, False]]),
}


def test_what_a_batch_holds():
    seen = counts(BATCH, tokens_per_image=4)
    assert seen == Counts(samples=2, images=1, text=5, seen=4, positions=2 * 6 + 4 * 4, rows={6: 1})
    assert seen.padding == pytest.approx(1 - 9 / 28)
    longer = {"example": np.ones((1, 3, 8), np.int32), "has_image": np.ones((1, 3, 1), bool)}  # micro-batches in front
    assert seen + counts(longer, 4, hosts=2) == Counts(8, 7, 53, 28, 28 + 2 * 36, {6: 1, 8: 6})
    assert Counts().padding == 0


def test_devices_by_the_names_that_jax_has_for_them():
    kinds = {
        "NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200", "NVIDIA A100-SXM4-40GB": "a100-40", "TPU v5 lite": "v5e",
        "NVIDIA A100-SXM4-80GB": "a100-80", "NVIDIA GeForce RTX 4090": "rtx4090", "TPU v6 lite": "v6e", "TPU v5p": "v5p",
        "TPU v4": "v4", "cpu": None,
    }  # fmt: skip
    assert {name: peaks.kind(name) for name in kinds} == kinds
    session = types.SimpleNamespace(plan=types.SimpleNamespace(run=types.SimpleNamespace(peak_tflops=0.0)))
    assert throughput.peak(session) is None, "of a CPU nobody says how fast it is"


def test_ranges_of_updates():
    assert ranges.updates("10:13") == range(10, 13) and ranges.updates("0:1") == range(1) and not ranges.updates("")
    for wrong in ("3:3", "5:2", "3", "a:b", "-1:4", "1:2:3"):
        with pytest.raises(VlaxError, match=r"is no range of updates: give START:STOP, such as --config.run.profile=10:13"):
            ranges.updates(wrong)


def stage(directory, asked, updates=9):
    """What of a Session the two read."""
    run = types.SimpleNamespace(profile=asked, peak_tflops=2e-6)
    plan = types.SimpleNamespace(directory=directory, run=run, name="stage1")
    mesh, model = types.SimpleNamespace(size=2), types.SimpleNamespace(tokens_per_image=4)
    batches = types.SimpleNamespace(plan=types.SimpleNamespace(lengths_used=(6, 8)))
    return types.SimpleNamespace(plan=plan, per_update=2, updates=updates, mesh=mesh, config=model, batches=batches)


def test_the_share_of_the_peak(monkeypatch):
    """Rows count by their length: 3 of 1,000 FLOPs and 1 of 2,000 in half a second, of two devices of 2e6 a second."""
    monkeypatch.setattr(throughput.Meter, "_row", lambda self, length: {6: 1e3, 8: 2e3}[length])
    clock = iter([10.0, 10.5])
    monkeypatch.setattr(metrics.time, "monotonic", lambda: next(clock))
    window = metrics.Window(throughput.Meter(stage(None, "")))
    window.add({"tokens": 4.0, "loss_sum": 2.0}, Counts(3, 3, 15, 12, 30, {6: 3}))
    window.add({"tokens": 6.0, "loss_sum": 3.0}, Counts(1, 0, 8, 0, 12, {8: 1}))
    found = window.summary()
    assert found["mfu"] == pytest.approx(5e3 / (0.5 * 2 * 2e6))
    rates = {"samples_per_s": 8, "images_per_s": 6, "tokens_per_s": 20, "text_tokens_per_s": 46, "all_tokens_per_s": 70}
    assert {name: found[name] for name in rates} == rates
    assert found["padding"] == pytest.approx(1 - 35 / 42) and found["loss"] == 0.5


def test_a_count_that_fails_is_said_once(monkeypatch, caplog):
    def fail(self, length):
        raise ValueError("no shapes")

    monkeypatch.setattr(throughput.Meter, "_row", fail)
    meter = throughput.Meter(stage(None, ""))
    assert [meter.mfu(Counts(rows={6: 1}), 1.0) for _ in range(2)] == [{}, {}]
    assert [record.getMessage() for record in caplog.records] == [
        "WARNING: the count of a step's FLOPs was not made (ValueError: no shapes); all else goes on"
    ]


def test_a_trace_has_the_steps_that_were_asked_for(tmp_path, capsys):
    """One that begins within the range has those that are left of it; one behind it, nothing."""
    for begin, name in ((0, "whole"), (4, "rest"), (6, "behind")):
        with profile.Profile(stage(tmp_path / name, "1:3")) as traced:
            for number in range(begin, 8):
                with traced.step(number):
                    values = {"loss": jnp.zeros(())}
                traced.after(number, values)
        assert (tmp_path / name / "profile").exists() == (begin < 6)
    assert f"profile   {tmp_path / 'whole' / 'profile'} has updates 1:3; xprof --logdir=" in capsys.readouterr().out
    assert steps(tmp_path / "whole") == [2, 3, 4, 5] and steps(tmp_path / "rest") == [4, 5]
    too_long = r"run.profile=1:3: stage stage1 has 2 updates; give START:STOP with a STOP of at most 2"
    with pytest.raises(VlaxError, match=too_long):
        profile.check(stage(tmp_path, "1:3", updates=2))


def steps(directory) -> list[int]:
    """The numbers of the steps in a trace, which lies as TensorBoard looks for it."""
    [file] = (directory / "profile").glob("plugins/profile/*/*.xplane.pb")
    planes = jax.profiler.ProfileData.from_file(str(file)).planes
    found = [event for plane in planes for line in plane.lines for event in line.events if event.name == "train"]
    return sorted(dict(event.stats)["step_num"] for event in found)


@pytest.mark.slow
def test_a_stage_says_how_fast_it_is_and_traces_what_was_asked_for(trained, tmp_path):
    for name in ("stage0_vision", "stage0_decoder"):
        shutil.copytree(trained[1] / name, tmp_path / name)
    config = tiny("stage1", stage__accumulate=2, run__profile="1:9", run__peak_tflops=0.001)
    with pytest.raises(VlaxError, match=r"run.profile=1:9: stage stage1 has 4 updates"):
        train(config, tmp_path)
    config.run.profile = "1:3"
    train(config, tmp_path)
    assert steps(tmp_path / "stage1") == [2, 3, 4, 5]

    record = next(one for one in metrics.read(tmp_path / "stage1") if one["kind"] == "train")
    model = exports.read_config(tmp_path / "stage1" / "export")
    flops = planning.Counter(config.run, config.stage, model).flops(40, "none")
    assert record["mfu"] == pytest.approx(record["samples_per_s"] * flops / 1e9 / jax.device_count(), rel=1e-6)
    assert record["images_per_s"] == record["samples_per_s"] and record["compile_s"] > 0
    tokens = record["all_tokens_per_s"] - record["text_tokens_per_s"]
    assert tokens == pytest.approx(4 * record["images_per_s"], rel=1e-6)  # of each picture
    held = record["all_tokens_per_s"] / record["samples_per_s"] / (4 + 40)
    assert 0 < record["padding"] < 1 and record["padding"] == pytest.approx(1 - held, rel=1e-6)
    assert record["text_tokens_per_s"] > record["tokens_per_s"] > 0, "prompts are text, and no answers"
