"""Pure train and evaluation steps over {params, opt_state, step}, the frozen parameters and a batch."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vlax.models.vlm import VLM, Batch
from vlax.params import groups
from vlax.training import optimizer

State = dict[str, Any]  # params, opt_state, step


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What of a step is static."""

    layers: str = "unroll"  # or "scan": see models/layers.py
    remat: str = "none"  # see models/remat.py
    micro_batches: int = 1  # > 1: the batch has a leading axis, which one lax.scan accumulates over


def loss_sum(
    trainable: groups.Params, frozen: groups.Params, batch: Batch, graphdef: nnx.GraphDef[VLM], config: StepConfig
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """(sum of the answer-token losses, (tokens, correct tokens)) of one micro-batch, all f32 scalars."""
    model = groups.rebuild(graphdef, groups.join(trainable, frozen))
    loss, tokens, correct = model.loss(batch, mode=config.layers, remat=config.remat)
    return loss, (tokens, correct)


def _gradients(
    trainable: groups.Params, frozen: groups.Params, batch: Batch, graphdef: nnx.GraphDef[VLM], config: StepConfig
) -> tuple[groups.Params, jax.Array]:
    """(gradients of the loss sum, f32[3] of loss sum, tokens and correct tokens), over all micro-batches."""
    # Only the trainable dict is differentiated: no cotangent exists for a frozen parameter, whatever XLA eliminates.
    grad = jax.value_and_grad(loss_sum, has_aux=True)

    def one(batch: Batch) -> tuple[groups.Params, jax.Array]:
        (loss, (tokens, correct)), grads = grad(trainable, frozen, batch, graphdef, config)
        return grads, jnp.stack([loss, tokens, correct])

    if config.micro_batches == 1:
        return one(batch)

    def body(carry: tuple[groups.Params, jax.Array], micro: Batch) -> tuple[tuple[groups.Params, jax.Array], None]:
        return jax.tree.map(jnp.add, carry, one(micro)), None

    zeros = jax.tree.map(jnp.zeros_like, dict(trainable)), jnp.zeros(3, jnp.float32)
    return jax.lax.scan(body, zeros, batch)[0]


def train_step(
    state: State, frozen: groups.Params, batch: Batch, *, graphdef: nnx.GraphDef[VLM], tx: optax.GradientTransformation,
    assigned: Mapping[str, str], config: StepConfig,
) -> tuple[State, dict[str, jax.Array]]:  # fmt: skip
    """One micro-step. Returns (state, metrics).

    metrics: f32 scalars loss_sum, tokens, correct, finite, and grad_norm/GROUP (of the token mean). When the loss or a
    gradient is not finite the state comes back as it was, so that the last good one can be saved and the run stopped.
    """
    grads, metrics = _measured(state, frozen, batch, graphdef, assigned, config)
    params, opt_state = optimizer.update(tx, grads, metrics["tokens"], state["opt_state"], state["params"])
    new = {"params": params, "opt_state": opt_state, "step": state["step"] + 1}
    return _where(metrics["finite"] > 0, new, dict(state)), metrics


def micro_step(
    state: State, frozen: groups.Params, batch: Batch, *, graphdef: nnx.GraphDef[VLM], assigned: Mapping[str, str],
    config: StepConfig, window: int,
) -> tuple[State, dict[str, jax.Array]]:  # fmt: skip
    """As `train_step` over MultiSteps' state, up to what it does at the end of a window, which is `close_window`'s part: the
    optimizer is not run, and of its state the accumulator alone is touched. A window that is full already takes no more."""
    grads, metrics = _measured(state, frozen, batch, graphdef, assigned, config)
    open_ = state["opt_state"].mini_step < window
    metrics["finite"] = metrics["finite"] * open_
    old = state["opt_state"]
    new = optimizer.gather(grads, metrics["tokens"], old, state["params"])
    fields = ("mini_step", "acc_grads", "skip_state")
    taken = _where(
        metrics["finite"] > 0,
        {"step": state["step"] + 1, **{name: getattr(new, name) for name in fields}},
        {"step": state["step"], **{name: getattr(old, name) for name in fields}},
    )
    step = taken.pop("step")
    return {"params": dict(state["params"]), "opt_state": old._replace(**taken), "step": step}, metrics


def close_window(state: State, *, inner: optax.GradientTransformation, window: int) -> State:
    """The update of a full window, and an empty one; the state as it is where the window is not full: a micro-batch was left
    out."""
    params, opt_state = optimizer.close(inner, state["opt_state"], state["params"])
    return _where(
        state["opt_state"].mini_step == window, {"params": params, "opt_state": opt_state, "step": state["step"]}, dict(state)
    )


def _where(taken: jax.Array, new: State, old: State) -> State:
    chosen: State = jax.tree.map(lambda fresh, before: jnp.where(taken, fresh, before), new, old)
    return chosen


def _measured(
    state: State, frozen: groups.Params, batch: Batch, graphdef: nnx.GraphDef[VLM], assigned: Mapping[str, str],
    config: StepConfig,
) -> tuple[groups.Params, dict[str, jax.Array]]:  # fmt: skip
    """(gradients of the loss sum, the metrics of `train_step`)"""
    grads, sums = _gradients(state["params"], frozen, batch, graphdef, config)
    tokens = sums[1]
    squares: dict[str, jax.Array] = {}
    for path, grad in grads.items():
        squares[assigned[path]] = squares.get(assigned[path], 0.0) + jnp.sum(jnp.square(grad.astype(jnp.float32)))
    norms = {f"grad_norm/{name}": jnp.sqrt(value) / jnp.maximum(tokens, 1) for name, value in squares.items()}
    finite = jnp.isfinite(jnp.stack([sums[0], *norms.values()])).all() & (tokens > 0)
    metrics = {"loss_sum": sums[0], "tokens": tokens, "correct": sums[2], "finite": finite.astype(jnp.float32), **norms}
    return grads, metrics


def eval_step(
    trainable: groups.Params, frozen: groups.Params, batch: Batch, *, graphdef: nnx.GraphDef[VLM], config: StepConfig
) -> dict[str, jax.Array]:
    """Held-out sums of one batch: f32 scalars loss_sum, tokens, correct."""
    config = dataclasses.replace(config, micro_batches=1)
    loss, (tokens, correct) = loss_sum(trainable, frozen, batch, graphdef, config)
    return {"loss_sum": loss, "tokens": tokens, "correct": correct}
