"""Frozen matrices in few bits: what is computed with them, what is kept for the backward pass, what a stage makes of them."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import qwix
from conftest import tiny, train

import vlax
from vlax.errors import VlaxError
from vlax.models import quantised
from vlax.models.build import abstract_model, fresh_part
from vlax.models.decoder import DecoderConfig
from vlax.models.vlm import VLMConfig
from vlax.params import groups
from vlax.training import estimate, session, stages, start

# Two blocks of 64 inputs and a half: the last dimension decides what divides them.
INPUTS, OUTPUTS = 160, 48
CONFIG = VLMConfig(DecoderConfig(vocab_size=64, width=64, layers=2, heads=4, kv_heads=2, head_dim=16, mlp_dim=128))
KINDS = pytest.mark.parametrize("kind", quantised.FORMATS)


@pytest.fixture(scope="module")
def kernel():
    return np.random.default_rng(0).normal(size=(INPUTS, OUTPUTS)).astype(np.float32)


def held(kernel, kind, dtype=jnp.float32):
    [value] = quantised.quantise({"decoder/layers/0/mlp/up/kernel": jnp.asarray(kernel)}, kind, dtype).values()
    return value


def test_formats(kernel):
    """int8 is wrong by half a step of 127.5 of the largest weight of an output; NF4's scales are those of 32 inputs here."""
    eight, four = held(kernel, "int8"), held(kernel, "nf4", jnp.bfloat16)
    assert (eight.qvalue.dtype, eight.scale.shape) == (jnp.int8, (1, OUTPUTS))
    assert (np.abs(qwix.dequantize(eight) - kernel) <= np.abs(kernel).max(0) / 127.5 / 2 * 1.001).all()
    assert (four.qvalue.dtype, four.scale.shape, four.scale.dtype) == (jnp.uint4, (INPUTS // 32, OUTPUTS), jnp.bfloat16)
    # The table of the paper's appendix E: 7 is zero, 15 the block's largest.
    block = kernel[:32, 0]
    codes, top = np.asarray(four.qvalue[:32, 0]).astype(int), np.argmax(np.abs(block))
    assert codes[top] == (15 if block[top] > 0 else 0)
    assert codes[np.argmin(np.abs(block))] == 7


@KINDS
def test_product_and_gradient(kernel, kind):
    """Those of the matrix that it stands for, and no matrix in the compute dtype is kept for the backward pass."""
    w, x = held(kernel, kind), jnp.asarray(np.random.default_rng(1).normal(size=(5, INPUTS)), jnp.float32)
    dense, cotangent = qwix.dequantize(w), jnp.ones((5, OUTPUTS)) * jnp.arange(OUTPUTS)
    out, back = jax.vjp(lambda x: quantised.product(x, w), x)
    np.testing.assert_allclose(out, x @ dense, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(back(cotangent)[0], cotangent @ dense.T, rtol=1e-5, atol=1e-2)
    kept = jax.tree.leaves(jax.eval_shape(lambda x, w: jax.vjp(lambda x: quantised.product(x, w), x)[1], x, w))
    assert all(leaf.shape != kernel.shape or leaf.dtype.itemsize == 1 for leaf in kept)


@KINDS
def test_model(kind):
    """Unrolled and scanned alike, the model that the dequantised matrices make; what learns, and what is no matrix, stays."""
    graphdef, abstract = abstract_model(CONFIG, jnp.float32)
    params = fresh_part("decoder", CONFIG, 0)
    few = quantised.quantise(dict(params), kind, jnp.float32)
    dense = {path: value if isinstance(value, jax.Array) else qwix.dequantize(value) for path, value in few.items()}
    assert sum(isinstance(value, qwix.QArray) for value in few.values()) == 2 * 7
    assert few["decoder/embedding"] is params["decoder/embedding"]
    batch = {
        "tokens": jnp.arange(16).reshape(2, 8), "segment": jnp.ones((2, 8), jnp.int32),
        "example": jnp.ones((2, 8), jnp.int32), "has_image": jnp.zeros((2, 1), bool),
    }  # fmt: skip
    logits = [groups.rebuild(graphdef, p)(batch, mode=mode) for p, mode in ((dense, "unroll"), (few, "unroll"), (few, "scan"))]
    np.testing.assert_allclose(logits[1], logits[0], atol=2e-5)
    np.testing.assert_allclose(logits[2], logits[0], atol=2e-5)
    shapes = quantised.abstract(abstract, kind, jnp.float32, kept=["decoder/layers/0/mlp/up/kernel"])
    assert isinstance(shapes["decoder/layers/0/mlp/up/kernel"], jax.ShapeDtypeStruct)
    rest = {path: value for path, value in few.items() if path != "decoder/layers/0/mlp/up/kernel"}
    assert {path: jax.tree.map(jnp.shape, value) for path, value in rest.items()} == {
        path: jax.tree.map(jnp.shape, shapes[path]) for path in rest
    }


def test_estimate():
    """A byte a parameter of a matrix, a scale of two bytes an output."""
    _, abstract = abstract_model(CONFIG, jnp.bfloat16)
    matrices = quantised.chosen(abstract)
    count, outputs = sum(abstract[p].size for p in matrices), sum(abstract[p].shape[1] for p in matrices)
    saved = estimate.state(abstract, [], "bfloat16") - estimate.state(abstract, [], "bfloat16", "int8")
    assert saved == 2 * count - (count + 2 * outputs)
    assert estimate.state(abstract, list(abstract), "bfloat16", "int8") == 16 * groups.count(abstract)


@pytest.fixture(scope="module")
def adapted(trained, tmp_path_factory):
    """stage3 with adapters on the decoder and int8 below them: (config, workdir, what was printed)."""
    _, done = trained
    workdir = tmp_path_factory.mktemp("few") / "w"
    shutil.copytree(done, workdir, ignore=shutil.ignore_patterns("stage3", "stage4"))
    trainable = {"projector": "^projector/", "decoder": "/lora_[ab]$"}
    config = tiny("stage3", stage__quantise="int8", stage__trainable=trainable, stage__lora__rank=2)
    return config, workdir, train(config, workdir)


def test_stage(adapted, trained):
    """The export has its parents' own matrices with the adapters merged in, not the quantised ones."""
    _, workdir, printed = adapted
    assert "compute float32, frozen matrices int8" in printed
    parent, mine = vlax.load(str(workdir / "stage1" / "export")), vlax.load(str(workdir / "stage3" / "export"))
    path = "decoder/layers/0/{}/kernel".format
    assert np.array_equal(parent.params[path("mlp/up")], mine.params[path("mlp/up")])
    delta = np.asarray(mine.params[path("attention/q")] - parent.params[path("attention/q")])
    assert np.abs(delta).max() > 0 and np.linalg.matrix_rank(delta, tol=1e-5) <= 2


def test_starts_are_equal(adapted):
    """No checkpoint has the frozen matrices: each start quantises them anew, to the same bits."""
    config, workdir, _ = adapted
    built = session.build(stages.chain(config, workdir)[-1])
    first, again = (start.initial_state(built)[1] for _ in range(2))
    assert isinstance(first["vision/layers/0/mlp/up/kernel"], qwix.QArray)
    assert isinstance(first["decoder/embedding"], jax.Array)
    assert [value.tobytes() for value in map(np.asarray, jax.tree.leaves(first))] == [
        value.tobytes() for value in map(np.asarray, jax.tree.leaves(again))
    ]


def test_decoding(adapted):
    """Weight-only: near the model's own logits and not the same; the predictor's texts come from it."""
    _, workdir, _ = adapted
    where, picture = str(workdir / "stage3" / "export"), np.zeros((16, 16, 3), np.uint8)
    plain, eight = vlax.load(where), vlax.load(where, quantise="int8")
    a, b = (model.logits([picture], ["a"], ["red"]) for model in (plain, eight))
    assert 0 < np.abs(a - b).max() < 0.05 * np.ptp(a)
    assert isinstance(eight.caption(picture, max_new_tokens=2), str)
    with pytest.raises(VlaxError, match="quantise='int4' is not one of int8, nf4"):
        vlax.load(where, quantise="int4")
    other = plain.quantised("int8")
    assert np.array_equal(other.logits([picture], ["a"], ["red"]), b)
    assert np.array_equal(plain.logits([picture], ["a"], ["red"]), a)  # it keeps its own
    assert eight.quantised("int8") is eight
    with pytest.raises(VlaxError, match="held in int8 already; load it again to hold them in nf4"):
        eight.quantised("nf4")
    path = "decoder/layers/0/mlp/up/kernel"
    flat = groups.arrays(eight.params)
    assert (flat[f"{path}/0"].dtype, flat[f"{path}/1"].shape) == (jnp.int8, (1, 16)) and path not in flat
    assert flat["decoder/embedding"] is eight.params["decoder/embedding"]


def test_nothing_to_quantise(trained):
    _, workdir = trained
    everything = tiny("stage3", stage__quantise="nf4", stage__trainable={"all": "."}, stage__learning_rate={"all": 1e-3})
    with pytest.raises(VlaxError, match=r"stage\.quantise=nf4: stage stage3 has no frozen matrix; train adapters"):
        session.build(stages.chain(everything, workdir)[-1])
    with pytest.raises(VlaxError, match=r"stage\.quantise='int9' is not one of int8, nf4, and not empty"):
        session.build(stages.chain(tiny("stage3", stage__quantise="int9"), workdir)[-1])
