"""Parameters of vlax out: towers and decoders as directories in Hugging Face layout, which `loader.py` reads back bit-equal.

    write_vision("out/vision", config, params)
    write_decoder("out/decoder", config, params, tokenizer)

A family is chosen by reading back what its `to_hf` says: the first whose config comes back as it was expresses the model
exactly. Values keep the dtype they are stored in. `params` is {path: array}; anything with a shape, a dtype and `__array__`
will do, and is asked for its values once, when they are written.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from transformers import PreTrainedTokenizerBase as Tokenizer

from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.models.build import abstract_part
from vlax.models.decoder import Decoder, DecoderConfig
from vlax.models.vision import VisionConfig, VisionTower
from vlax.params import groups
from vlax.pretrained.families import known
from vlax.pretrained.families.rules import C, Family, Rule, hidden_state
from vlax.pretrained.reading.load_plan import HEAD, fake_like
from vlax.pretrained.reading.tensors import Later
from vlax.pretrained.writing import wording
from vlax.pretrained.writing.shards import LIMIT, write_tensors
from vlax.pretrained.writing.wording import Wording
from vlax.storage import seal, state
from vlax.storage.hub import TOKEN_IDS
from vlax.text.tokenizer import check_vocabulary, save


def write_vision(
    directory: str | Path, config: VisionConfig, params: Mapping[str, Any], *, preprocess: Preprocess | None = None
) -> dict:
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
    seal.write(out)
    return hf


def write_decoder(
    directory: str | Path, config: DecoderConfig, params: Mapping[str, Any], tokenizer: Tokenizer, *, limit: int = LIMIT,
    said: Wording | None = None,
) -> dict:  # fmt: skip
    """Writes a decoder: config.json, generation_config.json, weights, tokenizer. Returns the config written.

    params: {"decoder/...": array}; other paths are left alone. limit: bytes of a shard. said: how it was taught to read texts
    (`wording.py`). VlaxError when no family expresses the config, the tokenizer has more tokens than the embedding has rows,
    or parameters are missing.
    """
    check_vocabulary(config, tokenizer)
    family, hf = decoder_family(config)
    out = _directory(directory)
    tensors = part_tensors("decoder/", Decoder, family, config, params, family.stem)
    write_tensors(out, tensors, limit=limit)
    hf |= {"dtype": common_dtype(tensors)} | token_ids(tokenizer)
    write_json(out / "config.json", hf | ({"vlax": dict(said)} if said else {}))
    write_json(out / "generation_config.json", token_ids(tokenizer) | (wording.token_ids(said) if said else {}))
    save(tokenizer, out)
    seal.write(out)
    return hf


def decoder_family(c: DecoderConfig) -> tuple[Family[DecoderConfig], dict]:
    """(family, config.json) of the family that expresses a decoder exactly; VlaxError names the fields that none does."""

    def scaled(c: DecoderConfig) -> DecoderConfig:
        return dataclasses.replace(c, attention_scale=c.attention_scale or c.head_dim**-0.5)

    # GPT-2 and OPT can say the same decoder; OPT's own is ReLU.
    families = known.DECODERS[::-1] if c.activation == "relu" else known.DECODERS
    return _expressed(c, scaled(c), families, lambda family, found: [({}, scaled(found))], "decoder", (
        ", or train a decoder of a listed family (docs/backbones.md)"
    ))  # fmt: skip


def vision_family(c: VisionConfig) -> tuple[Family[VisionConfig], dict]:
    """(family, config.json) of the family that expresses a tower exactly; VlaxError names the fields that none does.

    Which hidden state the features are, where it is not the family's usual one, stands in it as {"vlax": {"layer": -1}}.
    """

    def states(family: Family[VisionConfig], full: VisionConfig) -> list[tuple[dict, VisionConfig]]:
        return [
            ({} if layer == family.layer else {"vlax": {"layer": layer}}, dataclasses.replace(found, mean=c.mean, std=c.std))
            for layer, found in ((None, full), (-1, hidden_state(full, -1)))
        ]

    return _expressed(c, c, known.TOWERS, states, "tower")


def _expressed(
    c: C, wanted: C, families: Sequence[Family[C]], readings: Callable, what: str, hint: str = ""
) -> tuple[Family[C], dict]:
    """The first family whose config.json of `c` is read back as `wanted`; readings: (family, config) -> what that config may
    stand for, each as (more fields of config.json that say so, config)."""
    misses = []
    for family in families:
        hf = family.to_hf(c)
        read = read_back(family, hf)
        if isinstance(read, str):
            misses.append((99, f"{hf['model_type']} refuses it ({read})"))
            continue
        for more, found in readings(family, read):
            if found == wanted:
                return family, hf | more
            misses.append(_miss(hf["model_type"], wanted, found))
    raise VlaxError(
        f"no Hugging Face {what} expresses this one: {min(misses)[1]}. Keep the vlax export, which vlax.load reads{hint}"
    )


def read_back(family: Family[C], hf: dict) -> C | str:
    """What the import makes of a config.json, or why it can't."""
    from transformers import AutoConfig

    # Without ids of the tokenizer: GPT-2's config class warns about its own defaults in a smaller vocabulary.
    rest = {key: value for key, value in hf.items() if key != "model_type"} | dict.fromkeys(TOKEN_IDS[:3])
    try:
        return family.config(AutoConfig.for_model(hf["model_type"], **rest).to_dict())
    except Exception as error:  # transformers validates by a dozen exception types
        return " ".join(str(error).split())[:200]


def _miss(kind: str, wanted: C, found: C) -> tuple[int, str]:
    fields = [f.name for f in dataclasses.fields(wanted) if getattr(wanted, f.name) != getattr(found, f.name)]
    text = ", ".join(f"{name}={getattr(wanted, name)!r} (there {getattr(found, name)!r})" for name in fields)
    return len(fields), f"{kind}, the nearest, differs in {text}"


def part_tensors(
    path: str, module: Callable[..., nnx.Module], family: Family[C], config: C,
    params: Mapping[str, Any], stem: str, head: str = HEAD,
) -> dict[str, Later]:  # fmt: skip
    """The tensors of one module. path: "vision/" or "decoder/"; stem: what precedes the family's names; head: the full name of
    an untied head. VlaxError when parameters are missing or have another shape."""

    def full(name: str) -> str:
        return head if name == HEAD else stem + name

    tensors = module_tensors(path, module, config, family.rules(config), params, full)
    dtype = next(iter(tensors.values())).dtype
    for name, (shape, value) in family.filler(config).items():
        tensors[full(name)] = Later(shape, dtype, partial(np.full, shape, value, dtype))
    return tensors


def module_tensors(
    path: str, module: Callable[..., nnx.Module], config: Any, rules: Sequence[Rule], params: Mapping[str, Any],
    full: Callable[[str], str] = str,
) -> dict[str, Later]:  # fmt: skip
    """{full(tensor name): what the rules write of it}; shapes come from a run on arrays without memory."""
    mine = {name.removeprefix(path): value for name, value in params.items() if name.startswith(path)}
    groups.check_same_structure(mine, abstract_part(module, config), f"the {path.strip('/')} to write")
    out = {}
    for rule in rules:
        for i, (name, fake) in enumerate(zip(rule.tensors, rule.write([fake_like(mine[p]) for p in rule.paths]), strict=True)):

            def read(rule: Rule = rule, i: int = i) -> np.ndarray:
                return rule.write([np.asarray(mine[path]) for path in rule.paths])[i]

            out[full(name)] = Later(fake.shape, fake.dtype, read)
    return out


def common_dtype(tensors: Mapping[str, Later]) -> str:
    """The `dtype` of config.json: the widest there is, so that loading loses nothing."""
    return max({tensor.dtype for tensor in tensors.values()}, key=lambda dtype: dtype.itemsize).name


def token_ids(tokenizer: Tokenizer) -> dict:
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


def write_json(file: Path, values: Mapping[str, Any]) -> None:
    state.write_json(file, values, end="\n", indent=2, sort_keys=True)


def _directory(directory: str | Path) -> Path:
    path = Path(directory)
    path.mkdir(parents=True, exist_ok=True)
    return path
