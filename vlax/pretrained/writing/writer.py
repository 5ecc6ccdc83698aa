"""Parameters of vlax out: towers and decoders as directories in Hugging Face layout, which `loader.py` reads back bit-equal.

    write_vision("out/vision", config, params)
    write_decoder("out/decoder", config, params, tokenizer)

A family is chosen by reading back what its `to_hf` says: the first whose config comes back as it was expresses the model
exactly. Values keep the dtype they are stored in. `params` is {path: array}; anything with a shape, a dtype and `__array__`
will do, and is asked for its values once, when they are written.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.models.decoder import Decoder, DecoderConfig
from vlax.models.vision import VisionConfig, VisionTower
from vlax.params import groups
from vlax.pretrained.families import clip, dinov2, gemma, gpt2, llama, opt, qwen, siglip
from vlax.pretrained.families.rules import C, Family, Rule, hidden_state
from vlax.pretrained.reading.load_plan import HEAD, abstract
from vlax.pretrained.writing.shards import LIMIT, Tensor, write_tensors
from vlax.storage import state
from vlax.storage.hub import TOKEN_IDS
from vlax.text.tokenizer import check_vocabulary

ROTARY = (llama.FAMILY, qwen.QWEN2, qwen.QWEN3, gemma.GEMMA, gemma.GEMMA2)
LEARNED = (gpt2.FAMILY, opt.FAMILY)
TOWERS = (siglip.FAMILY, clip.FAMILY, dinov2.FAMILY, dinov2.REGISTERS)


def write_vision(directory, config: VisionConfig, params: Mapping, *, preprocess: Preprocess | None = None) -> dict:
    """Writes a tower: config.json, weights, preprocessor_config.json. Returns the config written.

    params: {"vision/...": array}; other paths are left alone. preprocess: how images get to their size; None is a resize to
    the square. VlaxError when no family expresses the config, or parameters are missing.
    """
    family, hf = vision_family(config)
    out = _directory(directory)
    tensors = part_tensors("vision/", VisionTower, family, config, params, family.stem)
    write_tensors(out, tensors)
    hf |= {"dtype": common_dtype(tensors)}
    write_json(out / "config.json", hf)
    write_json(out / "preprocessor_config.json", preprocessor(config, preprocess))
    return hf


def write_decoder(directory, config: DecoderConfig, params: Mapping, tokenizer, *, limit: int = LIMIT) -> dict:
    """Writes a decoder: config.json, generation_config.json, weights, tokenizer. Returns the config written.

    params: {"decoder/...": array}; other paths are left alone. limit: bytes of a shard. VlaxError when no family expresses the
    config, the tokenizer has more tokens than the embedding has rows, or parameters are missing.
    """
    check_vocabulary(config, tokenizer)
    family, hf = decoder_family(config)
    out = _directory(directory)
    tensors = part_tensors("decoder/", Decoder, family, config, params, family.stem)
    write_tensors(out, tensors, limit=limit)
    hf |= {"dtype": common_dtype(tensors)} | token_ids(tokenizer)
    write_json(out / "config.json", hf)
    write_json(out / "generation_config.json", token_ids(tokenizer))
    tokenizer.save_pretrained(str(out))
    return hf


def decoder_family(c: DecoderConfig) -> tuple[Family[DecoderConfig], dict]:
    """(family, config.json) of the family that expresses a decoder exactly; VlaxError names the fields that none does."""
    wanted = dataclasses.replace(c, attention_scale=c.attention_scale or c.head_dim**-0.5)
    misses = []
    learned = reversed(LEARNED) if c.activation == "relu" else LEARNED  # both can say it; OPT's own is ReLU
    for family in ROTARY if c.rope_theta is not None else learned:
        hf = family.to_hf(c)
        found = read_back(family, hf)
        if isinstance(found, str):
            misses.append((99, f"{hf['model_type']} refuses it ({found})"))
            continue
        found = dataclasses.replace(found, attention_scale=found.attention_scale or found.head_dim**-0.5)
        if found == wanted:
            return family, hf
        misses.append(_miss(hf["model_type"], wanted, found))
    raise VlaxError(
        f"no Hugging Face decoder expresses this one: {min(misses)[1]}. Keep the vlax export, which vlax.load reads, or train "
        f"a decoder of a listed family (docs/backbones.md)"
    )


def vision_family(c: VisionConfig) -> tuple[Family[VisionConfig], dict]:
    """(family, config.json) of the family that expresses a tower exactly; VlaxError names the fields that none does.

    Which hidden state the features are, where it is not the family's usual one, stands in it as {"vlax": {"layer": -1}}.
    """
    misses = []
    for family in TOWERS:
        hf = family.to_hf(c)
        full = read_back(family, hf)
        if isinstance(full, str):
            misses.append((99, f"{hf['model_type']} refuses it ({full})"))
            continue
        for layer, found in ((None, full), (-1, hidden_state(full, -1))):
            found = dataclasses.replace(found, mean=c.mean, std=c.std)
            if found == c:
                return family, hf if layer == family.layer else hf | {"vlax": {"layer": layer}}
            misses.append(_miss(hf["model_type"], c, found))
    raise VlaxError(f"no Hugging Face tower expresses this one: {min(misses)[1]}. Keep the vlax export, which vlax.load reads")


def read_back(family: Family[C], hf: dict) -> C | str:
    """What the import makes of a config.json, or why it can't."""
    from transformers import AutoConfig

    # Without ids of the tokenizer: GPT-2's config class warns about its own defaults in a smaller vocabulary.
    rest = {key: value for key, value in hf.items() if key != "model_type"} | dict.fromkeys(TOKEN_IDS[:3])
    try:
        return family.config(AutoConfig.for_model(hf["model_type"], **rest).to_dict())
    except Exception as error:  # transformers validates by a dozen exception types
        return " ".join(str(error).split())[:200]


def _miss(kind: str, wanted, found) -> tuple[int, str]:
    fields = [f.name for f in dataclasses.fields(wanted) if getattr(wanted, f.name) != getattr(found, f.name)]
    text = ", ".join(f"{name}={getattr(wanted, name)!r} (there {getattr(found, name)!r})" for name in fields)
    return len(fields), f"{kind}, the nearest, differs in {text}"


def part_tensors(path: str, module, family: Family[C], config: C, params: Mapping, stem: str, head: str = HEAD) -> list[Tensor]:
    """The tensors of one module. path: "vision/" or "decoder/"; stem: what precedes the family's names; head: the full name of
    an untied head. VlaxError when parameters are missing or have another shape."""
    mine = {name.removeprefix(path): value for name, value in params.items() if name.startswith(path)}
    groups.check_same_structure(mine, abstract(lambda rngs: module(config, rngs=rngs)), f"the {path.strip('/')} to write")

    def full(name):
        return head if name == HEAD else stem + name

    tensors = [tensor for rule in family.rules(config) for tensor in rule_tensors(rule, mine, full)]
    dtype = tensors[0].dtype
    for name, (shape, value) in family.filler(config).items():
        tensors.append(Tensor(full(name), shape, dtype, functools.partial(np.full, shape, value, dtype)))
    return tensors


def rule_tensors(rule: Rule, params: Mapping, full=str) -> list[Tensor]:
    """The tensors that a rule writes; their shapes come from a run on arrays without memory."""
    fakes = [np.broadcast_to(np.zeros((), params[path].dtype), params[path].shape) for path in rule.paths]
    out = []
    for i, (name, fake) in enumerate(zip(rule.tensors, rule.write(fakes), strict=True)):

        def read(i=i):
            return rule.write([np.asarray(params[path]) for path in rule.paths])[i]

        out.append(Tensor(full(name), fake.shape, fake.dtype, read))
    return out


def common_dtype(tensors: list[Tensor]) -> str:
    """The `dtype` of config.json: the widest there is, so that loading loses nothing."""
    return max({tensor.dtype for tensor in tensors}, key=lambda dtype: dtype.itemsize).name


def token_ids(tokenizer) -> dict:
    """The special tokens that models and generation ask for."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {name: getattr(tokenizer, name) for name in names if getattr(tokenizer, name) is not None}


def preprocessor(c: VisionConfig, how: Preprocess | None = None) -> dict:
    """preprocessor_config.json: `how` images get to the tower's size, and its normalisation."""
    how = (how or Preprocess(c.image_size)).at(c.image_size)
    size = {"height": c.image_size, "width": c.image_size}
    common = {
        "do_convert_rgb": True, "do_resize": True, "resample": int(how.resample), "do_rescale": True,
        "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": list(c.mean), "image_std": list(c.std),
    }  # fmt: skip
    if how.mode == "squash":
        return {"image_processor_type": "SiglipImageProcessor", "size": size} | common
    crop = {"size": {"shortest_edge": how.edge}, "do_center_crop": True, "crop_size": size} | common
    if how.mode == "pad":
        return {"image_processor_type": "LlavaImageProcessor", "do_pad": True} | crop
    return {"image_processor_type": "CLIPImageProcessor"} | crop


def write_json(file: Path, values: Mapping) -> None:
    state.write_json(file, values, end="\n", indent=2, sort_keys=True)


def _directory(directory) -> Path:
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    return path
