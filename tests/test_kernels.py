"""Fused attention: equal to the reference by its own arguments, lowered for the device that it is for, and chosen by trying."""

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import REPO
from tiny import VISION, config

from vlax.errors import VlaxError
from vlax.models import cores
from vlax.models.build import abstract_model
from vlax.models.cores import Kernels, SplitMask
from vlax.training import kernels
from vlax.training.kernels import Load, Shapes, calls, choose

GPU = Load("gpu", "bfloat16", 2, 1, (8,))


@pytest.fixture
def anywhere(monkeypatch):
    """The kernel's call runs in XLA: what it is given, and in which order of axes, is what is asked about."""
    monkeypatch.setitem(cores.IMPLEMENTATIONS, "cudnn", "xla")


def values(queries: int, keys: int, heads: int = 4, groups: int = 2):
    rng = np.random.default_rng(0)
    sizes = ((2, heads, queries, 8), (2, groups, keys, 8), (2, groups, keys, 8))
    return [jnp.asarray(rng.normal(size=size), jnp.bfloat16) for size in sizes]


def test_a_kernel_is_called_as_the_reference_is(anywhere):
    """Grouped queries without a mask (the tower), with one for all queries, and masks in two parts, forward and backward."""
    rows = jnp.tri(4, 10, 6, dtype=bool)[None] & (jnp.arange(10) != 2)
    masks = [None, rows[:, :1], SplitMask(6, None, rows[:, :4]), SplitMask(6, rows[:, -1:], rows)]

    def run(kernel, q, k, v):
        found = []
        for mask in masks:
            out, pull = jax.vjp(functools.partial(cores.core, mask=mask, scale=0.3, kernel=kernel), q, k, v)
            found.append((out, pull(out)))
        return found

    got, want = (jax.jit(functools.partial(run, kernel))(*values(10, 10)) for kernel in ("cudnn", "xla"))
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(one.astype(np.float32), other.astype(np.float32), atol=0.05 * jnp.abs(other).max())


def test_cudnn_is_lowered_for_cuda_without_a_device(monkeypatch):
    library = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(library, "check_cudnn_version", lambda: 91300)
    mask = SplitMask(6, None, jnp.tri(4, 10, 6, dtype=bool)[None])

    def loss(q, k, v):
        return cores.core(q, k, v, mask, scale=0.3, kernel="cudnn").astype(jnp.float32).sum()

    step = jax.jit(jax.grad(loss, (0, 1, 2)))
    text = step.trace(*values(10, 10)).lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @__cudnn$fmhaSoftmax(") == text.count("custom_call @__cudnn$fmhaSoftmaxBackward(") == 1
    assert text.count("custom_call @__cudnn$fmhaScaleBiasSoftmax(") == 1  # the text's rows, with their mask
    assert "4x10xf32" not in text and "6x6xf32" not in text  # no weights outside of the kernels


def test_the_plain_paths_are_lowered_for_tpus():
    step = jax.jit(jax.grad(lambda q, k, v: cores.core(q, k, v, None, scale=0.3).astype(jnp.float32).sum(), (0, 1, 2)))
    assert "dot_general" in step.trace(*values(10, 10)).lower(lowering_platforms=("tpu",)).as_text()


def test_parts_of_a_model_have_their_own_kernel():
    graphdef, shapes = abstract_model(config(), jnp.bfloat16, Kernels("cudnn", "xla"))
    assert abstract_model(config(), jnp.bfloat16)[1] == shapes and str(graphdef).count("'cudnn'") == VISION.layers


def test_calls_of_a_run():
    """Two rows a device of four heads in two groups: the tower's 4 tokens, the 4 image tokens, 8 of text over all 12."""
    made = calls(config(), GPU)
    assert made["vision"] == [Shapes(2, 2, 2, 4, 4, 4, False)]
    assert made["decoder"] == [Shapes(2, 4, 2, 4, 4, 4, False), Shapes(2, 4, 2, 8, 12, 4, True)]
    assert calls(config(mask="prefix_lm"), GPU)["decoder"][0] == Shapes(2, 4, 2, 4, 12, 4, True)
    packed = Load("gpu", "bfloat16", 2, 2, (8,), slots=3, first=False)
    assert calls(config(), packed)["decoder"] == [Shapes(2, 2, 1, 20, 20, 4, True)]
    assert calls(config(text_only=True), GPU) == {"decoder": [Shapes(2, 4, 2, 8, 8, 4, True)]}


def test_auto_takes_what_runs_and_says_why_not(anywhere, monkeypatch):
    assert choose("auto", config(), GPU) == (Kernels("cudnn", "cudnn"), "tried at this run's shapes, forward and backward")
    monkeypatch.setattr(kernels, "attempt", lambda kernel, shapes: "no plan for such heads" if shapes.masked else "")
    chosen, why = choose("auto", config(), GPU)
    assert chosen == Kernels("cudnn", "xla")
    assert why.startswith("vision: tried at") and "decoder: no plan for such heads (2 rows, 4/2 heads of 4, 8 x 12" in why
    with pytest.raises(VlaxError, match=r"run.attention=cudnn doesn't run in the decoder: no plan .*attention=xla"):
        choose("cudnn", config(), GPU)


def test_a_kernel_that_gives_something_else_is_not_taken(monkeypatch):
    monkeypatch.setattr(cores, "fused", lambda q, k, v, mask, scale, kernel: 1.2 * cores.mix(q, k, v, mask, scale))
    assert kernels.attempt("cudnn", Shapes(1, 2, 1, 4, 4, 8, False)).startswith("its result differs from the reference's by ")


@pytest.mark.parametrize(
    ("load", "why"),
    [
        (Load("cpu", "bfloat16", 2, 1, (8,)), "the devices are of kind cpu"),
        (Load("gpu", "float32", 2, 1, (8,)), "run.dtype is float32, and kernels take bfloat16"),
    ],
)
def test_no_kernel_is_tried_where_none_can_run(load, why):
    assert choose("auto", config(), load) == (Kernels("xla", "xla"), why)
    assert choose("xla", config(), GPU) == (Kernels("xla", "xla"), "as run.attention says")
    with pytest.raises(VlaxError, match=f"run.attention=cudnn doesn't run in the vision: {why}"):
        choose("cudnn", config(), load)
    with pytest.raises(VlaxError, match=r"run.attention='cuddn' is not one of auto, xla, cudnn; did you mean 'cudnn'\?"):
        choose("cuddn", config(), load)


MESHES = """
import functools, json, sys
import jax, jax.numpy as jnp, numpy as np
from vlax.models import cores
from vlax.params import sharding

cores.IMPLEMENTATIONS["cudnn"] = "xla"
rng, found = np.random.default_rng(0), {}
args = [jnp.asarray(rng.normal(size=(4, heads, 10, 8)), jnp.bfloat16) for heads in (4, 2, 2)]
rows = jnp.broadcast_to(jnp.tri(4, 10, 6, dtype=bool), (4, 4, 10))

def run(kernel, rows, *args):
    out, pull = jax.vjp(functools.partial(cores.core, mask=cores.SplitMask(6, None, rows), scale=0.3, kernel=kernel), *args)
    return jax.tree.leaves((out, pull(out)))

want = jax.jit(functools.partial(run, "xla"))(rows, *args)
for shape in ((2, 2, 2), (8, 1, 1), (1, 1, 8)):
    with jax.set_mesh(sharding.make_mesh(shape)):
        step = jax.jit(functools.partial(run, "cudnn"))
        got, text = step(rows, *args), step.lower(rows, *args).compile().as_text()
    worst = max(float(jnp.abs(a.astype(float) - b.astype(float)).max()) for a, b in zip(got, want))
    found[str(shape)] = [worst < 0.05, text.count(" all-gather("), text.count(" all-reduce(")]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_each_device_of_a_mesh_computes_its_own_rows_and_heads():
    """Equal to one device's result, without a collective; rows or heads that eight devices don't divide stay whole."""
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", MESHES], env=env, cwd=REPO, capture_output=True, text=True, check=True)
    made = json.loads(done.stdout.splitlines()[-1])
    assert made == {shape: [True, 0, 0] for shape in ("(2, 2, 2)", "(8, 1, 1)", "(1, 1, 8)")}
