"""The vision tower: a ViT in SigLIP's form, with the options by which the families of `pretrained/families` differ."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vlax.models.attention import Attention, AttentionConfig
from vlax.models.layers import MLP, RMSNorm, apply_layers, layer_norm
from vlax.models.remat import keep
from vlax.models.rope import Rope, grid_tables


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """A ViT. Defaults are SigLIP's choices; sizes have none."""

    image_size: int  # pixels a side
    patch_size: int
    width: int
    layers: int  # layers that run; a tower cut before its last layers has fewer than its checkpoint
    heads: int
    mlp_dim: int
    activation: str = "gelu_tanh"
    gated_mlp: bool = False
    eps: float = 1e-6
    norm: str = "layer"  # or "rms" (AIMv2)
    attention_bias: bool = True
    key_bias: bool = True  # where attention has biases: on k, too; DINOv3 has none there
    mlp_bias: bool = True
    class_token: bool = False  # CLIP, DINOv2; dropped from the features
    registers: int = 0  # DINOv2 register tokens; dropped from the features
    rope_theta: float | None = None  # DINOv3: patches turn by where they lie, in place of learned positions
    patch_norm: bool = False  # AIMv2: a norm of the patches before they get their positions
    pre_norm: bool = False  # CLIP: a norm before the first layer
    post_norm: bool = True  # a norm after the last layer
    patch_bias: bool = True
    layer_scale: bool = False  # DINOv2
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Features of one image, before the projector reduces them."""
        return self.grid**2


def _norm(c: VisionConfig, dtype: DTypeLike, rngs: nnx.Rngs) -> RMSNorm | nnx.LayerNorm:
    return (RMSNorm if c.norm == "rms" else layer_norm)(c.width, eps=c.eps, dtype=dtype, rngs=rngs)


class Block(nnx.Module):
    def __init__(self, c: VisionConfig, *, dtype: DTypeLike, rngs: nnx.Rngs):
        attention = AttentionConfig(
            c.width, c.heads, c.heads, c.width // c.heads, bias=c.attention_bias, key_bias=c.key_bias,
            out_bias=c.attention_bias, layers=c.layers,
        )  # fmt: skip
        self.norm1 = _norm(c, dtype, rngs)
        self.attention = Attention(attention, dtype=dtype, rngs=rngs)
        self.norm2 = _norm(c, dtype, rngs)
        self.mlp = MLP(
            c.width, c.mlp_dim, activation=c.activation, gated=c.gated_mlp, bias=c.mlp_bias, layers=c.layers, dtype=dtype,
            rngs=rngs,
        )  # fmt: skip
        if c.layer_scale:
            self.scale1 = nnx.Param(jnp.ones((c.width,), jnp.float32))
            self.scale2 = nnx.Param(jnp.ones((c.width,), jnp.float32))
        self.layer_scale = c.layer_scale

    def __call__(self, x: jax.Array, batch: int, rope: Rope | None) -> jax.Array:
        out = self.attention(self.norm1(x), batch, None, rope)
        x = keep(x + (out * self.scale1[...].astype(out.dtype) if self.layer_scale else out), "stream")
        out = self.mlp(self.norm2(x))
        return x + (out * self.scale2[...].astype(out.dtype) if self.layer_scale else out)


def patchify(image: jax.Array, patch: int) -> jax.Array:
    """[B,H,W,3] -> [B, (H//p)*(W//p), p*p*3]: patches in reading order, each flattened as (row, column, channel).

    Pixels beyond the last whole patch are dropped, as a strided convolution does (384 pixels in patches of 14).
    """
    batch, height, width, channels = image.shape
    height, width = height // patch * patch, width // patch * patch
    x = image[:, :height, :width].reshape(batch, height // patch, patch, width // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, patch * patch * channels)


class VisionTower(nnx.Module):
    """uint8[B,H,W,3] -> features [B, (H/p)^2, Dv]."""

    def __init__(self, config: VisionConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        c = config
        extra = int(c.class_token) + c.registers
        normal = nnx.initializers.normal(0.02)
        self.patch = nnx.Linear(c.patch_size**2 * 3, c.width, use_bias=c.patch_bias, dtype=dtype, rngs=rngs)
        if c.patch_norm:
            self.patch_norm = _norm(c, dtype, rngs)
        if c.rope_theta is None:
            self.position = nnx.Param(normal(rngs.params(), (c.tokens + int(c.class_token), c.width), jnp.float32))
        if extra:
            self.prefix = nnx.Param(normal(rngs.params(), (extra, c.width), jnp.float32))
        if c.pre_norm:
            self.pre_norm = _norm(c, dtype, rngs)
        self.layers = nnx.List([Block(c, dtype=dtype, rngs=rngs) for _ in range(c.layers)])
        if c.post_norm:
            self.post_norm = _norm(c, dtype, rngs)
        self.config, self.dtype = c, dtype

    def embed(self, image: jax.Array) -> jax.Array:
        """Normalised, patchified, with positions and prefix tokens: [B, P + I, Dv]. Registers have no position."""
        c = self.config
        mean, std = jnp.asarray(c.mean, jnp.float32), jnp.asarray(c.std, jnp.float32)
        pixels = (image.astype(jnp.float32) / 255.0 - mean) / std
        patches = patchify(pixels, c.patch_size).astype(self.dtype)
        x = self.patch(patches.reshape(-1, patches.shape[-1])).reshape(*patches.shape[:2], c.width)
        if c.patch_norm:
            x = self.patch_norm(x)
        position = None if c.rope_theta is not None else self.position[...].astype(self.dtype)
        if position is not None:
            x = x + position[int(c.class_token) :]
        if c.class_token or c.registers:
            prefix = self.prefix[...].astype(self.dtype)
            if c.class_token and position is not None:
                prefix = prefix.at[0].add(position[0])
            x = jnp.concatenate([jnp.broadcast_to(prefix, (x.shape[0], *prefix.shape)), x], axis=1)
        return x

    def __call__(self, image: jax.Array, *, mode: str = "unroll", remat: str | bool = "none") -> jax.Array:
        c, batch = self.config, image.shape[0]
        x = self.embed(image)
        if c.pre_norm:
            x = self.pre_norm(x)
        leading = int(c.class_token) + c.registers
        rope = None if c.rope_theta is None else grid_tables(c.grid, c.width // c.heads, c.rope_theta, leading)
        x = apply_layers(self.layers, x.reshape(-1, c.width), batch, rope, mode=mode, remat=remat)
        if c.post_norm:
            x = self.post_norm(x)
        return x.reshape(batch, -1, c.width)[:, leading:]
