"""Phi-3 (arXiv 2404.14219) and Phi-4-mini (arXiv 2503.01743), of one model_type.

Llama with q, k and v in one matrix, gate and up in another, and LongRoPE; in Phi-4-mini three quarters of a head turn.
"""

import dataclasses

from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families import llama
from vlax.pretrained.families.rules import Rule, fused, linear, norm


def config(hf: dict) -> DecoderConfig:
    return llama.config(hf, **llama.rope(hf, kinds=("default", "longrope"), partial=True))


def to_hf(c: DecoderConfig) -> dict:
    """`head_dim` is no field of it, nor `factor`: it is what `max_position_embeddings` is to the original number."""
    own = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "sliding_window": c.window}
    share = 1.0 if c.rotary_dim is None else c.rotary_dim / c.head_dim
    values = llama.to_hf(c, **own, partial_rotary_factor=share)
    if c.rope_scaling is not None and c.rope_scaling["rope_type"] == "longrope":
        original = c.rope_scaling["original_max_position_embeddings"]
        values["original_max_position_embeddings"] = original
        values["max_position_embeddings"] = round(c.rope_scaling["factor"] * original)
        for name in ("factor", "original_max_position_embeddings"):
            del values["rope_scaling"][name]
    return {name: value for name, value in values.items() if name != "head_dim"}


def layer_rules(c: DecoderConfig, path: str, name: str) -> list[Rule]:
    attention, mlp = f"{path}/attention", f"{path}/mlp"
    qkv = [f"{attention}/{x}/kernel" for x in "qkv"]
    widths = [heads * c.head_dim for heads in (c.heads, c.kv_heads, c.kv_heads)]
    return [
        *norm(f"{path}/norm1", f"{name}.input_layernorm", bias=False),
        fused(qkv, f"{name}.self_attn.qkv_proj.weight", transpose=True, widths=widths),
        *linear(f"{attention}/o", f"{name}.self_attn.o_proj", bias=False),
        *norm(f"{path}/norm2", f"{name}.post_attention_layernorm", bias=False),
        fused([f"{mlp}/gate/kernel", f"{mlp}/up/kernel"], f"{name}.mlp.gate_up_proj.weight", transpose=True),
        *linear(f"{mlp}/down", f"{name}.mlp.down_proj", bias=False),
    ]


def rules(c: DecoderConfig) -> list[Rule]:
    return llama.rules(c, layer_rules)


FAMILY = dataclasses.replace(llama.FAMILY, model_types=("phi3",), config=config, rules=rules, to_hf=to_hf)
