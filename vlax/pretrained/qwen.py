"""Qwen2 and Qwen2.5 (arXiv 2412.15115: biases on q, k and v) and Qwen3 (arXiv 2505.09388: q and k norms instead)."""

import dataclasses

from vlax.models.decoder import DecoderConfig
from vlax.pretrained import llama


def qwen2(hf: dict) -> DecoderConfig:
    return llama.config(hf, qkv_bias=True, out_bias=False)


def qwen3(hf: dict) -> DecoderConfig:
    return llama.config(hf, qk_norm=True)


QWEN2 = dataclasses.replace(llama.FAMILY, model_types=("qwen2",), config=qwen2)
QWEN3 = dataclasses.replace(llama.FAMILY, model_types=("qwen3",), config=qwen3)
