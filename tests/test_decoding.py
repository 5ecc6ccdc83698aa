"""Decoding with a cache against the model without one: greedy and sampling (beam search is in test_beam.py)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import EOS, LENGTH, PAD, ROWS, VOCAB, answer_logits, build, log_softmax, prompts

from vlax import masks
from vlax.decoding.draw import sample
from vlax.decoding.generator import Generator
from vlax.decoding.options import DecodeConfig
from vlax.errors import VlaxError

NEW, REAL = 6, ROWS - 1  # the last row is filler
GPT2 = {"norm": "layer", "rope_theta": None, "max_positions": 4 + LENGTH + NEW, "gated_mlp": False, "activation": "gelu_tanh"}
WINDOW = {"mask": "prefix_lm", "window": 3, "window_layers": (1,), "layers": 2}
TEXT_ONLY = {"mask": "causal", "text_only": True, "tied": False, "qk_norm": True}
GREEDY = DecodeConfig(max_new_tokens=NEW, chunk=2)
BEAM = DecodeConfig(max_new_tokens=NEW, num_beams=3, chunk=2)
SAMPLING = DecodeConfig(max_new_tokens=NEW, temperature=1.3, top_p=0.9, seed=3)


@functools.cache
def generator(decode=GREEDY, eos=EOS, **model):
    config, graphdef, params = build(**model)
    return Generator(graphdef, config, decode, (eos,), PAD), params


VARIANTS = {
    **{kind: {"mask": kind} for kind in masks.KINDS},
    "window": WINDOW,
    "learned": GPT2,
    "text_only": TEXT_ONLY,
}


@pytest.mark.parametrize("name", VARIANTS)
def test_cached_logits_equal_the_models(name):
    """Prompts of several lengths, a row without image and a filler row in one batch; grouped queries in all variants."""
    batch, answers = prompts(), np.random.default_rng(1).integers(2, VOCAB, (ROWS, NEW)).astype(np.int32)
    generate, params = generator(**VARIANTS[name])
    cached = np.asarray(generate.forced_logits(params, batch, answers))
    np.testing.assert_allclose(cached[:REAL], answer_logits(batch, answers, NEW, **VARIANTS[name])[:REAL], atol=1e-4)
    assert np.isfinite(cached).all()  # the filler row too


def naive_greedy(batch, **model):
    answers, scores = np.zeros((ROWS, NEW), np.int32), np.zeros(ROWS)
    alive = (batch["example"] > 0).any(-1)
    for t in range(NEW):
        logp = log_softmax(answer_logits(batch, answers, NEW, **model)[:, t])
        answers[:, t] = np.where(alive, logp.argmax(-1), PAD)
        scores += np.where(alive, logp.max(-1), 0)
        alive &= answers[:, t] != EOS
    return answers, scores


@pytest.mark.parametrize("name", ("image_bidirectional", "window"))
def test_greedy_equals_an_uncached_argmax_loop(name):
    batch = prompts()
    generate, params = generator(**VARIANTS[name])
    tokens, scores = generate(params, batch)
    want, sums = naive_greedy(batch, **VARIANTS[name])
    np.testing.assert_array_equal(tokens, want)
    np.testing.assert_allclose(scores, sums, atol=1e-4)
    assert tokens.dtype == jnp.int32 and scores.dtype == jnp.float32
    ended = (want[:REAL] == EOS).any(-1)
    assert ended.any() and not ended.all()  # or the test says little


@pytest.mark.parametrize("decode", (GREEDY, BEAM), ids=("greedy", "beam"))
def test_a_second_token_may_end_an_answer(decode):
    """What is written anyway, up to the first of both; as the only one it does the same."""
    config, graphdef, params = build()
    one, other = (
        np.asarray(Generator(graphdef, config, decode, stops, PAD)(params, prompts())[0]) for stops in ((9,), (9, EOS))
    )
    ended = [row.index(EOS) + 1 for row in other.tolist() if EOS in row]
    assert ended and (decode is BEAM or any(9 not in row and EOS in row[:-1] for row in one.tolist()))
    for row, before in zip(other.tolist(), one.tolist(), strict=True):
        ends = [at for at, token in enumerate(row) if token in (9, EOS)]
        assert not ends or set(row[ends[0] + 1 :]) <= {PAD}
        if decode is GREEDY and ends:
            assert row[: ends[0] + 1] == before[: ends[0] + 1]


def test_eos_stops_a_row_and_pads_the_rest():
    generate, params = generator(**VARIANTS["image_bidirectional"])
    tokens, scores = (np.asarray(x) for x in generate(params, prompts()))
    for row in tokens[:REAL].tolist():
        if EOS in row:
            assert set(row[row.index(EOS) + 1 :]) <= {PAD}
    assert tokens[REAL].tolist() == [PAD] * NEW and scores[REAL] == 0


def test_done_rows_end_the_loop_early(monkeypatch):
    batch = {name: value.copy() for name, value in prompts().items()}
    batch["segment"][:], batch["example"][:] = 0, 0
    generate, params = generator(**VARIANTS["image_bidirectional"])
    monkeypatch.setattr(generate, "_advance", None)  # not called at all when every row is filler
    tokens, scores = generate(params, batch)
    assert (np.asarray(tokens) == PAD).all() and (np.asarray(scores) == 0).all()


@pytest.mark.parametrize("decode", (GREEDY, BEAM, SAMPLING), ids=("greedy", "beam", "sampling"))
def test_a_row_depends_neither_on_its_slot_nor_on_its_mates(decode):
    batch, others = prompts(), prompts(seed=9)
    generate, params = generator(decode, **(TEXT_ONLY if decode == SAMPLING else {}))
    tokens, _ = generate(params, batch)
    for row, slot in ((0, 5), (1, 6), (2, 0), (3, 3)):
        mixed = {name: value.copy() for name, value in others.items()}
        for name in mixed:
            mixed[name][slot] = batch[name][row]
        np.testing.assert_array_equal(generate(params, mixed)[0][slot], tokens[row])


def test_sampling_reproduces_and_follows_seed_and_row():
    batch = prompts()
    generate, params = generator(SAMPLING, **TEXT_ONLY)
    first = generate(params, batch)
    for left, right in zip(first, generate(params, batch), strict=True):
        np.testing.assert_array_equal(left, right)
    tokens = np.asarray(first[0])
    assert (tokens != np.asarray(generate(params, {**batch, "row": batch["row"] + 7})[0])).any()
    logp = log_softmax(answer_logits(batch, tokens, NEW, **TEXT_ONLY))  # the score is the model's own, not that of the nucleus
    stop = np.where((tokens == EOS).any(-1), (tokens == EOS).argmax(-1) + 1, NEW)
    want = [sum(logp[row, t, tokens[row, t]] for t in range(stop[row])) for row in range(REAL)]
    np.testing.assert_allclose(first[1][:REAL], want, atol=1e-4)


def test_sampled_shares_follow_seed_temperature_and_nucleus():
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(probabilities, jnp.float32)), (4000, 4))
    rows = jnp.arange(4000, dtype=jnp.int32)

    def draw(**fields):
        return np.asarray(sample(logits, rows, jnp.int32(0), DecodeConfig(**fields)))

    def shares(**fields):
        return np.bincount(draw(**fields), minlength=4) / 4000

    np.testing.assert_allclose(shares(temperature=1.0), probabilities, atol=0.03)
    np.testing.assert_allclose(shares(temperature=0.5), probabilities**2 / (probabilities**2).sum(), atol=0.03)
    # 0.5 is less than 0.7, so the second token is in as well; the third is not.
    np.testing.assert_allclose(shares(temperature=1.0, top_p=0.7), [0.625, 0.375, 0, 0], atol=0.03)
    assert (draw(temperature=1.0, seed=1) != draw(temperature=1.0, seed=2)).any()


@pytest.mark.parametrize("decode", (GREEDY, BEAM, SAMPLING), ids=("greedy", "beam", "sampling"))
def test_two_programs_a_shape(decode):
    generate, params = generator(decode, **TEXT_ONLY)
    for seed in range(4):
        generate(params, prompts(seed=seed))
    assert (generate._start._cache_size(), generate._advance._cache_size()) == (1, 1)


def test_sharded_parameters_and_batch():
    """On as many devices as there are; the count of the test run decides how much this says."""
    devices = jax.device_count() if 8 % jax.device_count() == 0 else 1
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices])

    def place(value, *axes):
        divides = all(axis is None or size % devices == 0 for axis, size in zip(axes, value.shape, strict=False))
        return jax.device_put(value, jax.NamedSharding(mesh, jax.P(*axes) if divides else jax.P()))

    generate, params = generator(BEAM)
    spread = {path: place(value, *([None, "data"] if path.endswith("kernel") else [])) for path, value in params.items()}
    batch = prompts()
    want = generate(params, batch)
    got = generate(spread, {name: place(value, "data") for name, value in batch.items()})
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_allclose(got[1], want[1], atol=1e-4)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"num_beams": 4, "temperature": 0.7}, "num_beams=4 searches and temperature=0.7 samples"),
        ({"top_p": 0.9}, "top_p=0.9 has no effect without sampling"),
        ({"top_p": 0.0, "temperature": 1.0}, "top_p=0.0 must be above 0"),
        ({"temperature": -1.0}, "temperature=-1.0 must be 0"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be at least 1"),
        ({"num_beams": 0}, "num_beams=0 must be at least 1"),
        ({"chunk": 0}, "chunk=0 must be at least 1"),
    ],
)
def test_contradictory_values_are_refused(fields, text):
    with pytest.raises(VlaxError, match=text):
        DecodeConfig(**fields)


def test_requests_that_do_not_fit_are_refused():
    config, graphdef, params = build(**GPT2)
    with pytest.raises(VlaxError, match="eos_id=11 is no token of a vocabulary of 11"):
        Generator(graphdef, config, DecodeConfig(), (EOS, 11), PAD)
    with pytest.raises(VlaxError, match=r"needs 16 positions \(9 of image and prompt\) and the model has 15"):
        Generator(graphdef, config, DecodeConfig(max_new_tokens=8), (EOS,), PAD)(params, prompts())
    packed = prompts() | {"has_image": np.ones((ROWS, 2), bool)}
    with pytest.raises(VlaxError, match="one example a row, not 2 packed image slots"):
        generator()[0](params, packed)
    with pytest.raises(VlaxError, match="7 answer tokens do not fit max_new_tokens=6"):
        generator()[0].forced_logits(params, prompts(), np.zeros((ROWS, 7), np.int32))


def test_one_new_token_needs_no_chunk():
    batch = prompts()
    generate, params = generator(DecodeConfig(max_new_tokens=1), **TEXT_ONLY)
    first = answer_logits(batch, np.zeros((ROWS, NEW), np.int32), NEW, **TEXT_ONLY)[:, 0]
    np.testing.assert_array_equal(generate(params, batch)[0][:REAL, 0], first.argmax(-1)[:REAL])
    assert generate._advance._cache_size() == 0
