"""Beam search against exhaustive search, and against a plain one without a cache."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_decoding import BEAM, NEW, REAL, VARIANTS, generator
from tiny import EOS, PAD, ROWS, VOCAB, answer_logits, log_softmax, prompts

from vlax.decoding import beam
from vlax.decoding.options import DecodeConfig


@pytest.mark.parametrize("penalty", (1.0, -1.0))
def test_wide_beams_equal_exhaustive_search(penalty):
    """With as many beams as there are prefixes nothing is pruned, so the best sequence of all must come out."""
    new = 3
    batch = prompts(rows=2, vocab=4, length=4)
    everything = np.array(list(itertools.product(range(4), repeat=new)), np.int32)
    best = (-np.inf, None)
    repeated = {name: np.repeat(value[:1], len(everything), axis=0) for name, value in batch.items()}
    logp = log_softmax(answer_logits(repeated, everything, new, text_only=True, vocab_size=4))
    for answer, table in zip(everything, logp, strict=True):
        length = int(np.argmax(answer == 1)) + 1 if (answer == 1).any() else new
        total = sum(table[t, answer[t]] for t in range(length))
        candidate = (total / length**penalty, answer[:length].tolist(), total)
        best = max(best, candidate, key=lambda item: item[0])
    decode = DecodeConfig(max_new_tokens=new, num_beams=16, length_penalty=penalty)
    generate, params = generator(decode, eos=1, text_only=True, vocab_size=4)
    tokens, scores = generate(params, batch)
    assert tokens[0].tolist() == best[1] + [PAD] * (new - len(best[1]))
    np.testing.assert_allclose(scores[0], best[2], atol=1e-4)
    assert tokens[1].tolist() == [PAD] * new and scores[1] == 0


def naive_beam(batch, row, beams, penalty, new, model):
    """The docstring of vlax/decoding/beam.py in plain Python, without the early stop."""
    running, best = [(0.0, [])], (-np.inf, None)
    for t in range(new):
        found = []
        padded = np.zeros((ROWS, NEW), np.int32)  # one row of the batch a beam
        for slot, (_, answer) in enumerate(running):
            padded[slot, :t] = answer
        logp = log_softmax(answer_logits({name: batch[name][[row] * ROWS] for name in batch}, padded, NEW, **model)[:, t])
        for slot, (total, answer) in enumerate(running):
            found += [(total + logp[slot, v], [*answer, v]) for v in range(VOCAB)]
        found = sorted(found, key=lambda item: -item[0])[: 2 * beams]
        for rank, (total, answer) in enumerate(found):
            if (answer[-1] == EOS and rank < beams) or t == new - 1:
                best = max(best, (total / (t + 1) ** penalty, answer, total), key=lambda item: item[0])
        running = [item for item in found if item[1][-1] != EOS][:beams]
    return best


@pytest.mark.parametrize("model", ({}, VARIANTS["window"]), ids=("default", "window"))
def test_beam_search_equals_a_plain_one(model):
    batch = prompts()
    generate, params = generator(BEAM, **model)
    tokens, scores = generate(params, batch)
    for row in range(REAL):
        _, answer, total = naive_beam(batch, row, 3, 1.0, NEW, model)
        assert tokens[row].tolist() == [*answer, *[PAD] * (NEW - len(answer))]
        np.testing.assert_allclose(scores[row], total, atol=1e-4)
    assert tokens[REAL].tolist() == [PAD] * NEW and scores[REAL] == 0


def search(table, beams, penalty):
    """The beam states after each step when all beams get the same logits: table f32[L,B,V]."""
    rows = table.shape[1]
    state = beam.start(jnp.zeros((rows, NEW), jnp.int32), beams) | {"finished": jnp.zeros(rows, bool)}
    step = jax.jit(lambda state, logits: beam.choose(state, logits, (EOS,), NEW, penalty)[0])
    for t in range(NEW):
        state = step({**state, "t": jnp.int32(t)}, np.repeat(table[t], beams, axis=0))
        yield state


def test_one_beam_is_greedy():
    """The beam step itself with K = 1, which `Generator` never takes: without EOS it follows the argmax."""
    table = np.random.default_rng(2).normal(size=(NEW, 2, VOCAB)).astype(np.float32)
    table[:, :, EOS] = -9
    *_, state = search(table, 1, 1.0)
    np.testing.assert_array_equal(state["best_tokens"], table.argmax(-1).T)
    np.testing.assert_allclose(state["best_logp"], log_softmax(table).max(-1).sum(0), rtol=1e-5)


def test_a_row_stops_only_when_nothing_can_beat_its_best():
    """EOS at once has probability 0.4, any other token 0.06, after which token 3 is certain."""
    shares = np.full((NEW, 1, VOCAB), 1e-9, np.float32)
    shares[0], shares[0, :, EOS], shares[1:, :, 3] = 0.06, 0.4, 1.0
    first, *_, last = search(np.log(shares), 2, 1.0)
    # log(0.4) / 1 < log(0.06) / 6: the average of a long answer wins, and the row has to wait for it.
    assert first["finished"].tolist() == [False] and last["best_tokens"][0, 1:].tolist() == [3] * (NEW - 1)
    np.testing.assert_allclose(last["best_score"], np.log(0.06) / NEW, rtol=1e-3)
    first, *_, last = search(np.log(shares), 2, -1.0)
    assert first["finished"].tolist() == [True] and last["best_tokens"].tolist() == [[EOS, *[PAD] * (NEW - 1)]]


def test_beams_of_a_row_have_its_prefix_once():
    """Bytes of the cache: keys and values of two heads of width 4, in float32; nine slots of image and prompt a row, five of
    an answer a beam."""
    generate, params = generator(BEAM)
    _, state = jax.eval_shape(generate._start_impl, params, prompts(), None)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state["cache"]))
    slot = 2 * 2 * 4 * 4
    assert held == slot * (ROWS * 9 + ROWS * BEAM.num_beams * (NEW - 1)) == 12_288
    assert held < slot * ROWS * BEAM.num_beams * (9 + NEW - 1) == 21_504  # a copy a beam
