"""Permutations that are never in memory: where an index goes is computed from the index alone.

    shuffled(np.arange(8), 8, key(0, "pass", 2))      a permutation of 0..7, another one for another key

A Feistel network over just as many bits as the largest index has, walked until it comes back into the range (Black and Rogaway,
Ciphers with Arbitrary Finite Domains, 2002). Integers alone, so that every machine computes the same; whatever this file gives
today it must give for ever: runs that were started with it go on by it.

Not `grain.experimental.index_shuffle`, which does the same one index a call (8 us): of 65,537 rows, 262,145 and every other
2**even + 1 it gives one twice and another never (grain 0.2.18), and its keys have 32 bits.
"""

import hashlib
import json

import numpy as np

LEAST_BITS = 6  # smaller networks have too few permutations to look random
ROUNDS = 6  # an even number; four pass for random (Luby and Rackoff, 1988) where halves are large, and here they may have 1 bit
_MIX = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)  # of MurmurHash3's 64-bit finalizer
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 by the golden ratio: how SplitMix64 counts
_STEPS = np.array([[number * _GOLDEN % 2**64] for number in range(ROUNDS)], np.uint64)
_32, _64 = np.uint64(32), np.uint64(64)


def key(*words: int | str) -> int:
    """64 bits that stand for these words."""
    return int.from_bytes(hashlib.sha256(json.dumps(words).encode()).digest()[:8], "big")


def numbered(base: int | np.ndarray, number: np.ndarray) -> np.ndarray:
    """uint64, as many as `number` (int64): the key of each number under its base key, such as that of a source's passes."""
    return mixed(np.asarray(base, np.uint64) ^ mixed(number.astype(np.uint64) * np.uint64(_GOLDEN)))


def mixed(value: np.ndarray) -> np.ndarray:
    """uint64[n] -> uint64[n]: another number for each number, every bit of which depends on all bits."""
    value = (value ^ (value >> _32)) * _MIX[0]
    value = (value ^ (value >> _32)) * _MIX[1]
    return value ^ (value >> _32)


def shuffled(index: np.ndarray, size: int | np.ndarray, keys: int | np.ndarray) -> np.ndarray:
    """int64[n]: for each index (int64[n], 0..size-1) its place in the permutation of range(size) that its key stands for.

    size, keys: one for all or one for each; sizes up to 2**62.
    """
    sizes = np.broadcast_to(np.asarray(size, np.uint64), index.shape)
    _, bits = np.frexp((sizes - np.uint64(1)).astype(np.float64))  # exact up to 2**53; above, at most one bit more
    high, keys = np.maximum(bits, LEAST_BITS).astype(np.uint64), np.asarray(keys, np.uint64)
    low = high >> np.uint64(1)
    high = high - low
    rounds = np.broadcast_to(mixed(keys + _STEPS), (ROUNDS, *index.shape))
    out = _feistel(index.astype(np.uint64), high, low, rounds)
    outside = np.flatnonzero(out >= sizes)
    while len(outside):
        again = _feistel(out[outside], high[outside], low[outside], rounds[:, outside])
        out[outside] = again
        outside = outside[again >= sizes[outside]]
    return out.astype(np.int64)


def _feistel(value: np.ndarray, high: np.ndarray, low: np.ndarray, rounds: np.ndarray) -> np.ndarray:
    """A permutation of 0..2**(high + low)-1: each half in turn is XORed with a mix of the other half and the round's key."""
    above, below = _64 - high, _64 - low
    left, right = value >> low, (value << below) >> below
    for even, odd in zip(rounds[::2], rounds[1::2], strict=True):
        left = left ^ (_half_mixed(right ^ even) >> above)
        right = right ^ (_half_mixed(left ^ odd) >> below)
    return (left << low) | right


def _half_mixed(value: np.ndarray) -> np.ndarray:
    """Its upper bits depend on all of `value`."""
    value = value * _MIX[0]
    return (value ^ (value >> _32)) * _MIX[1]
