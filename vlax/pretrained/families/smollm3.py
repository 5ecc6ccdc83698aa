"""SmolLM3 (huggingface.co/blog/smollm3): Llama, of which every fourth layer knows no positions (NoPE, arXiv 2501.18795)."""

import dataclasses

from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families import llama, qwen


def config(hf: dict) -> DecoderConfig:
    turning = hf["no_rope_layers"][: hf["num_hidden_layers"]]  # 1 where a layer has RoPE, whatever the field's name says
    return llama.config(hf, nope_layers=tuple(i for i, turns in enumerate(turning) if not turns))


def to_hf(c: DecoderConfig) -> dict:
    kind = {"model_type": "smollm3", "architectures": ["SmolLM3ForCausalLM"]}
    turning = [int(i not in c.nope_layers) for i in range(c.layers)]
    biases = {"attention_bias": c.qkv_bias, "mlp_bias": c.mlp_bias}
    return llama.to_hf(c, **kind, **biases, no_rope_layers=turning, **qwen.window(c))


FAMILY = dataclasses.replace(llama.FAMILY, model_types=("smollm3",), config=config, to_hf=to_hf)
