"""Products of matrices whose gradients are made as devices multiply them fastest."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal

Saved = tuple[jax.Array | None, jax.Array | None]
PLAIN = (((1,), (0,)), ((), ()))  # x @ w, as lax.dot_general has it


@jax.custom_vjp
def f32_matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """x @ w (batched over leading dimensions that both have) accumulated in float32: f32[..., m, n].

    The backward products take the cotangent in the operands' dtype. Left to itself, jax would multiply the float32 cotangent of
    a bf16 product in float32, at a fraction of the speed.
    """
    return jnp.matmul(x, w, preferred_element_type=jnp.float32)


def _forward(x: CustomVJPPrimal, w: CustomVJPPrimal) -> tuple[jax.Array, Saved]:
    # Each operand is kept only for the other's gradient: what is frozen costs no product and no memory.
    saved = (x.value if w.perturbed else None, w.value if x.perturbed else None)
    return f32_matmul(x.value, w.value), saved


def _backward(saved: Saved, cotangent: jax.Array) -> Saved:
    x, w = saved
    dx = dw = None
    if w is not None:
        low = cotangent.astype(w.dtype)
        dx = jnp.matmul(low, jnp.swapaxes(w, -1, -2), preferred_element_type=jnp.float32).astype(w.dtype)
    if x is not None:
        dw = weight_gradient(x, cotangent.astype(x.dtype)).astype(x.dtype)
    return dx, dw


f32_matmul.defvjp(_forward, _backward, symbolic_zeros=True)


def weight_gradient(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """The transpose of x times cotangent, of [..., tokens, I] and [..., tokens, O]: f32[..., I, O].

    XLA:CPU is faster at a result that is wide than at one that is high, which in float32 is therefore made as the
    transpose of a wide one. The barrier keeps the compiler from turning it back.
    """
    if x.ndim == 2 and x.dtype == jnp.float32 and x.shape[1] > cotangent.shape[1]:
        wide = cotangent.T @ x
        high: jax.Array = jax.lax.platform_dependent(wide, cpu=jax.lax.optimization_barrier, default=lambda y: y).T
        return high
    return jnp.matmul(jnp.swapaxes(x, -1, -2), cotangent, preferred_element_type=jnp.float32)


def dot_general(x: jax.Array, w: jax.Array, dimensions: Any, **options: Any) -> jax.Array:
    """For flax's Linear: `f32_matmul` of two float32 matrices on one device, jax.lax.dot_general of everything else: over
    several devices the partitioner gathers what is turned."""
    single = jax.sharding.get_abstract_mesh().size <= 1
    if single and x.ndim == w.ndim == 2 and x.dtype == w.dtype == jnp.float32 and dimensions == PLAIN:
        return f32_matmul(x, w)
    out: jax.Array = jax.lax.dot_general(x, w, dimensions, **options)
    return out
