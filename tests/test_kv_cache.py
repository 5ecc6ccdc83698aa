"""Keys and values in int8: what a cache holds, and what decoding makes of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_decoding import BEAM, GREEDY, NEW, REAL, generator
from test_prefill import batch, shown
from tiny import EOS, ROWS, VOCAB, log_softmax, prompts

from vlax.decoding.options import DecodeConfig
from vlax.errors import VlaxError
from vlax.models import kv_cache

INT8, BEAMS = (dataclasses.replace(each, kv_cache="int8") for each in (GREEDY, BEAM))


def test_codes():
    """Of each vector the largest value is 127; one of zeros has a scale of zero and divides by nothing."""
    x = jnp.array([[1.0, -2.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])[None, None]
    codes, scales = kv_cache.coded(x)
    assert codes.tolist() == [[[[64, -127, 32, 0], [0, 0, 0, 0]]]] and codes.dtype == jnp.int8
    np.testing.assert_allclose(scales[0, 0, :, 0], [2 / 127, 0])
    with pytest.raises(VlaxError, match="decoding: kv_cache='int4' is not one of int8, or nothing for the compute dtype"):
        DecodeConfig(kv_cache="int4")


def test_products_are_those_of_the_values_that_codes_stand_for():
    rng = np.random.default_rng(0)
    q, x = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((2, 3, 4, 8), (2, 3, 5, 8)))
    held = kv_cache.written(kv_cache.empty((2, 3, 9, 8), jnp.float32, "int8"), x, 2)
    values = np.asarray(held.codes * held.scales)
    assert np.abs(values[:, :, 2:7] - x).max() <= np.abs(x).max() / 254 and not values[:, :, :2].any()
    np.testing.assert_allclose(kv_cache.against(q, held), np.asarray(q) @ values.swapaxes(-1, -2), atol=1e-5)
    weights = jnp.asarray(rng.random((2, 3, 4, 9)), jnp.float32)
    mixed = jnp.matmul(*kv_cache.factors(weights, held, jnp.float32))
    np.testing.assert_allclose(mixed, np.asarray(weights) @ values, atol=1e-5)


def apart(a, b):
    """The largest difference of two rows of logits, by their range."""
    a, b = np.asarray(a)[:REAL], np.asarray(b)[:REAL]
    return np.abs(a - b).max() / (b.max() - b.min())


def test_logits_are_near_those_of_a_cache_in_the_compute_dtype():
    """By row, and where pictures went through the decoder before."""
    answers = np.random.default_rng(1).integers(2, VOCAB, (ROWS, NEW)).astype(np.int32)
    plain, params = generator()
    small, _ = generator(INT8)
    assert 1e-5 < apart(small.forced_logits(params, prompts(), answers), plain.forced_logits(params, prompts(), answers)) < 0.02
    once = small.forced_logits(params, shown(batch()), answers)
    assert apart(once, plain.forced_logits(params, batch(), answers)) < 0.02


@pytest.mark.parametrize("decode", (INT8, BEAMS), ids=("greedy", "beams"))
def test_a_score_is_that_of_its_tokens(decode):
    """What beams have moved about, scales and codes, is what the same tokens read when they are fed."""
    generate, params = generator(decode)
    tokens, scores = map(np.asarray, generate(params, prompts()))
    logp = log_softmax(np.asarray(generator(INT8)[0].forced_logits(params, prompts(), tokens)))
    said = np.take_along_axis(logp, tokens[..., None], axis=-1)[..., 0]
    counts = np.cumsum(tokens == EOS, axis=1) - (tokens == EOS) == 0
    np.testing.assert_allclose(scores[:REAL], (said * counts).sum(-1)[:REAL], atol=1e-4)


def test_what_a_cache_takes():
    """Of heads of 4 float32 numbers a half: 4 codes and a scale."""
    plain, small = (generator(decode)[0] for decode in (GREEDY, INT8))
    params = generator()[1]
    taken = [sum(leaf.nbytes for leaf in jax.tree.leaves(each.run(params, prompts())["cache"])) for each in (plain, small)]
    assert taken[0] == 2 * taken[1]
