"""Small parts that both transformers are made of, and the loop over layers (unrolled or scanned, with or without remat)."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vlax.models.lora import LoRAConfig, dense
from vlax.models.placement import by_column, gathered, stream
from vlax.models.remat import keep
from vlax.models.remat import layer as remat_layer

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
}


class RMSNorm(nnx.Module):
    """Root-mean-square norm in float32 (Zhang and Sennrich 2019). `offset=1` is Gemma's form, whose stored scale is w - 1."""

    def __init__(self, width: int, *, eps: float, offset: float = 0.0, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.full((width,), 1.0 - offset, jnp.float32))
        self.eps, self.offset, self.dtype = eps, offset, dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        scale = self.scale[...].astype(jnp.float32) + self.offset
        return (normed * scale).astype(self.dtype)


def layer_norm(width: int, *, eps: float, dtype: DTypeLike, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """flax's LayerNorm with the exact variance: the fast one loses digits that parity with torch needs."""
    return nnx.LayerNorm(width, epsilon=eps, use_fast_variance=False, dtype=dtype, rngs=rngs)


def residual_init(layers: int) -> nnx.Initializer:
    """Initializer of the matrices that write into the residual stream: smaller with depth (GPT-2), so that at first the stream
    carries the embeddings and not the sum of 2 * layers random maps."""
    return nnx.initializers.variance_scaling(1.0 / (2 * layers), "fan_in", "truncated_normal")


class MLP(nnx.Module):
    """down(act(up(x))), or down(act(gate(x)) * up(x)) when gated (SwiGLU, GeGLU). x: [tokens, D]."""

    def __init__(
        self, width: int, hidden: int, *, activation: str, gated: bool, bias: bool, layers: int,
        lora: LoRAConfig | None = None, dtype: DTypeLike, rngs: nnx.Rngs,
    ):  # fmt: skip
        options: dict[str, Any] = {"lora": lora, "use_bias": bias, "dtype": dtype, "rngs": rngs}
        self.up = dense("up", width, hidden, **options)
        if gated:
            self.gate = dense("gate", width, hidden, **options)
        self.down = dense("down", hidden, width, kernel_init=residual_init(layers), **options)
        self.activation, self.gated = activation, gated

    def __call__(self, x: jax.Array) -> jax.Array:
        act, x = ACTIVATIONS[self.activation], gathered(x)
        if not self.gated:
            return gathered(self.down(act(keep(self._in(self.up, x), "up"))))
        return gathered(self.down(act(keep(self._in(self.gate, x), "gate")) * keep(self._in(self.up, x), "up")))

    def _in(self, matrix: Any, x: jax.Array) -> jax.Array:
        out = matrix(x)
        return by_column(out, out.shape[-1])


def apply_layers(
    layers: Sequence[Callable[..., jax.Array]], x: jax.Array, batch: int, *args: Any, mode: str, remat: str | bool,
    per_layer: jax.Array | None = None, last: int | None = None,
) -> jax.Array:  # fmt: skip
    """Runs `layer(x, batch, *args[, per_layer[i]])` for every layer in turn, on x [batch*S,D]; the layers must be alike.

    mode    "unroll": fastest on GPU and in decoding. "scan": the parameters are stacked inside the step and the body is
            compiled once, which is what TPU compile times ask for.
    remat   what a layer keeps for its backward pass, and what it computes again: see remat.py.
    last    only the last positions of each row are wanted, [batch*last,D]. The others are there for these to look at, which
            the last layer does by keys and values: unrolled, it computes nothing else of them.
    """
    graphdef, _ = nnx.split(layers[0])

    def body(params: nnx.State[Any, Any], x: jax.Array, extra: jax.Array | None, last: int | None = None) -> jax.Array:
        layer, x = nnx.merge(graphdef, params), stream(x, batch)
        named: dict[str, Any] = {} if last is None else {"last": last}
        return stream(layer(x, batch, *args, *(() if extra is None else (extra,)), **named), batch)

    whole, params = remat_layer(body, remat, x.dtype), [nnx.state(layer) for layer in layers]
    if mode == "scan":
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
        x, _ = jax.lax.scan(lambda x, one: (whole(one[0], x, one[1]), None), x, (stacked, per_layer))
        return x if last is None else last_of(x, batch, last)
    kinds = [None] * len(params) if per_layer is None else list(per_layer)
    for state, kind in zip(params[:-1], kinds[:-1], strict=True):
        x = whole(state, x, kind)
    return remat_layer(functools.partial(body, last=last), remat, x.dtype)(params[-1], x, kinds[-1])


def last_of(x: jax.Array, batch: int, last: int) -> jax.Array:
    """The last positions of each row: [batch*S,D] -> [batch*last,D]"""
    return x.reshape(batch, -1, x.shape[-1])[:, -last:].reshape(-1, x.shape[-1])
