"""--plan: what is counted of few layers is what all layers have; targets, rows, the way that fits; recorded compilations."""

import dataclasses
import importlib
import re
import types

import jax
import pytest
from conftest import tiny

import vlax
from configs import stage1, stage2, stage3, stage4
from vlax.commands import front
from vlax.errors import VlaxError
from vlax.models.build import abstract_model
from vlax.params import groups
from vlax.training import peaks, plan_table, planning, session, stages, start
from vlax.training.planning import Counter, Way
from vlax.training.topologies import GIB

# (stage, device, text, rows a device, remat): GiB of arguments and temporaries that `python -m benchmarks.compile` printed
# under jax 0.10.2, with cuDNN's attention on GPUs; docs/benchmarks.md has the commands.
RECORDED = {
    ("stage3", "h100", 256, 64, "none"): (8.2, 22.7), ("stage3", "h100", 256, 64, "mlp"): (8.2, 8.7),
    ("stage3", "h100", 256, 64, "full"): (8.2, 3.7), ("stage3", "h100:8", 256, 8, "none"): (1.0, 4.3),
    ("stage1", "h100", 64, 64, "none"): (1.7, 13.1), ("stage1", "h100", 64, 128, "none"): (1.7, 25.3),
    ("stage2", "h100", 256, 64, "none"): (1.7, 20.6),
    ("stage1", "v5e:2x4", 64, 8, "none"): (0.2, 3.2), ("stage1", "v5e:8x8", 64, 1, "none"): (0.03, 1.1),
    ("stage2", "v5e:2x4", 256, 8, "none"): (0.2, 5.2), ("stage2", "v5e:8x8", 256, 1, "none"): (0.03, 1.4),
    ("stage3", "v5e:2x4", 256, 8, "none"): (1.0, 6.4),
}  # fmt: skip


def config(stage="stage3", **shapes):
    made = tiny(stage)
    for part, layers in shapes.items():
        made.run.shapes[part].layers = layers
    return made


@pytest.mark.parametrize(
    ("stage", "remat"),
    [("stage1", "none"), *(pytest.param("stage3", remat, marks=pytest.mark.slow) for remat in ("attention", "full"))],
)
def test_few_layers_tell_of_all(stage, remat):
    made = config(stage, vision=4, decoder=3)
    counter = Counter(made.run, made.stage)
    assert counter.shapes == abstract_model(counter.config, jax.numpy.float32)[1]
    per_row, always = counter.residuals(24, remat)
    assert 100 * per_row + always == counter._count("residuals", 24, remat, 100, 4, 3)
    assert 100 * counter.flops(24, remat) == counter._count("flops", 24, remat, 100, 4, 3)


def test_state_is_that_of_a_session(trained, monkeypatch):
    made, workdir = trained
    plan = next(plan for plan in stages.chain(made, workdir) if plan.name == "stage3")
    state, frozen = start.initial_state(session.build(plan))
    counter = Counter(plan.run, plan.stage)
    bytes_there = groups.size_bytes(frozen) + sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert abs(counter.state(plan.stage.accumulate > 1) - bytes_there) < 100  # counters of steps
    before = counter.state(True)
    with counter.stage.unlocked():
        monkeypatch.setitem(counter.stage, "bf16_momentum", True)
    assert before - counter.state(True) == 2 * counter.learns
    assert counter.state(True, 8, 8) == counter.state(True) / 8
    assert counter.state(True, 1, 8) == counter.state(True)
    with counter.run.unlocked():
        monkeypatch.setitem(counter.run, "zero1", True)
    assert counter.state(True, 8, 8) == counter.state(True) / 8
    assert counter.state(True) - counter.state(True, 1, 8) == 10 * counter.learns * 7 / 8
    way = Way(2, 4, "none", False)
    assert counter.cost(way, 24, 8).state == round(counter.state(True, 1, 8))
    assert counter.cost(way, 24, 8, 2).state == round(counter.state(True, 2, 8)) < counter.cost(way, 24, 8).state


def test_targets():
    h100, eight, slice_ = peaks.target("h100"), peaks.target("h100:8"), peaks.target("v5e:2x4")
    assert (h100.chips, eight.chips, slice_.chips) == (1, 8, 8) and slice_.limit == 15.75 * GIB
    assert h100.limit == eight.limit and 59 < h100.limit / GIB < 60 and h100.peak == 989e12
    for wrong in ("h101", "v5e:2xa", "h100:0"):
        with pytest.raises(VlaxError, match=f"--device={wrong} is none that is known here: h100, .*v5e:2x4"):
            peaks.target(wrong)


def test_rows_of_the_recipe():
    """An epoch is a pass over epoch_of's file; captions and questions take the shortest bucket."""
    found = {m.__name__[-1]: planning.rows(m.get_config("0.9b").stage) for m in (stage1, stage2, stage3, stage4)}
    assert found["1"] == {32: 558_128}
    assert found["2"] == pytest.approx({256: 1_246_901, 64: 0.2 * 1_246_901})
    assert found["3"] == pytest.approx({256: 0.5 * 414_113, 64: 414_113})
    assert found["4"] == pytest.approx({64: 1.5 * 443_757, 256: 0.35 * 443_757})
    short = tiny("stage3")
    assert planning.rows(short.stage) == {40: 4 * 8}


@pytest.mark.slow
def test_the_way_that_fits():
    made = config()
    with made.stage.unlocked():
        made.stage.batch_size, made.stage.accumulate = 16, 1
    counter, device = Counter(made.run, made.stage), peaks.target("h100")
    need = counter.cost(Way(16, 1, "none", False), 40, 1)
    assert counter.cheapest(40, dataclasses.replace(device, limit=need.peak))[0] == Way(16, 1, "none", False)
    way, cost = counter.cheapest(40, dataclasses.replace(device, limit=need.peak - 1))
    assert (way.remat, way.accumulate) == ("none", 2) and cost.peak < need.peak
    assert counter.cheapest(40, dataclasses.replace(device, limit=counter.state(False) / 2)) is None
    assert way.flags("stage") == (
        "--config.stage.accumulate=2 --config.run.remat=none --config.run.mesh.data=-1 --config.run.mesh.fsdp=1"
    )


def test_the_command(tmp_path, capsys, monkeypatch):
    """Without data, weights or a workdir; what doesn't fit comes with flags that do."""
    monkeypatch.chdir(tmp_path)
    made = vlax.config("stage1", accumulate=1)
    made.run.remat = "none"
    monkeypatch.setattr(peaks, "target", lambda name: dataclasses.replace(REAL(name), limit=0.95 * GIB))
    plan_table.show(made, "none", "h100", compiles=False)
    out = capsys.readouterr().out
    assert out.startswith(
        "plan for h100: a device with 0.9 GiB that a step may take. Sizes are GiB of a device at the longest text,"
    )
    assert [line.split()[0] for line in out.splitlines()[2:5]] == ["stage0_decoder", "stage0_vision", "stage1"]
    assert "rows/s and hours assume 35% of the peak of 989 TFLOP/s a device, which is not measured" in out
    assert "DOESN'T FIT" in out and "would fit, estimated at " in out
    flags = dict(re.findall(r"^(stage\w+) would fit.*\n  --config\.([\w.]+)\.accumulate=", out, re.M))
    assert flags["stage1"] == "stage" and flags["stage0_vision"] == "parents.stage0_vision"  # where this command has them
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(VlaxError, match=r"stage\.batch_size=64 is not a multiple of stage\.accumulate=7"):
        plan_table.show(vlax.config("stage1", accumulate=7), "none", "h100", compiles=False)
    assert front.main(["train", "--config=stage3", "--device=h100"]) == 2
    assert "--device and --estimate belong to --plan" in capsys.readouterr().err


REAL = peaks.target


def test_the_cheaper_way_is_named_where_something_would_be_done_twice():
    """By a stage that fits; not where every way that fits does it, nor where nothing is done twice."""
    counter = types.SimpleNamespace(shapes={}, learns=1, flops=lambda text, remat: {"none": 2e12, "full": 2.5e12}[remat])
    target = dataclasses.replace(peaks.target("h100"), limit=10 * GIB)
    once, twice = (planning.Cost(GIB, 8 * GIB, flops) for flops in (2e12, 2.5e12))
    ways = Way(4, 2, "none", False), Way(8, 1, "full", False)

    def said(way, cost, instead):
        line = plan_table.Line(tiny("stage1").stage, counter, way, cost, "estimated", instead)
        return plan_table.text([line], target).partition("\ntogether ")[2].partition("\n")[2]

    assert said(ways[1], twice, (ways[0], once)) == (
        "stage1 would do 1.00 times the work in place of 1.25, estimated at 9.0 GiB, with\n"
        "  --config.stage.accumulate=2 --config.run.remat=none --config.run.mesh.data=-1 --config.run.mesh.fsdp=1"
    )
    assert said(ways[1], twice, (ways[1], twice)) == said(ways[1], twice, None) == said(ways[0], once, None) == ""
    large = dataclasses.replace(twice, temporaries=20 * GIB)
    assert said(ways[1], large, (ways[0], once)).startswith(
        "stage1 would fit, estimated at 9.0 GiB and 1.00 times the work, with"
    )
    assert said(ways[1], large, None) == (
        "stage1 fits in no way: more devices, or adapters (stage.lora) and stage.quantise=int8"
    )


def test_shapes_of_directories_are_theirs(trained):
    """A model that lies somewhere is what is planned for, not run.shapes."""
    made, workdir = trained
    plans = stages.chain(made, workdir)
    assert planning.model(plans) is None
    run = made.run.copy_and_resolve_references()
    run.vision = str(workdir / "stage0_vision" / "hf" / "vision")
    run.decoder = str(workdir / "stage0_decoder" / "hf" / "decoder")
    found = planning.model([dataclasses.replace(plan, run=run) for plan in plans])
    assert found.decoder.vocab_size > 16 and found.vision.width == 16
    run.decoder = "org/name"
    assert planning.model([dataclasses.replace(plan, run=run) for plan in plans]) is None


@pytest.mark.slow
@pytest.mark.parametrize("case", RECORDED)
def test_estimates_are_within_a_tenth_of_the_compilers(case):
    stage, device, text, rows, remat = case
    made = importlib.import_module(f"configs.{stage}").get_config("0.9b")
    target = peaks.target(device)
    way = dataclasses.replace(planning.shipped(made.stage, made.run, target.chips, remat), rows=rows)
    cost, (arguments, temporaries) = (
        Counter(made.run, made.stage, platform=target.platform).cost(way, text, target.chips),
        RECORDED[case],
    )
    assert cost.peak / GIB == pytest.approx(arguments + temporaries, rel=0.1)
    assert cost.state / GIB == pytest.approx(arguments, abs=0.1)
