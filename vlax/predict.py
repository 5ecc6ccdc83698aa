"""Text from pictures and prompts, in batches of one physical size, so that a row's answer does not depend on its company."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from vlax import groups, sharding
from vlax.data.pipeline import filler
from vlax.data.prompts import Encoder
from vlax.decoding import DecodeConfig, Generator
from vlax.errors import VlaxError
from vlax.masks import PROMPT
from vlax.models.vlm import VLMConfig


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt, with a resized picture uint8[H,W,3] or None. `row` seeds sampling."""

    prompt: Sequence[int]
    image: np.ndarray | None
    row: int = 0


class Predictor:
    """Batched decoding of one model. Every call of the compiled programs has `batch_size` rows, filler included."""

    def __init__(self, graphdef, config: VLMConfig, encoder: Encoder, decode: DecodeConfig, batch_size: int, mesh):
        shards = mesh.shape["data"] * mesh.shape["fsdp"]
        self.config, self.encoder, self.mesh = config, encoder, mesh
        self.batch_size = -(-batch_size // shards) * shards
        tokenizer = encoder.tokenizer
        self.generate = Generator(graphdef, config, decode, tokenizer.eos_token_id, tokenizer.pad_token_id)

    def batch(self, requests: Sequence[Request], length: int) -> dict[str, np.ndarray]:
        """The batch contract's arrays for at most batch_size prompts, padded to `length` text slots."""
        out = filler(self.batch_size, length, self.config.preprocess, self.encoder)
        for i, request in enumerate(requests):
            size = len(request.prompt)
            if request.image is not None and self.config.vision:
                out["image"][i, 0], out["has_image"][i, 0] = request.image, True
            out["tokens"][i, :size], out["segment"][i, :size], out["example"][i, :size] = request.prompt, PROMPT, 1
            out["row"][i, 0] = request.row
        return out

    def texts(self, params: groups.Params, requests: Sequence[Request], length: int = 0) -> Iterator[list[str]]:
        """Yields the texts of one physical batch after another, in order.

        length: prompt slots; 0: as many as the longest prompt takes, rounded up to a multiple of 16.
        """
        longest = max((len(r.prompt) for r in requests), default=1)
        length = length or -(-longest // 16) * 16
        if longest > length:
            raise VlaxError(f"a prompt has {longest} tokens; there are {length} slots")
        hosts, host = jax.process_count(), jax.process_index()
        for begin in range(0, len(requests), self.batch_size):
            part = requests[begin : begin + self.batch_size]
            share = self.batch_size // hosts
            local = {k: v[host * share : (host + 1) * share] for k, v in self.batch(part, length).items()}
            with jax.set_mesh(self.mesh):
                tokens, _ = self.generate(params, sharding.put_batch(local, self.mesh))
            yield [self.encoder.decode(row) for row in gather(tokens)[: len(part)]]


def gather(array: jax.Array) -> np.ndarray:
    """A batch-sharded array of any number of processes, whole, on every host."""
    if jax.process_count() == 1:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
