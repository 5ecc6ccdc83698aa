"""The projector: vision features into the decoder's embedding space, with an optional reduction of their number."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vlax.models.layers import ACTIVATIONS


@dataclasses.dataclass(frozen=True)
class ProjectorConfig:
    kind: str  # "linear" or "mlp" (two layers, LLaVA-1.5's)
    vision_width: int
    width: int  # the decoder's
    pixel_shuffle: int = 1  # r: r x r neighbouring features become one of r*r times the width (Idefics3, InternVL)
    activation: str = "gelu"
    bias: bool = True

    def tokens(self, vision_tokens: int) -> int:
        return vision_tokens // self.pixel_shuffle**2


def pixel_shuffle(x: jax.Array, ratio: int) -> jax.Array:
    """[B, g*g, D] -> [B, (g/r)^2, r*r*D]: each r x r square of the grid, in reading order, becomes one token."""
    batch, tokens, width = x.shape
    grid = int(tokens**0.5)
    if grid * grid != tokens or grid % ratio:
        raise ValueError(f"pixel_shuffle={ratio} needs a square grid that it divides; there are {tokens} image features")
    x = x.reshape(batch, grid // ratio, ratio, grid // ratio, ratio, width)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, (grid // ratio) ** 2, ratio * ratio * width)


class Projector(nnx.Module):
    """[B, I_vision, Dv] -> [B, I, D]."""

    def __init__(self, config: ProjectorConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        c = config
        inputs = c.vision_width * c.pixel_shuffle**2
        if c.kind not in ("linear", "mlp"):
            raise ValueError(f"projector kind {c.kind!r} is not one of linear, mlp")
        self.fc1 = nnx.Linear(inputs, c.width, use_bias=c.bias, dtype=dtype, rngs=rngs)
        if c.kind == "mlp":
            self.fc2 = nnx.Linear(c.width, c.width, use_bias=c.bias, dtype=dtype, rngs=rngs)
        self.config = c

    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        if c.pixel_shuffle > 1:
            x = pixel_shuffle(x, c.pixel_shuffle)
        batch, tokens, width = x.shape
        x = self.fc1(x.reshape(-1, width))
        if c.kind == "mlp":
            x = self.fc2(ACTIVATIONS[c.activation](x))
        return x.reshape(batch, tokens, c.width)
