"""Rotary positions: what they depend on, how they are stretched, and whose dimensions turn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlax.models.rope import grid_tables, no_turn, rope_amplitude, rope_frequencies, rope_tables, rotate


def test_rotary_products_depend_on_the_distance_only():
    q, k = np.random.default_rng(0).normal(size=(2, 1, 1, 1, 8)).astype(np.float32)

    def product(at, other):
        tables = [rope_tables(jnp.asarray([[p]]), 64, 8, 100.0, None) for p in (at, other)]
        return float((rotate(q, *tables[0]) * rotate(k, *tables[1])).sum())

    assert product(7, 3) == pytest.approx(product(24, 20), abs=1e-4)
    assert product(7, 3) != pytest.approx(product(7, 4), abs=1e-2)
    assert product(5, 5) == pytest.approx(float((q * k).sum()), abs=1e-4)


def test_rope_scaling():
    plain = rope_frequencies(8, 100.0, None)
    np.testing.assert_allclose(rope_frequencies(8, 100.0, {"rope_type": "linear", "factor": 4.0}), plain / 4)
    llama = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaled = rope_frequencies(8, 10_000.0, {**llama, "original_max_position_embeddings": 64})
    plain = rope_frequencies(8, 10_000.0, None)
    assert scaled[0] == plain[0]  # 10 turns in the original context: fast, kept
    np.testing.assert_allclose(scaled[2:], plain[2:] / 8)  # less than one turn: slowed by the factor
    assert plain[1] / 8 < scaled[1] <= plain[1]
    with pytest.raises(ValueError, match="rope scaling 'dynamic' is not implemented"):
        rope_frequencies(8, 100.0, {"rope_type": "dynamic"})


def test_yarn_keeps_what_turns_fast_and_slows_what_turns_slowly():
    """Qwen2.5's: 4 times 32,768 positions. Pair 23 of 64 turns 32 times in them, pair 39 once."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}
    plain, scaled = rope_frequencies(128, 1e6, None), rope_frequencies(128, 1e6, yarn)
    np.testing.assert_allclose(scaled[:24], plain[:24])
    np.testing.assert_allclose(scaled[40:], plain[40:] / 4, rtol=1e-6)
    np.testing.assert_allclose(scaled[31], plain[31] * (0.25 * 8 / 17 + 9 / 17), rtol=1e-6)
    assert rope_amplitude(yarn) == pytest.approx(1.1386294)  # 0.1 ln 4 + 1
    assert rope_amplitude(yarn | {"mscale": 2.0, "mscale_all_dim": 1.0}) == pytest.approx(1.2772589 / 1.1386294)
    assert rope_amplitude(yarn | {"attention_factor": 0.5}) == 0.5
    assert rope_amplitude({"rope_type": "linear", "factor": 4.0}) == rope_amplitude(None) == 1.0


def test_longrope_divides_each_frequency_by_its_own_factor():
    """Phi-4-mini's amplitude: 131,072 positions out of 4,096."""
    factors = {"short_factor": (1.0, 2.0, 4.0), "long_factor": (1.0, 20.0, 40.0)}
    long = {"rope_type": "longrope", "factor": 32.0, "original_max_position_embeddings": 4096} | factors
    np.testing.assert_allclose(rope_frequencies(6, 100.0, long), rope_frequencies(6, 100.0, None) / [1, 2, 4], rtol=1e-6)
    assert rope_amplitude(long) == pytest.approx(1.1902380714238083)
    plain, turned = (rope_tables(jnp.asarray([[0, 3]]), 4, 6, 100.0, x) for x in (None, long))
    np.testing.assert_allclose(turned[0][0, 0], 1.1902381)
    np.testing.assert_allclose(turned[0][0, 1, 0], 1.1902381 * plain[0][0, 1, 0], rtol=1e-6)


def test_dimensions_beyond_the_tables_and_tokens_without_a_turn_stay():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 3, 8)), jnp.bfloat16)
    tables = rope_tables(jnp.asarray([[1, 2, 3]]), 4, 4, 100.0, None)
    turned = rotate(x, *tables)
    np.testing.assert_array_equal(turned[..., 4:], x[..., 4:])
    np.testing.assert_array_equal(turned[..., :4], rotate(x[..., :4], *tables))
    assert not np.array_equal(turned[..., :4], x[..., :4])
    np.testing.assert_array_equal(rotate(x, *no_turn(tables)), x)


def test_a_grid_turns_by_where_a_patch_lies_in_the_picture():
    cos, sin = grid_tables(2, 8, 100.0, leading=1)
    assert cos.shape == (1, 5, 4)
    np.testing.assert_array_equal(cos[0, 0], np.ones(4))  # the class token
    angle = np.pi * np.asarray([1.0, 0.1])  # half of a side from the middle; the second frequency is 100 ** -0.5
    for token, (row, column) in enumerate([(-1, -1), (-1, 1), (1, -1), (1, 1)], 1):
        np.testing.assert_allclose(sin[0, token], np.sin([*row * angle, *column * angle]), atol=1e-6)
    finer = grid_tables(6, 8, 100.0, leading=0)  # the middle of its first nine patches lies where the first of four does
    np.testing.assert_allclose(finer[1][0, 7], sin[0, 1], atol=1e-6)


def test_looked_up_tables_are_the_computed_ones_and_know_where_they_end():
    positions = jnp.asarray([[0, 1, 40], [700, 5, 1023]])
    long = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256}
    for scaling in (None, long):
        angles = positions[..., None].astype(jnp.float32) * rope_frequencies(8, 1e4, scaling)
        tables = rope_tables(positions, 1024, 8, 1e4, scaling)
        for table, turn in zip(tables, (jnp.cos, jnp.sin), strict=True):
            np.testing.assert_allclose(table, turn(angles) * rope_amplitude(scaling), atol=2e-7)
    beyond = rope_tables(jnp.asarray([[9, 10]]), 10, 8, 1e4, None)
    assert np.isfinite(beyond[0][0, 0]).all() and np.isnan(beyond[0][0, 1]).all()


def test_no_loop_of_a_compiled_step_computes_angles():
    """A cosine in what turns queries and keys would be computed for each head again."""

    def turned(x, positions):
        return rotate(x, *rope_tables(positions, 16, 8, 1e4, None))

    x, positions = jnp.ones((2, 4, 16, 8)), jnp.zeros((2, 16), jnp.int32)
    compiled = jax.jit(turned).lower(x, positions).compile().as_text()
    assert " cosine(" not in compiled and " gather(" in compiled
    # elsewhere they are computed, and no table is a constant of the program
    elsewhere = jax.jit(turned).trace(x, positions).lower(lowering_platforms=("tpu",)).as_text()
    assert "stablehlo.cosine" in elsewhere and "stablehlo.gather" not in elsewhere
