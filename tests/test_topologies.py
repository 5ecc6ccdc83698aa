"""Steps compiled for devices that are not here: what is compiled, for what, and what is read off it."""

import importlib
import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from vlax.errors import VlaxError
from vlax.models.cores import Kernels
from vlax.params import groups, sharding
from vlax.training import backward, peaks, topologies
from vlax.training.planning import Counter


def asked(stage: str = "stage3", **fields):
    """A `:0.9b` config whose transformers have a layer each."""
    config = importlib.import_module(f"configs.{stage}").get_config("0.9b")
    config.run.shapes.vision.layers = config.run.shapes.decoder.layers = 1
    config.stage.update(fields)
    return config


def program(config, text=64):
    run = config.run
    run.mesh, run.remat = {"data": 1, "fsdp": 1, "tp": 1}, "none"
    return topologies.program(run, config.stage, sharding.make_mesh((1, 1, 1), jax.devices()[:1]), text)


def test_what_is_compiled_is_the_stage_with_its_own_settings():
    step, (state, frozen, batch) = program(asked())
    assert batch["image"].shape == (64, 1, 224, 224, 3) and batch["tokens"].shape == (64, 64)
    assert set(batch) == {"image", "has_image", "tokens", "segment", "example"}
    assert {path.split("/")[0] for path in frozen} == {"vision"} and frozen["vision/position"].dtype == jnp.bfloat16
    trained = groups.count(state["params"])
    assert groups.size_bytes(dict(enumerate(jax.tree.leaves(state)))) == pytest.approx(
        16 * trained, rel=1e-5
    )  # with MultiSteps
    assert batch["tokens"].sharding.spec == P(("data", "fsdp"))
    assert (step.window, callable(step.micro.lower)) == (4, True)


def test_rows_of_packed_stages_and_of_whole_updates():
    stage = asked(packing=4, accumulation="scan").stage
    config = topologies.model_config(asked().run, stage)
    made = topologies.batch_shapes(stage, config, 256, sharding.make_mesh((1, 1, 1), jax.devices()[:1]))
    assert made["image"].shape == (4, 64, 4, 224, 224, 3) and made["owner"].shape == (4, 64, 4)


def test_collectives_of_a_program():
    text = """
      %ag = f32[8]{0} all-gather(%x), dimensions={0}
      %s = (f32[8], f32[8]) all-reduce-start(%ag)
      %d = f32[8] all-reduce-done(%s)
      %r = f32[8] add(%d, %all-reduce.1)"""
    assert topologies.collectives(text) == {"all-gather": 1, "all-reduce": 1}


def test_devices_by_name():
    assert topologies.gpus() == ["h100"]
    assert topologies.limit("h100:8") / topologies.GIB == pytest.approx(59.3, abs=0.1)  # 75 % of 79.1
    assert topologies.limit("v5e:2x4") / topologies.GIB == 15.75
    for name in ("a100", "v5e", "v5e:8", "v9x:2x4"):
        with pytest.raises(VlaxError, match=f"'{name}' is no device to compile for; they read like h100, h100:8, v5e:2x4"):
            topologies.devices(name)


@pytest.mark.parametrize(("name", "module", "extra"), [("h100", "jax_plugins.xla_cuda13", "gpu"), ("v6e:2x4", "libtpu", "tpu")])
def test_a_compiler_that_is_not_installed(name, module, extra):
    try:
        importlib.import_module(module)
    except ImportError:
        with pytest.raises(VlaxError, match=rf"comes with {module}, which isn't installed: pip install 'vlax\[{extra}\]'"):
            topologies.devices(name)
    else:
        pytest.skip(f"{module} is installed")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="the extra tpu is not installed")
def test_stage_3_fits_a_v5e_slice():
    config = importlib.import_module("configs.stage3").get_config("0.9b")
    m, target = config.run.mesh, peaks.target("v5e:2x4")
    config.run.remat = backward.planned(Counter(config.run, config.stage, platform=target.platform), target).remat
    on = topologies.mesh("v5e:2x4", (m.data, m.fsdp, m.tp))
    made = topologies.compiled(config.run, config.stage, on, config.stage.text_length, Kernels())
    assert made.peak < topologies.limit("v5e:2x4") and made.collectives["all-gather"] > 0
