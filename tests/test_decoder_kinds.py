"""Decoders whose layers differ: scanned as unrolled, and the same from a cache."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from export_cases import DECODERS, TEXT_SIZES, drawn
from flax import nnx

from vlax.decoding.prefill import empty_cache
from vlax.errors import VlaxError
from vlax.models.decoder import Decoder, DecoderConfig
from vlax.params import groups

# Every option by which layers differ, and those that touch what lies in a cache.
ALL = {
    "layers": 4, "window": 3, "window_layers": (0, 2), "window_rope_theta": 20.0, "nope_layers": (1, 2), "rotary_dim": 4,
    "qk_norm_joint": True, "pre_norms": False, "post_norms": True, "embed_multiplier": 3.0, "residual_multiplier": 0.5,
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4, "beta_fast": 2.0},
}  # fmt: skip


SLOW = ("gemma3_text", "smollm3", "phi3", "olmo2", "granite", "stablelm", "llama, yarn")


@pytest.mark.parametrize("name", ["all", *(pytest.param(x, marks=pytest.mark.slow) for x in SLOW)])
def test_scanned_and_cached_decoders_say_what_unrolled_ones_say(name):
    config = DecoderConfig(**TEXT_SIZES | (ALL if name == "all" else DECODERS[name]))
    params = {path.removeprefix("decoder/"): value for path, value in drawn(Decoder, config, "decoder/").items()}
    graphdef = groups.flatten(jax.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))[0]
    tokens = np.random.default_rng(0).integers(3, 300, (2, 9))
    positions, sees = np.tile(np.arange(9), (2, 1)), np.tile(np.tril(np.ones((9, 9), bool)), (2, 1, 1))

    @jax.jit
    def run(params):
        decoder = groups.rebuild(graphdef, params)
        x = decoder.embed(tokens)
        whole = [decoder(x, positions, sees, mode=mode) for mode in ("unroll", "scan")]
        cache, parts = empty_cache(decoder, 2, 9), []
        for start, stop in ((0, 7), (7, 8), (8, 9)):
            part = slice(start, stop)
            keys = jnp.where(np.arange(9) < stop, positions, 0)
            hidden, _, cache = decoder.trace(x[:, part], positions[:, part], sees[:, part], cache, start, keys)
            parts.append(hidden)
        return *whole, jnp.concatenate(parts, axis=1)

    unrolled, scanned, cached = (np.asarray(value) for value in run(params))
    assert np.ptp(unrolled) > 1 and np.isfinite(unrolled).all()
    np.testing.assert_allclose(scanned, unrolled, atol=1e-5 * np.ptp(unrolled))
    np.testing.assert_allclose(cached, unrolled, atol=1e-5 * np.ptp(unrolled))


def test_longrope_beyond_its_short_context_is_refused_and_not_computed_otherwise():
    """The reference takes other factors for the whole of a longer sequence, those that lie in a cache too."""
    long = DECODERS["phi3"]["rope_scaling"] | {"original_max_position_embeddings": 8}
    config = DecoderConfig(**TEXT_SIZES | {"rope_scaling": long, "rotary_dim": 4})
    for length in (8, 9):
        sizes = [jax.ShapeDtypeStruct(shape, kind) for shape, kind in (
            ((1, length, 32), jnp.float32), ((1, length), jnp.int32), ((1, length, length), bool)
        )]  # fmt: skip
        check = contextlib.nullcontext() if length == 8 else pytest.raises(VlaxError, match=r"9 positions.*implemented up to 8")
        with check:
            jax.eval_shape(lambda *inputs: Decoder(config, rngs=nnx.Rngs(0))(*inputs), *sizes)
