"""Decoding with a cache against the model without one."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vlax import beam, groups, masks
from vlax.decoding import DecodeConfig, Generator, sample
from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLM, VLMConfig

EOS, PAD, VOCAB, LENGTH, NEW = 1, 0, 11, 5, 6
VISION = VisionConfig(image_size=8, patch_size=4, width=8, layers=1, heads=2, mlp_dim=8)
PROJECTOR = ProjectorConfig("linear", 8, 16)
DECODER = {"vocab_size": VOCAB, "width": 16, "layers": 1, "heads": 4, "kv_heads": 2, "head_dim": 4, "mlp_dim": 16}
GPT2 = {"norm": "layer", "rope_theta": None, "max_positions": 4 + LENGTH + NEW, "gated_mlp": False, "activation": "gelu_tanh"}
WINDOW = {"window": 3, "window_layers": (1,), "layers": 2}
GREEDY = DecodeConfig(max_new_tokens=NEW, chunk=2)
BEAM = DecodeConfig(max_new_tokens=NEW, num_beams=3, chunk=2)
SAMPLING = DecodeConfig(max_new_tokens=NEW, temperature=1.3, top_p=0.9, seed=3)


@functools.cache
def build(mask="image_bidirectional", text_only=False, scale=8.0, **decoder):
    """(config, graphdef, params) of a tiny model whose weights are large enough for its answers to differ by row."""
    towers = {} if text_only else {"vision": VISION, "projector": PROJECTOR}
    config = VLMConfig(DecoderConfig(**{**DECODER, **decoder}), mask=mask, **towers)
    graphdef, params = groups.flatten(VLM(config, rngs=nnx.Rngs(0)))
    grown = {path: value * (scale if path.endswith(("embedding", "position")) else 1.5) for path, value in params.items()}
    return config, graphdef, grown


@functools.cache
def generator(decode=GREEDY, eos=EOS, **model):
    config, graphdef, params = build(**model)
    return Generator(graphdef, config, decode, eos, PAD), params


@functools.cache
def forward(**model):
    _, graphdef, params = build(**model)
    return jax.jit(lambda batch: groups.rebuild(graphdef, params)(batch))


def prompts(rows=8, vocab=VOCAB, length=LENGTH, seed=0):
    """Prompts of 2..length tokens; row 1 has no image, the last row is filler."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(2, vocab, (rows, length)).astype(np.int32)
    sizes = np.array([length, 2, length - 2, length - 1, 3, 4, 2, 3])[:rows]
    sizes[-1] = 0
    real = np.arange(length) < sizes[:, None]
    row = np.arange(rows, dtype=np.int32)[:, None] + 100
    row[-1] = -1
    return {
        "image": rng.integers(0, 256, (rows, 1, 8, 8, 3)).astype(np.uint8),
        "has_image": (np.arange(rows) != 1)[:, None] & (sizes > 0)[:, None],
        "tokens": np.where(real, tokens, PAD),
        "segment": real.astype(np.int32),
        "example": real.astype(np.int32),
        "row": row,
    }


def with_answers(batch, answers, room=NEW):
    """The same rows as one training batch: each answer follows its prompt at once, whatever the prompt's padding was."""
    full = {name: np.pad(batch[name], ((0, 0), (0, room))) for name in ("tokens", "segment", "example")}
    for row, size in enumerate((batch["example"] > 0).sum(-1)):
        if size:
            at = slice(size, size + answers.shape[1])
            full["tokens"][row, at], full["segment"][row, at], full["example"][row, at] = answers[row], masks.ANSWER, 1
    return {**batch, **full}


def answer_logits(batch, answers, **model):
    """f32[B,A,V] of the uncached model: what it predicts for each answer token, given those before it."""
    logits = np.asarray(forward(**model)(with_answers(batch, answers)))
    first = np.maximum((batch["example"] > 0).sum(-1), 1) - 1
    return np.stack([one[start : start + answers.shape[1]] for one, start in zip(logits, first, strict=True)])


VARIANTS = [{"mask": kind} for kind in masks.KINDS] + [
    {"mask": "prefix_lm", **WINDOW},
    {"mask": "image_bidirectional", **GPT2},
    {"mask": "causal", "text_only": True, "tied": False, "qk_norm": True},
]


def log_softmax(logits):
    """In numpy: a jitted one would be compiled for every shape."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.mark.parametrize("model", VARIANTS, ids=lambda m: "-".join(str(v) for v in m.values())[:40])
def test_cached_logits_equal_the_models(model):
    batch, answers = prompts(), np.random.default_rng(1).integers(2, VOCAB, (8, NEW)).astype(np.int32)
    generate, params = generator(**model)
    cached = np.asarray(generate.forced_logits(params, batch, answers))
    np.testing.assert_allclose(cached[:7], answer_logits(batch, answers, **model)[:7], atol=1e-4)
    assert np.isfinite(cached).all()  # the filler row too


def naive_greedy(batch, **model):
    answers, scores = np.zeros((8, NEW), np.int32), np.zeros(8)
    alive = (batch["example"] > 0).any(-1)
    for t in range(NEW):
        logp = log_softmax(answer_logits(batch, answers, **model)[:, t])
        answers[:, t] = np.where(alive, logp.argmax(-1), PAD)
        scores += np.where(alive, logp.max(-1), 0)
        alive &= answers[:, t] != EOS
    return answers, scores


@pytest.mark.parametrize("model", VARIANTS[3:5], ids=("image_sees_prompt", "window"))
def test_greedy_equals_an_uncached_argmax_loop(model):
    batch = prompts()
    generate, params = generator(**model)
    tokens, scores = generate(params, batch)
    want, sums = naive_greedy(batch, **model)
    np.testing.assert_array_equal(tokens, want)
    np.testing.assert_allclose(scores, sums, atol=1e-4)
    assert tokens.dtype == jnp.int32 and scores.dtype == jnp.float32


def test_eos_stops_a_row_and_pads_the_rest():
    batch = prompts()
    model = VARIANTS[3]
    generate, params = generator(**model)
    tokens, _ = generate(params, batch)
    tokens = np.asarray(tokens)
    eos = int(tokens[0, 1])  # pretend that the second token of row 0 ends it
    stopping, params = generator(eos=eos, **model)
    stopped, scores = stopping(params, batch)
    first = int(np.flatnonzero(tokens[0] == eos)[0])
    assert stopped[0].tolist() == tokens[0, : first + 1].tolist() + [PAD] * (NEW - first - 1)
    assert stopped[7].tolist() == [PAD] * NEW and scores[7] == 0  # filler
    logp = log_softmax(answer_logits(batch, tokens, **model)[0])
    picked = np.take_along_axis(logp, tokens[0][:, None], axis=1)[: first + 1]
    np.testing.assert_allclose(scores[0], picked.sum(), atol=1e-4)


SMALL = {"vocab_size": 4, "scale": 40.0}


@pytest.mark.parametrize("penalty", (1.0, -1.0))
def test_wide_beams_equal_exhaustive_search(penalty):
    """With as many beams as there are prefixes nothing is pruned, so the best sequence of all must come out."""
    new = 3
    batch = prompts(rows=2, vocab=4, length=4)
    everything = np.array(list(itertools.product(range(4), repeat=new)), np.int32)
    best = (-np.inf, None)
    repeated = {name: np.repeat(value[:1], len(everything), axis=0) for name, value in batch.items()}
    logp = log_softmax(answer_logits(repeated, everything, **SMALL))
    for answer, table in zip(everything, logp, strict=True):
        length = int(np.argmax(answer == EOS)) + 1 if (answer == EOS).any() else new
        total = sum(table[t, answer[t]] for t in range(length))
        candidate = (total / length**penalty, answer[:length].tolist(), total)
        best = max(best, candidate, key=lambda item: item[0])
    decode = DecodeConfig(max_new_tokens=new, num_beams=16, length_penalty=penalty)
    generate, params = generator(decode, **SMALL)
    tokens, scores = generate(params, batch)
    assert tokens[0].tolist() == best[1] + [PAD] * (new - len(best[1]))
    np.testing.assert_allclose(scores[0], best[2], atol=1e-4)
    assert tokens[1].tolist() == [PAD] * new and scores[1] == 0


def naive_beam(batch, row, beams, penalty, new, model):
    """The docstring of vlax/beam.py in plain Python, without the early stop."""
    running, best = [(0.0, [])], (-np.inf, None)
    for t in range(new):
        found = []
        padded = np.zeros((8, NEW), np.int32)  # one row of the batch a beam
        for slot, (_, answer) in enumerate(running):
            padded[slot, :t] = answer
        logp = log_softmax(answer_logits({name: batch[name][[row] * 8] for name in batch}, padded, **model)[:, t])
        for slot, (total, answer) in enumerate(running):
            found += [(total + logp[slot, v], [*answer, v]) for v in range(VOCAB)]
        found = sorted(found, key=lambda item: -item[0])[: 2 * beams]
        for rank, (total, answer) in enumerate(found):
            if (answer[-1] == EOS and rank < beams) or t == new - 1:
                best = max(best, (total / (t + 1) ** penalty, answer, total), key=lambda item: item[0])
        running = [item for item in found if item[1][-1] != EOS][:beams]
    return best


@pytest.mark.parametrize("model", ({}, VARIANTS[4]), ids=("default", "window"))
def test_beam_search_equals_a_plain_one(model):
    batch = prompts()
    generate, params = generator(BEAM, **model)
    tokens, scores = generate(params, batch)
    for row in range(7):
        _, answer, total = naive_beam(batch, row, 3, 1.0, NEW, model)
        assert tokens[row].tolist() == [*answer, *[PAD] * (NEW - len(answer))]
        np.testing.assert_allclose(scores[row], total, atol=1e-4)
    assert tokens[7].tolist() == [PAD] * NEW and scores[7] == 0


def test_one_beam_is_greedy():
    """The beam step itself with K = 1, which `Generator` never takes: without EOS it follows the argmax."""
    table = np.random.default_rng(2).normal(size=(NEW, 2, VOCAB)).astype(np.float32)
    table[:, :, EOS] = -9
    state = {"t": jnp.int32(0), "finished": jnp.zeros(2, bool), **beam.start(jnp.zeros((2, NEW), jnp.int32), 1)}
    step = jax.jit(lambda state, logits: beam.choose(state, logits, EOS, NEW, 1.0)[0])
    for t in range(NEW):
        state = {**step(state, table[t]), "t": jnp.int32(t + 1)}
    np.testing.assert_array_equal(state["best_tokens"], table.argmax(-1).T)
    np.testing.assert_allclose(state["best_logp"], log_softmax(table).max(-1).sum(0), rtol=1e-5)


@pytest.mark.parametrize("decode", (GREEDY, BEAM, SAMPLING), ids=("greedy", "beam", "sampling"))
def test_a_row_depends_neither_on_its_slot_nor_on_its_mates(decode):
    batch, others = prompts(rows=8), prompts(rows=8, seed=9)
    generate, params = generator(decode)
    tokens, _ = generate(params, batch)
    for row, slot in ((0, 5), (1, 6), (2, 0), (3, 3)):
        mixed = {name: value.copy() for name, value in others.items()}
        for name in mixed:
            mixed[name][slot] = batch[name][row]
        np.testing.assert_array_equal(generate(params, mixed)[0][slot], tokens[row])


def test_sampling_reproduces_and_follows_seed_and_row():
    batch = prompts()
    generate, params = generator(SAMPLING)
    first = generate(params, batch)
    for left, right in zip(first, generate(params, batch), strict=True):
        np.testing.assert_array_equal(left, right)
    tokens = np.asarray(first[0])
    assert (tokens != np.asarray(generate(params, {**batch, "row": batch["row"] + 7})[0])).any()
    logp = log_softmax(answer_logits(batch, tokens))  # the score is the model's own, not that of the nucleus
    stop = np.where((tokens == EOS).any(-1), (tokens == EOS).argmax(-1) + 1, NEW)
    want = [sum(logp[row, t, tokens[row, t]] for t in range(stop[row])) for row in range(7)]
    np.testing.assert_allclose(first[1][:7], want, atol=1e-4)


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
    cached, params = generator(decode)
    generate = Generator(cached.graphdef, cached.model, decode, EOS, PAD) if decode == GREEDY else cached
    generate(params, prompts())
    before = generate._start._cache_size(), generate._advance._cache_size()
    for seed in range(1, 4):
        generate(params, prompts(seed=seed))
    assert (generate._start._cache_size(), generate._advance._cache_size()) == before
    assert decode != GREEDY or before == (1, 1)


@pytest.mark.parametrize("decode", (GREEDY, BEAM), ids=("greedy", "beam"))
def test_sharded_parameters_and_batch(decode):
    """On as many devices as there are; the count of the test run decides how much this says."""
    devices = jax.device_count() if 8 % jax.device_count() == 0 else 1
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:devices])

    def place(value, *axes):
        divides = all(axis is None or size % devices == 0 for axis, size in zip(axes, value.shape, strict=False))
        return jax.device_put(value, jax.NamedSharding(mesh, jax.P(*axes) if divides else jax.P()))

    generate, params = generator(decode)
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
        Generator(graphdef, config, DecodeConfig(), 11, PAD)
    with pytest.raises(VlaxError, match="needs 16 positions .9 of image and prompt. and the model has 15"):
        Generator(graphdef, config, DecodeConfig(max_new_tokens=8), EOS, PAD)(params, prompts())
    packed = prompts() | {"has_image": np.ones((8, 2), bool)}
    with pytest.raises(VlaxError, match="one example a row, not 2 packed image slots"):
        generator()[0](params, packed)
    with pytest.raises(VlaxError, match="7 answer tokens do not fit max_new_tokens=6"):
        generator()[0].forced_logits(params, prompts(), np.zeros((8, 7), np.int32))


def test_one_new_token_needs_no_chunk():
    batch = prompts()
    generate, params = generator(DecodeConfig(max_new_tokens=1))
    np.testing.assert_array_equal(generate(params, batch)[0][:, 0], generator()[0](params, batch)[0][:, 0])
    assert generate._advance._cache_size() == 0
