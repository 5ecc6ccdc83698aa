"""Where each part of a stage's model comes from: a parent stage, a whole model, pretrained weights, or fresh initial values.

stage.init value     read from
fresh                run.shapes, run.seed (values)
model                run.model: a vlax export, or a whole model in Hugging Face layout (directory or hub id)
pretrained           run.vision / run.decoder: a vlax export, or a checkpoint in Hugging Face layout (directory or hub id)
forked               WORKDIR/STAGE/forked: what `lineage.py` took of another run
a stage's name       WORKDIR/STAGE/hf/PART where that stage wrote the part in Hugging Face layout, else WORKDIR/STAGE/export
"""

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Iterator

from etils import epath

from vlax.data.batches.mixture import SHARES
from vlax.data.readers.faults import Faults
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.model import exports, opening
from vlax.models.decoder import DecoderConfig
from vlax.models.lora import LoRAConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.pretrained.reading import loader
from vlax.rows import RowFault
from vlax.storage.state import load_json
from vlax.text import tokenizer
from vlax.text.bpe import train_bpe
from vlax.text.exchanges import spans
from vlax.text.templates import named
from vlax.training.stages import FORKED, USUAL, StagePlan


@dataclasses.dataclass(frozen=True)
class Origin:
    """kind: "fresh", "export" (a vlax export), "hf" (Hugging Face layout), "whole" (the same, of a whole model) or "pending" (a
    parent stage that is not finished: its shapes are run.shapes, its parameters do not exist yet); where: the directory or hub
    id; export: the vlax export whose manifest says with which tokenizer and prompts the part was trained, "" where there is
    none."""

    kind: str
    where: str = ""
    export: str = ""


MOST_ROWS = 50_000  # of a source that a vocabulary is made of, unless run.bpe_text says which text
Origins = dict[str, Origin]  # by part: what a Session is built from, and carries


def find(plan: StagePlan) -> Origins:
    """The Origin of every part of a stage's model; VlaxError when one is pretrained and no directory was given."""
    return {part: _find(plan, part) for part in plan.stage.init}


def _find(plan: StagePlan, part: str) -> Origin:
    name = plan.stage.init[part]
    if name == "fresh":
        return Origin("fresh")
    if name == FORKED:
        where = str(plan.directory / FORKED)
        return Origin("export", where, where)
    if name == "model":
        where = plan.run.model
        if not where:
            raise VlaxError(f"stage {plan.name} starts from a whole model: pass --config.run.model=DIR, {opening.KINDS}")
        return Origin("export", where, where) if opening.is_export(where) else Origin("whole", where)
    if name == "pretrained":
        if part == "projector":
            raise VlaxError(
                f"stage {plan.name} wants a pretrained projector, which comes with a whole model alone: pass "
                "--config.run.model=DIR --config.stage.init.projector=model, or leave it fresh"
            )
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
    try:
        decoder = _decoder(plan, origins["decoder"], vocab)
        if stage.lora.rank:
            decoder = dataclasses.replace(decoder, lora=LoRAConfig(**stage.lora))
        if vocab > decoder.vocab_size:
            raise VlaxError(
                f"the tokenizer has {vocab} tokens, the decoder's embedding {decoder.vocab_size} rows; they must fit"
            )
        mask = stage.mask or plan.run.mask or (_models(plan, origins["decoder"]).mask if plan.leader else USUAL["mask"])
        if "vision" not in stage.init:
            return VLMConfig(decoder, mask=mask)
        vision, preprocess = _vision(plan, origins["vision"])
        projector = _projector(plan, origins["projector"], vision, decoder)
        if (projector.vision_width, projector.width) != (vision.width, decoder.width):
            raise VlaxError(
                f"stage {plan.name}: the projector of {origins['projector'].where} joins features of width "
                f"{projector.vision_width} to a decoder of width {projector.width}, and these have {vision.width} and "
                f"{decoder.width}; take all three from one model, or pass --config.stage.init.projector=fresh"
            )
        tiles = plan.run.tiles or (_models(plan, origins["decoder"]).tiles if plan.leader else 0)
        preprocess = _parts(preprocess, plan.run.tiles, projector)
        return VLMConfig(decoder, vision, projector, mask, preprocess, max(tiles, 0))
    except (TypeError, ValueError) as error:
        text = str(error).split("__init__() ")[-1]
        raise VlaxError(f"run.shapes: {text}; the fields are those of vlax/models") from None


def _parts(preprocess: Preprocess | None, tiles: int, projector: ProjectorConfig) -> Preprocess | None:
    """With the parts that run.tiles allows, of a model that sews them (`vlax/images/anyres.py`), which takes its projector."""
    if preprocess is None or preprocess.anyres is None or tiles < 0 or not projector.newline:
        return preprocess and dataclasses.replace(preprocess, anyres=None)
    return dataclasses.replace(preprocess, anyres=preprocess.anyres.within(tiles)) if tiles else preprocess


def _models(plan: StagePlan, origin: Origin) -> VLMConfig:
    """The shapes of a whole model that lies somewhere, at run.image_size and run.vocab_size."""
    size, rows = plan.run.image_size or None, plan.run.vocab_size or None
    if origin.kind == "whole":
        return loader.vlm_config(origin.where, image_size=size, vocab_size=rows)
    c = exports.read_config(origin.where)
    c = dataclasses.replace(c, decoder=loader.grown(c.decoder, rows, origin.where))
    if c.vision is None or size in (None, c.vision.image_size):
        return c
    vision = loader.resized(c.vision, size)
    return dataclasses.replace(c, vision=vision, preprocess=c.tower.preprocess.at(vision.image_size))


def _decoder(plan: StagePlan, origin: Origin, vocab: int) -> DecoderConfig:
    run = plan.run
    if origin.kind in ("export", "whole"):
        return _models(plan, origin).decoder
    if origin.kind == "hf":
        return loader.decoder_config(origin.where, vocab_size=run.vocab_size or None)
    shapes = {**run.shapes.decoder, **(run.shapes.captioner if plan.stage.captioner else {})}
    shapes["vocab_size"] = shapes["vocab_size"] or math.ceil((vocab + 1) / 16) * 16  # one row to spare, for <image>
    return DecoderConfig(**shapes)


def _vision(plan: StagePlan, origin: Origin) -> tuple[VisionConfig, Preprocess | None]:
    size = plan.run.image_size or None
    if origin.kind in ("export", "whole"):
        tower = _models(plan, origin).tower
        return tower.vision, tower.preprocess
    if origin.kind == "hf":
        return loader.vision_config(origin.where, image_size=size), loader.preprocess(origin.where, image_size=size)
    return VisionConfig(**plan.run.shapes.vision), None


def _projector(plan: StagePlan, origin: Origin, vision: VisionConfig, decoder: DecoderConfig) -> ProjectorConfig:
    if origin.kind in ("export", "whole"):
        return _models(plan, origin).tower.projector
    return ProjectorConfig(vision_width=vision.width, width=decoder.width, **plan.run.shapes.projector)


def leading(plan: StagePlan, found: Origins) -> str:
    """The whole model that a stage starts from; "" where there is none."""
    return found["decoder"].where if plan.leader else ""


def templates(plan: StagePlan, decoder: Origin, tokens: tokenizer.Tokenizer) -> str:
    """The prompt templates of a stage: run.templates, else those of the whole model that it starts from, else plain."""
    return plan.run.templates or (opening.templates_of(decoder.where, tokens) if plan.leader else USUAL["templates"])


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
    there = decoder.kind in ("hf", "whole")
    if run.tokenizer or there:
        rows = _decoder(plan, decoder, 0).vocab_size if there else run.shapes.decoder.vocab_size or 1 << 30
        flag = "--config.run.model=DIR" if decoder.kind == "whole" else tokenizer.FLAG
        flag = "--config.run.tokenizer=DIR" if run.tokenizer else flag
        return tokenizer.load_tokenizer(run.tokenizer or decoder.where, rows, flag)
    most = 0 if run.bpe_text else MOST_ROWS
    mixed = run.bpe_text or (plan.stage.mixture if plan.first is None else plan.first)
    specs = {name: {key: value for key, value in spec.items() if key not in SHARES} for name, spec in mixed.to_dict().items()}
    templates = run.templates or USUAL["templates"]
    return _embedded_tokenizer(json.dumps(specs, sort_keys=True), run.data_root, templates, run.bpe_vocab, most)


@functools.lru_cache(maxsize=2)
def _embedded_tokenizer(bpe_text: str, data_root: str, templates: str, vocab: int, most: int) -> tokenizer.Tokenizer:
    """The BPE trained on some sources (JSON: specs by name), once a process. most: rows of each, evenly spaced; 0: all."""
    faults = Faults(collect=True)  # faulty rows are no text to learn from, listed or not: the vocabulary is the same
    sources = [open_source(spec, data_root, train=True, faults=faults) for spec in load_json("run.bpe_text", bpe_text).values()]

    name, own, _ = named(templates)

    def texts() -> Iterator[str]:
        for source in sources:
            size = len(source)
            places = range(size) if not most or size <= most else (at * size // most for at in range(most))
            for row in map(source.__getitem__, places):
                with contextlib.suppress(RowFault):
                    yield "".join(text for text, _ in spans(row, own.prompts or name))

    return train_bpe(texts(), vocab)
