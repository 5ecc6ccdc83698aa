"""A tiny model and batches of prompts that several test files share."""

import functools

import jax
import numpy as np
from flax import nnx

from vlax import masks
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLM, VLMConfig
from vlax.params import groups

PAD, EOS, VOCAB, LENGTH, ROWS = 0, 6, 11, 5, 8  # 6 is a token that this model likes to say: rows end at different times
VISION = VisionConfig(image_size=8, patch_size=4, width=8, layers=1, heads=2, mlp_dim=8)
PROJECTOR = ProjectorConfig("linear", 8, 16)
DECODER = {"vocab_size": VOCAB, "width": 16, "layers": 1, "heads": 4, "kv_heads": 2, "head_dim": 4, "mlp_dim": 16}


def config(mask="image_bidirectional", text_only=False, **decoder) -> VLMConfig:
    towers = {} if text_only else {"vision": VISION, "projector": PROJECTOR}
    return VLMConfig(DecoderConfig(**{**DECODER, **decoder}), mask=mask, **towers)


def weights(config: VLMConfig, seed: int = 0, embedding: float = 0.3):
    """(graphdef, params), drawn by numpy, since initialising a module compiles a program for each shape.

    Biases are not zero, and kernels are large enough for the answers to depend on the whole prompt.
    """
    graphdef, shapes = jax.eval_shape(lambda: groups.flatten(VLM(config, rngs=nnx.Rngs(0))))
    rng, params = np.random.default_rng(seed), {}
    for path, leaf in sorted(shapes.items()):
        value = rng.normal(size=leaf.shape)
        if path.endswith("kernel"):
            value *= 3.0 * leaf.shape[0] ** -0.5
        elif path.endswith("scale"):
            value = 1 + 0.1 * value
        elif path.endswith(("embedding", "head")):
            value *= embedding
        else:
            value *= 0.3
        params[path] = value.astype(leaf.dtype)
    return graphdef, params


@functools.cache
def build(embedding=0.3, **fields):
    """(config, graphdef, params) of the fields of `config`."""
    made = config(**fields)
    return made, *weights(made, embedding=embedding)


@functools.cache
def forward(**fields):
    """The jitted uncached model: f32[B,T,V] of a batch."""
    _, graphdef, params = build(**fields)
    return jax.jit(lambda batch: groups.rebuild(graphdef, params)(batch))


def prompts(rows=ROWS, vocab=VOCAB, length=LENGTH, seed=0) -> dict:
    """Prompts of 2..length tokens; row 1 has no image, the last row is filler."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, vocab, (rows, length)).astype(np.int32)
    sizes = np.array([length, 2, length - 2, length - 1, 3, 4, 2, 3])[:rows]
    sizes[-1] = 0
    real = np.arange(length) < sizes[:, None]
    row = np.arange(rows, dtype=np.int32)[:, None] + 100
    row[-1] = -1
    return {
        "image": rng.integers(0, 256, (rows, 1, 8, 8, 3)).astype(np.uint8),
        "has_image": (np.arange(rows) != 1)[:, None] & (sizes > 0)[:, None],
        "tokens": np.where(real, tokens, PAD),
        "segment": real.astype(np.int32),
        "example": real.astype(np.int32),
        "row": row,
    }


def with_answers(batch: dict, answers, room: int) -> dict:
    """The same rows as one training batch: each answer follows its prompt at once, whatever the prompt's padding was."""
    full = {name: np.pad(batch[name], ((0, 0), (0, room))) for name in ("tokens", "segment", "example")}
    for row, size in enumerate((batch["example"] > 0).sum(-1)):
        if size:
            at = slice(size, size + answers.shape[1])
            full["tokens"][row, at], full["segment"][row, at], full["example"][row, at] = answers[row], masks.ANSWER, 1
    return {**batch, **full}


def answer_logits(batch: dict, answers, room: int, **fields):
    """f32[B,A,V] of the uncached model: what it predicts for each answer token, given those before it."""
    logits = np.asarray(forward(**fields)(with_answers(batch, answers, room)))
    first = np.maximum((batch["example"] > 0).sum(-1), 1) - 1
    return np.stack([one[start : start + answers.shape[1]] for one, start in zip(logits, first, strict=True)])


def log_softmax(logits):
    """In numpy: a jitted one would be compiled for every shape."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
