"""The core of attention, softmax(q k^T) v, and its masks: plain, with a backward pass that keeps little, and fused.

`attend` is the reference, to which the others are equal. `core` takes the way that a name of KERNELS asks for.

Shapes: B batch, H query heads, G key/value heads (H a multiple of G), K head width, Q queries, S keys.
"""

import functools
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from vlax.models.kv_cache import KV, Entries, against, factors, shape
from vlax.models.placement import row_axes
from vlax.models.products import f32_matmul
from vlax.models.remat import keep

Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array]

KERNELS = ("xla", "cudnn")
IMPLEMENTATIONS: dict[str, Literal["xla", "cudnn"]] = {"cudnn": "cudnn"}  # of jax.nn.dot_product_attention, by kernel


class Kernels(NamedTuple):
    """How the parts of a model compute attention, of KERNELS each."""

    vision: str = "xla"
    decoder: str = "xla"


PLAIN = Kernels()


class SplitMask(NamedTuple):
    """A mask in two parts: the first `prefix` queries, image tokens, have one for all of them, the text has one a query.

    front: None, the image tokens see each other; or bool[B|1,prefix|1,keys] over the first `keys` keys. rows: bool[B,T,S].
    Where an image is hidden its rows may see what they like: nobody sees them, and no loss falls on them.
    """

    prefix: int
    front: jax.Array | None
    rows: jax.Array


Mask = jax.Array | SplitMask | None  # bool[B,Q,S], in two parts, or everybody sees everybody


def whole(mask: Mask) -> jax.Array:
    """The mask, where it is an array."""
    assert mask is not None and not isinstance(mask, SplitMask), "masks in two parts are neither windowed nor decoded with"
    return mask


def keys_of(mask: Mask) -> int:
    """S: how many keys a mask is about."""
    return int((mask.rows if isinstance(mask, SplitMask) else whole(mask)).shape[-1])


def last_rows(mask: Mask, last: int) -> jax.Array | None:
    """The mask of the last queries alone, bool[B|1,last|1,S]: those of the text, where it has two parts."""
    rows = mask.rows if isinstance(mask, SplitMask) else mask
    return None if rows is None else rows[:, -last:]


def one_of(kind: jax.Array, masks: tuple[Mask, Mask]) -> Mask:
    """masks[kind], chosen on the device where they differ."""
    return masks[0] if masks[0] is masks[1] else jnp.where(kind == 1, whole(masks[1]), whole(masks[0]))


def attend(
    q: jax.Array, k: Entries, v: Entries, mask: jax.Array | None = None, *, scale: float, softcap: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """softmax(q k^T * scale) v; also returns the weights, which nobody pays for unless they are used.

    q: [B,H,Q,K]; k, v: [B,G,S,K], or as a cache keeps them; mask: bool[B|1,Q|1,S] or None (everybody sees everybody).
    Returns (out [B,H,Q,K], weights f32[B,H,Q,S]). softcap: tanh-cap of the logits before the mask (Gemma 2).
    """
    (batch, heads, queries, width), (_, groups, keys, _) = q.shape, shape(k)
    # The heads of one group stack along the query axis: one plain batched matmul instead of repeating k and v.
    q = q.reshape(batch, groups, heads // groups * queries, width)
    logits = against(q, k) * scale
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    logits = logits.reshape(batch, heads, queries, keys)
    if mask is not None:
        logits = jnp.where(mask[:, None], logits, -1e30)
    weights = jax.nn.softmax(logits, axis=-1)
    flat, values = factors(weights.reshape(batch, groups, -1, keys), v, q.dtype)
    return jnp.einsum("bgqs,bgsk->bgqk", flat, values).reshape(batch, heads, queries, width), weights


def attend_shared(
    q: jax.Array, front: KV, own: KV, mask: jax.Array, *, scale: float, softcap: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """`attend` where W neighbours of B*W share the keys that come first, which are there once: no gradient is asked for.

    q: [B*W,H,Q,K]; front: k and v [B,G,S,K]; own: [B*W,G,C,K]; mask: bool[B*W,Q,S+C].
    Returns (out [B*W,H,Q,K], weights f32[B*W,H,Q,S+C]).
    """
    (beams, heads, queries, width), (rows, groups, size, _) = q.shape, shape(front[0])
    stacked = heads // groups * queries

    def by_row(x: jax.Array) -> jax.Array:
        """[B*W,G,stacked,n] -> [B,G,W*stacked,n]"""
        return x.reshape(rows, -1, groups, stacked, x.shape[-1]).swapaxes(1, 2).reshape(rows, groups, -1, x.shape[-1])

    def by_beam(x: jax.Array) -> jax.Array:
        return x.reshape(rows, groups, -1, stacked, x.shape[-1]).swapaxes(1, 2).reshape(beams, groups, stacked, x.shape[-1])

    q = q.reshape(beams, groups, stacked, width)
    logits = jnp.concatenate([by_beam(against(by_row(q), front[0])), against(q, own[0])], axis=-1) * scale
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    logits = jnp.where(mask[:, None], logits.reshape(beams, heads, queries, -1), -1e30)
    weights = jax.nn.softmax(logits, axis=-1)
    flat = weights.reshape(beams, groups, stacked, -1)
    out = by_beam(f32_matmul(*factors(by_row(flat[..., :size]), front[1], q.dtype)))
    out += f32_matmul(*factors(flat[..., size:], own[1], q.dtype))
    return out.astype(q.dtype).reshape(beams, heads, queries, width), weights


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def mix(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, scale: float) -> jax.Array:
    """`attend` without the weights, whose backward pass keeps them once, in v's dtype, and no mask: a weight of zero has no
    gradient. Autodiff would keep them twice in float32, once in v's dtype, and the mask by head."""
    return attend(q, k, v, mask, scale=scale)[0]


def _mix_forward(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, scale: float) -> tuple[jax.Array, Saved]:
    out, weights = attend(q, k, v, mask, scale=scale)
    return out, (q, k, v, keep(weights.astype(v.dtype), "weights"))


def _mix_backward(scale: float, saved: Saved, cotangent: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q, k, v, weights = saved
    batch, heads, queries, width = q.shape
    stacked = (batch, k.shape[1], heads // k.shape[1] * queries)
    q, cotangent = q.reshape(*stacked, width), cotangent.reshape(*stacked, width)
    weights = weights.reshape(*stacked, k.shape[2])

    def product(form: str, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.einsum(form, a, b, preferred_element_type=jnp.float32)

    weighted = weights.astype(jnp.float32) * product("bgqk,bgsk->bgqs", cotangent, v)
    logits = (weighted - weights.astype(jnp.float32) * weighted.sum(-1, keepdims=True)) * scale
    logits = logits.astype(q.dtype)
    dq = product("bgqs,bgsk->bgqk", logits, k).astype(q.dtype).reshape(batch, heads, queries, width)
    dk = product("bgqs,bgqk->bgsk", logits, q).astype(k.dtype)
    return dq, dk, product("bgqs,bgqk->bgsk", weights, cotangent).astype(v.dtype), None


mix.defvjp(_mix_forward, _mix_backward)


def fused(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, scale: float, kernel: str) -> jax.Array:
    """`attend` without the weights by a library's kernel, which keeps no weights either: [B,H,Q,K], of bfloat16 or float16.

    Each device computes its own rows and heads, since the compiler can't cut a kernel in parts.
    """
    rows = sharded(q.shape[0], k.shape[1])
    if mask is not None:  # a kernel wants a row of it for each query
        mask = jnp.broadcast_to(mask, (q.shape[0], q.shape[2], k.shape[2]))

    def run(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None) -> jax.Array:
        q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
        sees = None if mask is None else mask[:, None]
        out = jax.nn.dot_product_attention(q, k, v, mask=sees, scale=scale, implementation=IMPLEMENTATIONS[kernel])
        return jnp.transpose(out, (0, 2, 1, 3))

    if rows == P(None, None):
        return run(q, k, v, mask)
    of_mask = None if mask is None else P(rows[0])
    return jax.shard_map(run, in_specs=(rows, rows, rows, of_mask), out_specs=rows, check_vma=False)(q, k, v, mask)


def sharded(rows: int, groups: int) -> P:
    """How rows and heads are cut over the mesh in use; None where they are whole on each device."""
    mesh = jax.sharding.get_abstract_mesh()
    by_head = 1 if mesh.empty else mesh.shape["tp"]
    return P(row_axes(rows), "tp" if by_head > 1 and groups % by_head == 0 else None)


def one_core(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, *, scale: float, softcap: float | None, kernel: str
) -> jax.Array:
    """[B,H,Q,K] of one mask. float32 goes through autodiff: bit for bit what `attend` gives."""
    if softcap is not None or q.dtype == jnp.float32:
        return attend(q, k, v, mask, scale=scale, softcap=softcap)[0]
    return mix(q, k, v, mask, scale) if kernel == "xla" else fused(q, k, v, mask, scale, kernel)


def core(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask, *, scale: float, softcap: float | None = None, kernel: str = "xla"
) -> jax.Array:
    """[B,H,Q,K]: `attend` by the mask, in two parts where it has two. kernel: one of KERNELS."""
    run = functools.partial(one_core, scale=scale, softcap=softcap, kernel=kernel)
    if not isinstance(mask, SplitMask):
        return run(q, k, v, mask)
    at, front = mask.prefix, mask.front
    keys = at if front is None else front.shape[-1]
    images = run(q[:, :, :at], k[:, :, :keys], v[:, :, :keys], front)
    return jnp.concatenate([images, run(q[:, :, at:], k, v, mask.rows)], axis=2)
