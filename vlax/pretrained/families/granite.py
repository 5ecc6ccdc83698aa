"""Granite 3 (github.com/ibm-granite): Llama with four factors, of embeddings, attention, what layers add, and logits."""

import dataclasses

from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families import llama

FACTORS = {
    "embed_multiplier": "embedding_multiplier", "attention_scale": "attention_multiplier",
    "residual_multiplier": "residual_multiplier", "logit_divisor": "logits_scaling",
}  # fmt: skip


def config(hf: dict) -> DecoderConfig:
    return llama.config(hf, **{ours: float(hf[theirs]) for ours, theirs in FACTORS.items()})


def to_hf(c: DecoderConfig) -> dict:
    kind = {"model_type": "granite", "architectures": ["GraniteForCausalLM"]}
    biases = {"attention_bias": c.qkv_bias, "mlp_bias": c.mlp_bias}
    scaled = dataclasses.replace(c, attention_scale=c.attention_scale or c.head_dim**-0.5)
    return llama.to_hf(c, **kind, **biases, **{theirs: getattr(scaled, ours) for ours, theirs in FACTORS.items()})


FAMILY = dataclasses.replace(llama.FAMILY, model_types=("granite",), config=config, to_hf=to_hf)
