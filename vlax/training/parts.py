"""The parameters of one part of a model, from where `origins.py` found it."""

import logging

import jax
import numpy as np

from vlax.model import exports
from vlax.models.vlm import VLMConfig
from vlax.params import groups
from vlax.pretrained.reading import loader
from vlax.pretrained.reading.source import fit
from vlax.training.origins import Origin

Shardings = dict[str, jax.sharding.NamedSharding]  # by parameter path


def load_part(
    origin: Origin, part: str, config: VLMConfig, shardings: Shardings | None = None, *, say: bool = False
) -> groups.Params:
    """{path: array} of a part as its origin stores it: numpy without `shardings`, else placed by them. Not for fresh parts.

    say: log the load report.
    """

    def place(path: str, value: np.ndarray) -> np.ndarray | jax.Array:
        return value if shardings is None else jax.device_put(value, shardings[path])

    if origin.kind == "export":
        odd = _refitted(origin.where, part, config)
        params = exports.load_params(origin.where, shardings, (part,), without=odd)
        params.update({path: place(path, value) for path, value in odd.items()})
        return params
    if origin.kind == "whole":
        size = config.tower.vision.image_size if part == "vision" else None
        rows = config.decoder.vocab_size if part == "decoder" else None
        _, params, report = loader.load_vlm(origin.where, part=part, image_size=size, vocab_size=rows, dtype=None, place=place)
    elif part == "vision":
        size = config.tower.vision.image_size
        _, params, report = loader.load_vision(origin.where, image_size=size, dtype=None, place=place)
    else:
        _, params, report = loader.load_decoder(origin.where, vocab_size=config.decoder.vocab_size, dtype=None, place=place)
    if say:
        logging.info("%s: %s", part, report.summary())
    return params


def _refitted(where: str, part: str, config: VLMConfig) -> dict[str, np.ndarray]:
    """{path: array} of the parameters that an export has in another shape than `config`: positions of another picture size, a
    table for more tokens; fitted as those of a checkpoint in Hugging Face layout are."""
    own, shapes, leading, resampling = exports.read_config(where), dict[str, tuple[int, ...]](), 0, "bicubic"
    if part == "decoder" and own.decoder.vocab_size != config.decoder.vocab_size:
        rows, width = config.decoder.vocab_size, config.decoder.width
        shapes = {"decoder/embedding": (rows, width), "decoder/head": (width, rows)}
    elif part == "vision" and own.tower.vision.image_size != config.tower.vision.image_size:
        vision = config.tower.vision
        leading = int(vision.class_token)
        resampling = "bicubic, antialiased" if vision.registers else "bicubic"  # of those with positions, DINOv2's alone are so
        shapes = {"vision/position": (leading + vision.tokens, vision.width)}
    if not shapes:
        return {}
    stored = exports.lazy_params(where)
    odd = {path: stored[path] for path, shape in shapes.items() if path in stored and stored[path].shape != shape}
    return {
        path: np.asarray(fit(path, value.read(), shapes[path], leading, resampling), value.dtype) for path, value in odd.items()
    }
