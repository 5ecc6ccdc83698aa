"""The product of a Linear layer, and the gradient of its matrix as XLA:CPU multiplies it fastest."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal

Saved = tuple[jax.Array | None, jax.Array | None]
PLAIN = (((1,), (0,)), ((), ()))  # x @ w, as lax.dot_general has it


@jax.custom_vjp
def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """x @ w of float32 matrices: [tokens,I] times [I,O]. The same numbers as jax's own but for the rounding of w's gradient."""
    return x @ w


def _forward(x: CustomVJPPrimal, w: CustomVJPPrimal) -> tuple[jax.Array, Saved]:
    # Each operand is kept only for the other's gradient: what is frozen costs no product and no memory.
    saved = (x.value if w.perturbed else None, w.value if x.perturbed else None)
    return x.value @ w.value, saved


def _backward(saved: Saved, cotangent: jax.Array) -> Saved:
    x, w = saved
    dx = None if w is None else cotangent @ w.T
    return dx, None if x is None else weight_gradient(x, cotangent)


matmul.defvjp(_forward, _backward, symbolic_zeros=True)


def weight_gradient(x: jax.Array, cotangent: jax.Array) -> jax.Array:
    """x.T @ cotangent: [I,O] from [tokens,I] and [tokens,O].

    XLA:CPU has a kernel for it whose result is wide rather than high: of 6,144 tokens, [256,1024] is had at 94 GFLOP a CPU
    second and [1024,256] at 65. What is high is made as the transpose of what is wide; the compiler would turn it back.
    """
    if x.shape[1] <= cotangent.shape[1]:
        return x.T @ cotangent
    wide = cotangent.T @ x
    turned: jax.Array = jax.lax.platform_dependent(wide, cpu=jax.lax.optimization_barrier, default=lambda y: y).T
    return turned


def dot_general(x: jax.Array, w: jax.Array, dimensions: Any, **options: Any) -> jax.Array:
    """For flax's Linear: `matmul` of two float32 matrices on one device, jax.lax.dot_general of everything else. Over several
    devices the partitioner gathers what is turned."""
    single = jax.sharding.get_abstract_mesh().size <= 1
    if single and x.ndim == w.ndim == 2 and x.dtype == w.dtype == jnp.float32 and dimensions == PLAIN:
        return matmul(x, w)
    out: jax.Array = jax.lax.dot_general(x, w, dimensions, **options)
    return out
