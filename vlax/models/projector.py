"""The projector: vision features into the decoder's embedding space, with an optional reduction of their number."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vlax.models.layers import ACTIVATIONS, RMSNorm, layer_norm


@dataclasses.dataclass(frozen=True)
class ProjectorConfig:
    """What lies between tower and decoder: features are averaged, joined and normed where it says so, and go through layers."""

    kind: str  # "linear" or "mlp" (two layers, LLaVA-1.5's)
    vision_width: int
    width: int  # the decoder's
    pixel_shuffle: int = 1  # r: r x r neighbouring features become one of r*r times the width (Idefics3, InternVL)
    activation: str = "gelu"
    bias: bool = True
    pool: int = 1  # r: the mean of r x r neighbouring features becomes one (Gemma 3)
    norm: str = ""  # of the features that go in: "rms" (Gemma's, stored as w - 1), "layer" (InternVL)
    eps: float = 1e-6  # of that norm
    newline: bool = False  # a learned token of its own ends every picture (LLaVA-OneVision)

    def tokens(self, vision_tokens: int) -> int:
        return vision_tokens // (self.pixel_shuffle * self.pool) ** 2 + self.newline

    def side(self, grid: int) -> int:
        """Tokens a side of a picture of so many patches a side."""
        return grid // (self.pixel_shuffle * self.pool)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, those that few projectors have only where they are used: older readers know the others."""
        rare = {field.name: field.default for field in dataclasses.fields(self)[-4:]}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in rare or value != rare[name]}


def pixel_shuffle(x: jax.Array, ratio: int) -> jax.Array:
    """[B, g*g, D] -> [B, (g/r)^2, r*r*D]: each r x r square of the grid, in reading order, becomes one token."""
    batch, tokens, width = x.shape
    grid = int(tokens**0.5)
    if grid * grid != tokens or grid % ratio:
        raise ValueError(f"pixel_shuffle={ratio} needs a square grid that it divides; there are {tokens} image features")
    x = x.reshape(batch, grid // ratio, ratio, grid // ratio, ratio, width)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, (grid // ratio) ** 2, ratio * ratio * width)


def pool(x: jax.Array, ratio: int) -> jax.Array:
    """[B, g*g, D] -> [B, (g/r)^2, D]: the mean of each r x r square of the grid."""
    batch, _, width = x.shape
    squares = pixel_shuffle(x, ratio)
    return squares.reshape(batch, -1, ratio * ratio, width).mean(axis=2)


class Projector(nnx.Module):
    """[B, I_vision, Dv] -> [B, I, D]: features are pooled, joined, normed, and go through one matrix or two."""

    def __init__(self, config: ProjectorConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        c = config
        inputs = c.vision_width * c.pixel_shuffle**2
        if c.kind not in ("linear", "mlp"):
            raise ValueError(f"projector kind {c.kind!r} is not one of linear, mlp")
        if c.norm not in ("", "rms", "layer"):
            raise ValueError(f"projector norm {c.norm!r} is not one of rms, layer")
        self.norm: RMSNorm | nnx.LayerNorm
        if c.norm == "rms":
            self.norm = RMSNorm(inputs, eps=c.eps, offset=1.0, dtype=dtype, rngs=rngs)
        elif c.norm:
            self.norm = layer_norm(inputs, eps=c.eps, dtype=dtype, rngs=rngs)
        if c.newline:
            self.newline = nnx.Param(nnx.initializers.normal(c.width**-0.5)(rngs.params(), (c.width,), jnp.float32))
        self.fc1 = nnx.Linear(inputs, c.width, use_bias=c.bias, dtype=dtype, rngs=rngs)
        if c.kind == "mlp":
            self.fc2 = nnx.Linear(c.width, c.width, use_bias=c.bias, dtype=dtype, rngs=rngs)
        self.config = c

    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        if c.pool > 1:
            x = pool(x, c.pool)
        if c.pixel_shuffle > 1:
            x = pixel_shuffle(x, c.pixel_shuffle)
        batch, tokens, width = x.shape
        x = self.norm(x.reshape(-1, width)) if c.norm else x.reshape(-1, width)
        x = self.fc1(x)
        if c.kind == "mlp":
            x = self.fc2(ACTIVATIONS[c.activation](x))
        x = x.reshape(batch, tokens, c.width)
        if not c.newline:
            return x
        return jnp.concatenate([x, jnp.broadcast_to(self.newline[...].astype(x.dtype), (batch, 1, c.width))], axis=1)
