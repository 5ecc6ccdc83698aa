"""Answers from a list: closed questions answered by one of the strings that the caller gives, and by nothing else.

An answer becomes tokens as it does in training, after its prompt and with its EOS. Two ways to choose:

    trie        greedy decoding that may only take the tokens of answers that are still possible: one pass of decoding,
                whatever the length of the list; a first token decides between answers that part there.
    likelihood  the answer of the largest sum of log-probabilities over its tokens, EOS included, given image and prompt.
                No length normalisation: the sums are log-probabilities of whole answers, so the comparison is exact and
                short answers have the advantage that the model gives them. One pass through the decoder an answer.

The trie of "dog", "dog house" and "cat", with tokens d, h, c and EOS e; a missing child is -1, and after EOS nothing follows:

    node   children   next
    0      c d        1 2
    1      e -1       0 0      after "cat"
    2      e h        0 3      after "dog": to end is one edge, so an answer may begin another
    3      e -1       0 0      after "dog house"

(ids here c < d and e < h; the children of a node are in the order of their ids.)
Axis letters: B batch, A answers, L longest answer in tokens, C most children of a node, S image and prompt, V vocabulary.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vlax.decoding.beam import among
from vlax.decoding.options import DecodeConfig
from vlax.errors import VlaxError
from vlax.models.decoder import Decoder
from vlax.models.kv_cache import KV, shape
from vlax.text.prompts import Encoder

WAYS = ("trie", "likelihood")


class Trie(NamedTuple):
    """Node 0 is the root. children: int32[nodes,C] token ids in rising order, -1 padding; next: int32[nodes,C] nodes."""

    children: np.ndarray
    next: np.ndarray


def build_trie(sequences: Sequence[Sequence[int]]) -> Trie:
    """The trie of token sequences that end with EOS, no two of them alike."""
    nodes: list[dict[int, int]] = [{}]
    for sequence in sequences:
        at = 0
        for token in sequence[:-1]:
            if token not in nodes[at]:
                nodes[at][token] = len(nodes)
                nodes.append({})
            at = nodes[at][token]
        nodes[at][sequence[-1]] = 0  # a finished row chooses on and its choice is dropped: any valid node will do
    width = max(map(len, nodes))
    children, following = np.full((len(nodes), width), -1, np.int32), np.zeros((len(nodes), width), np.int32)
    for number, edges in enumerate(nodes):
        for i, token in enumerate(sorted(edges)):
            children[number, i], following[number, i] = token, edges[token]
    return Trie(children, following)


def choose(trie: Trie, node: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(token int32[B], node int32[B]): the most probable child of each row's node, int32[B]. logits: f32[B,V]."""
    children = jnp.asarray(trie.children)[node]
    scores = jnp.take_along_axis(logits, jnp.maximum(children, 0), axis=-1)
    best = jnp.where(children >= 0, scores, -jnp.inf).argmax(-1, keepdims=True)
    following = jnp.asarray(trie.next)[node]
    return jnp.take_along_axis(children, best, axis=-1)[:, 0], jnp.take_along_axis(following, best, axis=-1)[:, 0]


def likelihood(
    decoder: Decoder,
    first: jax.Array,
    cache: list[KV],
    view: Mapping[str, jax.Array],
    answers: jax.Array,
    stops: tuple[int, ...],
) -> tuple[jax.Array, jax.Array]:
    """(f32[B,A] sums of log-probabilities, bool[B,A] whether greedy decoding would write that answer).

    first, cache, view: what `prefill` returns. answers: int32[A,B,L], one a row and alternative, padded after
    EOS; tokens after EOS count for nothing. All alternatives continue the same prefill; each goes through the decoder
    in one piece, so L may be as large as the cache has room.
    """
    (rows, size), fed = view["visible"].shape, answers.shape[2] - 1
    slots = jnp.arange(shape(cache[0][0])[2] - size, dtype=jnp.int32)
    causal = jnp.broadcast_to(slots <= jnp.arange(fed)[:, None], (rows, fed, slots.size))
    visible = jnp.concatenate([jnp.broadcast_to(view["visible"][:, None], (rows, fed, size)), causal], axis=2)
    positions = jnp.concatenate([view["positions"], view["start"][:, None] + slots], axis=1)
    now = view["start"][:, None] + jnp.arange(fed, dtype=jnp.int32)

    def one(answer: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden, _, _ = decoder.trace(decoder.embed(answer[:, :-1]), now, visible, cache, size, positions)
        logits = jnp.concatenate([first[:, None], decoder.logits(hidden)], axis=1)
        logp = jnp.take_along_axis(logits, answer[..., None], axis=-1)[..., 0] - jax.nn.logsumexp(logits, axis=-1)
        ends = among(answer, stops)
        counts = jnp.cumsum(ends, axis=1) - ends == 0
        return jnp.where(counts, logp, 0.0).sum(-1), (~counts | (logits.argmax(-1) == answer)).all(-1)

    sums, greedy = jax.lax.map(one, answers)
    return sums.T, greedy.T


def answer_ids(encoder: Encoder, answer: str) -> list[int]:
    """The ids of an answer as it follows its prompt, with its EOS. An answer of nothing but spaces is the EOS alone."""
    return encoder.answer(answer)


@dataclasses.dataclass(frozen=True, eq=False)
class AnswerList:
    """A caller's answers, tokenised. VlaxError for no answer, an empty one, two of the same tokens, or an EOS within."""

    texts: tuple[str, ...]  # as given: what is returned
    tokens: np.ndarray  # int32[A,L], padded after EOS
    trie: Trie

    @classmethod
    def make(cls, encoder: Encoder, texts: Sequence[str]) -> "AnswerList":
        if isinstance(texts, str) or not texts:
            raise VlaxError(f"answers={texts!r} is no list of answers; give at least one, such as ['yes', 'no']")
        found: dict[tuple[int, ...], str] = {}
        stops, pad = set(encoder.stops), encoder.tokenizer.pad_token_id
        for number, text in enumerate(texts):
            ids = tuple(answer_ids(encoder, text))
            if len(ids) == 1:
                raise VlaxError(f"answer {number + 1} of {len(texts)} is empty; remove it or fill it in")
            if not stops.isdisjoint(ids[:-1]):  # a model of before special tokens in texts were text
                raise VlaxError(f"answer {text!r} contains {encoder.tokenizer.eos_token}, which ends every answer; remove it")
            if ids in found:
                raise VlaxError(f"answers {found[ids]!r} and {text!r} are the same tokens; keep one of them")
            found[ids] = text
        longest = max(map(len, found))
        tokens = np.asarray([[*ids, *[pad] * (longest - len(ids))] for ids in found], np.int32)
        return cls(tuple(texts), tokens, build_trie(list(found)))

    def text(self, tokens: np.ndarray) -> str:
        """The answer, as given, of its tokens int32[L]."""
        return self.texts[int((self.tokens == tokens).all(-1).argmax())]


def check(decode: DecodeConfig, by: str) -> None:
    """VlaxError for a way that is none of WAYS, and for a `DecodeConfig` that does not go with a list of answers."""
    if by not in WAYS:
        raise VlaxError(f"by={by!r} is not one of {', '.join(WAYS)}")
    if decode.temperature > 0:
        raise VlaxError(
            f"temperature={decode.temperature} with a list of answers: they are chosen, not sampled; set temperature=0"
        )
    if decode.num_beams > 1:
        raise VlaxError(f"num_beams={decode.num_beams} with a list of answers: by='likelihood' compares all of them; "
                        "set num_beams=1")  # fmt: skip
