"""Accumulation that is exact in tokens, clipping, decay, schedule and learning rates by group."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import build, prompts, with_answers

from vlax.params import groups
from vlax.training import optimizer, steps
from vlax.training.optimizer import OptimizerConfig
from vlax.training.windows import Windowed

WINDOW = 3  # micro-batches; one has few answer tokens, one many
GROUPS = {"projector": "^projector/", "decoder": "^decoder/"}


@functools.cache
def model():
    _, graphdef, params = build()
    params = {path: jnp.asarray(value) for path, value in params.items()}
    assigned = groups.assign(params, GROUPS)
    return graphdef, assigned, *groups.split(params, assigned)


def micro_batch(number: int) -> dict:
    """Three rows whose answers have 1, 8 or 3 tokens each."""
    rng = np.random.default_rng(number)
    answers = np.full((3, 8), 0, np.int32)
    answers[:] = rng.integers(2, 11, (3, 8))
    batch = with_answers(prompts(rows=3, seed=number), answers, 8)
    keep = (1, 8, 3)[number % WINDOW]
    first = (prompts(rows=3, seed=number)["example"] > 0).sum(-1)
    for row, begin in enumerate(first):
        for name in ("tokens", "segment", "example"):
            batch[name][row, begin + keep :] = 0
    return batch


def run(micro_batches, config: OptimizerConfig, scan: int = 1):
    """Parameters after all micro-batches, and the last metrics."""
    graphdef, assigned, trainable, frozen = model()
    tx = optimizer.make(config, assigned, {"projector": 1e-2, "decoder": 3e-3})
    step = jax.jit(functools.partial(steps.train_step, graphdef=graphdef, tx=tx, assigned=assigned,
                                     config=steps.StepConfig(micro_batches=scan)))  # fmt: skip
    state = {"params": trainable, "opt_state": optimizer.init(tx, trainable), "step": jnp.zeros((), jnp.int32)}
    for batch in micro_batches:
        state, metrics = step(state, frozen, batch)
        assert metrics["finite"] == 1
    return jax.tree.map(np.asarray, state["params"]), metrics


def stacked(batches, join):
    return {key: join([batch[key] for batch in batches]) for key in batches[0]}


@pytest.mark.slow  # beside the test of two programs against MultiSteps in one
def test_three_ways_to_cut_a_window_give_the_same_parameters():
    """MultiSteps, one scan, and one big batch, over two updates; averaging the means would be far off."""
    micro = [micro_batch(n) for n in range(2 * WINDOW)]
    windows = micro[:WINDOW], micro[WINDOW:]
    # A large eps keeps Adam from blowing up the rounding noise of gradients that are nearly zero.
    common = {"updates": 4, "warmup": 0.25, "clip": 0.5, "weight_decay": 0.1, "eps": 1e-3}
    by_multisteps, _ = run(micro, OptimizerConfig(accumulate=WINDOW, **common))
    by_scan, _ = run(
        [stacked(w, np.stack) for w in windows], OptimizerConfig(accumulate=WINDOW, multisteps=False, **common), WINDOW
    )
    at_once, _ = run([stacked(w, np.concatenate) for w in windows], OptimizerConfig(**common))
    start = model()[2]
    for path, want in at_once.items():
        moved = np.abs(want - start[path]).max()
        assert moved > 1e-4, path
        scale = max(np.abs(want).max(), 1e-2)
        np.testing.assert_allclose(by_multisteps[path], want, atol=1e-6 * scale, err_msg=path)
        np.testing.assert_allclose(by_scan[path], want, atol=1e-6 * scale, err_msg=path)

    graphdef, _, trainable, frozen = model()
    grad = jax.jit(jax.grad(lambda t, b: steps.loss_sum(t, frozen, b, graphdef, steps.StepConfig()), has_aux=True))
    sums = [grad(trainable, batch) for batch in windows[0]]
    tokens = [float(aux[0]) for _, aux in sums]
    assert max(tokens) > 4 * min(tokens)
    path = "decoder/layers/0/mlp/up/kernel"
    exact = sum(g[path] for g, _ in sums) / sum(tokens)
    naive = sum(g[path] / t for (g, _), t in zip(sums, tokens, strict=True)) / WINDOW
    assert np.linalg.norm(naive - exact) / np.linalg.norm(exact) > 1e-3


def test_two_programs_do_what_multisteps_does_in_one():
    """Bit by bit after every micro-batch, whichever process goes on in the middle of a window; a micro-batch that is not
    finite, the last of a window at that, changes nothing."""
    graphdef, assigned, trainable, frozen = model()
    config = OptimizerConfig(updates=4, accumulate=WINDOW, clip=0.5, weight_decay=0.1)
    tx, inner = (
        optimizer.make(each, assigned, {"projector": 1e-2, "decoder": 3e-3})
        for each in (config, dataclasses.replace(config, accumulate=1))
    )
    options = {"graphdef": graphdef, "assigned": assigned, "config": steps.StepConfig()}
    # The old emitters write a small product out amid what is added to it, and round it otherwise in one program than in two.
    jit = functools.partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": True})
    one = jit(functools.partial(steps.train_step, tx=tx, **options))
    micro = jit(functools.partial(steps.micro_step, window=WINDOW, **options))
    close = jit(functools.partial(steps.close_window, inner=inner, window=WINDOW))
    state = {"params": trainable, "opt_state": optimizer.init(tx, trainable), "step": jnp.zeros((), jnp.int32)}
    two, other = Windowed(micro, close, WINDOW), state
    for number in range(WINDOW + 2):
        if number == WINDOW - 1:
            broken = {**frozen, "vision/patch/kernel": frozen["vision/patch/kernel"] * np.nan}
            left, metrics = two(other, broken, micro_batch(number))
            assert metrics["finite"] == 0 and two.micro._cache_size() == 1
            assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), left, other))
        if number in (WINDOW - 1, WINDOW + 1):
            two = Windowed(micro, close, WINDOW)  # another process, which finds the state
        (state, values), (other, found) = one(state, frozen, micro_batch(number)), two(other, frozen, micro_batch(number))
        for (path, want), got in zip(jax.tree.leaves_with_path((state, values)), jax.tree.leaves((other, found)), strict=True):
            assert np.asarray(want).tobytes() == np.asarray(got).tobytes(), (number, jax.tree_util.keystr(path))
    assert other["opt_state"].gradient_step == 1 and other["opt_state"].mini_step == 2
    full = {**other, "opt_state": other["opt_state"]._replace(mini_step=jnp.asarray(WINDOW))}
    assert micro(full, frozen, micro_batch(0))[1]["finite"] == 0  # a full window takes no more


PARAMS = {"a/kernel": jnp.array([[3.0, -4.0]]), "b/bias": jnp.array([2.0, 0.5])}
LABELS = {"a/kernel": "a", "b/bias": "b"}


def one_update(grads, tokens, config=None, rates=None):
    """What one update adds to PARAMS."""
    tx = optimizer.make(config or OptimizerConfig(updates=1, clip=0), LABELS, rates or {"a": 1.0, "b": 1.0})
    new, state = jax.jit(lambda g, t: optimizer.update(tx, g, t, optimizer.init(tx, PARAMS), PARAMS))(grads, tokens)
    assert new.keys() == PARAMS.keys()  # the token leaf stays inside
    return {path: np.asarray(new[path] - PARAMS[path]) for path in PARAMS}, state


def adam_mean(state):
    """The first moments of the one update: 0.1 times the gradient that Adam saw."""
    return {path: np.asarray(v) / 0.1 for path, v in state[2].mu.items()}


def test_clipping_applies_to_the_token_mean():
    grads = {"a/kernel": jnp.array([[30.0, 40.0]]), "b/bias": jnp.zeros(2)}
    # A sum of norm 50 over 100 tokens is a mean of norm 0.5: below the limit of 1, so it stays.
    _, state = one_update(grads, 100, OptimizerConfig(updates=1, clip=1.0))
    np.testing.assert_allclose(adam_mean(state)["a/kernel"], [[0.3, 0.4]], rtol=1e-6)
    _, state = one_update(grads, 10, OptimizerConfig(updates=1, clip=1.0))  # a mean of norm 5 is cut to 1
    np.testing.assert_allclose(adam_mean(state)["a/kernel"], [[0.6, 0.8]], rtol=1e-6)
    _, state = one_update(grads, 10, OptimizerConfig(updates=1, clip=0))
    np.testing.assert_allclose(adam_mean(state)["a/kernel"], [[3.0, 4.0]], rtol=1e-6)


def test_weight_decay_is_for_matrices_only():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    moved, _ = one_update(zero, 1, OptimizerConfig(updates=1, clip=0, weight_decay=0.01, final=1.0), {"a": 0.5, "b": 0.5})
    np.testing.assert_allclose(moved["a/kernel"], -0.5 * 0.01 * np.asarray(PARAMS["a/kernel"]), rtol=1e-5)
    np.testing.assert_array_equal(moved["b/bias"], 0)


def test_each_group_has_its_own_learning_rate():
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    moved, _ = one_update(ones, 1, OptimizerConfig(updates=1, clip=0, final=1.0), {"a": 0.5, "b": 0.03})
    np.testing.assert_allclose(moved["a/kernel"], -0.5, rtol=1e-5)  # Adam's first step is lr * sign
    np.testing.assert_allclose(moved["b/bias"], -0.03, rtol=1e-5)


def test_schedule():
    share = optimizer.schedule(OptimizerConfig(updates=10, warmup=0.2, final=0.1))
    # two updates of warm-up (the first one moves, too), the peak at the second, then a cosine over eight to 0.1
    np.testing.assert_allclose([float(share(n)) for n in (0, 1, 5, 9)], [0.5, 1.0, 0.55, 0.1], rtol=1e-6)
    np.testing.assert_allclose(float(share(3)), 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi / 4)), rtol=1e-6)
    assert float(share(50)) == pytest.approx(0.1)
    assert float(optimizer.schedule(OptimizerConfig(updates=1))(0)) == 1.0


@pytest.mark.parametrize(
    ("accumulate", "multisteps", "bf16", "each"),
    ((1, True, False, 8), (4, True, False, 12), (4, False, False, 8), (1, True, True, 6), (4, True, True, 10)),
)
def test_frozen_parameters_have_no_optimizer_state(accumulate, multisteps, bf16, each):
    """8 bytes a trainable parameter, 6 with a first moment in bfloat16, and 4 for MultiSteps' accumulator; a frozen path
    appears nowhere."""
    _, assigned, trainable, frozen = model()
    config = OptimizerConfig(5, accumulate, multisteps, bf16_momentum=bf16)
    tx = optimizer.make(config, assigned, {"projector": 1.0, "decoder": 1.0})
    state = jax.eval_shape(lambda p: optimizer.init(tx, p), trainable)
    assert groups.size_bytes(dict(enumerate(jax.tree.leaves(state)))) <= 1.02 * each * groups.count(trainable)
    paths = " ".join(jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(state))
    assert not any(path in paths for path in frozen) and all(path in paths for path in trainable)


def test_a_first_moment_in_bfloat16_is_rounded_between_updates_alone():
    """The first update is bit for bit that of float32, the next ones differ by its rounding, a 256th; the second has none."""
    grads = {path: jnp.asarray(np.random.default_rng(1).normal(size=p.shape), jnp.float32) for path, p in PARAMS.items()}
    taken = {}
    for low in (False, True):
        config = OptimizerConfig(updates=4, clip=0, final=1.0, bf16_momentum=low)
        tx = optimizer.make(config, LABELS, {"a": 0.1, "b": 0.1})
        state, params, taken[low] = optimizer.init(tx, PARAMS), PARAMS, []
        step = jax.jit(lambda g, s, p, tx=tx: optimizer.update(tx, g, jnp.float32(1), s, p))
        for scale in (1.0, -0.5, 3.0):
            params, state = step(jax.tree.map(lambda g, scale=scale: g * scale, grads), state, params)
            taken[low].append(params)
        [adam] = [part for part in state if isinstance(part, optax.ScaleByAdamState)]
        assert {leaf.dtype for leaf in jax.tree.leaves(adam.mu)} == {jnp.dtype("bfloat16" if low else "float32")}
        assert {leaf.dtype for leaf in jax.tree.leaves(adam.nu)} == {jnp.dtype("float32")}
    for path in PARAMS:
        np.testing.assert_array_equal(taken[True][0][path], taken[False][0][path])
        np.testing.assert_allclose(taken[True][2][path], taken[False][2][path], atol=0.3 / 256)
    assert any((taken[True][2][path] != taken[False][2][path]).any() for path in PARAMS)


def test_one_infinite_gradient_does_not_poison_the_accumulators():
    config = OptimizerConfig(updates=2, accumulate=2, clip=0)
    tx = optimizer.make(config, LABELS, {"a": 1.0, "b": 1.0})
    bad = {**jax.tree.map(jnp.ones_like, PARAMS), "b/bias": jnp.array([jnp.inf, 0.0])}
    new, after = jax.jit(lambda g: optimizer.update(tx, g, 1.0, optimizer.init(tx, PARAMS), PARAMS))(bad)
    assert all((new[path] == PARAMS[path]).all() for path in PARAMS)
    assert after.mini_step == 0
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((after.acc_grads, after.inner_opt_state)))
