"""Pretrained weights in: Hugging Face safetensors -> {path: array}, streamed tensor by tensor.

Host memory stays under the bytes of the parameters plus the largest tensor. Every error of a checkpoint is raised before the first
weight is read; `vision_config`, `decoder_config` and `vlm_config` raise the same ones and read no weights at all.

    config, params, report = load_decoder("path/to/Qwen2.5-0.5B", dtype=jnp.bfloat16)
    print(report.summary())
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vlax.errors import VlaxError
from vlax.models.decoder import Decoder, DecoderConfig
from vlax.models.projector import Projector
from vlax.models.vision import VisionConfig, VisionTower
from vlax.models.vlm import VLMConfig
from vlax.pretrained import llava, paligemma, positions
from vlax.pretrained.families import DECODER, NESTED_DECODER, NESTED_VISION, VISION, tower
from vlax.pretrained.files import local_directory, read_config
from vlax.pretrained.images import Preprocess, load_preprocess
from vlax.pretrained.plan import Part, Step, make
from vlax.pretrained.report import LoadReport
from vlax.pretrained.rules import Family, hidden_state
from vlax.pretrained.tensors import Stored, headers

WHOLE = {kind: model for model in (paligemma.MODEL, llava.MODEL) for kind in model.model_types}
VISION_FLAG, DECODER_FLAG = "--config.run.vision=DIR", "--config.run.decoder=DIR"
WHOLE_FLAG = "vlax.from_pretrained(DIR)"

Dtype = np.dtype | type | str | Callable[[str], object] | None
Place = Callable[[str, np.ndarray], object]


@dataclasses.dataclass
class Source:
    """A checkpoint whose config is understood: what to build, the parts to read, how shapes may change."""

    directory: Path
    config: VisionConfig | DecoderConfig | VLMConfig
    parts: list[Part]
    preprocess: Preprocess | None = None
    antialias: bool = False

    def fits(self) -> dict[str, Callable]:
        """Parameters that may come in another shape, and which: a square grid of positions, a smaller vocabulary."""
        return {
            "vision/position": lambda have, want: have[1] == want[1],
            "decoder/embedding": lambda have, want: have[0] < want[0] and have[1] == want[1],
            "decoder/head": lambda have, want: have[1] < want[1] and have[0] == want[0],
        }

    def fit(self, path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if path == "vision/position":
            leading = int(next(c.class_token for c in (self.config, getattr(self.config, "vision", None)) if hasattr(c, "class_token")))
            return positions.resample(value, shape[0] - leading, leading, self.antialias)
        return grow(value, shape)

    def plan(self, dtype: Dtype) -> tuple[list[Step], dict[str, Stored], LoadReport]:
        stored = headers(self.directory)
        steps, report = make(stored, self.parts, self.fits(), str(self.directory), _wanted(dtype))
        return steps, stored, report

    def load(self, dtype: Dtype, place: Place | None) -> tuple[dict, LoadReport]:
        steps, stored, report = self.plan(dtype)
        wanted, params = _wanted(dtype), {}
        for step in steps:
            values = step.rule.read([stored[name].read() for name in step.tensors])
            for path, value, shape in zip(step.paths, values, step.shapes, strict=True):
                if value.shape != shape:
                    value = self.fit(path, value, shape)
                kind = value.dtype if wanted(path) is None else jnp.dtype(wanted(path))
                value = np.asarray(value, kind, order="C")
                params[path] = value if place is None else place(path, value)
        return params, report


def _wanted(dtype: Dtype) -> Callable[[str], object]:
    """path -> dtype; None keeps the stored one."""
    if dtype is None or not callable(dtype) or isinstance(dtype, type):
        return lambda path: dtype
    return dtype


def grow(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A table [V,D] or [D,V] for a larger vocabulary: the new entries are the mean of the old, which no token prefers."""
    axis = 0 if value.shape[0] != shape[0] else 1
    out = np.empty(shape, value.dtype)
    out[...] = value.mean(axis=axis, keepdims=True, dtype=np.float32)
    out[tuple(slice(n) for n in value.shape)] = value
    return out
