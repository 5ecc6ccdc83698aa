"""What a layer keeps for its backward pass, by name: `run.remat`.

    none       inputs and outputs of products: what is left, norms, activations and rotations, is cheap and computed again. In
               float32 everything, as autodiff has it: there are no copies in another dtype to save
    dots       what products of weights return, as JAX's policy of that name: attention is computed again
    attention  as none, without the attention weights: one small product again
    mlp        as attention, without what `gate` and `up` return: two of a layer's large products again
    full       a layer's input alone: the whole forward pass again

Layers mark values with `keep(x, name)`; `full` and `none` in float32 ignore the marks.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name as keep

from vlax.errors import VlaxError

__all__ = ["AUTO", "KINDS", "keep", "layer", "named"]

ATTENTION = ("q", "k", "v", "context", "stream")
KEPT = {"none": (*ATTENTION, "weights", "gate", "up"), "attention": (*ATTENTION, "gate", "up"), "mlp": ATTENTION}
AUTO = "auto"  # one of KINDS, by the plan of the stage (training/backward.py)
KINDS = ("none", "dots", "attention", "mlp", "full")
# Primitives of fused attention, whose own residuals (the result and the softmax's log sums) are small and dear to have again.
FUSED = ("dot_product_attention_fwd_wrapper", "dot_product_attention_fwd", "pallas_call")


def named(remat: str | bool) -> str:
    """One of KINDS: True and False are full and none, as is nothing. VlaxError for another word."""
    kind = {"": "none", "False": "none", "True": "full"}.get(str(remat), str(remat))
    if kind not in KINDS:
        raise VlaxError(f"run.remat={remat!r} is not one of {', '.join(KINDS)} (True is full, False is none)")
    return kind


def layer(body: Callable[..., jax.Array], remat: str | bool, dtype: Any) -> Callable[..., jax.Array]:
    """`body`, a layer that computes in `dtype`, so that its backward pass keeps what `remat` says."""
    kind = named(remat)
    if kind == "full":
        return jax.checkpoint(body)
    if kind == "dots":
        return jax.checkpoint(body, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
    if kind == "none" and dtype == jax.numpy.float32:
        return body

    def policy(primitive: Any, *_: Any, **params: Any) -> bool:
        return primitive.name in FUSED or (primitive.name == "name" and params["name"] in KEPT[kind])

    return jax.checkpoint(body, policy=policy)
