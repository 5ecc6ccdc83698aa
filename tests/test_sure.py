"""Small batches whose answers are those of large ones, and weights that are cast before the loop over tokens."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
from tiny import EOS, PAD, build, config, prompts
from tiny import weights as drawn

from vlax.decoding import sure, weights
from vlax.decoding.generator import Generator
from vlax.decoding.options import DecodeConfig
from vlax.evaluation import runner
from vlax.models.build import abstract_model
from vlax.training import counters

GREEDY = DecodeConfig(max_new_tokens=6, chunk=5)


@functools.cache
def small():
    """(tokens, whether they are sure) of the first two rows of eight, alone."""
    made, graphdef, params = build()
    two = {name: value[:2] for name, value in prompts().items()}
    return sure.Sure(graphdef, made, GREEDY, (EOS,), PAD), params, two


def test_sizes_of_small_batches():
    assert sure.sizes(16) == sure.sizes(10) == (1, 4) and sure.sizes(1) == () and sure.sizes(64) == (1, 4, 16)


def test_a_small_batch_says_what_the_large_one_says():
    made, graphdef, params = build()
    tokens, known = small()[0].certain(params, small()[2])
    assert known.tolist() == [True, True]
    whole = np.asarray(Generator(graphdef, made, GREEDY, (EOS,), PAD)(params, prompts())[0])
    np.testing.assert_array_equal(tokens, whole[:2])


def test_where_two_tokens_are_as_good_nothing_is_sure():
    """Two tokens with one embedding, which is the head as well: which of them wins is up to rounding."""
    generate, params, two = small()
    tokens, _ = generate.certain(params, two)
    first, other = int(tokens[0, 0]), next(token for token in range(2, 11) if token not in tokens)
    table = params["decoder/embedding"].copy()
    table[other] = table[first]
    _, known = generate.certain({**params, "decoder/embedding": table}, two)
    assert first in tokens[1] or known[1]
    assert not known[0]


def test_sets_whose_rows_share_pictures():
    def of(*names):
        rows = [types.SimpleNamespace(pictures=[types.SimpleNamespace(name=name) for name in each]) for each in names]
        return runner.shares(types.SimpleNamespace(rows=rows))

    assert of("a", "a", "b", "b") and of("a", "a", "", "a") and of("ab", "ab")
    assert not of("a", "b", "b") and not of("", "")


def casts(params) -> list[tuple[int, ...]]:
    """Shapes of the weights that the loop over tokens casts from float32 to bf16."""
    made = config()
    graphdef, _ = abstract_model(made, jnp.bfloat16)
    generate = Generator(graphdef, made, GREEDY, (EOS,), PAD)
    view, state = jax.eval_shape(generate._start_impl, params, prompts(), None)
    jaxpr = jax.make_jaxpr(generate._advance_impl)(params, view, state, None).jaxpr
    [loop] = [eqn for eqn, _ in counters.equations(jaxpr) if eqn.primitive.name == "scan"]
    held = {tuple(value.shape) for path, value in params.items() if path.startswith("decoder/")}
    held.add((16, 11))  # the table as the head reads it
    inside = [eqn for eqn, _ in counters.equations(loop.params["jaxpr"].jaxpr)]
    found = [e for e in inside if e.primitive.name == "convert_element_type" and e.params["new_dtype"] == jnp.bfloat16]
    return sorted(
        e.invars[0].aval.shape for e in found if e.invars[0].aval.dtype == jnp.float32 and e.invars[0].aval.shape in held
    )


def test_the_loop_over_tokens_casts_no_weight():
    _, params = drawn(config())
    matrices = [(16, 8), (16, 8), (16, 11), *[(16, 16)] * 5]  # k, v, the head, q, o and the MLP
    assert [shape for shape in casts(params) if len(shape) > 1] == matrices
    ready = weights.held(params, jnp.bfloat16)
    assert casts(ready) == []
    kept = {path for path, value in ready.items() if value.dtype == np.float32 and path.startswith("decoder/")}
    assert kept == {"decoder/layers/0/norm1/scale", "decoder/layers/0/norm2/scale", "decoder/norm/scale"}
    assert weights.held(ready, jnp.bfloat16) is ready and weights.held(params, jnp.float32) is params


def test_answers_are_those_of_weights_cast_at_each_token():
    made, params = config(), {path: jnp.asarray(value) for path, value in drawn(config())[1].items()}
    graphdef, _ = abstract_model(made, jnp.bfloat16)
    generate = Generator(graphdef, made, GREEDY, (EOS,), PAD)
    tokens, scores = generate(params, prompts())
    view, state = generate._start(params, generate._inputs(prompts()), None)  # as they are, float32
    state = generate._advance(params, view, state, None)
    np.testing.assert_array_equal(tokens, state["tokens"])
    np.testing.assert_array_equal(scores, state["scores"])
