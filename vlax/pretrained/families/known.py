"""The families that can be imported, by the `model_type` of their config.json."""

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.models.vision import VisionConfig
from vlax.pretrained.families import (
    aimv2,
    clip,
    dinov2,
    dinov3,
    gemma,
    gemma3,
    gpt2,
    granite,
    idefics3,
    internvit,
    internvl,
    llama,
    llava,
    olmo2,
    onevision,
    opt,
    paligemma,
    phi,
    qwen,
    siglip,
    smollm3,
    stablelm,
)  # fmt: skip
from vlax.pretrained.families.rules import C, Family

TOWERS = (
    siglip.FAMILY, clip.FAMILY, dinov2.FAMILY, dinov2.REGISTERS, dinov3.FAMILY, siglip.NAFLEX, aimv2.FAMILY, internvit.FAMILY,
    siglip.IDEFICS,
)  # fmt: skip
DECODERS = (
    llama.FAMILY, qwen.QWEN2, qwen.QWEN3, gpt2.FAMILY, opt.FAMILY, gemma.GEMMA, gemma.GEMMA2, gemma.GEMMA3, smollm3.FAMILY,
    phi.FAMILY, olmo2.FAMILY, granite.FAMILY, stablelm.FAMILY,
)  # fmt: skip
VISION = {kind: family for family in TOWERS for kind in family.model_types}
DECODER = {kind: family for family in DECODERS for kind in family.model_types}
WHOLE = {
    kind: model
    for model in (paligemma.MODEL, llava.MODEL, idefics3.MODEL, gemma3.MODEL, onevision.MODEL, internvl.MODEL)
    for kind in model.model_types
}
# Models that contain a tower, and the type of a nested config that does not name its own.
NESTED_VISION = {
    "siglip": "siglip_vision_model", "siglip2": "siglip2_vision_model", "clip": "clip_vision_model",
    "paligemma": "siglip_vision_model", "llava": "clip_vision_model", "aimv2": "aimv2_vision_model",
    "internvl": "internvl_vision", "idefics3": "idefics3_vision", "smolvlm": "smolvlm_vision",
    "llava_onevision": "siglip_vision_model", "gemma3": "siglip_vision_model",
}  # fmt: skip
NESTED_DECODER = {
    "paligemma": "gemma", "llava": "llama", "idefics3": "llama", "smolvlm": "llama", "llava_onevision": "qwen2",
    "gemma3": "gemma3_text", "internvl": "qwen2",
}  # fmt: skip


def vision_tower(hf: dict) -> tuple[Family[VisionConfig], dict]:
    """(family, config of the tower) of a completed config: itself, or its "vision_config"."""
    return _part(hf, "vision_config", VISION, NESTED_VISION)


def language_tower(hf: dict) -> tuple[Family[DecoderConfig], dict]:
    """(family, config of the decoder) of a completed config: itself, or its "text_config"; whether it is tied stands above.

    VlaxError for a decoder that was trained without a causal mask (EmbeddingGemma). That PaliGemma's says so is no more than
    its prefix-LM mask, which vlax knows by the layout.
    """
    family, own = _part(hf, "text_config", DECODER, NESTED_DECODER)
    if own.get("use_bidirectional_attention") and hf["model_type"] != "paligemma":
        raise VlaxError(
            f"{hf['model_type']} config: use_bidirectional_attention is not implemented: such a model sees what follows and "
            "writes no text; choose another checkpoint, or set it to false if this one does"
        )
    return family, own | {"tie_word_embeddings": hf["tie_word_embeddings"]}


def _part(hf: dict, key: str, table: dict[str, Family[C]], nested: dict[str, str]) -> tuple[Family[C], dict]:
    own = hf[key] if hf["model_type"] in nested else hf
    kind = own.get("model_type") or nested[hf["model_type"]]
    if kind not in table:
        raise VlaxError(f"{hf['model_type']} config: {key} of model_type {kind!r} is not supported; {', '.join(table)} are")
    return table[kind], own
