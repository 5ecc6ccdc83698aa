"""Resampling of a ViT's position embeddings for another image size, as the reference models do it."""

import numpy as np


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel (Keys 1981)."""
    x = np.abs(x)
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


KINDS = ("bicubic", "bicubic, antialiased", "bilinear, antialiased")  # most; DINOv2 with registers; SigLIP 2 NaFlex


def weights(source: int, target: int, kind: str) -> np.ndarray:
    """float64[target,source]: rows of interpolation weights, half-pixel centres.

    As torch's interpolate, bicubic without antialias: a = -0.75 and the border pixel repeats; antialiased: a = -0.5 or a
    triangle, the kernel widens by the scale when shrinking, and weights outside the border are dropped and the rest normalised.
    """
    scale = source / target
    centre = (np.arange(target) + 0.5) * scale
    table = np.zeros((target, source))
    if kind.endswith("antialiased"):
        offset = (np.arange(source)[None] + 0.5 - centre[:, None]) / max(scale, 1.0)
        table = _cubic(offset, -0.5) if kind.startswith("bicubic") else np.maximum(1 - np.abs(offset), 0.0)
        return table / table.sum(axis=1, keepdims=True)
    first = np.floor(centre - 0.5).astype(int)
    for tap in range(-1, 3):
        index = first + tap
        np.add.at(table, (np.arange(target), np.clip(index, 0, source - 1)), _cubic(centre - 0.5 - index, -0.75))
    return table


def resample(position: np.ndarray, tokens: int, leading: int, kind: str) -> np.ndarray:
    """[leading + n*n, D] -> [leading + tokens, D], both square grids; the first `leading` rows (class token) stay.

    kind: one of KINDS.
    """
    grid, width = position[leading:].astype(np.float64), position.shape[1]
    source, target = round(len(grid) ** 0.5), round(tokens**0.5)
    table = weights(source, target, kind)
    grid = np.einsum("ts,srd->trd", table, grid.reshape(source, source, width))
    grid = np.einsum("ts,rsd->rtd", table, grid)
    return np.concatenate([position[:leading], grid.reshape(tokens, width).astype(position.dtype)])
