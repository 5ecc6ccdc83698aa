"""Tokens drawn from what a model thinks of them."""

import jax
import jax.numpy as jnp

from vlax.decoding.options import DecodeConfig


def sample(logits: jax.Array, row: jax.Array, t: jax.Array, config: DecodeConfig) -> jax.Array:
    """int32[B]: one token a row from softmax(logits / temperature), cut to the nucleus. logits f32[B,V], row int32[B].

    The key of a row is folded from (seed, row id, t): what it draws depends neither on its slot nor on its batch mates. Tokens
    that tie with the last one of the nucleus belong to it.
    """
    logits = logits / config.temperature
    if config.top_p < 1:
        logits = nucleus(logits, config.top_p)
    key = jax.random.key(config.seed)
    keys = jax.vmap(lambda r: jax.random.fold_in(jax.random.fold_in(key, r), t))(row)
    return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)


def nucleus(logits: jax.Array, top_p: float | jax.Array) -> jax.Array:
    """logits f32[B,V] with -inf outside the fewest tokens that hold this much probability (f32[B,1], or one number)."""
    ordered = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
    share = jax.nn.softmax(ordered, axis=-1)
    inside = jnp.cumsum(share, axis=-1) - share < top_p
    least = jnp.where(inside, ordered, jnp.inf).min(-1, keepdims=True)
    return jnp.where(logits < least, -jnp.inf, logits)
