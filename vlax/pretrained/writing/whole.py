"""Whole models out: in LLaVA's or PaliGemma's layout where the stock class computes the same, else the parts one by one.

    layout                     mask                           what runs it
    LLaVA                      causal                         the stock class
    LLaVA and generate.py      image_bidirectional            the stock class; generate.py passes it the mask
    PaliGemma                  prefix_lm, around Gemma        the stock class
    vision/ decoder/           image_sees_prompt, other       generate.py: README.md says what a stock class would get wrong
      projector.safetensors    prefix_lm, other projectors

generate.py is written beside all of them: a prompt is [image tokens | BOS, if there is one | prompt], an order that stock
processors do not make for every tokenizer, and `wording.py` says what goes around it and where an answer may end.
"""

import copy
import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase as Tokenizer

from vlax.errors import VlaxError
from vlax.models.decoder import Decoder, DecoderConfig
from vlax.models.projector import Projector, ProjectorConfig
from vlax.models.vision import VisionTower
from vlax.models.vlm import VLMConfig
from vlax.pretrained.families import fields, llava, paligemma
from vlax.pretrained.families.rules import Rule, Whole, linear, same
from vlax.pretrained.reading import source, tensors
from vlax.pretrained.reading.load_plan import HEAD
from vlax.pretrained.reading.loader import load_decoder, load_vision, preprocess
from vlax.pretrained.writing import wording, writer
from vlax.pretrained.writing.shards import LIMIT, write_file, write_tensors
from vlax.storage import hub, seal
from vlax.text import chat, tokenizer
from vlax.text.prompts import Encoder

Params = Mapping[str, Any]  # {path: array, or what has a shape, a dtype and __array__}
IMAGE = "<image>"
PROJECTOR = "projector.safetensors"

GROWN = (
    "Every row of the embedding was taken, so it has grown from {old} to {new} rows for the token `<image>` (id {id}); the new "
    "rows are the mean of the old. All other values are those of the vlax export, bit for bit."
)
POST_NORMED = (
    "The features are the tower's post-normed ones, which LLaVA's class takes because `vision_config` says "
    "`tie_last_hidden_states`. Programs that do not know that field (older versions of transformers, vLLM, other engines) "
    "compute something else without a word; `generate.py` checks it and stops."
)


@dataclasses.dataclass
class Written:
    """What an export wrote.

    layout     "llava", "paligemma", "apart", "decoder" or "vision"
    obstacles  why it lies apart: what a stock class would compute wrongly
    notes      what the user has to know, one sentence each
    """

    layout: str
    obstacles: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def write_model(directory: str | Path, config: VLMConfig, params: Params, encoder: Encoder, *, limit: int = LIMIT) -> Written:
    """Writes a whole model; params: {path: array} of all its modules; encoder: how it reads texts; limit: bytes of a shard.

    VlaxError when a tower or the decoder itself is expressed by no family.
    """
    if config.vision is None:
        raise VlaxError("this model has no vision tower: export it with --part=decoder")
    tokenizer.check_vocabulary(config.decoder, encoder.tokenizer)
    kind, obstacles = choose(config)
    out = Path(directory)
    out.mkdir(parents=True, exist_ok=True)
    if kind is None:
        written = write_apart(out, config, params, encoder, obstacles, limit)
    else:
        written = write_whole(out, kind, config, params, encoder, limit)
    shutil.copyfile(Path(__file__).with_name("generate_hf.py"), out / "generate.py")
    seal.write(out)
    return written


def choose(config: VLMConfig) -> tuple[Whole | None, list[str]]:
    """(layout, []) or (None, what its stock class would compute wrongly)."""
    decoder = writer.decoder_family(config.decoder)[1]["model_type"]
    writer.vision_family(config.tower.vision)
    kinds = [paligemma.MODEL, llava.MODEL] if config.mask == "prefix_lm" else [llava.MODEL]
    found = [kind.obstacles(config, decoder) for kind in kinds]
    if config.tiles:
        found = [[*obstacles, f"pictures are seen in up to {config.tiles} tiles beside the whole"] for obstacles in found]
    fitting = [kind for kind, obstacles in zip(kinds, found, strict=True) if not obstacles]
    # Of several layouts that do not fit, the one that lacks least is explained.
    return (fitting[0], []) if fitting else (None, min(found, key=len))


def write_whole(out: Path, kind: Whole, config: VLMConfig, params: Params, encoder: Encoder, limit: int) -> Written:
    """One directory that a stock class loads."""
    written, said = Written(kind.model_types[0]), wording.wording(encoder)
    tokens, image_id, rows = with_image_token(encoder.tokenizer, config.decoder.vocab_size)
    if rows > config.decoder.vocab_size:
        written.notes.append(GROWN.format(old=config.decoder.vocab_size, new=rows, id=image_id))
        params, wider = grown(params, config.decoder, rows)
        config = dataclasses.replace(config, decoder=wider)
    eye, projector = config.tower.vision, config.tower.projector
    vision, decoder = writer.vision_family(eye), writer.decoder_family(config.decoder)
    stems = ("vision_tower.", "language_model.")
    found = (
        writer.part_tensors("vision/", VisionTower, vision[0], eye, params, stems[0] + vision[0].stem)
        | writer.module_tensors("projector/", Projector, projector, kind.rules(projector), params)
        | writer.part_tensors(
            "decoder/", Decoder, decoder[0], config.decoder, params, stems[1] + decoder[0].stem, stems[1] + HEAD
        )
    )
    write_tensors(out, found, limit=limit)
    ids, dtype = writer.token_ids(tokens), writer.common_dtype(found)
    tower, text = vision[1], decoder[1]
    if kind is paligemma.MODEL:  # transformers works them out, other engines look for them
        tower = tower | {"projection_dim": config.decoder.width}
        text = text | {"num_image_tokens": config.tokens_per_image}
    if kind is llava.MODEL and eye.post_norm:
        tower = tower | {"tie_last_hidden_states": True}
        written.notes.append(POST_NORMED)
    values = kind.to_hf(config) | ids | {
        "dtype": dtype, "image_token_index": image_id, "tie_word_embeddings": config.decoder.tied, "vision_config": tower,
        "text_config": text | ids | {"dtype": dtype},
        "vlax": {"mask": config.mask, "image_tokens": config.tokens_per_image} | said,
    }  # fmt: skip
    writer.write_json(out / "config.json", values)
    # An image token in an answer would be taken for a picture when the answer is read again.
    writer.write_json(out / "generation_config.json", ids | wording.token_ids(said) | {"suppress_tokens": [image_id]})
    if encoder.is_chat:
        tokens.chat_template = wording.pictures_first(chat.for_texts(tokens))
    tokenizer.save(tokens, out)
    write_processor(out, kind, config)
    return written


def write_processor(out: Path, kind: Whole, config: VLMConfig) -> None:
    """The image processor, and what the layout's own processor has to know."""
    eye = config.tower.vision
    images = writer.preprocessor(eye, config.preprocess)
    if kind is llava.MODEL:
        processor = {
            "processor_class": "LlavaProcessor", "image_token": IMAGE, "patch_size": eye.patch_size,
            "num_additional_image_tokens": int(eye.class_token),
            "vision_feature_select_strategy": "default" if eye.class_token else "full",
        }  # fmt: skip
        writer.write_json(out / "processor_config.json", processor)
    else:  # PaliGemma's processor asks its image processor for this
        images |= {"processor_class": "PaliGemmaProcessor", "image_seq_length": config.tokens_per_image}
    writer.write_json(out / "preprocessor_config.json", images)


def with_image_token(tokens: Tokenizer, vocab_size: int) -> tuple[Tokenizer, int, int]:
    """(a copy of the tokenizer that has <image>, its id, rows that the embedding needs).

    The token takes the first unused row; a full table grows to the next multiple of 64, as `load_decoder(vocab_size=...)` does.
    """
    from tokenizers import AddedToken

    tokens = copy.deepcopy(tokens)
    if IMAGE not in tokens.get_vocab():
        tokens.add_tokens([AddedToken(IMAGE, special=True, normalized=False)], special_tokens=True)
    need = tokenizer.size(tokens)
    return tokens, tokens.convert_tokens_to_ids(IMAGE), vocab_size if need <= vocab_size else -(-need // 64) * 64


def grown(params: Params, c: DecoderConfig, rows: int) -> tuple[dict[str, Any], DecoderConfig]:
    """The parameters with a larger embedding (and head), grown when they are read."""
    wider = dataclasses.replace(c, vocab_size=rows)
    shapes = {"decoder/embedding": (rows, c.width), "decoder/head": (c.width, rows)}

    def later(old: Any, shape: tuple[int, ...]) -> tensors.Later:
        return tensors.Later(shape, old.dtype, lambda: source.grow(np.asarray(old), shape))

    return {path: later(v, shapes[path]) if path in shapes else v for path, v in params.items()}, wider


def apart_rules(c: ProjectorConfig) -> list[Rule]:
    scale = [same("norm/scale", "norm.weight")] if c.norm else []
    return [*scale, *(rule for name in ("fc1", "fc2")[: 1 + (c.kind == "mlp")] for rule in linear(name, name, c.bias))]


def write_apart(out: Path, config: VLMConfig, params: Params, encoder: Encoder, obstacles: list[str], limit: int) -> Written:
    """vision/, decoder/ and projector.safetensors with projector.json: torch's [out,in] matrices and what joins the parts."""
    eye, projector, _ = config.tower
    if projector.newline or projector.norm == "layer":
        raise VlaxError("generate.py does not know this projector, of LLaVA-OneVision or InternVL: the model runs with vlax "
                        "alone; export its tower and decoder with --part=vision and --part=decoder")  # fmt: skip
    writer.write_vision(out / "vision", eye, params, preprocess=config.preprocess)
    said = wording.wording(encoder)
    writer.write_decoder(out / "decoder", config.decoder, params, encoder.tokenizer, limit=limit, said=said)
    write_file(out / PROJECTOR, writer.module_tensors("projector/", Projector, projector, apart_rules(projector), params))
    own = {
        "mask": config.mask, "image_tokens": config.tokens_per_image, "window": config.decoder.window,
        "leading": int(eye.class_token) + eye.registers, "post_normed": eye.post_norm,
        "activation": fields.activation_name(projector.activation), "image_size": eye.image_size, "tiles": config.tiles,
    }  # fmt: skip
    values = {"projector": projector.to_dict(), "mask": config.mask, "vlax": own | said}
    writer.write_json(out / "projector.json", values)
    return Written("apart", obstacles)


def load_apart(directory: str | Path, dtype: Any = None) -> tuple[VLMConfig, dict[str, Any]]:
    """(config, all parameters) of what `write_apart` wrote; dtype None keeps the stored ones."""
    local = Path(directory)
    vision, params, _ = load_vision(local / "vision", dtype=dtype)
    decoder, decoder_params, _ = load_decoder(local / "decoder", dtype=dtype)
    values = hub.read_json(local / "projector.json")
    projector = ProjectorConfig(**values["projector"])
    stored = tensors.file_header(local / PROJECTOR)
    for rule in apart_rules(projector):
        for path, value in zip(rule.paths, rule.read([stored[name].read() for name in rule.tensors]), strict=True):
            params["projector/" + path] = np.ascontiguousarray(value, dtype)
    tiles = values.get("vlax", {}).get("tiles", 0)
    return VLMConfig(decoder, vision, projector, values["mask"], preprocess(local / "vision"), tiles), params | decoder_params
