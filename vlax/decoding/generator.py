"""Decoding with a static key/value cache: greedy, sampling, beam search (`beam.py`) and answers from a list (`constrain.py`).

Cache slots are [N*I image | P prompt | generated]; the token generated at step t lies in slot N*I + P + t and takes the
position after its row's last prompt token plus t, so the padding of the prompt costs slots and no positions. The prefix runs
once, under the model's own mask kind; a generated token sees every valid prefix slot, all earlier generated tokens and itself.

    one row, two image tokens (i), three prompt slots with one pad, two generated tokens (a, b)
    slot        i  i  p  p  -  a  b
    position    0  1  2  3  0  4  5
    b sees      1  1  1  1  0  1  1

Two programs are compiled for each shape (B, P): the prefill, and a chunk of steps that Python repeats until every row is done.
Axis letters: B batch, N pictures a row, I image tokens, P prompt slots, S = N*I + P, C capacity of the cache, V vocabulary.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vlax.decoding import beam, constrain, weights
from vlax.decoding.beam import State
from vlax.decoding.draw import sample
from vlax.decoding.options import DecodeConfig
from vlax.decoding.prefill import View, prefill
from vlax.errors import VlaxError
from vlax.models.attention import Cache
from vlax.models.vlm import VLM, Batch, VLMConfig
from vlax.params import groups

OPTIONAL = ("owner", "before", "shown")  # entries of a batch; what they mean where they are left out is said in masks.py


class Generator:
    """Compiled decoding of one model: `generate(params, batch) -> (tokens, scores)`.

    batch: `tokens, segment, example int32[B,P]` with the prompt alone, right-padded with segment 0; `image uint8[B,N,H,W,3]`
    unless the model has no tower, or `features [B,N*I,D]` or `prefix` (`seen.py`, `prefill.py`); `has_image bool[B,N]`; `row
    int32[B,N]`, the first one counts; `owner, before int32[B,N]`, which may be left out where N is 1; `shown int32[B,N]` with
    AnyRes. A filler row (example all 0) counts as done.
    Returns tokens int32[B,max_new_tokens], pad_id after EOS, and scores f32[B]: the sum of the log-probabilities of a row's
    tokens, EOS included, under the model itself (temperature 1, whole vocabulary). A row's tokens depend neither on its slot
    nor on its batch mates while B, N and P stay the same; logits are not bit-equal across batch sizes.
    stops: EOS, and what else ends an answer: a chat template's end of a turn, treated alike.
    trie: greedy decoding takes its edges only. Parameters and batch may be sharded over a mesh.
    Raises VlaxError for packed rows and for too short a position table.
    """

    def __init__(
        self, graphdef: nnx.GraphDef[VLM], model: VLMConfig, decode: DecodeConfig, stops: tuple[int, ...], pad_id: int,
        trie: constrain.Trie | None = None,
    ):  # fmt: skip
        for stop in stops:
            if not 0 <= stop < model.decoder.vocab_size:
                raise VlaxError(f"decoding: eos_id={stop} is no token of a vocabulary of {model.decoder.vocab_size}")
        self.graphdef, self.model, self.decode = graphdef, model, decode
        self.stops, self.pad_id, self.trie = stops, pad_id, trie
        self._dtype: Any = None  # what the model computes in, once somebody brought parameters
        # The prefill chooses the first token, so one step fewer than tokens; equal chunks keep the overshoot small.
        steps = decode.max_new_tokens - 1
        self._chunks = -(-steps // decode.chunk)
        self._chunk_steps = -(-steps // max(self._chunks, 1))
        self._start = jax.jit(self._start_impl)
        self._advance = jax.jit(self._advance_impl, donate_argnums=2)
        self._forced: Callable[..., jax.Array] = jax.jit(self._forced_impl)
        self._likelihood: Callable[..., tuple[jax.Array, jax.Array]] = jax.jit(self._likelihood_impl)

    def __call__(self, params: groups.Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
        state = self.run(params, batch)
        if self.decode.num_beams > 1:
            return state["best_tokens"], state["best_logp"]
        return state["tokens"], state["scores"]

    def run(self, params: groups.Params, batch: Batch) -> State:
        """The state after the last token."""
        inputs = self._inputs(batch)  # first: what does not fit is said before anything is done
        state: State
        params = self._held(params)
        view, state = self._start(params, inputs, self.trie)
        for _ in range(self._chunks):
            if state["done"]:
                break
            state = self._advance(params, view, state, self.trie)
        return state

    def forced_logits(self, params: groups.Params, batch: Batch, answers: jax.Array) -> jax.Array:
        """f32[B,A,V]: what the cached path predicts for each answer token, given those before it.

        answers: int32[B,A], A at most max_new_tokens. The same numbers, up to rounding, as `VLM.__call__` on [prompt | answer].
        """
        self._check_room(answers)
        inputs = self._inputs(batch)
        return self._forced(self._held(params), inputs, answers)

    def likelihood(self, params: groups.Params, batch: Batch, answers: jax.Array | np.ndarray) -> tuple[jax.Array, jax.Array]:
        """(f32[B,A], bool[B,A]) of A alternatives a row, int32[A,B,L], padded after EOS: the sum of the log-probabilities of
        each, EOS included, under the model itself, and whether greedy decoding would write it. One prefill serves all."""
        self._check_room(answers)
        inputs = self._inputs(batch)
        return self._likelihood(self._held(params), inputs, answers)

    def _held(self, params: groups.Params) -> groups.Params:
        if self._dtype is None:
            self._dtype = weights.compute_dtype(self.graphdef, params)
        return weights.held(params, self._dtype)

    def _check_room(self, answers: jax.Array | np.ndarray) -> None:
        if answers.shape[-1] > self.decode.max_new_tokens:
            raise VlaxError(f"{answers.shape[-1]} answer tokens do not fit max_new_tokens={self.decode.max_new_tokens}")

    def _inputs(self, batch: Batch) -> Batch:
        """The entries that decoding reads, checked while shapes are still known to be wrong for free."""
        slots = batch["has_image"].shape[1]
        size = self.model.tokens_per_image * slots + batch["tokens"].shape[1]
        if slots != 1 and "owner" not in batch:
            raise VlaxError(f"decoding takes one example a row, not {slots} packed image slots")
        needed, table = size + self.decode.max_new_tokens - 1, self.model.decoder.max_positions
        if self.model.decoder.rope_theta is None and needed > table:
            raise VlaxError(
                f"decoding needs {needed} positions ({size} of image and prompt) and the model has {table}; "
                "lower max_new_tokens or shorten the prompt"
            )
        pictures = next((name for name in ("prefix", "features") if name in batch), "image")
        names = ["tokens", "segment", "example", "has_image", "row", *([pictures] if self.model.vision is not None else [])]
        return {name: batch[name] for name in (*names, *(name for name in OPTIONAL if name in batch))}

    def _prefill(self, model: VLM, batch: Batch) -> tuple[jax.Array, list[Any], View]:
        return prefill(model, batch, self.decode.max_new_tokens - 1, self.decode.kv_cache)

    def _feed(
        self, model: VLM, token: jax.Array, index: jax.Array, cache: Sequence[Cache], view: View
    ) -> tuple[jax.Array, list[Any]]:
        """(logits f32[R,V], cache) after generated token number `index`, int32[R], went through the decoder."""
        generated = jnp.arange(self.decode.max_new_tokens - 1, dtype=jnp.int32)
        rows, size = view["visible"].shape
        visible = jnp.concatenate([view["visible"], jnp.broadcast_to(generated <= index, (rows, generated.size))], axis=1)
        positions = jnp.concatenate([view["positions"], view["start"][:, None] + generated], axis=1)
        x, now = model.decoder.embed(token[:, None]), (view["start"] + index)[:, None]
        hidden, _, cache = model.decoder.trace(x, now, visible[:, None], cache, size + index, positions)
        return model.decoder.logits(hidden[:, 0]), cache

    def _pick(self, logits: jax.Array, view: View, t: jax.Array) -> jax.Array:
        """int32[R]: token number t of every row."""
        if self.decode.temperature > 0:
            return sample(logits, view["row"], t, self.decode)
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def _choose(self, state: State, logits: jax.Array, view: View, trie: constrain.Trie | None) -> State:
        """State after token t is chosen from f32[R,V]; rows that are done write pads and add nothing to their score."""
        t, finished, c = state["t"], state["finished"], self.decode
        node = state["node"]
        if trie is not None:
            token, node = constrain.choose(trie, node, logits)
        else:
            token = self._pick(logits, view, t)
        logp = jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0] - jax.nn.logsumexp(logits, axis=-1)
        return {
            "node": node,
            "last": token,
            "tokens": state["tokens"].at[:, t].set(jnp.where(finished, self.pad_id, token), mode="drop"),
            "scores": state["scores"] + jnp.where(finished, 0.0, logp),
            "finished": finished | beam.among(token, self.stops) | (t >= c.max_new_tokens - 1),
        }

    def _next(self, state: State, logits: jax.Array, cache: list[Any], view: View, trie: constrain.Trie | None) -> State:
        c = self.decode
        if c.num_beams > 1:
            new, parent = beam.choose(state, logits, self.stops, c.max_new_tokens, c.length_penalty)
            cache = beam.reorder(cache, parent)
        else:
            new = self._choose(state, logits, view, trie)
        return {**new, "cache": cache, "t": state["t"] + 1, "done": new["finished"].all()}

    def _records(self, rows: int) -> State:
        """What else a state holds of every row."""
        return {}

    def _settings(self, batch: Batch) -> View:
        """What the steps must know of every row beside its prefix."""
        return {"row": batch["row"][:, 0]}

    def _start_impl(self, params: groups.Params, batch: Batch, trie: constrain.Trie | None) -> tuple[View, State]:
        cache: list[Any]
        logits, cache, view = self._prefill(groups.rebuild(self.graphdef, params), batch)
        rows, c = logits.shape[0], self.decode
        state: State = {"t": jnp.zeros((), jnp.int32), "finished": (batch["example"] == 0).all(-1)}
        pads = jnp.full((rows, c.max_new_tokens), self.pad_id, jnp.int32)
        if c.num_beams > 1:
            state |= beam.start(pads, c.num_beams)
            # The prefill ran on B rows, and its keys and values stay theirs; the rest gets a copy a beam.
            repeat = functools.partial(jnp.repeat, repeats=c.num_beams, axis=0)
            cache = beam.shared(cache, c.num_beams, view["visible"].shape[1])
            logits, view = jax.tree.map(repeat, (logits, view))
        else:
            state |= {"tokens": pads, "scores": jnp.zeros(rows, jnp.float32), "node": jnp.zeros(rows, jnp.int32)}
            state |= self._records(rows)
        view = {**view, **self._settings(batch)}
        return view, self._next(state, logits, cache, view, trie)

    def _advance_impl(self, params: groups.Params, view: View, state: State, trie: constrain.Trie | None) -> State:
        model = groups.rebuild(self.graphdef, params)

        def step(state: State, _: None) -> tuple[State, None]:
            # In the steps of the last chunk beyond max_new_tokens all rows are done: the index only has to stay in range.
            index = jnp.minimum(state["t"], self.decode.max_new_tokens - 1) - 1
            logits, cache = self._feed(model, state["last"], index, state["cache"], view)
            return self._next(state, logits, cache, view, trie), None

        return jax.lax.scan(step, state, length=self._chunk_steps)[0]

    def _forced_impl(self, params: groups.Params, batch: Batch, answers: jax.Array) -> jax.Array:
        model = groups.rebuild(self.graphdef, params)
        first, cache, view = self._prefill(model, batch)

        def step(cache: list[Any], fed: tuple[jax.Array, jax.Array]) -> tuple[list[Any], jax.Array]:
            logits, cache = self._feed(model, *fed, cache, view)
            return cache, logits

        indices = jnp.arange(answers.shape[1] - 1, dtype=jnp.int32)
        _, rest = jax.lax.scan(step, cache, (answers[:, :-1].T, indices))
        return jnp.concatenate([first[:, None], rest.transpose(1, 0, 2)], axis=1)

    def _likelihood_impl(self, params: groups.Params, batch: Batch, answers: jax.Array) -> tuple[jax.Array, jax.Array]:
        model = groups.rebuild(self.graphdef, params)
        logits, cache, view = self._prefill(model, batch)
        return constrain.likelihood(model.decoder, logits, cache, view, answers, self.stops)
