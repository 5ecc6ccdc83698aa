"""Decoding for a server: rows of one batch are drawn in their own ways, and what they say is read while it is made.

    view, state = live.start(params, batch)          after the first token
    state = live.advance(params, view, state)        a chunk of tokens later; the state that went in is gone
    state["done"]                                    whether all rows are

Beside what `Generator` reads, the batch has temperature f32[B] (0: the most probable token), top_p f32[B], seed uint32[B],
limit int32[B] (tokens, EOS included) and explain bool[B]. A state holds `tokens int32[B,L]`, `finished bool[B]`, and of every
token `logp f32[B,L]`, `top int32[B,L,K]` and `top_logp f32[B,L,K]`: the log-probability of it and of the K most probable ones
under the model itself (temperature 1, whole vocabulary; the last two zeros where no row asks for them). With beams there is
one `best_tokens` at the end.
A row draws what `Generator` draws with its temperature, top_p and seed. Axis letters as in `generator.py`.
"""

import jax
import jax.numpy as jnp

from vlax.decoding import constrain
from vlax.decoding.beam import State
from vlax.decoding.draw import nucleus
from vlax.decoding.generator import Generator
from vlax.decoding.prefill import View
from vlax.models.vlm import Batch
from vlax.params import groups

SETTINGS = ("temperature", "top_p", "seed", "limit", "explain")
MOST = 20  # alternatives of a token


class Live(Generator):
    """A `Generator` whose rows differ in temperature, nucleus, seed and length, so that one program serves all of them."""

    @property
    def alternatives(self) -> int:
        """K."""
        return min(MOST, self.model.decoder.vocab_size)

    def start(self, params: groups.Params, batch: Batch) -> tuple[View, State]:
        started: tuple[View, State] = self._start(params, {**self._inputs(batch), **{n: batch[n] for n in SETTINGS}}, None)
        return started

    def advance(self, params: groups.Params, view: View, state: State) -> State:
        advanced: State = self._advance(params, view, state, None)
        return advanced

    def _records(self, rows: int) -> State:
        shape = (rows, self.decode.max_new_tokens)
        return {
            "logp": jnp.zeros(shape, jnp.float32),
            "top": jnp.zeros((*shape, self.alternatives), jnp.int32),
            "top_logp": jnp.zeros((*shape, self.alternatives), jnp.float32),
        }

    def _settings(self, batch: Batch) -> View:
        return {**super()._settings(batch), **{name: batch[name] for name in SETTINGS}}

    def _pick(self, logits: jax.Array, view: View, t: jax.Array) -> jax.Array:
        warm, best = view["temperature"] > 0, jnp.argmax(logits, axis=-1).astype(jnp.int32)

        def key(seed: jax.Array, row: jax.Array) -> jax.Array:
            return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), row), t)

        def drawn() -> jax.Array:
            heated = logits / jnp.where(warm, view["temperature"], 1.0)[:, None]
            narrow = (view["top_p"] < 1)[:, None]
            cut = jax.lax.cond(
                narrow.any(), lambda: jnp.where(narrow, nucleus(heated, view["top_p"][:, None]), heated), lambda: heated
            )
            keys = jax.vmap(key)(view["seed"], view["row"])
            return jnp.where(warm, jax.vmap(jax.random.categorical)(keys, cut).astype(jnp.int32), best)

        chosen: jax.Array = jax.lax.cond(warm.any(), drawn, lambda: best)
        return chosen

    def _choose(self, state: State, logits: jax.Array, view: View, trie: constrain.Trie | None) -> State:
        new, t, total = super()._choose(state, logits, view, trie), state["t"], jax.nn.logsumexp(logits, axis=-1)
        logp = jnp.take_along_axis(logits, new["last"][:, None], axis=-1)[:, 0] - total

        def ranked() -> tuple[jax.Array, jax.Array]:
            values, ids = jax.lax.top_k(logits, self.alternatives)
            return values - total[:, None], ids.astype(jnp.int32)

        def nothing() -> tuple[jax.Array, jax.Array]:
            return jnp.zeros_like(state["top_logp"][:, 0]), jnp.zeros_like(state["top"][:, 0])

        top_logp, top = jax.lax.cond(view["explain"].any(), ranked, nothing)
        return {
            **new,
            "finished": new["finished"] | (t >= view["limit"] - 1),
            "logp": state["logp"].at[:, t].set(logp, mode="drop"),
            "top": state["top"].at[:, t].set(top, mode="drop"),
            "top_logp": state["top_logp"].at[:, t].set(top_logp, mode="drop"),
        }
