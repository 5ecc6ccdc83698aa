"""Frozen matrices held in few bits, as QLoRA has them (Dettmers et al., arXiv 2305.14314), by qwix.

int8    one scale an output, which is multiplied into the product: no matrix in the compute dtype exists
nf4     16 levels of a normal distribution, one scale for 64 inputs of an output: dequantised where it is used, again in the
        backward pass. Half a byte a parameter on GPU and TPU; XLA:CPU keeps four bits in a whole byte

Embeddings, the head, norms, biases and the projector keep the compute dtype, as they do in bitsandbytes.
"""

import functools
import math
import re
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike

from vlax.errors import VlaxError
from vlax.models.products import dot_general
from vlax.params.groups import Params, Shapes

FORMATS = ("int8", "nf4")
MATRICES = re.compile(r"/(q|k|v|o|up|gate|down)/kernel$")
BLOCK = 64  # inputs that share a scale of NF4, or what of it divides the inputs


def check(kind: str, flag: str) -> None:
    """VlaxError for what is no format; "" is none."""
    if kind and kind not in FORMATS:
        raise VlaxError(f"{flag}={kind!r} is not one of {', '.join(FORMATS)}, and not empty")


def _quantised(kernel: jax.Array, kind: str, dtype: DTypeLike) -> Any:
    import qwix  # a third of a second, which only these runs pay

    tiles = {0: math.gcd(BLOCK, kernel.shape[0])} if kind == "nf4" else {}
    # In float32: absmax and rounding of a bf16 matrix lose nothing by it.
    return qwix.quantize(
        kernel.astype(jnp.float32),
        kind,
        channelwise_axes=(1,),
        tiled_axes=tiles,
        calibration_method="absmax",
        scale_dtype=dtype,
    )


@functools.lru_cache
def _compiled(kind: str, dtype: Any, sharding: NamedSharding | None) -> Any:
    return jax.jit(functools.partial(_quantised, kind=kind, dtype=dtype), out_shardings=sharding)


def chosen(paths: Collection[str], kept: Collection[str] = ()) -> list[str]:
    """The paths whose values are held in few bits: both transformers' matrices without those of `kept`, which learn."""
    return [path for path in paths if MATRICES.search(path) and path not in kept]


def quantise(params: Params, kind: str, dtype: DTypeLike) -> Params:
    """`params` with the matrices of `chosen` as qwix.QArray: kernel [inputs, outputs], scales in `dtype`. The same dict, each
    matrix replaced as soon as it is quantised, so that both forms never lie in memory as a whole.

    A sharded matrix stays sharded as it is; its scales are cut along the outputs alone. kind: of FORMATS, or "": nothing
    happens.
    """
    if not kind:
        return params
    for path in chosen(params):
        kernel = params.pop(path)
        sharding = getattr(kernel, "sharding", None)
        out = None
        if isinstance(sharding, NamedSharding):
            axes = [*sharding.spec, None, None][:2]
            out = _pair(kind, sharding, NamedSharding(sharding.mesh, P(None, axes[1])))
        params[path] = _compiled(kind, jnp.dtype(dtype), out)(kernel)
    return params


@functools.lru_cache
def _pair(kind: str, value: NamedSharding, scale: NamedSharding) -> Any:
    import qwix

    return qwix.QArray(value, scale, None, kind)


def abstract(shapes: Shapes, kind: str, dtype: DTypeLike, kept: Collection[str] = ()) -> dict[str, Any]:
    """`shapes` as `quantise` would hold them: qwix.QArray of shapes in place of the matrices that are not `kept`."""
    if not kind:
        return dict(shapes)
    held = {
        path: jax.eval_shape(functools.partial(_quantised, kind=kind, dtype=dtype), shapes[path])
        for path in chosen(shapes, kept)
    }
    return {**shapes, **held}


def _times(x: jax.Array, w: Any) -> jax.Array:
    if w.qtype == "nf4":
        return x @ _dense(w, x.dtype)
    codes, scale = w.qvalue.astype(x.dtype), w.scale[0].astype(x.dtype)  # int8 is exact in bf16
    out: jax.Array = (x @ codes) * scale
    return out


def _dense(w: Any, dtype: DTypeLike) -> jax.Array:
    import qwix

    dense: jax.Array = qwix.dequantize(w)
    return dense.astype(dtype)


@jax.custom_vjp
def product(x: jax.Array, w: Any) -> jax.Array:
    """x [tokens, inputs] times a quantised matrix: [tokens, outputs] in x's dtype. The matrix has no gradient, and nothing but
    its few bits is kept for the gradient of x."""
    return _times(x, w)


def _forward(x: jax.Array, w: Any) -> tuple[jax.Array, Any]:
    return _times(x, w), w


def _backward(w: Any, cotangent: jax.Array) -> tuple[jax.Array, None]:
    # Without the barrier XLA would find that the forward pass has dequantised the matrix already, and keep it until now.
    w, cotangent = jax.lax.optimization_barrier((w, cotangent))
    if w.qtype != "nf4":
        return (cotangent * w.scale[0].astype(cotangent.dtype)) @ w.qvalue.astype(cotangent.dtype).T, None
    return cotangent @ _dense(w, cotangent.dtype).T, None


product.defvjp(_forward, _backward)


class Linear(nnx.Linear):
    """flax's Linear, whose kernel may be a quantised one."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, dot_general=dot_general, **options)

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        kernel = self.kernel.get_value()
        if isinstance(kernel, jax.Array | np.ndarray):
            return super().__call__(inputs, out_sharding)
        out = product(inputs.astype(self.dtype), kernel)
        return out if self.bias is None else out + self.bias[...].astype(self.dtype)
