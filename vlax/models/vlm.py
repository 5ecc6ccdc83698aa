"""The whole model: images through tower and projector, in front of the text, through the decoder."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from vlax import masks
from vlax.images import Preprocess
from vlax.models.decoder import Decoder, DecoderConfig
from vlax.models.projector import Projector, ProjectorConfig
from vlax.models.vision import VisionConfig, VisionTower


@dataclasses.dataclass(frozen=True)
class VLMConfig:
    """Shapes and mask kind. Without a vision tower it is a plain language model (I = 0), trained by the same code."""

    decoder: DecoderConfig
    vision: VisionConfig | None = None
    projector: ProjectorConfig | None = None
    mask: str = "image_bidirectional"
    preprocess: Preprocess | None = None  # None with a tower: squashed to its size by a bicubic filter, as SigLIP does

    def __post_init__(self):
        masks.check_kind(self.mask)
        if self.vision is not None and self.preprocess is None:
            plain = Preprocess(self.vision.image_size, mean=self.vision.mean, std=self.vision.std)
            object.__setattr__(self, "preprocess", plain)

    @property
    def tokens_per_image(self) -> int:
        """I: what one image takes of the sequence."""
        return 0 if self.vision is None else self.projector.tokens(self.vision.tokens)

    def to_dict(self) -> dict:
        """Plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "VLMConfig":
        def build(kind, fields):
            lists = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
            return kind(**lists)

        vision, projector, preprocess = (values.get(name) for name in ("vision", "projector", "preprocess"))
        return cls(
            decoder=build(DecoderConfig, values["decoder"]),
            vision=build(VisionConfig, vision) if vision else None,
            projector=build(ProjectorConfig, projector) if projector else None,
            mask=values["mask"],
            preprocess=build(Preprocess, preprocess) if preprocess else None,
        )


class VLM(nnx.Module):
    def __init__(self, config: VLMConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, dtype
        if config.vision is not None:
            self.vision = VisionTower(config.vision, dtype=dtype, rngs=rngs)
            self.projector = Projector(config.projector, dtype=dtype, rngs=rngs)
        self.decoder = Decoder(config.decoder, dtype=dtype, rngs=rngs)

    def image_tokens(self, image, *, mode: str = "unroll", remat: bool = False):
        """uint8[B,N,H,W,3] -> [B,N*I,D]"""
        batch, slots = image.shape[:2]
        features = self.vision(image.reshape(batch * slots, *image.shape[2:]), mode=mode, remat=remat)
        return self.projector(features).reshape(batch, -1, self.config.decoder.width)

    def sequence(self, batch: dict, *, mode: str = "unroll", remat: bool = False):
        """(embeddings [B,S,D], positions int32[B,S], mask bool[B,S,S]) of a batch (see `data/pipeline.py`)."""
        c = self.config
        text = self.decoder.embed(batch["tokens"])
        if c.vision is None:  # no image slots: I = 0, so that masks and positions need no special case
            embeddings = text
        else:
            image = self.image_tokens(batch["image"], mode=mode, remat=remat)
            embeddings = jnp.concatenate([image.astype(text.dtype), text], axis=1)
        i = c.tokens_per_image
        mask = masks.attention_mask(batch["segment"], batch["example"], batch["has_image"], i, c.mask)
        has_image = batch["has_image"] & (i > 0)
        return embeddings, masks.positions(batch["example"], has_image, i), mask

    def __call__(self, batch: dict, *, mode: str = "unroll", remat: bool = False) -> jax.Array:
        """Next-token logits at the text positions: f32[B,T,V]."""
        embeddings, positions, mask = self.sequence(batch, mode=mode, remat=remat)
        hidden = self.decoder(embeddings, positions, mask, mode=mode, remat=remat)
        return self.decoder.logits(hidden[:, -batch["tokens"].shape[1] :])

    def attention_weights(self, batch: dict) -> list[jax.Array]:
        """The decoder's attention, one f32[B,H,S,S] a layer: the reference path, for pictures and tests."""
        return self.decoder.trace(*self.sequence(batch))[1]


def token_losses(logits, batch: dict):
    """Cross-entropy of the supervised positions.

    logits f32[B,T,V]. Returns (losses f32[B,T], zero where unsupervised; supervised bool[B,T]; correct bool[B,T]).
    """
    supervised = masks.loss_mask(batch["segment"], batch["example"])
    target = masks.targets(batch["tokens"])
    picked = jnp.take_along_axis(logits, target[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - picked
    return jnp.where(supervised, losses, 0.0), supervised, supervised & (logits.argmax(-1) == target)
