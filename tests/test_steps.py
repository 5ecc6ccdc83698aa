"""The train step: what it refuses, what it reports, and what it does not compute."""

import collections
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import build, config, prompts, with_answers

from vlax.models.vlm import VLM
from vlax.params import groups
from vlax.training import optimizer, steps

STAGE1 = {"projector": "^projector/"}
STAGE3 = {"projector": "^projector/", "decoder": "^decoder/"}
ROWS, TEXT, IMAGE = 3, 7, 4


@pytest.fixture(scope="module")
def batch():
    return with_answers(prompts(rows=ROWS), np.full((ROWS, 2), 4, np.int32), 2)


def pieces(patterns, dtype=jnp.float32, accumulate=1, **options):
    """(step, state, frozen), nothing compiled yet."""
    _, graphdef, params = build()
    if dtype != jnp.float32:
        graphdef = jax.eval_shape(lambda: groups.flatten(VLM(config(), dtype=dtype, rngs=jax_rngs())))[0]
    params = {path: jnp.asarray(value) for path, value in params.items()}
    assigned = groups.assign(params, patterns)
    trainable, frozen = groups.split(params, assigned)
    frozen = {path: value.astype(dtype) for path, value in frozen.items()}
    tx = optimizer.make(optimizer.OptimizerConfig(8, accumulate), assigned, dict.fromkeys(patterns, 1e-2))
    state = {"params": trainable, "opt_state": optimizer.init(tx, trainable), "step": jnp.zeros((), jnp.int32)}
    step = functools.partial(steps.train_step, graphdef=graphdef, tx=tx, assigned=assigned, config=steps.StepConfig(**options))
    return step, state, frozen


def jax_rngs():
    from flax import nnx

    return nnx.Rngs(0)


@pytest.fixture(scope="module")
def compiled():
    step, state, frozen = pieces(STAGE3, accumulate=2)
    return jax.jit(step), state, frozen


def assert_bit_equal(a, b):
    for (path, x), y in zip(jax.tree.leaves_with_path(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes(), jax.tree_util.keystr(path)


def test_a_loss_that_is_not_finite_leaves_the_state_as_it_was(compiled, batch):
    step, state, frozen = compiled
    good, metrics = step(state, frozen, batch)
    assert metrics["finite"] == 1 and good["step"] == 1
    broken = {**frozen, "vision/patch/kernel": frozen["vision/patch/kernel"].at[0, 0].set(jnp.nan)}
    after, metrics = step(good, broken, batch)
    assert metrics["finite"] == 0 and not np.isfinite(metrics["loss_sum"])
    assert_bit_equal(after, good)
    again, metrics = step(after, frozen, batch)  # and it can go on from there
    assert metrics["finite"] == 1 and again["step"] == 2


def test_a_batch_without_answers_leaves_the_state_as_it_was(compiled, batch):
    step, state, frozen = compiled
    after, metrics = step(state, frozen, {**batch, "segment": np.minimum(batch["segment"], 1)})
    assert metrics["finite"] == 0 and metrics["tokens"] == 0 and metrics["loss_sum"] == 0
    assert_bit_equal(after, state)


def test_gradient_norms_are_those_of_the_token_mean_by_group(compiled, batch):
    step, state, frozen = compiled
    _, metrics = step(state, frozen, batch)
    _, graphdef, _ = build()

    def mean(trainable):
        loss, (tokens, _) = steps.loss_sum(trainable, frozen, batch, graphdef, steps.StepConfig())
        return loss / tokens

    grads = jax.jit(jax.grad(mean))(state["params"])
    for name in STAGE3:
        norm = np.sqrt(sum(np.square(g).sum() for path, g in grads.items() if path.startswith(name)))
        assert metrics[f"grad_norm/{name}"] == pytest.approx(norm, rel=1e-5)
    assert metrics["tokens"] == 2 * (ROWS - 1)  # the last row is filler


def test_the_eval_step_agrees_with_the_train_step(compiled, batch):
    step, state, frozen = compiled
    _, trained = step(state, frozen, batch)
    _, graphdef, _ = build()
    held_out = jax.jit(functools.partial(steps.eval_step, graphdef=graphdef, config=steps.StepConfig(micro_batches=4)))
    values = held_out(state["params"], frozen, batch)
    assert values["loss_sum"] == pytest.approx(float(trained["loss_sum"]), rel=1e-6)
    assert (values["tokens"], values["correct"]) == (trained["tokens"], trained["correct"])


def equations(jaxpr):
    """All equations, those inside of calls, scans and rematerialised bodies too."""
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in jax.tree.leaves(value, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def dots(patterns, batch, **options):
    """Counter of dot products by what they sum over: rows x tokens means a weight's gradient."""
    step, state, frozen = pieces(patterns, **options)
    found = collections.Counter()
    for eqn in equations(jax.make_jaxpr(step)(state, frozen, batch).jaxpr):
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            found[int(np.prod([eqn.invars[0].aval.shape[axis] for axis in contracted]))] += 1
    return found


def test_frozen_weights_have_no_gradient_products(batch):
    """Stage 1: the projector's weight alone. Stage 3: the seven matrices of the decoder's one layer and its tied head as well,
    of which those of keys and values alone are over image tokens, too."""
    stage1, stage3 = dots(STAGE1, batch), dots(STAGE3, batch)
    over_images, over_sequence, over_text = ROWS * IMAGE, ROWS * (IMAGE + TEXT), ROWS * TEXT
    assert stage1[over_images] == 1 and stage1[over_sequence] == 0 and stage1[over_text] == 0
    assert stage3[over_images] == 1 and stage3[over_sequence] == 2 and stage3[over_text] == 5 + 1
    assert stage3.total() - stage1.total() == 8  # nothing else differs: the activations' gradients are needed in both


def float32_products(lowered) -> list[tuple[str, ...]]:
    """Operand and result types of the products with a float32 operand, before XLA:CPU rewrites them."""
    found = re.findall(r"stablehlo\.dot_general.*?: \((tensor<[^>]*>), (tensor<[^>]*>)\) -> (tensor<[^>]*>)", lowered.as_text())
    assert len(found) >= 20
    return [types for types in found if types[0].endswith("xf32>") or types[1].endswith("xf32>")]


def test_the_bf16_step_has_no_float32_products(batch):
    """Neither forward nor backward: the cotangents of float32 logits are cast before they are multiplied."""
    step, state, frozen = pieces(STAGE3, jnp.bfloat16)
    held_out = functools.partial(steps.eval_step, graphdef=step.keywords["graphdef"], config=steps.StepConfig())
    assert float32_products(jax.jit(held_out).lower(state["params"], frozen, batch)) == []
    assert float32_products(jax.jit(step).lower(state, frozen, batch)) == []
