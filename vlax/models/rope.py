"""Rotary positions: of text (Su et al. 2021, and the ways in which checkpoints stretch them), of a grid of patches (DINOv3)."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Rope = tuple[jax.Array, jax.Array]  # cos and sin, each f32[B,S,R/2]; R dimensions of a head turn, the others stay


def rope_frequencies(dim: int, theta: float, scaling: Mapping[str, Any] | None) -> np.ndarray:
    """Inverse frequencies f32[R/2] of rotary embeddings over the first `dim` = R dimensions of a head.

    scaling: None, or a Hugging Face `rope_scaling` of rope_type "linear", "llama3", "yarn" (arXiv 2309.00071) or "longrope"
    (arXiv 2402.13753, its factors for short sequences); another type is a ValueError.
    """
    inverse: np.ndarray = 1.0 / theta ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))
    scaling = scaling or {}
    kind = scaling.get("rope_type", "default")
    if kind == "linear":
        inverse = inverse / scaling["factor"]
    elif kind == "llama3":
        # Wavelengths beyond the original context are slowed down by `factor`; those in between are blended.
        original = scaling["original_max_position_embeddings"]
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        turns = original * inverse / (2 * math.pi)
        blend = np.clip((turns - low) / (high - low), 0.0, 1.0)
        inverse = (1 - blend) * inverse / scaling["factor"] + blend * inverse
    elif kind == "yarn":
        keep = 1 - _yarn_ramp(dim, theta, scaling)
        inverse = inverse / scaling["factor"] * (1 - keep) + inverse * keep
    elif kind == "longrope":
        inverse = inverse / np.asarray(scaling["short_factor"], np.float32)
    elif kind != "default":
        raise ValueError(f"rope scaling {kind!r} is not implemented; linear, llama3, yarn and longrope are")
    return np.asarray(inverse, np.float32)


def _yarn_ramp(dim: int, theta: float, scaling: Mapping[str, Any]) -> np.ndarray:
    """f32[R/2]: 0 where a frequency turns so often within the original context that it stays, 1 where it is slowed down."""

    def pair(turns: float) -> float:
        """Which pair of dimensions turns so many times."""
        original = scaling["original_max_position_embeddings"]
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair(scaling.get("beta_fast") or 32), pair(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    high += 0.001 * (low == high)  # as the reference avoids a division by zero
    ramp: np.ndarray = np.clip((np.arange(dim // 2, dtype=np.float32) - low) / (high - low), 0, 1)
    return ramp


def rope_amplitude(scaling: Mapping[str, Any] | None) -> float:
    """What cos and sin are multiplied by: YaRN and LongRoPE sharpen attention so. 1 for everything else."""
    scaling = scaling or {}
    kind, factor = scaling.get("rope_type"), scaling.get("factor", 1.0)
    if kind not in ("yarn", "longrope"):
        return 1.0
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])
    if factor <= 1:
        return 1.0
    if kind == "longrope":
        return math.sqrt(1 + math.log(factor) / math.log(scaling["original_max_position_embeddings"]))
    over, under = scaling.get("mscale"), scaling.get("mscale_all_dim")
    if over and under:
        return float((0.1 * over * math.log(factor) + 1) / (0.1 * under * math.log(factor) + 1))
    return float(0.1 * math.log(factor) + 1)


def rope_tables(positions: jax.Array, length: int, dim: int, theta: float, scaling: Mapping[str, Any] | None) -> Rope:
    """cos, sin: f32[B,S,R/2] for int32[B,S] positions, all of them below `length`; dim, theta, scaling as in
    `rope_frequencies`.

    On CPUs they are looked up in constants (NaN for a position that is not below `length`): XLA:CPU puts what is computed here
    into every loop that turns queries or keys and computes it there anew, for each head.
    """
    frequencies, amplitude = rope_frequencies(dim, theta, scaling), np.float32(rope_amplitude(scaling))

    def looked_up(positions: jax.Array) -> Rope:
        angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
        cos, sin = (jnp.take(amplitude * turn(angles), positions, axis=0, mode="fill") for turn in (np.cos, np.sin))
        return cos, sin

    def computed(positions: jax.Array) -> Rope:
        angles = positions[..., None].astype(jnp.float32) * frequencies
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        return (cos, sin) if amplitude == 1.0 else (cos * amplitude, sin * amplitude)

    rope: Rope = jax.lax.platform_dependent(positions, cpu=looked_up, default=computed)
    return rope


def no_turn(rope: Rope) -> Rope:
    """Tables of the same shape under which nothing turns: `rotate` gives back what it got, bit for bit."""
    return jnp.ones_like(rope[0]), jnp.zeros_like(rope[1])


def grid_tables(grid: int, head_dim: int, theta: float, leading: int) -> Rope:
    """cos, sin: f32[1,S,K/2] of [leading tokens that don't turn | grid x grid patches in reading order] (arXiv 2508.10104).

    A patch is where its centre lies, from -1 to 1 along each side whatever the number of patches: that is how an image of
    another size is taken. A quarter of a head turns with the row, a quarter with the column.
    """
    frequencies = 1.0 / theta ** np.arange(0, 1, 4 / head_dim, dtype=np.float32)
    centre = (2 * ((np.arange(grid, dtype=np.float32) + 0.5) / grid) - 1) * np.float32(2 * math.pi)
    row, column = np.repeat(centre, grid), np.tile(centre, grid)
    angles = np.concatenate([row[:, None] * frequencies, column[:, None] * frequencies], axis=1)
    angles = np.concatenate([np.zeros((leading, head_dim // 2), np.float32), angles])[None]
    return jnp.asarray(np.cos(angles)), jnp.asarray(np.sin(angles))  # constants, as in `rope_tables`


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Turns the first R dimensions of x [B,H,S,K] by its positions, halves paired as in Llama and Qwen."""
    turning, rest = x[..., : 2 * cos.shape[-1]], x[..., 2 * cos.shape[-1] :]
    first, second = jnp.split(turning.astype(jnp.float32), 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
    return turned if not rest.shape[-1] else jnp.concatenate([turned, rest], axis=-1)
