"""Where the decoder looks while it writes: for each token of an answer, its attention over the image grid.

    answer_attention(model, [request], ["red"])  ->  [[("red", f32[h,w]), ("<end>", f32[h,w])]]

The map of a token is the attention of the position that predicts it (the prompt's last token for the first one), to the
image tokens, mean over heads and layers, divided by its sum over the image. It says where the model looked, and not why it
answered: attention is no attribution (Jain and Wallace, arXiv 1902.10186).
Of several pictures the grids lie side by side, f32[h,n*w], and share the sum. Axis letters: B batch, A answer tokens, N slots,
I image tokens, S sequence, H heads, h x w = I the grid that reaches the decoder.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vlax.decoding import constrain
from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Request
from vlax.errors import VlaxError
from vlax.masks import ANSWER
from vlax.model.api import Model
from vlax.models.vlm import VLMConfig
from vlax.params import distributed, groups
from vlax.text.pieces import pieces
from vlax.text.tokenizer import Tokenizer

BATCH = 8  # rows of a physical batch: the reference path holds [B,H,S,S] of a layer
END = "<end>"


def grid(config: VLMConfig) -> tuple[int, int]:
    """(h, w) of the image tokens in the decoder's sequence, in reading order. Class token and registers are not among them."""
    projector = config.tower.projector
    if config.anyres is not None:
        raise VlaxError("image tokens of pictures in parts lie in rows of each picture's own length: there is no map to draw")
    side = projector.side(config.tower.vision.grid)
    if side * side != config.tokens_per_image - projector.newline:
        raise VlaxError(f"{config.tokens_per_image} image tokens are no {side} x {side} grid: there is no map to draw")
    return side, side


def answer_attention(
    model: Model, requests: Sequence[Request], texts: Sequence[str | Sequence[int]]
) -> list[list[tuple[str, np.ndarray]]]:
    """For each request one (token as text, f32[h,w] of sum 1) a token of its answer, EOS included; [] without an image.

    texts: the answers, as text or as the ids that `Predictor.tokens` yields (a text need not tokenise into the ids that
    were generated). A map is all zeros where a sliding window lets a token see nothing of the image.
    VlaxError when there are not as many texts as requests.
    """
    if len(requests) != len(texts):
        raise VlaxError(f"{len(requests)} requests and {len(texts)} answers; give one answer a request")
    found: list[list[tuple[str, np.ndarray]]] = [[] for _ in requests]
    wanted = [i for i, request in enumerate(requests) if request.images and model.config.vision is not None]
    if not wanted:
        return found
    height, width = grid(model.config)
    heads = [list(requests[i].prompt) for i in wanted]
    tails = [_ids(model, texts[i]) for i in wanted]
    room = -(-max(1, *map(len, tails)) // 8) * 8
    length = -(-max(len(head) + len(tail) for head, tail in zip(heads, tails, strict=True)) // 16) * 16
    size = model.predictor(DecodeConfig(1), BATCH).batch_size
    for begin in range(0, len(wanted), size):
        part = slice(begin, begin + size)
        maps = _maps(model, [requests[i] for i in wanted[part]], heads[part], tails[part], length, room)
        for row, (i, tail) in enumerate(zip(wanted[part], tails[part], strict=True)):
            count = len(requests[i].images)
            slots = maps[row, : len(tail)].reshape(len(tail), -1, model.config.tokens_per_image)
            shown = slots[:, :count, : height * width].reshape(len(tail), count, height, width)  # without a newline's
            each = shown.transpose(0, 2, 1, 3).reshape(len(tail), height, count * width)
            found[i] = list(zip(readable(model.encoder.tokenizer, tail), each, strict=True))
    return found


def _maps(model: Model, requests, heads, tails, length: int, room: int) -> np.ndarray:
    """f32[B,room,N*I] of one physical batch; positions beyond an answer repeat its last one."""
    predictor = model.predictor(DecodeConfig(1), BATCH)
    rows = [
        Request([*head, *tail], request.image, request.row, request.before)
        for request, head, tail in zip(requests, heads, tails, strict=True)
    ]
    batch = predictor.batch(rows, length)
    batch["query"] = np.zeros((predictor.batch_size, room), np.int32)
    for row, (head, tail) in enumerate(zip(heads, tails, strict=True)):
        batch["segment"][row, len(head) : len(head) + len(tail)] = ANSWER
        steps = np.minimum(np.arange(room), len(tail) - 1)
        batch["query"][row] = batch["owner"].shape[1] * model.config.tokens_per_image + len(head) - 1 + steps
    with jax.set_mesh(model.mesh):
        return distributed.gather(_program(model.graphdef)(model.params, predictor.place(batch)))


@functools.lru_cache(maxsize=4)
def _program(graphdef):
    """The jitted (params, batch) -> f32[B,A,N*I]. Heads and layers are reduced inside: [L,B,H,S,S] never exists."""

    def program(params, batch):
        model = groups.rebuild(graphdef, params)
        images = batch["owner"].shape[1] * model.config.tokens_per_image
        return image_maps(model.decoder.trace(*model.sequence(batch))[1], images, batch["query"])

    return jax.jit(program)


def image_maps(weights: Sequence[jax.Array], images: int, query: jax.Array) -> jax.Array:
    """f32[B,A,images] of sum 1, zeros where nothing is seen: what positions int32[B,A] give of their attention to the first
    `images` ones, mean over heads and layers. weights: f32[B,H,S,S] a layer."""
    at = query[:, None, :, None]
    mean = sum((jnp.take_along_axis(w[..., :images], at, axis=2).mean(1) for w in weights), jnp.float32(0)) / len(weights)
    total = mean.sum(-1, keepdims=True)
    return jnp.where(total > 0, mean / jnp.where(total > 0, total, 1.0), 0.0)


def _ids(model: Model, answer: str | Sequence[int]) -> list[int]:
    """The ids of an answer: of its text, with EOS; or as given, up to its EOS or its first pad."""
    if isinstance(answer, str):
        return constrain.answer_ids(model.encoder, answer)
    ids, tokenizer = [int(token) for token in answer], model.encoder.tokenizer
    for at, token in enumerate(ids):
        if token in model.encoder.stops:
            return ids[: at + 1]
    return ids[: ids.index(tokenizer.pad_token_id)] if tokenizer.pad_token_id in ids else ids


def readable(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """One readable text a token: what it adds to the text of those before it, outer spaces removed.

    EOS is "<end>", a token that ends inside a character "…" (the one that completes it shows it), white space its escape.
    """
    out = []
    for token, text in zip(ids, pieces(tokenizer, ids), strict=True):
        text = text.rstrip("\ufffd")
        shown = text.strip() or text.encode("unicode_escape").decode().replace(" ", "␣") or "…"
        out.append(END if token == tokenizer.eos_token_id else shown)
    return out
