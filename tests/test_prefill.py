"""One prefill of a picture for all that is asked about it (by row: test_decoding.py; with a Predictor: test_api.py)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_decoding import BEAM, GREEDY, REAL, generator
from tiny import LENGTH, ROWS, VISION, build, prompts

from vlax import masks
from vlax.decoding import prefill
from vlax.decoding.seen import Kept, Seen, looking
from vlax.params import groups, sharding
from vlax.text.bpe import train_bpe
from vlax.text.prompts import make
from vlax.training import counters

MESH = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
DECODES = {"greedy": GREEDY, "beam": BEAM}


@functools.cache
def seen(mask="image_bidirectional", limit=0, prefix=True):
    """Two pictures at a time."""
    config, graphdef, _ = build(mask=mask)
    return Seen(graphdef, config, MESH, 2, prefix, Kept(limit))


@functools.cache
def batch():
    """`prompts` about three pictures, one of two rows, one of four; row 1 has none, the last row is filler."""
    made = prompts()
    made["image"] = made["image"][[0, 0, 2, 3, 2, 2, 2, 0]]
    return made


def pictures(made):
    return [list(image[there]) for image, there in zip(made["image"], made["has_image"], strict=True)]


def shown(made, **fields):
    rest = {name: jnp.asarray(value) for name, value in made.items() if name != "image"}
    mask = fields.get("mask", "image_bidirectional")
    return seen(**fields).shown(build(mask=mask)[2], pictures(made), rest)


@pytest.mark.parametrize(
    ("mask", "how"),
    (
        ("causal", "greedy"),
        ("image_bidirectional", "greedy"),
        ("image_bidirectional", "beam"),
        pytest.param("causal", "beam", marks=pytest.mark.slow),
    ),
)
def test_tokens_are_those_of_a_prefill_by_row(mask, how):
    generate, params = generator(DECODES[how], mask=mask)
    tokens, scores = generate(params, batch())
    other, others = generate(params, shown(batch(), mask=mask))
    np.testing.assert_array_equal(other, tokens)
    np.testing.assert_allclose(others, scores, atol=1e-4)
    assert len({tuple(row) for row in np.asarray(tokens)[:REAL].tolist()}) > 3  # or the test says little


def test_what_a_row_says_depends_neither_on_its_place_nor_on_its_company():
    generate, params = generator(GREEDY, mask="image_bidirectional")
    _, scores = generate(params, shown(batch()))
    turned = {name: np.roll(value, 3, axis=0) for name, value in prompts(seed=9).items()}
    for name, value in batch().items():
        turned[name][5] = value[2]
    assert np.asarray(generate(params, shown(turned))[1])[5] == np.asarray(scores)[2]


def test_pictures_go_through_the_decoder_once_and_prompts_alone_after_them():
    """One layer of width 16, four heads and two of keys and values of width 4, four tokens a picture and up to five of a
    prompt, 11 words: floating-point operations of the products, by hand."""
    generate, params = generator(GREEDY, mask="image_bidirectional")
    assert VISION.tokens == 4
    capacity = 4 + LENGTH + GREEDY.max_new_tokens - 1

    def layer(rows, queries, keys):
        linear = 2 * 16 * (16 + 8 + 8 + 16) + 3 * 2 * 16 * 16
        return rows * queries * (linear + 2 * 2 * 16 * keys)

    flops = lambda made: counters.dot_flops(  # noqa: E731
        jax.make_jaxpr(generate._start_impl)(params, generate._inputs(made), None).jaxpr
    )
    head = 2 * ROWS * 16 * 11
    assert flops(shown(batch())) == layer(ROWS, LENGTH, capacity) + head == 161_536
    assert flops(shown(batch(), prefix=False)) == layer(ROWS, 4 + LENGTH, capacity) + head == 288_512

    _, graphdef, _ = build(mask="image_bidirectional")
    features, there = jnp.zeros((2, 4, 16)), jnp.ones((2, 1), bool)
    once = jax.make_jaxpr(lambda p, x, h: prefill.of_pictures(groups.rebuild(graphdef, p), x, h))(params, features, there)
    assert counters.dot_flops(once.jaxpr) == layer(2, 4, 4)
    calls, made = [], seen()
    read = made._read
    made._read = lambda *args: calls.append(args[2].shape) or read(*args)
    shown(batch())
    made._read = read
    assert calls == [(2, 1), (2, 1)]  # three pictures, two at a time


@pytest.mark.parametrize("mask", masks.KINDS)
def test_pictures_that_see_the_prompt_or_stand_after_text_share_what_the_tower_makes(mask):
    config, graphdef, _ = build(mask=mask, vocab_size=300)
    tokenizer = train_bpe(["a red dog"] * 4, 300)
    front, within = (looking(graphdef, config, make(tokenizer, "plain", interleaved=how), MESH, 10) for how in (False, True))
    assert front.prefix == (mask in ("causal", "image_bidirectional")) and not within.prefix
    assert front.rows == within.rows == 3  # pictures at a time, for a batch of 10


def test_what_was_seen_lately_is_kept_up_to_a_limit():
    kept = Kept(24)
    one, two, three = (jnp.full(3, value, jnp.float32) for value in (1, 2, 3))  # 12 bytes each
    kept.put("one", one)
    kept.put("two", two)
    assert kept.get("one") is one  # and so "two" is the one of longest ago
    kept.put("three", three)
    assert kept.get("two") is None and kept.get("one") is one and kept.get("three") is three and kept.bytes == 24
    kept.put("large", jnp.zeros(7))  # more than the limit: nothing goes for it
    assert kept.get("large") is None and kept.bytes == 24
