"""Gemma 1 (arXiv 2403.08295) and Gemma 2 (arXiv 2408.00118): scaled embeddings, norms stored as w - 1; Gemma 2 adds soft caps,
norms after attention and MLP, and a sliding window in every second layer."""

import dataclasses

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


def gemma_to_hf(c: DecoderConfig) -> dict:
    kind = {"model_type": "gemma", "architectures": ["GemmaForCausalLM"], "attention_bias": c.qkv_bias}
    return llama.to_hf(c, **kind)


def gemma2_to_hf(c: DecoderConfig) -> dict:
    scale = c.head_dim if c.attention_scale is None else c.attention_scale**-2
    return llama.to_hf(
        c,
        model_type="gemma2",
        architectures=["Gemma2ForCausalLM"],
        attention_bias=c.qkv_bias,
        hidden_activation=fields.activation_name(c.activation),
        query_pre_attn_scalar=round(scale),
        attn_logit_softcapping=c.attention_softcap,
        final_logit_softcapping=c.logit_softcap,
        sliding_window=c.window,
        layer_types=llama.layer_types(c),
    )


GEMMA = dataclasses.replace(llama.FAMILY, model_types=("gemma",), config=gemma, to_hf=gemma_to_hf)
GEMMA2 = dataclasses.replace(llama.FAMILY, model_types=("gemma2",), config=gemma2, to_hf=gemma2_to_hf)
