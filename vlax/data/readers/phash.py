"""Fingerprints of pictures that survive resizing and another compression, and a search for near ones.

A fingerprint is a 64-bit hash and 48 bytes of colour. The hash is the sign pattern of the picture's slow grey waves: the 8 x 8
lowest frequencies of the discrete cosine transform of 32 x 32 pixels, each above or below their median (the "pHash" of Zauner,
Implementation and benchmarking of perceptual image hash functions, 2010). Pictures that differ in few bits are candidates. On
plain drawings the hash knows the outline only, a red disc from a blue one not at all: so the mean colours of 4 x 4 tiles must
agree too.

It finds copies that were resized (also out of proportion), recompressed or stored in another format. It does not find crops,
mirror images, and copies that were made brighter, greyer or framed. It takes for copies what is none: frames of one video or
burst, pages or slides of one layout. Hence the word "near duplicate": one to look at, and not dropped unless that is asked for.
"""

import itertools

import numpy as np
from PIL import Image

SIDE, WAVES, TILES = 32, 8, 4
COLOUR = 6.0  # mean difference of the tiles, in levels of 255, up to which two pictures have the same colours
PAIRS = 1 << 22  # comparisons at a time: 32 MiB

_x = np.arange(SIDE)
_COSINES = np.cos(np.pi * (2 * _x + 1) * _x[:WAVES, None] / (2 * SIDE))  # DCT-II, unscaled: the median does not mind


def fingerprint(image: Image.Image) -> tuple[int, np.ndarray]:
    """(64-bit hash, uint8[48] mean colours of 4 x 4 tiles) of an RGB picture."""
    small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=3.0), np.float64)
    waves = (_COSINES @ (small @ (0.299, 0.587, 0.114)) @ _COSINES.T).ravel()
    waves[0] = 0.0  # the mean brightness is no pattern
    bits = np.packbits(waves > np.median(waves[1:]))
    tiles = small.reshape(TILES, SIDE // TILES, TILES, SIDE // TILES, 3).mean(axis=(1, 3))
    return int.from_bytes(bits.tobytes(), "big"), np.rint(tiles).astype(np.uint8).ravel()


def distance(a: int, b: int) -> int:
    """Bits in which two hashes differ."""
    return (a ^ b).bit_count()


def nearest(
    hashes: np.ndarray, colours: np.ndarray, others: np.ndarray, other_colours: np.ndarray, within: int, earlier: bool = False
) -> np.ndarray:
    """int64[n]: for each picture the nearest of the others, or -1 where none is near; of equally near ones the first.

    hashes, others          uint64[n], uint64[m]
    colours, other_colours  uint8[n,48], uint8[m,48]
    within    bits in which the hashes may differ
    earlier   both are one collection: look only at pictures before the own one

    Two hashes that differ in d bits agree in one of d + 1 pieces (pigeonhole): only pictures that share a piece are compared.
    """
    best = np.full(len(hashes), np.iinfo(np.int64).max)  # distance * m + column
    if len(others) == 0:
        return np.full(len(hashes), -1)
    edges = np.linspace(0, 64, within + 2).astype(np.uint64)
    for low, high in itertools.pairwise(edges):
        mask = np.uint64((1 << int(high - low)) - 1)
        mine, theirs = (hashes >> low) & mask, (others >> low) & mask
        my_order, their_order = np.argsort(mine, kind="stable"), np.argsort(theirs, kind="stable")
        keys, starts = np.unique(mine[my_order], return_index=True)
        ends = np.append(starts[1:], len(mine))
        begins = np.searchsorted(theirs, keys, "left", sorter=their_order)
        stops = np.searchsorted(theirs, keys, "right", sorter=their_order)
        for group in np.flatnonzero(stops > begins):
            columns = their_order[begins[group] : stops[group]]
            chunk = max(1, PAIRS // len(columns))
            for at in range(starts[group], ends[group], chunk):
                rows = my_order[at : min(at + chunk, ends[group])]
                bits = np.bitwise_count(hashes[rows][:, None] ^ others[columns][None, :])
                near = (bits <= within) & (columns[None, :] < rows[:, None] if earlier else True)
                i, j = np.nonzero(near)
                apart = np.abs(colours[rows[i]].astype(np.int16) - other_colours[columns[j]]).mean(axis=1)
                i, j = i[apart <= COLOUR], j[apart <= COLOUR]
                np.minimum.at(best, rows[i], bits[i, j].astype(np.int64) * len(others) + columns[j])
    found = best < np.iinfo(np.int64).max
    return np.where(found, best % len(others), -1)
