"""The language model: one transformer with the options by which the families of `pretrained/families` differ."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vlax.errors import VlaxError
from vlax.models.attention import Attention, AttentionConfig, Cache, Slot
from vlax.models.cores import Mask, keys_of, one_of, whole
from vlax.models.layers import MLP, RMSNorm, apply_layers, last_of, layer_norm
from vlax.models.lora import LoRAConfig
from vlax.models.loss import Head
from vlax.models.placement import by_row_and_width
from vlax.models.products import f32_matmul
from vlax.models.remat import keep
from vlax.models.rope import Rope, no_turn, rope_tables

Masks = tuple[Mask, Mask]  # of the layers that see everything, and of those with a sliding window
Ropes = tuple[Rope | None, ...]  # the usual tables, the windowed layers' own, those under which nothing turns; the ones in use


class _Frozen(dict[str, Any]):
    """A dict that nobody changes: flax hashes a config as part of its module's structure, which a plain dict refuses.

    A list in it, which JSON makes of a tuple, is a tuple again.
    """

    def __init__(self, values: Any = ()):
        super().__init__({name: tuple(v) if isinstance(v, list) else v for name, v in dict(values).items()})

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has None there
        return hash(tuple(sorted(self.items())))


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder. Defaults are the Llama/Qwen2 form; sizes have none."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_dim: int
    activation: str = "silu"
    gated_mlp: bool = True
    mlp_bias: bool = False
    norm: str = "rms"  # "rms" or "layer"
    norm_offset: float = 0.0  # 1 for Gemma: the stored scale is w - 1
    eps: float = 1e-6
    qkv_bias: bool = False  # True for Qwen2
    out_bias: bool = False
    qk_norm: bool = False  # of each head (Qwen3, Gemma 3)
    qk_norm_joint: bool = False  # of all heads together (OLMo 2)
    rope_theta: float | None = 10_000.0  # None: learned positions instead (GPT-2, OPT)
    rope_scaling: dict[str, Any] | None = None
    rotary_dim: int | None = None  # the first dimensions of a head that turn (Phi-4, StableLM); None: all of them
    window_rope_theta: float | None = None  # of the windowed layers, unscaled (Gemma 3); None: as the others
    nope_layers: tuple[int, ...] = ()  # layers that know no positions (SmolLM3)
    max_positions: int = 0  # of the learned table; 0 with RoPE
    tied: bool = True  # the head is the embedding
    embed_scale: bool = False  # Gemma multiplies embeddings by sqrt(width)
    embed_multiplier: float = 1.0  # Granite, as the next two
    residual_multiplier: float = 1.0  # of what attention and MLP return
    logit_divisor: float = 1.0
    attention_scale: float | None = None  # None: head_dim ** -0.5
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    pre_norms: bool = True  # norms before attention and MLP; OLMo 2 has none
    post_norms: bool = False  # norms of what attention and MLP return (Gemma 2 and 3, OLMo 2)
    window: int | None = None  # sliding window, in positions
    window_layers: tuple[int, ...] = ()  # the layers that it holds for
    lora: LoRAConfig | None = None  # adapters while a stage trains; exports are merged

    def __post_init__(self) -> None:
        if isinstance(self.lora, dict):
            object.__setattr__(self, "lora", LoRAConfig(**self.lora))
        if self.rope_scaling is not None:
            object.__setattr__(self, "rope_scaling", _Frozen(self.rope_scaling))


def check_length(c: DecoderConfig, length: int) -> None:
    """VlaxError for a sequence beyond LongRoPE's short context, where the reference takes other factors for all of it."""
    if c.rope_scaling is not None and c.rope_scaling["rope_type"] == "longrope":
        most = c.rope_scaling["original_max_position_embeddings"]
        if length > most:
            raise VlaxError(
                f"a sequence of {length} positions, and this decoder's LongRoPE is implemented up to {most}: make texts "
                f"shorter (--config.stage.text_length), or take fewer image tokens"
            )


def _norm(c: DecoderConfig, dtype: DTypeLike, rngs: nnx.Rngs) -> RMSNorm | nnx.LayerNorm:
    if c.norm == "rms":
        return RMSNorm(c.width, eps=c.eps, offset=c.norm_offset, dtype=dtype, rngs=rngs)
    return layer_norm(c.width, eps=c.eps, dtype=dtype, rngs=rngs)


class Block(nnx.Module):
    def __init__(self, c: DecoderConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        attention = AttentionConfig(
            c.width, c.heads, c.kv_heads, c.head_dim, bias=c.qkv_bias, out_bias=c.out_bias, qk_norm=c.qk_norm,
            qk_norm_joint=c.qk_norm_joint, norm_eps=c.eps, norm_offset=c.norm_offset, scale=c.attention_scale,
            softcap=c.attention_softcap, layers=c.layers, lora=c.lora,
        )  # fmt: skip
        if c.pre_norms:
            self.norm1 = _norm(c, dtype, rngs)
        self.attention = Attention(attention, dtype=dtype, rngs=rngs)
        if c.pre_norms:
            self.norm2 = _norm(c, dtype, rngs)
        self.mlp = MLP(
            c.width, c.mlp_dim, activation=c.activation, gated=c.gated_mlp, bias=c.mlp_bias, layers=c.layers, lora=c.lora,
            dtype=dtype, rngs=rngs,
        )  # fmt: skip
        if c.post_norms:
            self.post_norm1, self.post_norm2 = _norm(c, dtype, rngs), _norm(c, dtype, rngs)
        self.pre_norms, self.post_norms, self.residual = c.pre_norms, c.post_norms, c.residual_multiplier

    def trace(
        self, x: jax.Array, batch: int, mask: Mask, rope: Rope | None, cache: Cache | None = None, slot: Slot = 0
    ) -> tuple[jax.Array, jax.Array, Cache | None]:
        """As __call__, and also returns the attention weights f32[B,H,S,keys] and the updated cache."""
        out, weights, cache = self.attention.trace(self.norm1(x) if self.pre_norms else x, batch, mask, rope, cache, slot)
        return self._rest(x, out), weights, cache

    def _rest(self, x: jax.Array, out: jax.Array) -> jax.Array:
        """The block from what attention returns."""
        x = keep(self._add(x, self.post_norm1(out) if self.post_norms else out), "stream")
        out = self.mlp(self.norm2(x) if self.pre_norms else x)
        return self._add(x, self.post_norm2(out) if self.post_norms else out)

    def _add(self, x: jax.Array, out: jax.Array) -> jax.Array:
        return x + (out if self.residual == 1.0 else out * self.residual)

    def __call__(
        self, x: jax.Array, batch: int, masks: Masks, ropes: Ropes, kind: jax.Array | None = None, *, last: int | None = None
    ) -> jax.Array:
        """x: [B*S,D]. kind: int32[2], which of `masks` and which of `ropes` are this layer's; None is the first of each.
        last: of so many positions at the end of a row alone, [B*last,D]."""
        mask, rope = masks[0], ropes[0]
        if kind is not None:
            mask = one_of(kind[0], masks)
            for i in range(1, len(ropes)):
                rope = jax.tree.map(lambda old, new, i=i: jnp.where(kind[1] == i, new, old), rope, ropes[i])
        out = self.attention(self.norm1(x) if self.pre_norms else x, batch, mask, rope, last=last)
        return self._rest(x if last is None else last_of(x, batch, last), out)


class Decoder(nnx.Module):
    """Embeddings in, hidden states out; `embed` and `logits` are its two ends."""

    def __init__(self, config: DecoderConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        c = config
        normal = nnx.initializers.normal(c.width**-0.5)  # a unit vector a token: tied logits start at the scale of 1
        self.embedding = nnx.Param(normal(rngs.params(), (c.vocab_size, c.width), jnp.float32))
        if c.rope_theta is None:
            self.position = nnx.Param(normal(rngs.params(), (c.max_positions, c.width), jnp.float32))
        self.layers = nnx.List([Block(c, dtype=dtype, rngs=rngs) for _ in range(c.layers)])
        self.norm = _norm(c, dtype, rngs)
        if not c.tied:
            self.head = nnx.Param(normal(rngs.params(), (c.width, c.vocab_size), jnp.float32))
        self.config, self.dtype = c, dtype

    def embed(self, tokens: jax.Array) -> jax.Array:
        """int32[B,T] -> [B,T,D]"""
        c, x = self.config, by_row_and_width(jnp.take(self.embedding[...], tokens, axis=0)).astype(self.dtype)
        x = x if c.embed_multiplier == 1.0 else x * jnp.asarray(c.embed_multiplier, self.dtype)
        return x * jnp.asarray(c.width**0.5, self.dtype) if c.embed_scale else x

    def head_of(self) -> tuple[Head, jax.Array]:
        """How logits are made, and the table that they are made with."""
        c, table = self.config, self.embedding if self.config.tied else self.head
        return Head(c.tied, self.dtype, c.logit_divisor, c.logit_softcap), table[...]

    def logits(self, hidden: jax.Array) -> jax.Array:
        """[...,D] -> f32[...,V]. Call it on as few positions as carry loss: at V = 150 k it is the largest product."""
        c = self.config
        table = self.embedding[...].T if c.tied else self.head[...]
        flat = hidden.reshape(-1, c.width).astype(self.dtype)
        out = f32_matmul(flat, table.astype(self.dtype)).reshape(*hidden.shape[:-1], c.vocab_size)
        out = out if c.logit_divisor == 1.0 else out / c.logit_divisor
        return out if c.logit_softcap is None else c.logit_softcap * jnp.tanh(out / c.logit_softcap)

    def _inputs(
        self, x: jax.Array, positions: jax.Array, mask: Mask, key_positions: jax.Array | None
    ) -> tuple[jax.Array, Ropes, Masks]:
        """(x with learned positions, rotary tables, (global, sliding) masks); VlaxError as in `check_length`."""
        c = self.config
        if c.rope_theta is None:
            return x + jnp.take(self.position[...], positions, axis=0).astype(x.dtype), (None,), (mask, mask)
        length = keys_of(mask)
        check_length(c, length)
        dim = c.head_dim if c.rotary_dim is None else c.rotary_dim
        rope = rope_tables(positions, length, dim, c.rope_theta, c.rope_scaling)
        ropes = [rope]
        if c.window_rope_theta is not None:
            ropes.append(rope_tables(positions, length, dim, c.window_rope_theta, None))
        if c.nope_layers:
            ropes.append(no_turn(rope))
        if c.window is None:
            return x, tuple(ropes), (mask, mask)
        distance = positions[:, :, None] - (positions if key_positions is None else key_positions)[:, None, :]
        return x, tuple(ropes), (mask, whole(mask) & (distance < c.window))

    def _kinds(self) -> list[tuple[int, int]]:
        """Of each layer: which of the masks and which of the rotary tables of `_inputs` are its own."""
        c = self.config
        windowed = [c.window is not None and i in c.window_layers for i in range(c.layers)]
        own = int(c.window_rope_theta is not None)
        return [(int(w), own + 1 if i in c.nope_layers else own * w) for i, w in enumerate(windowed)]

    def __call__(
        self, x: jax.Array, positions: jax.Array, mask: Mask, *, last: int | None = None, mode: str = "unroll",
        remat: str | bool = "none",
    ) -> jax.Array:  # fmt: skip
        """x: [B,S,D]; positions: int32[B,S]; mask: bool[B,S,S], or in two parts. Returns the normed hidden states [B,S,D],
        or [B,last,D]: those of the last positions alone."""
        c, (batch, length) = self.config, x.shape[:2]
        x, ropes, masks = self._inputs(x, positions, mask, None)
        kinds = self._kinds()
        per_layer = jnp.asarray(kinds, jnp.int32) if any(kind != (0, 0) for kind in kinds) else None
        x = x.reshape(batch * length, c.width)
        last = None if last == length else last
        x = apply_layers(self.layers, x, batch, masks, ropes, mode=mode, remat=remat, per_layer=per_layer, last=last)
        return self.norm(x).reshape(batch, -1, c.width)

    def trace(
        self, x: jax.Array, positions: jax.Array, mask: jax.Array, cache: Sequence[Cache] | None = None, slot: Slot = 0,
        key_positions: jax.Array | None = None,
    ) -> tuple[jax.Array, list[jax.Array], list[Any]]:  # fmt: skip
        """The unrolled reference path, for decoding and for looking inside.

        cache: one a layer, of [B,G,C,K], written at `slot`; then mask is bool[B,S,C] and key_positions int32[B,C].
        Returns (hidden [B,S,D], attention weights: one f32[B,H,S,keys] a layer, cache of the same kind, empty without one).
        """
        c, (batch, length) = self.config, x.shape[:2]
        x, ropes, masks = self._inputs(x, positions, mask, key_positions)
        x, weights, caches = x.reshape(batch * length, c.width), [], []
        for i, (layer, (sees, turns)) in enumerate(zip(self.layers, self._kinds(), strict=True)):
            x, weight, kv = layer.trace(x, batch, masks[sees], ropes[turns], None if cache is None else cache[i], slot)
            weights.append(weight)
            if kv is not None:
                caches.append(kv)
        return self.norm(x).reshape(batch, length, c.width), weights, caches
