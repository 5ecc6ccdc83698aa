"""AdamW with a learning rate by group, cosine with warm-up, clipping, and accumulation that is exact in tokens.

The optimizer sees the trainable parameters and one more leaf, TOKENS. Gradients are those of the *sum* of answer-token losses,
and the leaf carries the number of those tokens. `optax.MultiSteps` then averages both over the window, and dividing one mean by
the other gives sum / tokens of the whole window, however it was cut. Averaging per-micro-batch means instead, as is common,
is wrong as soon as token counts differ (transformers#34191).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vlax.params.groups import Params

TOKENS = "#tokens"  # no parameter path has a "#"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """updates: optimizer updates in the whole stage; extended: those of them that were added when it was finished, in turn. The
    cosine spans what was there at first, and each addition has one of its own."""

    updates: int
    accumulate: int = 1
    multisteps: bool = True  # False: the step scans over its micro-batches and updates once
    warmup: float = 0.03  # share of the updates
    final: float = 0.0  # learning rate at the end, as a share of the peak
    clip: float = 1.0  # global norm; 0 switches clipping off
    weight_decay: float = 0.0  # on matrices only: not on biases, norms and scales
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    # The first moment alone: a tenth of it is new at each update. Of the second it is 1 - b2, a fiftieth or a thousandth, and
    # bfloat16 rounds to a 256th: what is new would be lost in part or altogether.
    bf16_momentum: bool = False
    extended: tuple[int, ...] = ()


def schedule(config: OptimizerConfig, xp: Any = jnp) -> Callable[[Any], Any]:
    """Update number (from 0) -> share of the peak learning rate: linear warm-up, then cosine to `final`; the same anew for what
    was added (a warm restart, arXiv 1608.03983). xp: jax.numpy, or numpy for who only wants to know."""
    begin = config.updates - sum(config.extended)
    first = _cycle(config, begin, xp)
    restarts = [(begin + sum(config.extended[:at]), _cycle(config, more, xp)) for at, more in enumerate(config.extended)]

    def share(count: Any) -> Any:
        value = first(count)
        for start, cycle in restarts:
            value = xp.where(count >= start, cycle(count - start), value)
        return value

    return share


def _cycle(config: OptimizerConfig, updates: int, xp: Any) -> Callable[[Any], Any]:
    warmup = max(1, round(config.warmup * updates))

    def share(count: Any) -> Any:
        step = xp.asarray(count, xp.float32) + 1  # the first update moves, too
        progress = xp.clip((step - warmup) / max(1, updates - warmup), 0.0, 1.0)
        cosine = config.final + (1 - config.final) * 0.5 * (1 + xp.cos(xp.pi * progress))
        return xp.where(step < warmup, step / warmup, cosine)

    return share


def with_tokens(tree: Mapping[str, jax.Array], tokens: jax.Array | float) -> Params:
    """The optimizer's tree: the trainable dict and the token leaf."""
    return {**tree, TOKENS: jnp.asarray(tokens, jnp.float32)}


def _divide_by_tokens(updates: Params, params: Params | None = None) -> Params:
    del params
    tokens = updates[TOKENS]
    return {path: jnp.zeros_like(g) if path == TOKENS else g / tokens.astype(g.dtype) for path, g in updates.items()}


def make(
    config: OptimizerConfig, groups: Mapping[str, str], learning_rates: Mapping[str, float]
) -> optax.GradientTransformation:
    """The transformation over `with_tokens(trainable)`; `groups` is {path: group}, `learning_rates` {group: peak}."""

    def by_group(updates: Params, params: Params | None = None) -> Params:
        del params
        return {p: u if p == TOKENS else u * -learning_rates[groups[p]] for p, u in updates.items()}

    def decayed(params: Params) -> dict[str, bool]:
        return {path: path != TOKENS and value.ndim > 1 for path, value in params.items()}

    inner = optax.chain(
        optax.stateless(_divide_by_tokens),
        optax.clip_by_global_norm(config.clip) if config.clip else optax.identity(),
        optax.scale_by_adam(config.b1, config.b2, config.eps, mu_dtype=jnp.bfloat16 if config.bf16_momentum else None),
        optax.add_decayed_weights(config.weight_decay, mask=decayed) if config.weight_decay else optax.identity(),
        optax.stateless(by_group),
        optax.scale_by_schedule(schedule(config)),
    )
    if config.accumulate == 1 or not config.multisteps:
        return inner  # MultiSteps would run for nothing
    multi = optax.MultiSteps(inner, every_k_schedule=config.accumulate, should_skip_update_fn=optax.skip_not_finite)
    return multi.gradient_transformation()


def init(tx: optax.GradientTransformation, trainable: Mapping[str, jax.Array]) -> optax.OptState:
    return tx.init(with_tokens(trainable, 0.0))


def update(
    tx: optax.GradientTransformation, grads: Params, tokens: jax.Array, opt_state: optax.OptState, trainable: Params
) -> tuple[Params, optax.OptState]:
    """One (micro-)step from the gradients of the loss *sum*. Returns (new trainable, new optimizer state)."""
    return _applied(tx, with_tokens(grads, tokens), opt_state, trainable)


def _applied(
    tx: optax.GradientTransformation, gradients: Params, opt_state: optax.OptState, trainable: Params
) -> tuple[Params, optax.OptState]:
    full = with_tokens(trainable, 0.0)
    updates, opt_state = tx.update(gradients, opt_state, full)
    new = optax.apply_updates(full, updates)
    return {path: value for path, value in new.items() if path != TOKENS}, opt_state


def gather(grads: Params, tokens: jax.Array, opt_state: optax.MultiStepsState, trainable: Params) -> optax.MultiStepsState:
    """MultiSteps' state with one more micro-batch in it, as MultiSteps itself would have it before it looks whether the window
    is full; what is done then is `close`'s part."""
    full, taken = with_tokens(grads, tokens), opt_state.mini_step
    skip, skipped = optax.skip_not_finite(full, opt_state.gradient_step, trainable)

    def add(full: Params, means: Params, taken: jax.Array) -> Params:
        added: Params = jax.tree.map(lambda grad, mean: mean + (grad - mean) / (taken + 1), full, means)
        return added

    # A branch, as in MultiSteps: fused with the products before it, the sum would be rounded in another way.
    mean = jax.lax.cond(skip, lambda full, means, taken: means, add, full, opt_state.acc_grads, taken)
    return opt_state._replace(mini_step=taken + 1, acc_grads=mean, skip_state=skipped)


def close(
    inner: optax.GradientTransformation, opt_state: optax.MultiStepsState, trainable: Params
) -> tuple[Params, optax.MultiStepsState]:
    """(new trainable, new state) of MultiSteps around `inner` at the end of a window."""
    params, inner_state = _applied(inner, opt_state.acc_grads, opt_state.inner_opt_state, trainable)
    empty = jax.tree.map(lambda mean: 0.0 * mean, opt_state.acc_grads)  # which keeps signs, as MultiSteps does
    done = optax.safe_increment(opt_state.gradient_step)
    return params, opt_state._replace(
        mini_step=jnp.zeros_like(opt_state.mini_step), gradient_step=done, inner_opt_state=inner_state, acc_grads=empty
    )
