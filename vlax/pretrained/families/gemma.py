"""Gemma 1 (arXiv 2403.08295), 2 (arXiv 2408.00118) and the text models of 3 (arXiv 2503.19786).

All scale embeddings and store norms as w - 1. Gemma 2 adds soft caps, norms after attention and MLP, and a sliding window in
every second layer; Gemma 3 has norms of q and k instead of the caps, and windows in five layers of six, with their own RoPE.
"""

import dataclasses

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families import fields, llama


def gemma(hf: dict) -> DecoderConfig:
    return llama.config(hf, norm_offset=1.0, embed_scale=True)


def gemma2(hf: dict) -> DecoderConfig:
    return llama.config(
        hf,
        norm_offset=1.0,
        embed_scale=True,
        activation=fields.activation(hf["hidden_activation"]),  # a hidden_act beside it is a relic
        post_norms=True,
        attention_scale=hf["query_pre_attn_scalar"] ** -0.5,
        attention_softcap=hf["attn_logit_softcapping"],
        logit_softcap=hf["final_logit_softcapping"],
    )


def gemma3(hf: dict) -> DecoderConfig:
    full, windowed = (hf["rope_parameters"].get(kind) or {} for kind in ("full_attention", "sliding_attention"))
    local = llama.rope(hf | {"rope_parameters": windowed})
    if local["rope_scaling"] is not None:
        raise VlaxError(
            f"gemma3_text config: rope_parameters {windowed} of the windowed layers are not implemented, only rope_type "
            f"default; choose another checkpoint"
        )
    return dataclasses.replace(gemma2(hf | {"rope_parameters": full}), qk_norm=True, window_rope_theta=local["rope_theta"])


def gemma_to_hf(c: DecoderConfig) -> dict:
    kind = {"model_type": "gemma", "architectures": ["GemmaForCausalLM"], "attention_bias": c.qkv_bias}
    return llama.to_hf(c, **kind)


def gemma2_to_hf(c: DecoderConfig, **own) -> dict:
    scale = c.head_dim if c.attention_scale is None else c.attention_scale**-2
    kind = {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]} | own
    return llama.to_hf(
        c,
        attention_bias=c.qkv_bias,
        hidden_activation=fields.activation_name(c.activation),
        query_pre_attn_scalar=round(scale),
        attn_logit_softcapping=c.attention_softcap,
        final_logit_softcapping=c.logit_softcap,
        sliding_window=c.window,
        layer_types=llama.layer_types(c),
        **kind,
    )


def gemma3_to_hf(c: DecoderConfig) -> dict:
    local = c.rope_theta if c.window_rope_theta is None else c.window_rope_theta
    kind = {"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]}
    return gemma2_to_hf(c, rope_local_base_freq=local, **kind)


GEMMA = dataclasses.replace(llama.FAMILY, model_types=("gemma",), config=gemma, to_hf=gemma_to_hf)
GEMMA2 = dataclasses.replace(llama.FAMILY, model_types=("gemma2",), config=gemma2, to_hf=gemma2_to_hf)
GEMMA3 = dataclasses.replace(llama.FAMILY, model_types=("gemma3_text",), config=gemma3, to_hf=gemma3_to_hf)
