"""Attention for both transformers: grouped queries, 2-D matmuls, rotary positions, a cache.

Shapes: H query heads, G key/value heads (H a multiple of G), K head width, Q queries, S keys.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.typing import DTypeLike

from vlax.models.cores import Mask, attend, attend_shared, core, last_rows, whole
from vlax.models.kv_cache import KV, shape, written
from vlax.models.layers import RMSNorm, last_of, residual_init
from vlax.models.lora import LoRAConfig, dense
from vlax.models.placement import by_column, gathered
from vlax.models.remat import keep
from vlax.models.rope import Rope, rotate

Slot = int | jax.Array  # of a cache: where new keys and values are written


class Shared(NamedTuple):
    """One layer's cache of B*W rows, W neighbours of which have the first S slots in common: [B,G,S,K], and [B*W,G,C-S,K]."""

    front: KV
    own: KV


Cache = KV | Shared  # of one layer: (k, v), each [B,G,C,K] (`kv_cache.py`), or in two parts


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
        self.config, self.kernel = c, "xla"

    def __call__(self, x: jax.Array, batch: int, mask: Mask, rope: Rope | None = None, *, last: int | None = None) -> jax.Array:
        """x: [B*S,D]; mask: bool[B,S,S], in two parts, or None; rope: (cos, sin) or None. Returns [B*S,D], or of the last
        positions alone [B*last,D]."""
        q, k, v = (keep(y, name) for y, name in zip(self._heads(x, batch, rope, last), "qkv", strict=True))
        mask = mask if last is None else last_rows(mask, last)
        return self._out(core(q, k, v, mask, scale=self.scale, softcap=self.config.softcap, kernel=self.kernel))

    def trace(
        self, x: jax.Array, batch: int, mask: Mask, rope: Rope | None = None, cache: Cache | None = None,
        slot: Slot = 0,
    ) -> tuple[jax.Array, jax.Array, Cache | None]:  # fmt: skip
        """As __call__, and also returns the weights f32[B,H,S,keys] and the cache, or None.

        With a cache, the new keys and values are written at `slot`, attention runs over the whole capacity C, and mask is
        bool[B,S,C].
        """
        q, k, v = self._heads(x, batch, rope)
        if isinstance(cache, Shared):
            cache = Shared(cache.front, _written(cache.own, k, v, slot - shape(cache.front[0])[2]))
            out, weights = attend_shared(q, *cache, whole(mask), scale=self.scale, softcap=self.config.softcap)
            return self._out(out), weights, cache
        if cache is not None:
            cache = _written(cache, k, v, slot)
        sees = None if mask is None else whole(mask)
        out, weights = attend(q, *(cache or (k, v)), sees, scale=self.scale, softcap=self.config.softcap)
        return self._out(out), weights, cache

    @property
    def scale(self) -> float:
        return self.config.head_dim**-0.5 if self.config.scale is None else self.config.scale

    def _out(self, out: jax.Array) -> jax.Array:
        context = out.transpose(0, 2, 1, 3).reshape(-1, self.config.heads * self.config.head_dim)
        return gathered(self.o(keep(context, "context")))

    def _heads(
        self, x: jax.Array, batch: int, rope: Rope | None, last: int | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """q [B,H,S,K], or of the last positions, k and v [B,G,S,K], normed and rotated."""
        c = self.config

        def split_heads(y: jax.Array, heads: int) -> jax.Array:
            return y.reshape(batch, -1, heads, c.head_dim)

        x = gathered(x)
        asks = x if last is None else last_of(x, batch, last)
        q, k, v = by_column(self.q(asks), c.heads), by_column(self.k(x), c.kv_heads), by_column(self.v(x), c.kv_heads)
        if c.qk_norm_joint:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = split_heads(q, c.heads), split_heads(k, c.kv_heads), split_heads(v, c.kv_heads)
        if c.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.transpose(0, 2, 1, 3) for y in (q, k, v))
        if rope is not None:
            turns = rope if last is None else (rope[0][:, -last:], rope[1][:, -last:])
            q, k = rotate(q, *turns), rotate(k, *rope)
        return q, k, v


def _written(cache: KV, k: jax.Array, v: jax.Array, slot: Slot) -> KV:
    """The cache with new keys and values at `slot`."""
    return written(cache[0], k, slot), written(cache[1], v, slot)
