"""OLMo 2 (arXiv 2501.00656): Llama with norms after attention and MLP in place of those before, and of all heads' q and k."""

import dataclasses

from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families import llama


def config(hf: dict) -> DecoderConfig:
    return llama.config(hf, qk_norm_joint=True, pre_norms=False, post_norms=True)


def to_hf(c: DecoderConfig) -> dict:
    return llama.to_hf(c, model_type="olmo2", architectures=["Olmo2ForCausalLM"], attention_bias=c.qkv_bias)


FAMILY = dataclasses.replace(llama.FAMILY, model_types=("olmo2",), config=config, to_hf=to_hf)
