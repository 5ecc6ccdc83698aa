"""Pictures looked at once, however many questions are asked about them.

    seen.shown(params, images, batch)    the batch of rows with these images, with "features" or "prefix" in place of "image"

Each different picture goes through tower and projector once ("features"). Where they come before all text and don't see it, the
pictures of a row go through the decoder, too, once for all rows that show the same ones in the same order ("prefix", see
`prefill.py`), and no more than its prompt is left of a row.

Both programs run on `rows` at a time, filler included, so that what they make of one picture does not depend on the others:
answers are alike whoever else is asked about. Pictures are the same if their pixels are; what was made of them may be `Kept`.
"""

import collections
import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vlax.decoding import prefill, weights
from vlax.masks import blind_to_text
from vlax.models.vlm import VLM, Batch, VLMConfig
from vlax.params import distributed, groups, sharding
from vlax.text.prompts import Encoder

T = TypeVar("T")
PICTURES = 4  # rows of a batch for each picture that is looked at in one go, where rows share them


class Kept:
    """Arrays by name, `limit` bytes of them at most: what was asked for longest ago goes first. 0: nothing is kept."""

    def __init__(self, limit: int = 0):
        self.limit, self.bytes = limit, 0
        self._arrays: collections.OrderedDict[Hashable, jax.Array] = collections.OrderedDict()

    def get(self, name: Hashable) -> jax.Array | None:
        if name in self._arrays:
            self._arrays.move_to_end(name)
        return self._arrays.get(name)

    def put(self, name: Hashable, array: jax.Array) -> None:
        if name in self._arrays or array.nbytes > self.limit:
            return
        self._arrays[name], self.bytes = array, self.bytes + array.nbytes
        while self.bytes > self.limit:
            self.bytes -= self._arrays.popitem(last=False)[1].nbytes


class Seen:
    """What one model makes of pictures, compiled for `rows` of them, or of rows' pictures, at a time.

    prefix: whether pictures see no text of the rows that show them. kept: what was made of earlier calls' pictures, where all
    calls bring the same parameters; by default nothing is.
    """

    def __init__(
        self, graphdef: nnx.GraphDef[VLM], config: VLMConfig, mesh: jax.sharding.Mesh, rows: int, prefix: bool,
        kept: Kept | None = None,
    ):  # fmt: skip
        self.graphdef, self.config, self.mesh, self.rows = graphdef, config, mesh, rows
        self.prefix, self.kept = prefix, kept or Kept()
        whole, by_row = sharding.replicated(mesh), sharding.batch_sharding(mesh)
        self._see = jax.jit(self._see_impl, out_shardings=whole)
        self._read = jax.jit(self._read_impl, out_shardings=whole)
        self._stack = jax.jit(lambda parts: jnp.stack(parts), out_shardings=by_row)
        self._join = jax.jit(self._join_impl, static_argnums=1, out_shardings=by_row)
        self._nothing: dict[tuple[int, ...], jax.Array] = {}
        self._dtype: Any = None  # what the model computes in, once somebody brought parameters

    def _see_impl(self, params: groups.Params, image: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(groups.rebuild(self.graphdef, params).image_tokens(image))

    def _join_impl(self, parts: Sequence[jax.Array], rows: int) -> jax.Array:
        return jnp.stack(parts).reshape(rows, -1, parts[0].shape[-1])

    def _read_impl(
        self, params: groups.Params, parts: Sequence[jax.Array], has_image: jax.Array, shown: jax.Array | None
    ) -> tuple[jax.Array, ...]:
        model, features = groups.rebuild(self.graphdef, params), self._join_impl(parts, has_image.shape[0])
        return tuple(prefill.of_pictures(model, features, has_image, shown))

    def shown(self, params: groups.Params, images: Sequence[Sequence[np.ndarray]], batch: Batch) -> Batch:
        """`batch`, placed and without "image", with "features" [B,N*I,D] or "prefix" [B,2*L,G,N*I,K]. images: of each row,
        uint8[H,W,3] each, in the order of its slots."""
        (rows, slots), digests = batch["has_image"].shape, {id(image): _digest(image) for row in images for image in row}
        named = [tuple(digests[id(image)] for image in row) for row in images]
        pictures = {digests[id(image)]: image for row in images for image in row}
        self._dtype = dtype = self._dtype or weights.compute_dtype(self.graphdef, params)
        named += [()] * (rows - len(named))
        if self.prefix:
            made = self._prefixes(params, dict.fromkeys(filter(None, named)), pictures, slots, dtype)
            d = self.config.decoder
            shape = (2 * d.layers, d.kv_heads, slots * self.config.tokens_per_image, d.head_dim)
            return {**batch, "prefix": self._stack([made[row] if row else self._blank(shape, dtype) for row in named])}
        features = self._features(params, pictures)
        return {**batch, "features": self._join(self._in_slots(named, slots, features, dtype), rows)}

    def _features(self, params: groups.Params, pictures: Mapping[bytes, np.ndarray]) -> dict[Hashable, jax.Array]:
        """[I,D] of each picture."""

        def make(part: Sequence[np.ndarray]) -> tuple[jax.Array, ...]:
            full = np.pad(np.stack(part)[:, None], ((0, self.rows - len(part)), *[(0, 0)] * 4))
            share, host = self.rows // distributed.hosts(), distributed.host()
            placed = sharding.put_batch({"image": full[host * share : (host + 1) * share]}, self.mesh)
            made: tuple[jax.Array, ...] = self._see(params, placed["image"])
            return made

        return self._found(pictures, make)

    def _prefixes(
        self, params: groups.Params, rows: Mapping[tuple[bytes, ...], Any], pictures: Mapping[bytes, np.ndarray], slots: int,
        dtype: Any,
    ) -> dict[Hashable, jax.Array]:  # fmt: skip
        """[2*L,G,N*I,K] of the pictures of each row."""

        def make(part: Sequence[tuple[bytes, ...]]) -> tuple[jax.Array, ...]:
            features = self._features(params, {name: pictures[name] for row in part for name in row})
            full = [*part, *[()] * (self.rows - len(part))]
            has_image = np.array([[slot < len(row) for slot in range(slots)] for row in full])
            shown = None
            if self.config.anyres is not None:
                shown = np.zeros(has_image.shape, np.int32)
                for number, row in enumerate(part):
                    shown[number, : len(row)] = [self.config.tokens_of(pictures[name]) for name in row]
            features_of = self._in_slots(full, slots, features, dtype)
            read: tuple[jax.Array, ...] = self._read(params, features_of, has_image, shown)
            return read

        made = self._found({(self.config.mask, slots, row): row for row in rows}, make)
        return {row: made[self.config.mask, slots, row] for row in rows}

    def _found(self, wanted: Mapping[Any, T], make: Callable[[list[T]], tuple[jax.Array, ...]]) -> dict[Hashable, jax.Array]:
        """The array of each name: kept, or made now, `rows` at a time."""
        found = {name: array for name in wanted if (array := self.kept.get(name)) is not None}
        missing = [name for name in wanted if name not in found]
        for begin in range(0, len(missing), self.rows):
            part = missing[begin : begin + self.rows]
            for name, array in zip(part, make([wanted[name] for name in part]), strict=False):
                found[name] = array
                self.kept.put(name, array)
        return found

    def _in_slots(
        self, rows: Sequence[tuple[bytes, ...]], slots: int, features: Mapping[Hashable, jax.Array], dtype: Any
    ) -> list[jax.Array]:
        """The features of all slots of rows, one after another; of those that show nothing, zeros, which nobody sees."""
        blank = self._blank((self.config.tokens_per_image, self.config.decoder.width), dtype)
        return [features[row[slot]] if slot < len(row) else blank for row in rows for slot in range(slots)]

    def _blank(self, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        if shape not in self._nothing:
            self._nothing[shape] = jax.device_put(np.zeros(shape, dtype), sharding.replicated(self.mesh))
        return self._nothing[shape]


def looking(
    graphdef: nnx.GraphDef[VLM], config: VLMConfig, encoder: Encoder, mesh: jax.sharding.Mesh, batch_size: int,
    kept: Kept | None = None,
) -> Seen | None:  # fmt: skip
    """What looks at the pictures of batches of that size, few at a time but as many on each device; None without a tower."""
    if config.vision is None:
        return None
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    prefix = blind_to_text(config.mask) and not encoder.settings.interleaved  # there, text may stand before a picture
    return Seen(graphdef, config, mesh, -(-batch_size // (PICTURES * shards)) * shards, prefix, kept)


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
