"""Pictures through the tower once, however many questions are asked about them.

    features = seen(params, pictures)       [U,I,D] of U different pictures, uint8[H,W,3] each
    batch = seen.shown(params, images, batch, blank)    the batch of rows with these images, features in place of pixels

The tower runs on `rows` pictures at a time, filler included, so that what it makes of one does not depend on the others:
answers are alike whoever else is asked about. A batch that has features is decoded like any other.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vlax.models.vlm import VLM, Batch
from vlax.params import distributed, groups, sharding


class Seen:
    """The tower and projector of one model, compiled for so many pictures at a time."""

    def __init__(self, graphdef: nnx.GraphDef[VLM], mesh: jax.sharding.Mesh, rows: int):
        self.mesh, self.rows = mesh, rows
        self._see = jax.jit(lambda params, image: groups.rebuild(graphdef, params).image_tokens(image))
        self._take = jax.jit(lambda features, at: jnp.take(features, at, axis=0).reshape(len(at), -1, features.shape[-1]))

    def __call__(self, params: groups.Params, pictures: Sequence[np.ndarray]) -> jax.Array:
        """[U,I,D], U rounded up to a multiple of `rows`, of uint8[H,W,3] each, of which there is at least one."""
        parts = []
        for begin in range(0, len(pictures), self.rows):
            part = np.stack(pictures[begin : begin + self.rows])[:, None]
            full = np.pad(part, ((0, self.rows - len(part)), *[(0, 0)] * 4))
            share, host = self.rows // distributed.hosts(), distributed.host()
            placed = sharding.put_batch({"image": full[host * share : (host + 1) * share]}, self.mesh)
            parts.append(self._see(params, placed["image"]))
        return jnp.concatenate(parts)

    def shown(self, params: groups.Params, images: Sequence[Sequence[np.ndarray]], batch: Batch, pixels: np.ndarray) -> Batch:
        """`batch`, placed and without "image", with "features" [B,N*I,D]. images: of each row, in the order of its slots; those
        that are one array are one picture. pixels: of slots that show nothing, uint8[H,W,3]."""
        different = {id(image): image for row in images for image in row} or {0: pixels}
        places = {name: at for at, name in enumerate(different)}
        at = np.zeros(batch["has_image"].shape, np.int32)
        for number, row in enumerate(images):
            at[number, : len(row)] = [places[id(image)] for image in row]
        features = self(params, list(different.values()))
        share, host = len(at) // distributed.hosts(), distributed.host()
        placed = sharding.put_batch({"at": at[host * share : (host + 1) * share]}, self.mesh)["at"]
        return {**{name: value for name, value in batch.items() if name != "image"}, "features": self._take(features, placed)}
