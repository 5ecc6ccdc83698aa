"""Attention for both transformers: grouped queries, any boolean mask, 2-D matmuls, softmax in float32.

Shapes: H query heads, G key/value heads (H a multiple of G), K head width, Q queries, S keys.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from vlax.models.layers import RMSNorm, f32_matmul, residual_init
from vlax.models.lora import LoRAConfig, dense

KV = tuple[jax.Array, jax.Array]  # keys and values of one layer's cache, each [B,G,C,K]
Slot = int | jax.Array  # of a cache: where new keys and values are written
Rope = tuple[jax.Array, jax.Array]  # cos and sin, each f32[B,S,K/2]


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None, *, scale: float, softcap: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """softmax(q k^T * scale) v; also returns the weights, which nobody pays for unless they are used.

    q: [B,H,Q,K]; k, v: [B,G,S,K]; mask: bool[B,Q,S] or None (everybody sees everybody).
    Returns (out [B,H,Q,K], weights f32[B,H,Q,S]). softcap: tanh-cap of the logits before the mask (Gemma 2).
    """
    batch, heads, queries, width = q.shape
    groups, keys = k.shape[1], k.shape[2]
    # The heads of one group stack along the query axis: one plain batched matmul instead of repeating k and v.
    q = q.reshape(batch, groups, heads // groups * queries, width)
    logits = f32_matmul(q, jnp.swapaxes(k, -1, -2)) * scale
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    logits = logits.reshape(batch, heads, queries, keys)
    if mask is not None:
        logits = jnp.where(mask[:, None], logits, -1e30)
    weights = jax.nn.softmax(logits, axis=-1)
    flat = weights.astype(v.dtype).reshape(batch, groups, heads // groups * queries, keys)
    return jnp.einsum("bgqs,bgsk->bgqk", flat, v).reshape(batch, heads, queries, width), weights


def rope_frequencies(head_dim: int, theta: float, scaling: Mapping[str, Any] | None) -> np.ndarray:
    """Inverse frequencies f32[K/2] of rotary embeddings (Su et al. 2021).

    scaling: None, or a Hugging Face `rope_scaling` of rope_type "linear" or "llama3"; another type is a ValueError.
    """
    inverse = 1.0 / theta ** (np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim))
    scaling = scaling or {}
    kind = scaling.get("rope_type", "default")
    if kind == "linear":
        inverse = inverse / scaling["factor"]
    elif kind == "llama3":
        # Wavelengths beyond the original context are slowed down by `factor`; those in between are blended.
        original = scaling["original_max_position_embeddings"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = original * inverse / (2 * math.pi)
        blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
        inverse = (1 - blend) * inverse / scaling["factor"] + blend * inverse
    elif kind != "default":
        raise ValueError(f"rope scaling {kind!r} is not implemented; linear and llama3 are")
    return np.asarray(inverse, np.float32)


def rope_tables(positions: jax.Array, head_dim: int, theta: float, scaling: Mapping[str, Any] | None) -> Rope:
    """cos, sin: f32[B,S,K/2] for int32[B,S] positions."""
    angles = positions[..., None].astype(jnp.float32) * rope_frequencies(head_dim, theta, scaling)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates x [B,H,S,K] by its positions, halves paired as in Llama and Qwen."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    bias: bool = False  # on q, k and v
    out_bias: bool = False
    qk_norm: bool = False  # RMSNorm of each head's q and k (Qwen3)
    norm_eps: float = 1e-6
    scale: float | None = None  # None: head_dim ** -0.5
    softcap: float | None = None
    layers: int = 1  # of the transformer: scales the initial output projection
    lora: LoRAConfig | None = None


class Attention(nnx.Module):
    """Multi-head attention with 2-D matmuls: x comes and goes as [B*S, D], which XLA:CPU runs 1.5x faster."""

    def __init__(self, config: AttentionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        c = config
        options: dict[str, Any] = {"lora": c.lora, "dtype": dtype, "rngs": rngs}
        self.q = dense("q", c.width, c.heads * c.head_dim, use_bias=c.bias, **options)
        self.k = dense("k", c.width, c.kv_heads * c.head_dim, use_bias=c.bias, **options)
        self.v = dense("v", c.width, c.kv_heads * c.head_dim, use_bias=c.bias, **options)
        self.o = dense("o", c.heads * c.head_dim, c.width, use_bias=c.out_bias, kernel_init=residual_init(c.layers), **options)
        if c.qk_norm:
            self.q_norm = RMSNorm(c.head_dim, eps=c.norm_eps, dtype=dtype, rngs=rngs)
            self.k_norm = RMSNorm(c.head_dim, eps=c.norm_eps, dtype=dtype, rngs=rngs)
        self.config = c

    def __call__(
        self,
        x: jax.Array,
        batch: int,
        mask: jax.Array | None,
        rope: Rope | None = None,
        cache: KV | None = None,
        slot: Slot = 0,
    ) -> tuple[jax.Array, jax.Array, KV | None]:
        """x: [B*S,D]; mask: bool[B,S,keys] or None; rope: (cos, sin) or None; cache: (k, v), each [B,G,C,K], or None.

        With a cache, the new keys and values are written at `slot` and attention runs over the whole capacity C.
        Returns (out [B*S,D], weights f32[B,H,S,keys], cache).
        """
        c = self.config

        def split_heads(y: jax.Array, heads: int) -> jax.Array:
            return y.reshape(batch, -1, heads, c.head_dim)

        q, k, v = split_heads(self.q(x), c.heads), split_heads(self.k(x), c.kv_heads), split_heads(self.v(x), c.kv_heads)
        if c.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.transpose(0, 2, 1, 3) for y in (q, k, v))
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        if cache is not None:
            k = jax.lax.dynamic_update_slice_in_dim(cache[0], k.astype(cache[0].dtype), slot, axis=2)
            v = jax.lax.dynamic_update_slice_in_dim(cache[1], v.astype(cache[1].dtype), slot, axis=2)
            cache = (k, v)
        scale = c.head_dim**-0.5 if c.scale is None else c.scale
        out, weights = attend(q, k, v, mask, scale=scale, softcap=c.softcap)
        return self.o(out.transpose(0, 2, 1, 3).reshape(-1, c.heads * c.head_dim)), weights, cache
