"""Counters of the reference model's step: products, their operands, residuals and state, all from shapes.

Two layers of each transformer stand for the whole, which is counted with the slow tests.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from vlax.models.build import abstract_model
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.params import groups
from vlax.training import counters, optimizer, steps

STAGES = {"1": {"projector": "^projector/"}, "3": {"projector": "^projector/", "decoder": "^decoder/"}, "all": {"all": "."}}
ROWS, TEXT = 64, 64


WHOLE = pytest.mark.slow


@functools.cache
def model(image: int = 224, whole: bool = False):
    shapes, layers = base._shapes_0_9b(), {} if whole else {"layers": 2}
    vision = VisionConfig(**{**shapes.vision, "image_size": image, **layers})
    decoder = DecoderConfig(**{**shapes.decoder, **layers})
    made = VLMConfig(decoder, vision, ProjectorConfig("mlp", vision.width, decoder.width))
    return made, *abstract_model(made, jnp.bfloat16)


def formula(stage: str, image: int = 224, text: int = TEXT, whole: bool = False, layers: str = "scan") -> int:
    """Floating-point operations of one sample: y = xW once forward, once where something upstream of x learns, once where W
    does; the core of attention once, and twice more where something upstream learns; no credit for what is done twice.
    Unrolled, the last layer of the decoder makes keys and values of image tokens and nothing else."""
    made, _, _ = model(image, whole)
    v, d, n = made.vision, made.decoder, made.tokens_per_image
    seq = n + text
    vit = 2 * n * v.layers * (4 * v.width**2 + 2 * v.width * v.mlp_dim) + 4 * v.layers * n * n * v.width
    patch = 2 * n * 3 * v.patch_size**2 * v.width
    first, projector = 2 * n * v.width * d.width, 2 * n * (v.width * d.width + d.width**2)
    q, kv = d.heads * d.head_dim, d.kv_heads * d.head_dim
    linear = 2 * seq * d.layers * (2 * d.width * q + 2 * d.width * kv + 3 * d.width * d.mlp_dim)
    core = 4 * d.layers * q * (n * n + text * n + text * (text + 1) // 2)
    if layers == "unroll":
        linear -= 2 * n * (2 * d.width * q + 3 * d.width * d.mlp_dim)
        core -= 4 * q * n * n
    head = 2 * text * d.width * d.vocab_size
    if stage == "all":
        return 3 * vit + 2 * patch + 3 * (projector + linear + core + head)
    times = 2 if stage == "1" else 3
    return vit + patch + 3 * projector - first + times * linear + 3 * core + times * head


def pieces(stage: str, image: int = 224, text: int = TEXT, accumulate: int = 1, whole: bool = False):
    """(tx, assigned, state, frozen, batch), all shapes."""
    _, _, abstract = model(image, whole)
    shape = jax.ShapeDtypeStruct
    assigned = groups.assign(abstract, STAGES[stage])
    trainable, frozen = groups.split(abstract, assigned)
    frozen = {path: shape(value.shape, jnp.bfloat16) for path, value in frozen.items()}
    tx = optimizer.make(optimizer.OptimizerConfig(1000, accumulate), assigned, dict.fromkeys(STAGES[stage], 1e-4))
    opt_state = jax.eval_shape(lambda p: optimizer.init(tx, p), trainable)
    state = {"params": trainable, "opt_state": opt_state, "step": shape((), jnp.int32)}
    batch = {name: shape((ROWS, text), jnp.int32) for name in ("tokens", "segment", "example")}
    batch |= {"image": shape((ROWS, 1, image, image, 3), jnp.uint8), "has_image": shape((ROWS, 1), jnp.bool_)}
    return tx, assigned, state, frozen, batch


def traced(stage: str, image: int = 224, remat: str = "none", whole: bool = False, layers: str = "scan"):
    """The step's jaxpr. Scanned, one layer is traced, and a scan's body counts as often as it runs."""
    tx, assigned, state, frozen, batch = pieces(stage, image, whole=whole)
    graphdef, config = model(image, whole)[1], steps.StepConfig(layers, remat)
    step = functools.partial(steps.train_step, graphdef=graphdef, tx=tx, assigned=assigned, config=config)
    return jax.make_jaxpr(step)(state, frozen, batch).jaxpr


def check_products(stage: str, image: int, whole: bool, layers: str = "scan") -> None:
    jaxpr = traced(stage, image, whole=whole, layers=layers)
    assert 0.999 <= counters.dot_flops(jaxpr) / ROWS / formula(stage, image, whole=whole, layers=layers) <= 1.01
    dots = [eqn for eqn, _ in counters.equations(jaxpr) if eqn.primitive.name == "dot_general"]
    assert len(dots) >= 20
    assert {str(var.aval.dtype) for eqn in dots for var in eqn.invars} == {"bfloat16"}


@pytest.mark.parametrize(
    ("stage", "image", "layers"),
    [("1", 224, "scan"), ("3", 224, "scan"), ("all", 384, "scan"), ("1", 224, "unroll"), ("3", 224, "unroll")],
)
def test_products_of_the_step_are_those_of_the_formula(stage, image, layers):
    """Within 1 %, none with a float32 operand, and none for a frozen weight's gradient: the formula has none."""
    check_products(stage, image, whole=False, layers=layers)


@WHOLE
@pytest.mark.parametrize(
    ("stage", "image", "gflop"),
    [("1", 224, 736), ("3", 224, 982), ("all", 224, 1421), ("1", 384, 1993), ("3", 384, 2577), ("all", 384, 3911)],
)
def test_products_of_the_whole_step(stage, image, gflop):
    assert formula(stage, image, whole=True) / 1e9 == pytest.approx(gflop, abs=1)
    check_products(stage, image, whole=True)


@WHOLE
@pytest.mark.parametrize(("remat", "most"), [("attention", 1.02), ("mlp", 1.15), ("full", 1.25)])
def test_products_that_run_twice(remat, most):
    assert 1.003 <= counters.dot_flops(traced("3", remat=remat, whole=True)) / ROWS / formula("3", whole=True) <= most


def kept(remat: str, whole: bool) -> list[jax.ShapeDtypeStruct]:
    _, _, state, frozen, batch = pieces("3", whole=whole)
    return counters.residuals(state["params"], frozen, batch, model(whole=whole)[1], steps.StepConfig("unroll", remat))


def gigabytes(values) -> float:
    return sum(np.prod(x.shape) * x.dtype.itemsize for x in values) / 1e9


def test_residuals_of_a_layer():
    """Activations once, in bf16: of the decoder's first layer 64 x 320 x (3 x 896 + 2 x 128 + 896 + 2 x 4864) values, and
    the attention weights in two parts; of the last what keys and values are made of and from, the rest of the text
    alone; nothing of attention or the logits in float32."""
    values = kept("none", whole=False)
    first = ROWS * 320 * (4 * 896 + 2 * 128 + 2 * 4864) + ROWS * 14 * (256 * 256 + 64 * 320)
    last = ROWS * 320 * (896 + 2 * 128) + ROWS * 64 * (3 * 896 + 2 * 4864) + ROWS * 14 * 64 * 320
    layers = 2 * (first + last) / 1e9
    large = [x for x in values if x.dtype == jnp.float32 and np.prod(x.shape) > 1e8]
    assert [x.shape for x in large] == [(151_936, 896)]  # the embedding's gradient, which the forward pass has made
    assert 0 < gigabytes(values) - layers - 4 * 151_936 * 896 / 1e9 < 0.35  # of projector and norm


@WHOLE
def test_residuals_of_the_whole():
    assert 15 < gigabytes(kept("none", whole=True)) <= 18 and 3 < gigabytes(kept("mlp", whole=True)) <= 5


@WHOLE
@pytest.mark.parametrize(("stage", "accumulate", "frozen", "trained"), [("1", 1, 2, 12), ("3", 4, 2, 16), ("all", 1, 2, 12)])
def test_bytes_of_the_state(stage, accumulate, frozen, trained):
    """2 bytes a frozen parameter and 12 a trained one: itself and two moments; 4 more for MultiSteps' accumulator."""
    _, _, state, rest, _ = pieces(stage, accumulate=accumulate, whole=True)
    assert groups.count(state["params"]) + groups.count(rest) == 908_311_920
    have = groups.size_bytes(dict(enumerate(jax.tree.leaves((state, rest)))))
    assert have == pytest.approx(frozen * groups.count(rest) + trained * groups.count(state["params"]), rel=1e-5)
