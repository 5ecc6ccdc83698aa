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
from pathlib import Path

import numpy as np

from vlax.errors import VlaxError
from vlax.models.decoder import Decoder, DecoderConfig
from vlax.models.projector import Projector
from vlax.models.vision import VisionConfig, VisionTower
from vlax.models.vlm import VLMConfig
from vlax.pretrained.families import llava, paligemma
from vlax.pretrained.families.known import DECODER, NESTED_DECODER, NESTED_VISION, VISION, tower
from vlax.pretrained.families.rules import Family, Rule, hidden_state, side
from vlax.pretrained.reading.image_settings import Preprocess, load_preprocess
from vlax.pretrained.reading.load_plan import Part
from vlax.pretrained.reading.load_report import LoadReport
from vlax.pretrained.reading.source import C, Dtype, Place, Source
from vlax.storage.hub import local_directory, read_config

WHOLE = {kind: model for model in (paligemma.MODEL, llava.MODEL) for kind in model.model_types}
FLAGS = {"vision": "--config.run.vision=DIR", "decoder": "--config.run.decoder=DIR", "whole": "vlax.from_pretrained(DIR)"}


def load_vision(
    directory, *, image_size: int | None = None, layer: int | None = None, dtype: Dtype = np.float32, place: Place | None = None
) -> tuple[VisionConfig, dict, LoadReport]:
    """(config, {"vision/...": array}, report) of a SigLIP, CLIP or DINOv2 tower, also out of a model that contains one.

    image_size  pixels a side; None is the checkpoint's. Position embeddings are resampled for another (and reported).
    layer       which of transformers' `hidden_states` are the features; None is the family's: the last layer, post-normed, for
                SigLIP and DINOv2, -2 for CLIP
    """
    source = vision_source(local_directory(directory, flag=FLAGS["vision"]), image_size, layer)
    return source.config, *source.load(dtype, place)


def load_decoder(
    directory, *, vocab_size: int | None = None, dtype: Dtype = np.float32, place: Place | None = None
) -> tuple[DecoderConfig, dict, LoadReport]:
    """(config, {"decoder/...": array}, report) of a Qwen, Llama, GPT-2, OPT or Gemma model, also out of one that contains it.

    vocab_size  a larger embedding table than the checkpoint's, to make room for new tokens: new rows are the mean of the old
    """
    source = decoder_source(local_directory(directory, flag=FLAGS["decoder"]), vocab_size)
    return source.config, *source.load(dtype, place)


def load_vlm(directory, *, dtype: Dtype = np.float32, place: Place | None = None) -> tuple[VLMConfig, dict, LoadReport]:
    """(config, all parameters, report) of a PaliGemma or LLaVA checkpoint; its mask kind is in the config."""
    source = whole_source(local_directory(directory, flag=FLAGS["whole"]))
    return source.config, *source.load(dtype, place)


def vision_config(directory, *, image_size: int | None = None, layer: int | None = None) -> VisionConfig:
    """What `load_vision` would build; of a hub id only small files are fetched, of a directory weight headers are checked."""
    local = local_directory(directory, flag=FLAGS["vision"], weights=False)
    return _checked(vision_source(local, image_size, layer), directory)


def decoder_config(directory, *, vocab_size: int | None = None) -> DecoderConfig:
    """What `load_decoder` would build; checks as `vision_config` does."""
    return _checked(decoder_source(local_directory(directory, flag=FLAGS["decoder"], weights=False), vocab_size), directory)


def vlm_config(directory) -> VLMConfig:
    """What `load_vlm` would build; checks as `vision_config` does."""
    return _checked(whole_source(local_directory(directory, flag=FLAGS["whole"], weights=False)), directory)


def preprocess(directory, *, image_size: int | None = None) -> Preprocess:
    """How the checkpoint of a vision tower or a whole model prepares images, at its own or another size."""
    local = local_directory(directory, flag=FLAGS["vision"], weights=False)
    family, hf = tower(read_config(local, [*VISION, *NESTED_VISION]), "vision_config", VISION, NESTED_VISION)
    return _preprocess(local, family, hf).at(image_size or family.config(hf).image_size)


def _preprocess(directory: Path, family: Family, hf: dict) -> Preprocess:
    return load_preprocess(directory, Preprocess(side(hf["image_size"]), mean=family.mean, std=family.std))


def _checked(source: Source[C], name: str | Path) -> C:
    if Path(name).expanduser().is_dir():
        source.plan()
    return source.config


def _minus(whole: list[Rule], used: list[Rule]) -> list[Rule]:
    names = {name for rule in used for name in rule.tensors}
    return [rule for rule in whole if not names & set(rule.tensors)]


def _vision_part(family: Family, full: VisionConfig, c: VisionConfig) -> Part:
    rules = family.rules(c)
    unused = _minus(family.rules(full), rules)
    return Part("vision/", family.anchor, lambda rngs: VisionTower(c, rngs=rngs), rules, unused, family.ignored, family.outside)


def _decoder_part(family: Family, c: DecoderConfig) -> Part:
    # A tied model may carry its head all the same; it is a copy of the embedding.
    outside = (*family.outside, *((r"(.*\.)?lm_head\.weight",) if c.tied else ()))
    return Part("decoder/", family.anchor, lambda rngs: Decoder(c, rngs=rngs), family.rules(c), [], family.ignored, outside)


def _alone(part: Part, hf: dict) -> Part:
    """Out of a whole model one tower is read: everything beside it is ignored."""
    return dataclasses.replace(part, alone=hf["model_type"] in WHOLE)


def vision_source(directory: Path, image_size: int | None, layer: int | None) -> Source[VisionConfig]:
    hf = read_config(directory, [*VISION, *NESTED_VISION])
    family, sub = tower(hf, "vision_config", VISION, NESTED_VISION)
    full = family.config(sub)
    if layer is None:  # an export of vlax says which where it is not the family's usual one
        layer = (sub.get("vlax") or {}).get("layer", family.layer)
    c = full if layer is None else hidden_state(full, layer)
    settings = _preprocess(directory, family, sub)
    c = dataclasses.replace(c, image_size=image_size or c.image_size, mean=settings.mean, std=settings.std)
    if c.image_size < c.patch_size:
        raise VlaxError(f"image_size={c.image_size} is smaller than the tower's patches of {c.patch_size}; give at least that")
    return Source(directory, c, [_alone(_vision_part(family, full, c), hf)], int(c.class_token), family.antialias)


def decoder_source(directory: Path, vocab_size: int | None) -> Source[DecoderConfig]:
    hf = read_config(directory, [*DECODER, *NESTED_DECODER])
    family, sub = tower(hf, "text_config", DECODER, NESTED_DECODER)
    c = family.config(sub | {"tie_word_embeddings": hf["tie_word_embeddings"]})
    if vocab_size is not None and vocab_size < c.vocab_size:
        raise VlaxError(f"vocab_size={vocab_size} is smaller than the {c.vocab_size} rows of {directory}; give at least that")
    c = dataclasses.replace(c, vocab_size=vocab_size or c.vocab_size)
    return Source(directory, c, [_alone(_decoder_part(family, c), hf)])


def whole_source(directory: Path) -> Source[VLMConfig]:
    hf = read_config(directory, WHOLE)
    model = WHOLE[hf["model_type"]]
    vision_family, vision_hf = tower(hf, "vision_config", VISION, NESTED_VISION)
    decoder_family, decoder_hf = tower(hf, "text_config", DECODER, NESTED_DECODER)
    full = vision_family.config(vision_hf)
    decoder = decoder_family.config(decoder_hf | {"tie_word_embeddings": hf["tie_word_embeddings"]})
    c = model.config(hf, full, decoder)
    settings = _preprocess(directory, vision_family, vision_hf)
    vision = dataclasses.replace(c.tower.vision, mean=settings.mean, std=settings.std)
    c = dataclasses.replace(c, vision=vision, preprocess=settings.at(vision.image_size))
    joint = c.tower.projector
    projector = Part("projector/", model.anchor, lambda rngs: Projector(joint, rngs=rngs), model.rules(joint))
    parts = [_vision_part(vision_family, full, vision), projector, _decoder_part(decoder_family, decoder)]
    return Source(directory, c, parts, int(vision.class_token), vision_family.antialias)
