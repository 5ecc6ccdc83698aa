"""Text from pictures and prompts, in batches of one physical size, so that a row's answer does not depend on its company."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from flax import nnx

from vlax.data.batches.pipeline import filler, show
from vlax.decoding import constrain, sure
from vlax.decoding.generator import Generator
from vlax.decoding.options import DecodeConfig
from vlax.decoding.seen import Seen
from vlax.errors import VlaxError
from vlax.masks import PROMPT
from vlax.models.vlm import VLM, Batch, VLMConfig
from vlax.params import distributed, groups, sharding
from vlax.text.prompts import Encoder


@dataclasses.dataclass(frozen=True)
class Request:
    """One prompt, with a resized picture uint8[H,W,3], several of them, or None. `row` seeds sampling.

    before: how many of the prompt's ids come before each picture; (): all of them come first
    """

    prompt: Sequence[int]
    image: np.ndarray | Sequence[np.ndarray] | None
    row: int = 0
    before: Sequence[int] = ()

    @property
    def images(self) -> Sequence[np.ndarray]:
        if self.image is None:
            return ()
        return (self.image,) if isinstance(self.image, np.ndarray) and self.image.ndim == 3 else list(self.image)


class Predictor:
    """Batched decoding of one model. Every call of the compiled programs has `batch_size` rows, filler included.

    answers: the only texts there are (see `constrain.py`), chosen `by` "trie" or "likelihood"; none: any text. With answers,
    `max_new_tokens` is what the longest of them takes. seen: rows share pictures, which go through the tower once, and where
    nothing that they see is a row's own, through the decoder (`seen.looking`); None: each row has its own. VlaxError for
    answers or `decode` that do not go together.
    """

    def __init__(
        self, graphdef: nnx.GraphDef[VLM], config: VLMConfig, encoder: Encoder, decode: DecodeConfig, batch_size: int,
        mesh: jax.sharding.Mesh, answers: Sequence[str] = (), by: str = "trie", seen: Seen | None = None,
    ):  # fmt: skip
        shards = mesh.shape["data"] * mesh.shape["fsdp"]
        self.config, self.encoder, self.mesh = config, encoder, mesh
        self.batch_size = -(-batch_size // shards) * shards
        self.answers, self.by, trie = None, by, None
        if len(answers):
            constrain.check(decode, by)
            self.answers = constrain.AnswerList.make(encoder, answers)
            decode = dataclasses.replace(decode, max_new_tokens=self.answers.tokens.shape[1])
            trie = self.answers.trie if by == "trie" else None
        self.decode, tokenizer = decode, encoder.tokenizer
        self.generate = Generator(graphdef, config, decode, encoder.stops, tokenizer.pad_token_id, trie)
        self.seen = seen
        greedy = decode.num_beams == 1 and decode.temperature == 0 and self.answers is None
        self._sure: sure.Sure | None = None  # where it can be: see `sure.py`
        if greedy and mesh.size == 1 and mesh.devices.flat[0].platform == "cpu":
            self._sure = sure.Sure(graphdef, config, decode, encoder.stops, tokenizer.pad_token_id)

    def batch(self, requests: Sequence[Request], length: int, slots: int = 0, rows: int = 0) -> dict[str, np.ndarray]:
        """The batch contract's arrays for at most batch_size prompts, padded to `length` text slots and as many of pictures as
        `slots` says, by default as one of them needs. rows: of the batch; 0: batch_size."""
        out = filler(rows or self.batch_size, length, self.config.preprocess, self.encoder, self.slots(requests, slots))
        out["row"] = out["row"].astype(np.int32)  # places in a test set, which sampling draws by: on the device, 32 bits wide
        for i, request in enumerate(requests):
            size = len(request.prompt)
            for n, image in enumerate(request.images if self.config.vision else ()):
                show(out, i, n, image, self.config.preprocess)
                out["has_image"][i, n], out["owner"][i, n] = True, 1
                out["before"][i, n] = request.before[n] if request.before else 0
            out["tokens"][i, :size], out["segment"][i, :size], out["example"][i, :size] = request.prompt, PROMPT, 1
            out["row"][i, 0] = request.row
        return out

    def place(self, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
        """This host's share of a physical batch, which every host has whole, on its devices."""
        share, host = self.batch_size // distributed.hosts(), distributed.host()
        return sharding.put_batch({k: v[host * share : (host + 1) * share] for k, v in batch.items()}, self.mesh)

    def placed(self, params: groups.Params, requests: Sequence[Request], length: int, slots: int) -> Batch:
        """The batch of at most batch_size requests on the devices, its pictures seen already where many rows share them."""
        batch = self.batch(requests, length, slots)
        if self.seen is None:
            return self.place(batch)
        if self.seen.prefix and any(any(request.before) for request in requests):
            raise VlaxError("a picture stands within a text, and this model has pictures in front: leave `before` out")
        del batch["image"]
        return self.seen.shown(params, [request.images for request in requests], self.place(batch))

    def length(self, requests: Sequence[Request], length: int = 0) -> int:
        """Prompt slots: `length`, or as many as the longest prompt takes, rounded up to a multiple of 16."""
        longest = max((len(r.prompt) for r in requests), default=1)
        length = length or -(-longest // 16) * 16
        if longest > length:
            raise VlaxError(f"a prompt has {longest} tokens; there are {length} slots")
        return length

    def slots(self, requests: Sequence[Request], slots: int = 0) -> int:
        """Slots for pictures: `slots`, or as many as the request of the most has, at least 1."""
        most = max((len(r.images) for r in requests), default=1) if self.config.vision else 1
        slots = slots or max(most, 1)
        if most > slots:
            raise VlaxError(f"a prompt has {most} pictures; there are {slots} slots")
        return slots

    def tokens(
        self, params: groups.Params, requests: Sequence[Request], length: int = 0, slots: int = 0, few: bool = False
    ) -> Iterator[np.ndarray]:
        """Yields int32[n,max_new_tokens] for one physical batch of n requests after another, in order: the ids of each
        answer, its EOS included where it came to one, then pads. length, slots: as in the methods of these names. few: a batch
        that would be filler for the most part may be smaller, with the same answers: one program more for each size."""
        length, slots = self.length(requests, length), self.slots(requests, slots)
        for begin in range(0, len(requests), self.batch_size):
            part = requests[begin : begin + self.batch_size]
            if few and (size := self._small(params, len(part))):
                yield self._certain(params, part, length, slots, size)
                continue
            if self.answers is not None and self.by == "likelihood":
                each = self.answers.tokens[:, None]  # the same alternatives in every row
                alternatives = np.broadcast_to(each, (len(each), self.batch_size, each.shape[-1]))
                sums, _ = self.score(params, part, alternatives, length, slots)
                yield self.answers.tokens[sums.argmax(-1)]
                continue
            yield self._whole(params, part, length, slots)

    def _whole(self, params: groups.Params, part: Sequence[Request], length: int, slots: int) -> np.ndarray:
        with jax.set_mesh(self.mesh):
            tokens, _ = self.generate(params, self.placed(params, part, length, slots))
        return distributed.gather(tokens)[: len(part)]

    def _small(self, params: groups.Params, requests: int) -> int:
        """The smaller batch that so many requests fit in and whose answers can be sure; 0 where there is none."""
        if self._sure is None or next(iter(params.values())).dtype != np.float32:
            return 0
        return next((size for size in sure.sizes(self.batch_size) if size >= requests), 0)

    def _certain(self, params: groups.Params, part: Sequence[Request], length: int, slots: int, size: int) -> np.ndarray:
        """As `_whole`, by a batch of `size` rows; those of which it isn't sure once more by the whole one."""
        assert self._sure is not None, "or `_small` is 0"
        with jax.set_mesh(self.mesh):
            tokens, known = self._sure.certain(params, jax.device_put(self.batch(part, length, slots, size)))
        tokens, open_ = tokens[: len(part)].copy(), np.flatnonzero(~known[: len(part)]).tolist()
        if open_:
            tokens[open_] = self._whole(params, [part[i] for i in open_], length, slots)
        return tokens

    def score(
        self, params: groups.Params, requests: Sequence[Request], answers: np.ndarray, length: int = 0, slots: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """`Generator.likelihood` of at most batch_size requests (n) and A alternatives each: f32[n,A], bool[n,A].

        answers: int32[A,batch_size,L], padded after EOS. length, slots: as in the methods of these names.
        """
        with jax.set_mesh(self.mesh):
            batch = self.placed(params, requests, self.length(requests, length), slots)
            sums, greedy = self.generate.likelihood(params, batch, answers)
        return distributed.gather(sums)[: len(requests)], distributed.gather(greedy)[: len(requests)]

    def texts(
        self, params: groups.Params, requests: Sequence[Request], length: int = 0, slots: int = 0, few: bool = False
    ) -> Iterator[list[str]]:
        """Yields the texts of one physical batch after another, in order; an answer of a list as the list gives it."""
        for tokens in self.tokens(params, requests, length, slots, few):
            yield [self.text(row) for row in tokens]

    def text(self, tokens: np.ndarray) -> str:
        """The text of one row of `tokens`."""
        return self.encoder.decode(tokens) if self.answers is None else self.answers.text(tokens)
