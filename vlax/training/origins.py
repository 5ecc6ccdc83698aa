"""Where each part of a stage's model comes from: a parent stage, pretrained weights, or fresh initial values.

stage.init value     read from
fresh                run.model (shapes), run.seed (values)
pretrained           run.vision / run.decoder: a vlax export, or a checkpoint in Hugging Face layout (directory or hub id)
a stage's name       WORKDIR/STAGE/hf/PART where that stage wrote the part in Hugging Face layout, else WORKDIR/STAGE/export
"""

import contextlib
import dataclasses
import functools
import json
import logging
import math
from collections.abc import Iterator

import jax
import numpy as np
from etils import epath

from vlax.data.batches.mixture import SHARES
from vlax.data.readers.faults import Faults
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.model import exports
from vlax.models.decoder import DecoderConfig
from vlax.models.lora import LoRAConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.params import groups
from vlax.pretrained.reading import loader
from vlax.rows import RowFault
from vlax.storage.state import load_json
from vlax.text import tokenizer
from vlax.text.bpe import train_bpe
from vlax.text.prompts import spans
from vlax.training.stages import StagePlan


@dataclasses.dataclass(frozen=True)
class Origin:
    """kind: "fresh", "export" (a vlax export), "hf" (Hugging Face layout) or "pending" (a parent stage that is not finished:
    its shapes are run.model's, its parameters do not exist yet); where: the directory or hub id; export: the vlax export whose
    manifest says with which tokenizer and prompts the part was trained, "" where there is none."""

    kind: str
    where: str = ""
    export: str = ""


MOST_ROWS = 50_000  # of a source that a vocabulary is made of, unless run.bpe_text says which text
Shardings = dict[str, jax.sharding.NamedSharding]  # by parameter path
Origins = dict[str, Origin]  # by part: what a Session is built from, and carries


def find(plan: StagePlan) -> Origins:
    """The Origin of every part of a stage's model; VlaxError when one is pretrained and no directory was given."""
    return {part: _find(plan, part) for part in plan.stage.init}


def _find(plan: StagePlan, part: str) -> Origin:
    name = plan.stage.init[part]
    if name == "fresh":
        return Origin("fresh")
    if name == "pretrained":
        where = plan.run.get(part, "")
        if not where:
            raise VlaxError(f"stage {plan.name} wants a pretrained {part}: pass --config.run.{part}=DIR")
        own = (epath.Path(where) / "manifest.json").exists()
        return Origin("export", where, where) if own else Origin("hf", where)
    written, export = plan.parents[part] / "hf" / part, plan.parents[part] / "export"
    if (written / "config.json").exists():
        return Origin("hf", str(written), str(export))
    return Origin("export" if (export / "manifest.json").exists() else "pending", str(export), str(export))


def model_config(plan: StagePlan, origins: Origins, vocab: int) -> VLMConfig:
    """The shapes of a stage's model, each part's by its origin; parts that stage.init does not name are absent.

    vocab: tokens of the tokenizer, which the decoder's embedding must hold.
    """
    stage = plan.stage
    mask = stage.mask or plan.run.mask
    try:
        decoder = _decoder(plan, origins["decoder"], vocab)
        if stage.lora.rank:
            decoder = dataclasses.replace(decoder, lora=LoRAConfig(**stage.lora))
        if vocab > decoder.vocab_size:
            raise VlaxError(
                f"the tokenizer has {vocab} tokens, the decoder's embedding {decoder.vocab_size} rows; they must fit"
            )
        if "vision" not in stage.init:
            return VLMConfig(decoder, mask=mask)
        vision, preprocess = _vision(plan, origins["vision"])
        projector = _projector(plan, origins["projector"], vision, decoder)
        return VLMConfig(decoder, vision, projector, mask, preprocess)
    except (TypeError, ValueError) as error:
        text = str(error).split("__init__() ")[-1]
        raise VlaxError(f"run.model: {text}; the fields are those of vlax/models") from None


def _decoder(plan: StagePlan, origin: Origin, vocab: int) -> DecoderConfig:
    run = plan.run
    if origin.kind == "export":
        return exports.read_config(origin.where).decoder
    if origin.kind == "hf":
        return loader.decoder_config(origin.where, vocab_size=run.vocab_size or None)
    shapes = {**run.model.decoder, **(run.model.captioner if plan.stage.captioner else {})}
    shapes["vocab_size"] = shapes["vocab_size"] or math.ceil((vocab + 1) / 16) * 16  # one row to spare, for <image>
    return DecoderConfig(**shapes)


def _vision(plan: StagePlan, origin: Origin) -> tuple[VisionConfig, Preprocess | None]:
    size = plan.run.image_size or None
    if origin.kind == "export":
        tower = exports.read_config(origin.where).tower
        return tower.vision, tower.preprocess
    if origin.kind == "hf":
        return loader.vision_config(origin.where, image_size=size), loader.preprocess(origin.where, image_size=size)
    return VisionConfig(**plan.run.model.vision), None


def _projector(plan: StagePlan, origin: Origin, vision: VisionConfig, decoder: DecoderConfig) -> ProjectorConfig:
    if origin.kind == "export":
        return exports.read_config(origin.where).tower.projector
    return ProjectorConfig(vision_width=vision.width, width=decoder.width, **plan.run.model.projector)


def load_part(
    origin: Origin, part: str, config: VLMConfig, shardings: Shardings | None = None, *, say: bool = False
) -> groups.Params:
    """{path: array} of a part as its origin stores it: numpy without `shardings`, else placed by them. Not for fresh parts.

    say: log the load report.
    """
    if origin.kind == "export":
        return exports.load_params(origin.where, shardings, (part,))

    def place(path: str, value: np.ndarray) -> np.ndarray | jax.Array:
        return value if shardings is None else jax.device_put(value, shardings[path])

    if part == "vision":
        size = config.tower.vision.image_size
        _, params, report = loader.load_vision(origin.where, image_size=size, dtype=None, place=place)
    else:
        _, params, report = loader.load_decoder(origin.where, vocab_size=config.decoder.vocab_size, dtype=None, place=place)
    if say:
        logging.info("%s: %s", part, report.summary())
    return params


def load_tokenizer(plan: StagePlan, decoder: Origin) -> tokenizer.Tokenizer:
    """The chain's tokenizer: a finished parent's, run.tokenizer, the pretrained decoder's, or a BPE trained on run.bpe_text, by
    default the training text of the chain's first stage.

    Every stage of a chain sees the same one: the BPE is a pure function of the config and of the data.
    """
    run = plan.run
    for parent in plan.parents.values():
        if (parent / "export" / "manifest.json").exists():
            return exports.read_tokenizer(parent / "export")
    if decoder.kind == "export":
        return exports.read_tokenizer(decoder.where)
    if run.tokenizer or decoder.kind == "hf":
        rows = _decoder(plan, decoder, 0).vocab_size if decoder.kind == "hf" else run.model.decoder.vocab_size or 1 << 30
        flag = "--config.run.tokenizer=DIR" if run.tokenizer else tokenizer.FLAG
        return tokenizer.load_tokenizer(run.tokenizer or decoder.where, rows, flag)
    most = 0 if run.bpe_text else MOST_ROWS
    mixed = run.bpe_text or (plan.stage.mixture if plan.first is None else plan.first)
    specs = {name: {key: value for key, value in spec.items() if key not in SHARES} for name, spec in mixed.to_dict().items()}
    return _embedded_tokenizer(json.dumps(specs, sort_keys=True), run.data_root, run.templates, run.bpe_vocab, most)


@functools.lru_cache(maxsize=2)
def _embedded_tokenizer(bpe_text: str, data_root: str, templates: str, vocab: int, most: int) -> tokenizer.Tokenizer:
    """The BPE trained on some sources (JSON: specs by name), once a process. most: rows of each, evenly spaced; 0: all."""
    faults = Faults(collect=True)  # faulty rows are no text to learn from, listed or not: the vocabulary is the same
    sources = [open_source(spec, data_root, train=True, faults=faults) for spec in load_json("run.bpe_text", bpe_text).values()]

    def texts() -> Iterator[str]:
        for source in sources:
            size = len(source)
            places = range(size) if not most or size <= most else (at * size // most for at in range(most))
            for row in map(source.__getitem__, places):
                with contextlib.suppress(RowFault):
                    yield "".join(text for text, _ in spans(row, templates))

    return train_bpe(texts(), vocab)
