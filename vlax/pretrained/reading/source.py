"""A checkpoint whose config is understood, and the streaming of its weights."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from vlax.models.decoder import DecoderConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.pretrained.reading import positions
from vlax.pretrained.reading.load_plan import Fit, Part, Step, make
from vlax.pretrained.reading.load_report import LoadReport
from vlax.pretrained.reading.tensors import AGAIN, Stored, headers
from vlax.storage.state import understood

Dtype = np.dtype | type | str | Callable[[str], object] | None
Place = Callable[[str, np.ndarray], object]
C = TypeVar("C", VisionConfig, DecoderConfig, VLMConfig)


@dataclasses.dataclass(frozen=True)
class Source(Generic[C]):
    """leading: rows of the position table before the grid (the class token's); resampling: how the family resamples the grid;
    weights: whether they are in the directory."""

    directory: Path
    config: C
    parts: list[Part]
    leading: int = 0
    resampling: str = "bicubic"
    weights: bool = True

    def plan(self, dtype: Dtype = None) -> tuple[list[Step], dict[str, Stored], LoadReport]:
        """Reads headers only; VlaxError for whatever does not fit."""
        with understood(self.directory, AGAIN):
            stored = headers(self.directory)
            steps, report = make(stored, self.parts, FITS, str(self.directory), _wanted(dtype))
        return steps, stored, report

    def checked(self) -> C:
        """The config, with headers compared where weights are there: of a hub id only small files were fetched."""
        if self.weights:
            self.plan()
        return self.config

    def load(self, dtype: Dtype, place: Place | None, part: str = "") -> tuple[C, dict[str, Any], LoadReport]:
        """part: of a whole model, "vision", "projector" or "decoder" alone; the report is about all of it."""
        steps, stored, report = self.plan(dtype)
        steps = [step for step in steps if all(path.startswith(part and f"{part}/") for path in step.paths)]
        wanted = _wanted(dtype)
        params: dict[str, Any] = {}
        for step in steps:
            values = step.rule.read([stored[name].read() for name in step.tensors])
            for path, value, shape in zip(step.paths, values, step.shapes, strict=True):
                kind = value.dtype if wanted(path) is None else jnp.dtype(wanted(path))
                if value.shape != shape:
                    value = fit(path, value, shape, self.leading, self.resampling)
                # A copy only where the layout or the dtype changes; the stored array is freed with `values`.
                value = np.asarray(value, kind, order="C")
                # Transfers are asynchronous: without waiting, the host would fill with arrays on their way.
                params[path] = value if place is None else jax.block_until_ready(place(path, value))
        return self.config, params, report


# Parameters that may come in another shape, and in which: a grid of positions of another size, a smaller vocabulary.
FITS: dict[str, Fit] = {
    "vision/position": lambda have, want: have[1] == want[1],
    "decoder/embedding": lambda have, want: have[0] < want[0] and have[1] == want[1],
    "decoder/head": lambda have, want: have[1] < want[1] and have[0] == want[0],
}


def fit(path: str, value: np.ndarray, shape: tuple[int, ...], leading: int, resampling: str) -> np.ndarray:
    """A parameter of FITS in another shape; leading, resampling: as `Source` has them."""
    if path == "vision/position":
        value = value.astype(np.float32)  # what is computed from bfloat16 is not rounded to it again
        return positions.resample(value, shape[0] - leading, leading, resampling)
    return grow(value, shape)


def grow(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A table [V,D] or head [D,V] for a larger vocabulary: the new entries are the mean of the old ones."""
    axis = 0 if value.shape[0] != shape[0] else 1
    out = np.empty(shape, value.dtype)
    out[...] = value.mean(axis=axis, keepdims=True, dtype=np.float32)
    out[tuple(slice(n) for n in value.shape)] = value
    return out


def _wanted(dtype: Dtype) -> Callable[[str], Any]:
    """path -> dtype; None keeps the stored one."""
    if callable(dtype) and not isinstance(dtype, type):
        return dtype
    return lambda path: dtype
