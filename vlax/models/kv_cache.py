"""Keys and values as a cache keeps them: as they are, or in int8 with a scale for each token and head.

A product takes scales out of its sum, so that codes are only converted where they go into it, never multiplied out:

    q (c s)^T = (q c^T) s       w (c s) = (w s) c

Shapes: B batch, G key/value heads, C slots, K head width, Q queries.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vlax.models.products import f32_matmul

KINDS = ("", "int8")  # "": in the compute dtype


class Codes(NamedTuple):
    """codes: int8[B,G,C,K], from -127 to 127; scales: f32[B,G,C,1]."""

    codes: jax.Array
    scales: jax.Array


Entries = jax.Array | Codes  # [B,G,C,K]
KV = tuple[Entries, Entries]  # keys and values of one layer


def coded(x: jax.Array) -> Codes:
    """Each vector of the last axis in 255 levels of its own: 0.4 % of its largest value is the most that one is off."""
    x = x.astype(jnp.float32)
    scales = jnp.abs(x).max(-1, keepdims=True) / 127
    return Codes(jnp.round(x / jnp.where(scales > 0, scales, 1)).astype(jnp.int8), scales)


def empty(sizes: Sequence[int], dtype: DTypeLike, kind: str) -> Entries:
    """Zeros. kind: one of KINDS."""
    zeros = jnp.zeros(tuple(sizes), dtype)
    return coded(zeros) if kind == "int8" else zeros


def shape(entries: Entries) -> tuple[int, ...]:
    """(B, G, C, K)"""
    return (entries.codes if isinstance(entries, Codes) else entries).shape


def written(entries: Entries, new: jax.Array, slot: int | jax.Array) -> Entries:
    """With new keys or values, [B,G,Q,K], at `slot`."""
    if not isinstance(entries, Codes):
        return jax.lax.dynamic_update_slice_in_dim(entries, new.astype(entries.dtype), slot, axis=2)
    pairs = zip(entries, coded(new), strict=True)
    return Codes(*(jax.lax.dynamic_update_slice_in_dim(old, part, slot, axis=2) for old, part in pairs))


def against(q: jax.Array, keys: Entries) -> jax.Array:
    """q k^T, f32[B,G,Q,C] of q [B,G,Q,K]."""
    if not isinstance(keys, Codes):
        return f32_matmul(q, jnp.swapaxes(keys, -1, -2))
    return f32_matmul(q, jnp.swapaxes(keys.codes, -1, -2).astype(q.dtype)) * jnp.swapaxes(keys.scales, -1, -2)


def factors(weights: jax.Array, values: Entries, dtype: DTypeLike) -> tuple[jax.Array, jax.Array]:
    """(w, v) of one dtype whose product is that of the weights f32[B,G,Q,C] with the values."""
    if not isinstance(values, Codes):
        return weights.astype(values.dtype), values
    return (weights * jnp.swapaxes(values.scales, -1, -2)).astype(dtype), values.codes.astype(dtype)
