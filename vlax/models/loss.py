"""The head and its cross-entropy in one, a slice of the supervised positions at a time: f32[B,T,V] never exists.

The loss is a scalar, so that its gradients are had in the forward pass, slice by slice, and only scaled in the backward one (as
in Liger, arXiv 2410.10989): no product runs twice. Axis letters: G shards of the batch, P positions of one, D width, V
vocabulary.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from jax.custom_derivatives import CustomVJPPrimal
from jax.typing import DTypeLike

from vlax.models.placement import by_row, row_axes

LOGIT_BYTES = 2**30  # of the float32 logits of one slice, at most

Gradients = tuple[jax.Array | None, jax.Array | None]  # of the hidden states and the table


@dataclasses.dataclass(frozen=True)
class Head:
    """How hidden states become logits. tied: the table is [V,D], an embedding, else [D,V]."""

    tied: bool
    dtype: DTypeLike  # of the product's operands
    divisor: float = 1.0
    softcap: float | None = None

    def logits(self, hidden: jax.Array, table: jax.Array) -> tuple[jax.Array, jax.Array]:
        """([...,D], table) -> (f32[...,V], d logits / d product as a factor, f32[...,V] or a scalar)"""
        form = "gpd,vd->gpv" if self.tied else "gpd,dv->gpv"
        out = jnp.einsum(form, hidden, table, preferred_element_type=jnp.float32) / self.divisor
        slope = jnp.full((), 1.0 / self.divisor)
        if self.softcap is not None:
            bent = jnp.tanh(out / self.softcap)
            out, slope = self.softcap * bent, (1 - bent * bent) * slope
        return out, slope


def slice_length(positions: int, vocabulary: int) -> int:
    """Positions of one slice: a power of two, whose logits stay within LOGIT_BYTES; or all of them where they fit."""
    fits = max(1, LOGIT_BYTES // (4 * vocabulary))
    return positions if positions <= fits else 1 << (fits.bit_length() - 1)


def shards(rows: int) -> int:
    """Devices among which the rows of a batch lie, by the mesh in use."""
    axes = row_axes(rows)
    return 1 if axes is None else math.prod(jax.sharding.get_abstract_mesh().shape[axis] for axis in axes)


def likeliest(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Whether argmax over [...,V] is `target` [...], by two plain reductions: that of argmax, of pairs, XLA:CPU runs number by
    number."""
    columns = jnp.arange(logits.shape[-1], dtype=target.dtype)
    first = jnp.where(logits == logits.max(-1, keepdims=True), columns, logits.shape[-1]).min(-1)
    return first == target


def cross_entropy(
    hidden: jax.Array, table: jax.Array, target: jax.Array, supervised: jax.Array, head: Head
) -> tuple[jax.Array, jax.Array]:
    """(sum of the losses, correct tokens), f32 scalars, over the supervised positions.

    hidden [B,T,D]; table [V,D] or [D,V], in any dtype; target int32[B,T]; supervised bool[B,T].
    """
    cut = shards(hidden.shape[0])
    flat = [by_row(x.reshape(cut, -1, *x.shape[2:]), cut) for x in (hidden, target, supervised)]
    # The supervised positions of each shard come first, and slices behind the last of them are left out.
    order = jnp.argsort(~flat[2], axis=1, stable=True)
    taken = [jnp.take_along_axis(x, order.reshape(*order.shape, *[1] * (x.ndim - 2)), axis=1) for x in flat]
    return _sums(taken[0], table, taken[1], taken[2], head)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _sums(
    hidden: jax.Array, table: jax.Array, target: jax.Array, supervised: jax.Array, head: Head
) -> tuple[jax.Array, jax.Array]:
    return _run(hidden, table, target, supervised, head, (False, False))[0]


def _run(
    hidden: jax.Array, table: jax.Array, target: jax.Array, supervised: jax.Array, head: Head, wanted: tuple[bool, bool]
) -> tuple[tuple[jax.Array, jax.Array], Gradients]:
    """((loss, correct), gradients of the loss): hidden [G,P,D] and the rest with the supervised positions in front."""
    groups, positions, width = hidden.shape
    vocabulary = table.shape[0 if head.tied else 1]
    size = slice_length(positions, vocabulary)
    slices = -(-positions // size)
    room = ((0, 0), (0, slices * size - positions))
    low, kernel = jnp.pad(hidden.astype(head.dtype), (*room, (0, 0))), table.astype(head.dtype)
    target, supervised = jnp.pad(target, room), jnp.pad(supervised, room)
    needed = supervised.sum(axis=1).max()
    columns = jnp.arange(vocabulary, dtype=target.dtype)

    def work(carry: tuple[jax.Array, ...], at: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
        x, goal, counts = (jax.lax.dynamic_slice_in_dim(y, at, size, axis=1) for y in (low, target, supervised))
        logits, slope = head.logits(x, kernel)
        norm = jax.nn.logsumexp(logits, axis=-1)
        picked = jnp.take_along_axis(logits, goal[..., None], axis=-1)[..., 0]
        loss = carry[0] + jnp.where(counts, norm - picked, 0.0).sum()
        correct = carry[1] + (counts & likeliest(logits, goal)).sum().astype(jnp.float32)
        if not any(wanted):
            return (loss, correct), None
        slopes = (jnp.exp(logits - norm[..., None]) - (columns == goal[..., None])) * slope
        slopes = jnp.where(counts[..., None], slopes, 0.0).astype(head.dtype)
        new: tuple[jax.Array, ...] = (loss, correct)
        if wanted[1]:  # by shard: their sum is taken once, at the end
            form = "gpv,gpd->gvd" if head.tied else "gpd,gpv->gdv"
            pair = (slopes, x) if head.tied else (x, slopes)
            new += (carry[2] + jnp.einsum(form, *pair, preferred_element_type=jnp.float32),)
        if not wanted[0]:
            return new, None
        form = "gpv,vd->gpd" if head.tied else "gpv,dv->gpd"
        return new, jnp.einsum(form, slopes, kernel, preferred_element_type=jnp.float32).astype(hidden.dtype)

    def left_out(carry: tuple[jax.Array, ...], at: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
        del at
        return carry, jnp.zeros((groups, size, width), hidden.dtype) if wanted[0] else None

    def body(carry: tuple[jax.Array, ...], at: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array | None]:
        out: tuple[tuple[jax.Array, ...], jax.Array | None] = jax.lax.cond(at < needed, work, left_out, carry, at)
        return out

    carry: tuple[jax.Array, ...] = (jnp.zeros((), jnp.float32),) * 2
    if wanted[1]:
        carry += (by_row(jnp.zeros((groups, *table.shape), jnp.float32), groups),)
    sums, dhidden = jax.lax.scan(body, carry, size * jnp.arange(slices))
    if dhidden is not None:
        dhidden = dhidden.transpose(1, 0, 2, 3).reshape(groups, -1, width)[:, :positions]
    return (sums[0], sums[1]), (dhidden, sums[2].sum(0).astype(table.dtype) if wanted[1] else None)


def _forward(
    hidden: CustomVJPPrimal, table: CustomVJPPrimal, target: CustomVJPPrimal, supervised: CustomVJPPrimal, head: Head
) -> tuple[tuple[jax.Array, jax.Array], Gradients]:
    wanted = (hidden.perturbed, table.perturbed)  # a frozen table costs no product
    return _run(hidden.value, table.value, target.value, supervised.value, head, wanted)


def _backward(
    head: Head, saved: Gradients, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array | None, jax.Array | None, None, None]:
    scaled = [None if g is None else (g * cotangents[0]).astype(g.dtype) for g in saved]
    return scaled[0], scaled[1], None, None


_sums.defvjp(_forward, _backward, symbolic_zeros=True)
