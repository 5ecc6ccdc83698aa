"""Greedy decoding of few rows in a small batch, where the answer is that of the large one.

A row's answer must not depend on how many others are asked for with it, and logits are not bit-equal across batch sizes: sums
are taken in another order. So few prompts used to fill a physical batch of filler. Here they run in a batch of their own size,
and each step looks by how much its token won. Where that is far beyond what the order of sums can change, the large batch would
have chosen the same token, and, step for step, the same answer. What is closer is decoded once more in the large batch.

Only where rounding is that small: in float32, on a CPU. GPUs and TPUs may take fewer digits of float32.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vlax.decoding import constrain
from vlax.decoding.beam import State
from vlax.decoding.generator import Generator
from vlax.decoding.prefill import View
from vlax.models.vlm import Batch
from vlax.params import groups

# Of the largest logit: batch sizes were seen to change logits by 2e-5 of it (tests/test_sure.py, docs/benchmarks.md).
MARGIN = 1e-3


class Sure(Generator):
    """A greedy `Generator` that says of each row whether its answer would be the same in a batch of any size."""

    def certain(self, params: groups.Params, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """(tokens int32[B,max_new_tokens], whether each row's are sure, bool[B])"""
        state = self.run(params, batch)
        return np.asarray(state["tokens"]), np.asarray(state["margin"]) > MARGIN

    def _records(self, rows: int) -> State:
        return {"margin": jnp.full(rows, jnp.inf, jnp.float32)}

    def _choose(self, state: State, logits: jax.Array, view: View, trie: constrain.Trie | None) -> State:
        best, chosen = logits.max(-1), logits.argmax(-1)
        second = jnp.where(jnp.arange(logits.shape[-1]) == chosen[:, None], -jnp.inf, logits).max(-1)
        won = (best - second) / jnp.maximum(jnp.abs(logits).max(-1), 1.0)
        margin = jnp.where(state["finished"], state["margin"], jnp.minimum(state["margin"], won))
        return {**super()._choose(state, logits, view, trie), "margin": margin}


def sizes(batch_size: int) -> tuple[int, ...]:
    """`16 -> (1, 4)`, `10 -> (1, 4)`, `1 -> ()`: batches smaller than batch_size, few, since each is a program of its own."""
    return tuple(4**power for power in range(8) if 4**power < batch_size)
