"""What can be said of an answer once it is there: of each token its probability, the best alternatives, where it looked."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vlax.decoding.predict import Request
from vlax.errors import VlaxError
from vlax.evaluation.report.attention import END, grid, image_maps
from vlax.evaluation.report.pack import pack_attention
from vlax.masks import ANSWER
from vlax.model.api import Model
from vlax.models.vlm import VLM
from vlax.params import groups
from vlax.serve.answers import alternative
from vlax.serve.engine import Job, Program
from vlax.text.pieces import pieces
from vlax.text.prompts import Encoder

SHOWN = 8  # alternatives of a token
ROOM = 32  # answer tokens, rounded up to a multiple
LONGEST = 4096  # slots: a layer's attention is held whole


def explained(job: Job, encoder: Encoder, ids: Sequence[int]) -> dict[str, Any]:
    """{"tokens": [{"text", "logprob", "top": [[text, logprob], ...]}, ...], "attention": [one a picture]} of an answer's ids.

    top: the best others. attention: as `pack_attention` gives it, where the model sees; the shares of all pictures of a token
    sum to 1. Both are empty where picture, prompt and answer are more than LONGEST together.
    To be called in the engine's thread.
    """
    program, request = job.lane.program, job.request
    slots = len(request.prompt) + len(ids) + len(request.images) * program.model.config.tokens_per_image
    if not ids or slots > LONGEST:
        return {"tokens": [], "attention": []}
    maps, logp, top, top_logp = _measured(program, request, ids)
    shown = [END if one in encoder.stops else text for one, text in zip(ids, pieces(encoder.tokenizer, ids), strict=True)]

    def alternatives(at: int) -> list[list[Any]]:
        return [
            [END if one in encoder.stops else alternative(encoder, ids[:at], one), round(value, 5)]
            for one, value in zip(top[at].tolist(), top_logp[at].tolist(), strict=True)
            if one != ids[at]
        ]

    tokens = [{"text": text, "logprob": round(float(logp[at]), 5), "top": alternatives(at)} for at, text in enumerate(shown)]
    return {"tokens": tokens, "attention": _drawn(program.model, request, shown, maps)}


def _drawn(model: Model, request: Request, shown: Sequence[str], maps: np.ndarray) -> list[dict[str, Any]]:
    count = len(request.images)
    if not count or model.config.vision is None:
        return []
    try:
        height, width = grid(model.config)
    except VlaxError:  # image tokens that are no square have no map
        return []
    each = maps[: len(shown)].reshape(len(shown), -1, height, width)[:, :count]
    packed = [pack_attention(list(zip(shown, each[:, n], strict=True)), "the answer") for n in range(count)]
    return [{**one, "share": each[:, n].sum((1, 2)).round(4).tolist()} for n, one in enumerate(packed) if one]


def _measured(program: Program, request: Request, ids: Sequence[int]) -> list[np.ndarray]:
    """(f32[A,N*I] of sum 1, f32[A], int32[A,K], f32[A,K]) of the answer's tokens, by the model without a cache."""
    predictor, config = program.alone, program.model.config
    head, room = len(request.prompt), -(-len(ids) // ROOM) * ROOM
    length = -(-(head + room) // ROOM) * ROOM
    whole = Request([*request.prompt, *ids], request.image, request.row, request.before)
    batch = predictor.batch([whole], length)
    batch["segment"][0, head : head + len(ids)] = ANSWER
    steps = np.minimum(np.arange(room), len(ids) - 1)
    batch["query"] = np.broadcast_to(head - 1 + steps, (predictor.batch_size, room)).astype(np.int32)
    batch["answer"] = np.broadcast_to(np.asarray(ids, np.int32)[steps], (predictor.batch_size, room)).copy()
    with jax.set_mesh(predictor.mesh):
        out = _program(program.model.graphdef, min(SHOWN, config.decoder.vocab_size))(
            program.model.params, predictor.place(batch)
        )
    return [np.asarray(each[0])[: len(ids)] for each in out]


@functools.lru_cache(maxsize=8)
def _program(graphdef: nnx.GraphDef[VLM], count: int) -> Any:
    def program(params: groups.Params, batch: dict[str, jax.Array]) -> tuple[jax.Array, ...]:
        model = groups.rebuild(graphdef, params)
        images = batch["owner"].shape[1] * model.config.tokens_per_image
        hidden, weights, _ = model.decoder.trace(*model.sequence(batch))
        query = batch["query"] + images
        asked = jnp.take_along_axis(hidden, query[..., None], axis=1)

        def measured(one: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
            logits = jax.nn.log_softmax(model.decoder.logits(one[0]), axis=-1)
            top_logp, top = jax.lax.top_k(logits, count)
            return jnp.take_along_axis(logits, one[1][:, None], axis=-1)[:, 0], top, top_logp

        # A few positions at a time: [A,V] of a long answer would be large.
        rest = jax.lax.map(measured, (asked.swapaxes(0, 1), batch["answer"].T), batch_size=ROOM)
        return image_maps(weights, images, query), *(each.swapaxes(0, 1) for each in rest)

    return jax.jit(program)
