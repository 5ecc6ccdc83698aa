"""Pictures and prompt through the decoder before anything is said: in one piece, or pictures first and once for many prompts.

A picture in front of a text sees nothing of it where the mask kind is blind to text (`masks.blind_to_text`): keys and values
of its tokens are the same whatever is asked. `of_pictures` computes them, and `prefill` runs a prompt alone over them where a
batch has

    prefix [B,2*L,G,N*I,K]    keys of layer l at 2 * l, its values at 2 * l + 1, in the compute dtype

in place of "image" or "features". Axis letters as in `generator.py`, G key/value heads, K head width, L layers.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from vlax import masks
from vlax.models.decoder import Decoder
from vlax.models.kv_cache import KV, coded, empty
from vlax.models.placement import by_row
from vlax.models.vlm import VLM, Batch

View = Mapping[str, jax.Array]  # what the steps must know of the prefix


def of_pictures(model: VLM, features: jax.Array, has_image: jax.Array, shown: jax.Array | None = None) -> jax.Array:
    """[R,2*L,G,N*I,K] of R rows' pictures, which come before all text: features [R,N*I,D], has_image bool[R,N], and where
    pictures have other numbers of tokens, shown int32[R,N] (`masks.py`)."""
    rows, size = features.shape[:2]
    pad = jnp.zeros((rows, 1), jnp.int32)  # of text there is none
    batch = {"segment": pad, "example": pad, "has_image": has_image, "owner": has_image.astype(jnp.int32)}
    positions, mask = model.layout(batch if shown is None else batch | {"shown": shown})
    x = by_row(features, rows).astype(model.dtype)
    cache = empty_cache(model.decoder, rows, size)
    _, _, cache = model.decoder.trace(x, positions[:, :size], mask[:, :size, :size], cache, 0)
    return jnp.stack(jax.tree.leaves(cache), axis=1)


def empty_cache(decoder: Decoder, rows: int, capacity: int, kind: str = "") -> list[KV]:
    """Zeroed keys and values of every layer, each [B,G,C,K]. kind: of `kv_cache.KINDS`."""
    c = decoder.config
    one = empty((rows, c.kv_heads, capacity, c.head_dim), decoder.dtype, kind)
    return [(one, one)] * c.layers


def _cache(model: VLM, rows: int, capacity: int, prefix: jax.Array | None, kind: str) -> list[KV]:
    """Room for `capacity` slots, the first of which hold the prefix."""
    if prefix is None:
        return empty_cache(model.decoder, rows, capacity, kind)
    room = ((0, 0),) * 3 + ((0, capacity - prefix.shape[3]), (0, 0))
    whole = jnp.pad(by_row(prefix, rows), room)
    parts = [coded(whole[:, at]) if kind == "int8" else whole[:, at] for at in range(whole.shape[1])]
    return list(zip(parts[::2], parts[1::2], strict=True))


def prefill(model: VLM, batch: Batch, more: int, kind: str = "") -> tuple[jax.Array, list[KV], View]:
    """(logits f32[B,V] after the last prompt token, cache with `more` slots beyond image and prompt, view). kind: of the cache,
    `kv_cache.KINDS`.

    view: what later steps must know of the prefix: `visible bool[B,S]`, `positions int32[B,S]`, `start int32[B]`, the
    position of the first generated token.
    """
    image_tokens, room, prefix = model.config.tokens_per_image, ((0, 0), (0, more)), batch.get("prefix")
    images = image_tokens * batch["has_image"].shape[1]
    positions, mask = model.layout(batch)
    x, done = (model.embeddings(batch), 0) if prefix is None else (model.decoder.embed(batch["tokens"]), images)
    cache = _cache(model, mask.shape[0], mask.shape[1] + more, prefix, kind)
    hidden, _, cache = model.decoder.trace(
        x, positions[:, done:], jnp.pad(mask[:, done:], ((0, 0), *room)), cache, done, jnp.pad(positions, room)
    )
    last = jnp.maximum(images + (batch["example"] > 0).sum(-1, keepdims=True) - 1, 0)
    # The head on one position: at V = 150 k it is the largest product of the prefill.
    logits = model.decoder.logits(jnp.take_along_axis(hidden, jnp.maximum(last - done, 0)[..., None], axis=1)[:, 0])
    slots = batch.get("owner"), batch.get("shown")
    view = {
        "visible": masks.sequence_examples(batch["example"], batch["has_image"], image_tokens, *slots) > 0,
        "positions": positions,
        "start": jnp.take_along_axis(positions, last, axis=1)[:, 0] + 1,
    }
    return logits, cache, view
