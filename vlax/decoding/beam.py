"""Beam search over a static cache: what one step does to the hypotheses. `generator.py` holds the loop and the model.

A hypothesis of `length` generated tokens, its EOS counted, scores

    sum of log-probabilities / length ** length_penalty

so a positive penalty favours long answers (the form of Hugging Face `generate`; GNMT, arXiv 1609.08144, divides by
((5 + length) / 6) ** penalty instead). Each step ranks the 2K best extensions of the K running beams by their sums: EOS
among the first K finishes a hypothesis, and the K best extensions without EOS run on. At max_new_tokens all of them
finish. A row is done when no running beam can still beat its best finished hypothesis, whatever it is extended by. That cannot
change the result, unlike the early stops of Hugging Face, and so only the best finished hypothesis is kept.
Axis letters: B batch, K beams, L max_new_tokens, V vocabulary. Beams of a row are neighbours: row b, beam k is b * K + k.
"""

import functools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vlax.models.attention import Shared
from vlax.models.kv_cache import KV

State = dict[str, Any]  # the arrays of a search that is under way; under "cache" one `Shared` a layer


def start(pads: jax.Array, beams: int) -> State:
    """The state before the first token. pads: int32[B,L] of the pad id. One beam of a row is alive, since all are alike."""
    rows = pads.shape[0]
    alive = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf).astype(jnp.float32)
    return {
        "tokens": jnp.repeat(pads[:, None], beams, axis=1),
        "logp": jnp.broadcast_to(alive, (rows, beams)),
        "best_tokens": pads,
        "best_score": jnp.full(rows, -jnp.inf, jnp.float32),
        "best_logp": jnp.zeros(rows, jnp.float32),
    }


def among(token: jax.Array, ids: tuple[int, ...]) -> jax.Array:
    """bool like `token`: whether it is one of `ids`."""
    return functools.reduce(operator.or_, (token == one for one in ids))


def choose(
    state: State, logits: jax.Array, stops: tuple[int, ...], max_new: int, length_penalty: float
) -> tuple[State, jax.Array]:
    """One step. logits: f32[B*K,V] for token number t = state["t"]; stops: EOS, and what else ends an answer.

    Returns (the new state: `last int32[B*K]` to feed, `tokens int32[B,K,L]`, `logp f32[B,K]`, `finished bool[B]`, and
    `best_tokens int32[B,L]`, `best_score f32[B]` (normalised), `best_logp f32[B]`; parent int32[B,K] of every beam).
    """
    t, finished, (rows, beams) = state["t"], state["finished"], state["logp"].shape
    vocab, last_step = logits.shape[-1], t >= max_new - 1
    logp = state["logp"][..., None] + jax.nn.log_softmax(logits, axis=-1).reshape(rows, beams, vocab)
    # So many that K of them go on, whatever ends: one end a beam for each of `stops`.
    ranked, index = jax.lax.top_k(logp.reshape(rows, beams * vocab), (1 + len(stops)) * beams)
    parent, token = index // vocab, (index % vocab).astype(jnp.int32)

    def extended(pick: jax.Array) -> jax.Array:
        """int32[B,n,L]: the running tokens of the picked candidates, int32[B,n], with their new one at t."""
        kept: jax.Array = jnp.take_along_axis(state["tokens"], take(parent, pick)[..., None], axis=1)
        return kept.at[:, :, t].set(take(token, pick), mode="drop")

    def take(values: jax.Array, pick: jax.Array) -> jax.Array:
        return jnp.take_along_axis(values, pick, axis=1)

    ends = among(token, stops)
    # EOS outside the first K would finish a hypothesis worse than all that run on; as in Hugging Face it is dropped.
    hypothesis = (ends & (jnp.arange(token.shape[1]) < beams)) | last_step
    scores = jnp.where(hypothesis, ranked / (t + 1).astype(jnp.float32) ** length_penalty, -jnp.inf)
    winner = scores.argmax(-1, keepdims=True)
    score = take(scores, winner)[:, 0]
    better = ~finished & (score > state["best_score"])
    best_score = jnp.where(better, score, state["best_score"])

    running, pick = jax.lax.top_k(jnp.where(ends, -jnp.inf, ranked), beams)
    # Sums only fall: a running beam ends at best with its present sum, at the length that the penalty likes most.
    length = jnp.float32(max_new) if length_penalty > 0 else (t + 2).astype(jnp.float32)
    beaten = best_score >= running.max(-1) / length**length_penalty
    new = {
        "last": take(token, pick).reshape(rows * beams),
        "tokens": extended(pick),
        "logp": running,
        "best_tokens": jnp.where(better[:, None], extended(winner)[:, 0], state["best_tokens"]),
        "best_score": best_score,
        "best_logp": jnp.where(better, take(ranked, winner)[:, 0], state["best_logp"]),
        "finished": finished | beaten | last_step,
    }
    return new, take(parent, pick)


def shared(cache: Sequence[KV], beams: int, size: int) -> list[Shared]:
    """The cache of B*K beams of one of B rows, [B,G,C,·] a leaf: the first `size` slots, image and prompt, which are the same
    in all beams of a row, are there once; the others are empty."""

    def own(x: jax.Array) -> jax.Array:
        return jnp.zeros((x.shape[0] * beams, x.shape[1], x.shape[2] - size, x.shape[3]), x.dtype)

    return [Shared(*(jax.tree.map(part, kv) for part in (lambda x: x[:, :, :size], own))) for kv in cache]


def reorder(cache: Sequence[Shared], parent: jax.Array) -> list[Shared]:
    """The `shared` cache with every beam's own slots taken from its parent (int32[B,K])."""

    def move(x: jax.Array) -> jax.Array:
        by_row = x.reshape(*parent.shape, *x.shape[1:])
        return jnp.take_along_axis(by_row, parent[:, :, None, None, None], axis=1).reshape(x.shape)

    return [Shared(front, jax.tree.map(move, own)) for front, own in cache]
