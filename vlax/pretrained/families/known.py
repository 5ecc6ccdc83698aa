"""The families that can be imported, by the `model_type` of their config.json."""

from vlax.errors import VlaxError
from vlax.pretrained.families import clip, dinov2, gemma, gpt2, llama, opt, qwen, siglip
from vlax.pretrained.families.rules import C, Family

VISION = {t: f for f in (siglip.FAMILY, clip.FAMILY, dinov2.FAMILY, dinov2.REGISTERS) for t in f.model_types}
DECODER = {
    t: f
    for f in (llama.FAMILY, qwen.QWEN2, qwen.QWEN3, gpt2.FAMILY, opt.FAMILY, gemma.GEMMA, gemma.GEMMA2)
    for t in f.model_types
}
# Models that contain a tower, and the type of a nested config that does not name its own.
NESTED_VISION = {"siglip": "siglip_vision_model", "clip": "clip_vision_model", "paligemma": "siglip_vision_model",
                 "llava": "clip_vision_model"}  # fmt: skip
NESTED_DECODER = {"paligemma": "gemma", "llava": "llama"}


def tower(hf: dict, key: str, table: dict[str, Family[C]], nested: dict[str, str]) -> tuple[Family[C], dict]:
    """(family, config of the tower) of a completed config: itself, or its `key` ("vision_config", "text_config")."""
    if hf["model_type"] in nested:
        default, top = nested[hf["model_type"]], hf
        hf = hf[key]
        kind = hf.get("model_type") or default
        if kind not in table:
            raise VlaxError(
                f"{top['model_type']} config: {key} of model_type {kind!r} is not supported; {', '.join(table)} are"
            )
        return table[kind], hf
    return table[hf["model_type"]], hf
