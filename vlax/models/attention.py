"""Attention for both transformers: grouped queries, any boolean mask, 2-D matmuls, softmax in float32.

Shapes: H query heads, G key/value heads (H a multiple of G), K head width, Q queries, S keys.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vlax.models.layers import RMSNorm, f32_matmul, residual_init
from vlax.models.lora import LoRAConfig, dense
from vlax.models.rope import Rope, rotate

KV = tuple[jax.Array, jax.Array]  # keys and values of one layer's cache, each [B,G,C,K]
Slot = int | jax.Array  # of a cache: where new keys and values are written


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


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    bias: bool = False  # on q, k and v
    key_bias: bool = True  # where there are biases: on k, too
    out_bias: bool = False
    qk_norm: bool = False  # RMSNorm of each head's q and k (Qwen3)
    qk_norm_joint: bool = False  # RMSNorm of all heads' q together, and of all k (OLMo 2)
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
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
        self.k = dense("k", c.width, c.kv_heads * c.head_dim, use_bias=c.bias and c.key_bias, **options)
        self.v = dense("v", c.width, c.kv_heads * c.head_dim, use_bias=c.bias, **options)
        self.o = dense("o", c.heads * c.head_dim, c.width, use_bias=c.out_bias, kernel_init=residual_init(c.layers), **options)
        if c.qk_norm or c.qk_norm_joint:
            queries, keys = (c.heads, c.kv_heads) if c.qk_norm_joint else (1, 1)
            norm: dict[str, Any] = {"eps": c.norm_eps, "offset": c.norm_offset, "dtype": dtype, "rngs": rngs}
            self.q_norm, self.k_norm = RMSNorm(queries * c.head_dim, **norm), RMSNorm(keys * c.head_dim, **norm)
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

        q, k, v = self.q(x), self.k(x), self.v(x)
        if c.qk_norm_joint:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = split_heads(q, c.heads), split_heads(k, c.kv_heads), split_heads(v, c.kv_heads)
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
