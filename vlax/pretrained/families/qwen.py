"""Qwen2 and Qwen2.5 (arXiv 2412.15115: biases on q, k and v) and Qwen3 (arXiv 2505.09388: q and k norms instead)."""

import dataclasses

from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families import llama


def qwen2(hf: dict) -> DecoderConfig:
    return llama.config(hf, qkv_bias=True, out_bias=False)


def qwen3(hf: dict) -> DecoderConfig:
    return llama.config(hf, qk_norm=True)


def window(c: DecoderConfig) -> dict:
    """The sliding window; only its layers are named, `max_window_layers` says the same to older readers."""
    if c.window is None:
        return {"use_sliding_window": False}
    first = min(c.window_layers, default=c.layers)
    return {"use_sliding_window": True, "sliding_window": c.window, "max_window_layers": first,
            "layer_types": llama.layer_types(c)}  # fmt: skip


def qwen2_to_hf(c: DecoderConfig) -> dict:
    return llama.to_hf(c, model_type="qwen2", architectures=["Qwen2ForCausalLM"], **window(c))


def qwen3_to_hf(c: DecoderConfig) -> dict:
    kind = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "attention_bias": c.qkv_bias}
    return llama.to_hf(c, **kind, **window(c))


QWEN2 = dataclasses.replace(llama.FAMILY, model_types=("qwen2",), config=qwen2, to_hf=qwen2_to_hf)
QWEN3 = dataclasses.replace(llama.FAMILY, model_types=("qwen3",), config=qwen3, to_hf=qwen3_to_hf)
