"""StableLM 2 (arXiv 2402.17834): Llama with LayerNorms, of each head a part that turns, and biases on q, k and v."""

import dataclasses

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families import llama


def config(hf: dict) -> DecoderConfig:
    if hf["qk_layernorm"] or hf["use_parallel_residual"]:
        raise VlaxError(
            "stablelm config: qk_layernorm and use_parallel_residual (StableLM 2 12B) are not implemented; take "
            "stabilityai/stablelm-2-1_6b or stablelm-2-zephyr-1_6b, which have neither"
        )
    turns = llama.rope(hf, kinds=("default", "linear"), partial=True)
    return llama.config(
        hf | {"rms_norm_eps": hf["layer_norm_eps"]}, norm="layer", qkv_bias=hf["use_qkv_bias"], out_bias=False, **turns
    )


def to_hf(c: DecoderConfig) -> dict:
    """Its class knows no head_dim: another one than width / heads shows on reading back."""
    own = {"model_type": "stablelm", "architectures": ["StableLmForCausalLM"], "use_qkv_bias": c.qkv_bias}
    share = 1.0 if c.rotary_dim is None else c.rotary_dim / c.head_dim
    values = llama.to_hf(c, **own, layer_norm_eps=c.eps, partial_rotary_factor=share)
    return {name: value for name, value in values.items() if name not in ("head_dim", "rms_norm_eps")}


FAMILY = dataclasses.replace(llama.FAMILY, model_types=("stablelm",), config=config, to_hf=to_hf)
