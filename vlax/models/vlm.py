"""The whole model: images through tower and projector, in front of the text, through the decoder."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from vlax import masks
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.images.anyres import AnyRes, cuts, drawn, tokens
from vlax.models.cores import PLAIN, Kernels, Mask, SplitMask
from vlax.models.decoder import Decoder, DecoderConfig
from vlax.models.loss import cross_entropy, likeliest, slice_length
from vlax.models.projector import Projector, ProjectorConfig
from vlax.models.sewing import sew
from vlax.models.vision import VisionConfig, VisionTower

Batch = Mapping[str, jax.Array]  # the contract of `data/batches/pipeline.py`


class Tower(NamedTuple):
    """What lies in front of the decoder of a model that sees."""

    vision: VisionConfig
    projector: ProjectorConfig
    preprocess: Preprocess


@dataclasses.dataclass(frozen=True)
class VLMConfig:
    """Shapes and mask kind. Without a vision tower it is a plain language model (I = 0), trained by the same code."""

    decoder: DecoderConfig
    vision: VisionConfig | None = None
    projector: ProjectorConfig | None = None
    mask: str = "image_bidirectional"
    preprocess: Preprocess | None = None  # None with a tower: squashed to its size by a bicubic filter, as SigLIP does
    # parts that a large picture is shown in, beside the whole (`images.grid`, or `anyres` of preprocess)
    tiles: int = 0

    def __post_init__(self) -> None:
        masks.check_kind(self.mask)
        if self.vision is not None and self.preprocess is None:
            plain = Preprocess(self.vision.image_size, mean=self.vision.mean, std=self.vision.std)
            object.__setattr__(self, "preprocess", plain)
        if self.anyres is not None and self.vision is not None and self.projector is not None:
            own = dataclasses.replace(self.anyres, side=self.projector.side(self.vision.grid))
            object.__setattr__(self, "preprocess", dataclasses.replace(self.tower.preprocess, anyres=own))
            object.__setattr__(self, "tiles", own.parts)

    @property
    def anyres(self) -> AnyRes | None:
        """How pictures are sewn of parts, where they are: then a slot holds a picture with all of them."""
        return self.preprocess.anyres if self.preprocess else None

    @property
    def tokens_per_image(self) -> int:
        """I: what one image takes of the sequence; with `anyres` what the longest does."""
        if self.vision is None:
            return 0
        return self.tower.projector.tokens(self.vision.tokens) if self.anyres is None else self.anyres.longest

    def tokens_of(self, image: np.ndarray) -> int:
        """Tokens of one picture, uint8[H,W,3] as the batch has it."""
        return self.tokens_per_image if self.anyres is None else int(tokens(image, self.anyres.side))

    def drawn(self, image: np.ndarray) -> np.ndarray:
        """uint8[h,w,3] of one picture as the batch has it, for people: its parts as they lie."""
        return image if self.anyres is None else drawn(image, self.anyres.side)

    @property
    def views(self) -> int:
        """Slots that a picture takes at most."""
        return self.preprocess.slots(self.tiles) if self.preprocess else 1

    @property
    def looks(self) -> int:
        """Squares of a slot that the tower sees."""
        return 1 if self.anyres is None else 1 + self.anyres.parts

    @property
    def tower(self) -> Tower:
        """VlaxError where there is none: ask `vision is not None` first where both are allowed."""
        if self.vision is None or self.projector is None or self.preprocess is None:
            raise VlaxError("this model has no vision tower and projector: it takes text alone")
        return Tower(self.vision, self.projector, self.preprocess)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        values = dataclasses.asdict(self) | ({"projector": self.projector.to_dict()} if self.projector else {})
        if self.preprocess and self.anyres is None:  # older readers know no such field
            del values["preprocess"]["anyres"]
        return {key: value for key, value in values.items() if value or key != "tiles"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "VLMConfig":
        kinds = {"decoder": DecoderConfig, "vision": VisionConfig, "projector": ProjectorConfig, "preprocess": Preprocess}
        parts: dict[str, Any] = {}
        for name, kind in kinds.items():
            if fields := values.get(name):
                parts[name] = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        return cls(mask=values["mask"], tiles=values.get("tiles", 0), **parts)


class VLM(nnx.Module):
    """kernels: how each part computes attention where nobody asks for the weights; of no effect on parameters."""

    def __init__(self, config: VLMConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs, kernels: Kernels = PLAIN):
        self.config, self.dtype = config, dtype
        if config.vision is not None:
            self.vision = VisionTower(config.vision, dtype=dtype, rngs=rngs)
            self.projector = Projector(config.tower.projector, dtype=dtype, rngs=rngs)
        self.decoder = Decoder(config.decoder, dtype=dtype, rngs=rngs)
        for block in self.decoder.layers:
            block.attention.kernel = kernels.decoder
        for seen in self.vision.layers if config.vision is not None else ():
            seen.attention.kernel = kernels.vision

    def image_tokens(self, image: jax.Array, *, mode: str = "unroll", remat: str | bool = "none") -> jax.Array:
        """uint8[B,N,H,W,3] -> [B,N*I,D]"""
        batch, slots = image.shape[:2]
        flat, sewn = image.reshape(batch * slots, *image.shape[2:]), self.config.anyres
        seen = flat if sewn is None else flat[:, :-1].reshape(-1, flat.shape[2], *flat.shape[2:])
        out = self.projector(self.vision(seen, mode=mode, remat=remat))
        if sewn is not None:  # the newline that ends each part's tokens stands elsewhere
            parts = out[:, : sewn.side**2].reshape(batch * slots, self.config.looks, sewn.side**2, -1)
            out = sew(parts, self.projector.newline[...], cuts(flat), sewn)
        return out.reshape(batch, -1, self.config.decoder.width)

    def embeddings(self, batch: Batch, *, mode: str = "unroll", remat: str | bool = "none") -> jax.Array:
        """[B,S,D] of a batch (see `data/batches/pipeline.py`), which may have "features" [B,N*I,D] in place of "image": what
        `image_tokens` made of its pictures before."""
        text = self.decoder.embed(batch["tokens"])
        if self.config.vision is None:
            return text
        seen = batch.get("features")
        image = self.image_tokens(batch["image"], mode=mode, remat=remat) if seen is None else seen
        return jnp.concatenate([image.astype(text.dtype), text], axis=1)

    def layout(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """(positions int32[B,S], mask bool[B,S,S]). Without a tower I = 0, so that neither needs a special case."""
        c, i = self.config, self.config.tokens_per_image
        slots = [batch.get(name) for name in ("owner", "before", "shown")]
        example, has_image = batch["example"], batch["has_image"]
        mask = masks.attention_mask(batch["segment"], example, has_image, i, c.mask, *slots)
        return masks.positions(example, has_image & (i > 0), i, *slots), mask

    def sequence(
        self, batch: Batch, *, mode: str = "unroll", remat: str | bool = "none"
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(`embeddings` [B,S,D], positions int32[B,S], mask bool[B,S,S])."""
        return self.embeddings(batch, mode=mode, remat=remat), *self.layout(batch)

    def __call__(self, batch: Batch, *, mode: str = "unroll", remat: str | bool = "none") -> jax.Array:
        """Next-token logits at the text positions: f32[B,T,V]."""
        return self.decoder.logits(self.hidden(batch, mode=mode, remat=remat))

    def hidden(self, batch: Batch, *, mode: str = "unroll", remat: str | bool = "none") -> jax.Array:
        """Normed hidden states of the text positions: [B,T,D]."""
        embeddings, positions, mask = self.sequence(batch, mode=mode, remat=remat)
        # float32 keeps to the reference, bit for bit; the parts of a mask are worth their while where speed is asked for
        parts = mask if self.dtype == jnp.float32 else self.parts(batch, mask)
        return self.decoder(embeddings, positions, parts, last=batch["tokens"].shape[1], mode=mode, remat=remat)

    def parts(self, batch: Batch, mask: jax.Array) -> Mask:
        """The reference mask in two parts, where the image tokens of a row are alike in what they see: one picture in front of
        the text. Otherwise (several pictures a row, pictures within the text, a sliding window) the mask as it is."""
        c, images = self.config, self.config.tokens_per_image
        usual = batch.keys() <= {"image", "has_image", "tokens", "segment", "example", "row"}
        if not images or not usual or batch["has_image"].shape[1] != 1 or c.decoder.window is not None:
            return mask
        front = {"causal": mask[:, :images, :images], "image_bidirectional": None}.get(c.mask, mask[:, :1])
        return SplitMask(images, front, mask[:, images:])

    def loss(self, batch: Batch, *, mode: str = "unroll", remat: str | bool = "none") -> tuple[jax.Array, jax.Array, jax.Array]:
        """(sum of the answer-token losses, such tokens, those predicted right), f32 scalars."""
        hidden = self.hidden(batch, mode=mode, remat=remat)
        head, table = self.decoder.head_of()
        if slice_length(hidden.shape[0] * hidden.shape[1], self.config.decoder.vocab_size) == hidden.shape[0] * hidden.shape[1]:
            losses, supervised, correct = token_losses(self.decoder.logits(hidden), batch)
            return losses.sum(), supervised.sum().astype(jnp.float32), correct.sum().astype(jnp.float32)
        supervised = masks.loss_mask(batch["segment"], batch["example"])
        total, right = cross_entropy(hidden, table, masks.targets(batch["tokens"]), supervised, head)
        return total, supervised.sum().astype(jnp.float32), right

    def attention_weights(self, batch: Batch) -> list[jax.Array]:
        """The decoder's attention, one f32[B,H,S,S] a layer: the reference path, for pictures and tests."""
        return self.decoder.trace(*self.sequence(batch))[1]


def token_losses(logits: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Cross-entropy of the supervised positions.

    logits f32[B,T,V]. Returns (losses f32[B,T], zero where unsupervised; supervised bool[B,T]; correct bool[B,T]).
    """
    supervised = masks.loss_mask(batch["segment"], batch["example"])
    target = masks.targets(batch["tokens"])
    picked = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - picked
    return jnp.where(supervised, losses, 0.0), supervised, supervised & likeliest(logits, target)
