"""Pretrained weights in: Hugging Face safetensors -> {path: array}, streamed tensor by tensor.

Host memory stays under the bytes of the parameters plus the largest tensor. Every error of a checkpoint is raised before the
first weight is read; `vision_config`, `decoder_config` and `vlm_config` raise the same ones and read no weights at all.

    config, params, report = load_decoder("path/to/Qwen2.5-0.5B", dtype=jnp.bfloat16)
    print(report.summary())

Arguments that the three loads share:

    directory   a directory in Hugging Face layout, or a hub id (org/name)
    dtype       of the parameters; a function of the path where they differ; None keeps what is stored
    place       called as place(path, numpy array) for every parameter, in file order; what it returns is kept. The trainer's
                puts the array on the devices with its sharding, so that the host never holds the model. None keeps numpy.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vlax.errors import VlaxError
from vlax.models.decoder import Decoder, DecoderConfig
from vlax.models.projector import Projector
from vlax.models.vision import VisionConfig, VisionTower
from vlax.models.vlm import VLMConfig
from vlax.pretrained.families.known import DECODER, NESTED_DECODER, NESTED_VISION, VISION, WHOLE, language_tower, vision_tower
from vlax.pretrained.families.rules import Family, Rule, hidden_state
from vlax.pretrained.reading.image_settings import Preprocess, load_preprocess
from vlax.pretrained.reading.load_plan import Part
from vlax.pretrained.reading.load_report import LoadReport
from vlax.pretrained.reading.source import Dtype, Place, Source
from vlax.pretrained.reading.tensors import AGAIN
from vlax.storage.hub import local_directory, read_config
from vlax.storage.state import understood

T = TypeVar("T")
Name = str | Path  # a directory or a hub id
FLAGS = {
    "vision": "--config.run.vision=DIR",
    "decoder": "--config.run.decoder=DIR",
    "whole": "vlax.from_pretrained(DIR) or --config.run.model=DIR",
}


def load_vision(
    directory: Name,
    *,
    image_size: int | None = None,
    layer: int | None = None,
    dtype: Dtype = np.float32,
    place: Place | None = None,
) -> tuple[VisionConfig, dict[str, Any], LoadReport]:  # fmt: skip
    """(config, {"vision/...": array}, report) of a tower (SigLIP, CLIP, DINO, ...), also out of a model that has one.

    image_size  pixels a side; None is the checkpoint's. Position embeddings are resampled for another (and reported).
    layer       which of transformers' `hidden_states` are the features; None is the family's: the last layer, post-normed, for
                SigLIP and DINOv2, -2 for CLIP
    """
    return vision_source(directory, image_size, layer).load(dtype, place)


def load_decoder(
    directory: Name, *, vocab_size: int | None = None, dtype: Dtype = np.float32, place: Place | None = None
) -> tuple[DecoderConfig, dict[str, Any], LoadReport]:
    """(config, {"decoder/...": array}, report) of a language model (Qwen, Llama, Gemma, ...), also out of one that contains it.

    vocab_size  a larger embedding table than the checkpoint's, to make room for new tokens: new rows are the mean of the old
    """
    return decoder_source(directory, vocab_size).load(dtype, place)


def load_vlm(
    directory: Name,
    *,
    part: str = "",
    image_size: int | None = None,
    vocab_size: int | None = None,
    dtype: Dtype = np.float32,
    place: Place | None = None,
) -> tuple[VLMConfig, dict[str, Any], LoadReport]:  # fmt: skip
    """(config, all parameters, report) of a PaliGemma, LLaVA, SmolVLM or Gemma 3 checkpoint; its mask kind is in the config.

    part                    "vision", "projector" or "decoder": the parameters of that part alone
    image_size, vocab_size  as of `load_vision` and `load_decoder`
    """
    return whole_source(directory, image_size, vocab_size).load(dtype, place, part)


def vision_config(directory: Name, *, image_size: int | None = None, layer: int | None = None) -> VisionConfig:
    """What `load_vision` would build; of a hub id only small files are fetched, of a directory weight headers are checked."""
    return vision_source(directory, image_size, layer, weights=False).checked()


def decoder_config(directory: Name, *, vocab_size: int | None = None) -> DecoderConfig:
    """What `load_decoder` would build; checks as `vision_config` does."""
    return decoder_source(directory, vocab_size, weights=False).checked()


def vlm_config(directory: Name, *, image_size: int | None = None, vocab_size: int | None = None) -> VLMConfig:
    """What `load_vlm` would build; checks as `vision_config` does."""
    return whole_source(directory, image_size, vocab_size, weights=False).checked()


def _understood(made: Callable[..., T]) -> Callable[..., T]:
    """Of a function whose first argument is a checkpoint: nonsense in its config.json is a VlaxError that names it."""

    @functools.wraps(made)
    def inner(name: Name, *args: Any, **options: Any) -> T:
        with understood(name, AGAIN):
            return made(name, *args, **options)

    return inner


@_understood
def preprocess(directory: Name, *, image_size: int | None = None) -> Preprocess:
    """How the checkpoint of a vision tower or a whole model prepares images, at its own or another size."""
    local = local_directory(directory, flag=FLAGS["vision"], weights=False)
    family, hf = vision_tower(read_config(local, [*VISION, *NESTED_VISION]))
    return _preprocess(local, family, hf).at(image_size or family.config(hf).image_size)


def _preprocess(directory: Path, family: Family[VisionConfig], hf: dict) -> Preprocess:
    return load_preprocess(directory, Preprocess(family.config(hf).image_size, mean=family.mean, std=family.std))


def _local(name: Name, what: str, weights: bool) -> tuple[Path, bool]:
    """(local directory, whether weights are in it)"""
    return local_directory(name, flag=FLAGS[what], weights=weights), weights or Path(name).expanduser().is_dir()


def _minus(whole: list[Rule], used: list[Rule]) -> list[Rule]:
    names = {name for rule in used for name in rule.tensors}
    return [rule for rule in whole if not names & set(rule.tensors)]


def _vision_part(family: Family[VisionConfig], full: VisionConfig, c: VisionConfig, alone: bool = False) -> Part:
    rules = family.rules(c)
    unused = _minus(family.rules(full), rules)
    return Part("vision/", family.anchor, VisionTower, c, rules, unused, family.ignored, family.outside, alone)


def _decoder_part(family: Family[DecoderConfig], c: DecoderConfig, alone: bool = False) -> Part:
    # A tied model may carry its head all the same; it is a copy of the embedding.
    outside = (*family.outside, *((r"(.*\.)?lm_head\.weight",) if c.tied else ()))
    return Part("decoder/", family.anchor, Decoder, c, family.rules(c), [], family.ignored, outside, alone)


def resized(c: VisionConfig, image_size: int | None) -> VisionConfig:
    """A tower at another number of pixels a side; None keeps its own."""
    if image_size and image_size < c.patch_size:
        raise VlaxError(f"image_size={image_size} is smaller than the tower's patches of {c.patch_size}; give at least that")
    return dataclasses.replace(c, image_size=image_size or c.image_size)


def grown(c: DecoderConfig, vocab_size: int | None, where: Name) -> DecoderConfig:
    """A decoder with more embedding rows; None keeps its own."""
    if vocab_size is not None and vocab_size < c.vocab_size:
        raise VlaxError(f"vocab_size={vocab_size} is smaller than the {c.vocab_size} rows of {where}; give at least that")
    return dataclasses.replace(c, vocab_size=vocab_size or c.vocab_size)


@_understood
def vision_source(name: Name, image_size: int | None, layer: int | None, *, weights: bool = True) -> Source[VisionConfig]:
    directory, there = _local(name, "vision", weights)
    hf = read_config(directory, [*VISION, *NESTED_VISION])
    family, sub = vision_tower(hf)
    full = family.config(sub)
    if layer is None:  # an export of vlax says which where it is not the family's usual one
        layer = (sub.get("vlax") or {}).get("layer", family.layer)
    c = full if layer is None else hidden_state(full, layer)
    settings = _preprocess(directory, family, sub)
    c = dataclasses.replace(resized(c, image_size), mean=settings.mean, std=settings.std)
    part = _vision_part(family, full, c, alone=hf["model_type"] in NESTED_DECODER)
    return Source(directory, c, [part], int(c.class_token), family.resampling, there)


@_understood
def decoder_source(name: Name, vocab_size: int | None, *, weights: bool = True) -> Source[DecoderConfig]:
    directory, there = _local(name, "decoder", weights)
    hf = read_config(directory, [*DECODER, *NESTED_DECODER])
    family, sub = language_tower(hf)
    c = grown(family.config(sub), vocab_size, directory)
    return Source(directory, c, [_decoder_part(family, c, alone=hf["model_type"] in NESTED_DECODER)], weights=there)


@_understood
def whole_source(
    name: Name, image_size: int | None = None, vocab_size: int | None = None, *, weights: bool = True
) -> Source[VLMConfig]:
    directory, there = _local(name, "whole", weights)
    hf = read_config(directory, WHOLE)
    model, (family, sub), (speaker, text) = WHOLE[hf["model_type"]], vision_tower(hf), language_tower(hf)
    full = family.config(sub)
    c = model.config(hf, resized(full, image_size), grown(speaker.config(text), vocab_size, directory))
    settings = _preprocess(directory, family, sub)
    vision = dataclasses.replace(c.tower.vision, mean=settings.mean, std=settings.std)
    prepared = dataclasses.replace(settings.at(vision.image_size), anyres=c.anyres)
    c = dataclasses.replace(c, vision=vision, preprocess=prepared)
    between = c.tower.projector
    projector = Part("projector/", model.anchor, Projector, between, model.rules(between))
    parts = [_vision_part(family, full, vision), projector, _decoder_part(speaker, c.decoder)]
    return Source(directory, c, parts, int(vision.class_token), family.resampling, there)
