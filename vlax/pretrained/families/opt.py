"""OPT (arXiv 2205.01068) in its pre-norm form: learned positions whose table starts with two unused rows, ReLU."""

import numpy as np

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families import fields, gpt2
from vlax.pretrained.families.rules import Arrays, Family, Rule, linear, norm, same, transposed

UNUSED_ROWS = 2  # the reference looks up position + 2
FIELDS = {
    "vocab_size": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "max_positions": "max_position_embeddings", "activation": "activation_function", "tied": "tie_word_embeddings",
}  # fmt: skip


def config(hf: dict) -> DecoderConfig:
    fields.require(hf, do_layer_norm_before=True, _remove_final_layer_norm=False, layer_norm_elementwise_affine=True)
    width = hf["hidden_size"]
    if hf["word_embed_proj_dim"] != width:
        raise VlaxError(
            f"opt config: word_embed_proj_dim={hf['word_embed_proj_dim']} other than hidden_size={width} (opt-350m) is not "
            f"implemented; choose another OPT size"
        )
    return gpt2.learned(FIELDS, hf, hf["ffn_dim"], hf["enable_bias"], eps=1e-5)  # no field of the config: torch's default


def to_hf(c: DecoderConfig) -> dict:
    kind = {"model_type": "opt", "architectures": ["OPTForCausalLM"], "do_layer_norm_before": True}
    more = {"word_embed_proj_dim": c.width, "ffn_dim": c.mlp_dim, "enable_bias": c.qkv_bias}
    return kind | fields.write(FIELDS, c) | more


def positions() -> Rule:
    def write(x: Arrays) -> Arrays:
        return [np.concatenate([np.zeros((UNUSED_ROWS, x[0].shape[1]), x[0].dtype), x[0]])]

    return Rule(("embed_positions.weight",), ("position",), lambda x: [x[0][UNUSED_ROWS:]], write)


def layer_rules(c: DecoderConfig, path: str, name: str) -> list[Rule]:
    return [
        *norm(f"{path}/norm1", f"{name}.self_attn_layer_norm"),
        *(rule for x in "qkv" for rule in linear(f"{path}/attention/{x}", f"{name}.self_attn.{x}_proj", c.qkv_bias)),
        *linear(f"{path}/attention/o", f"{name}.self_attn.out_proj", c.out_bias),
        *norm(f"{path}/norm2", f"{name}.final_layer_norm"),
        *linear(f"{path}/mlp/up", f"{name}.fc1", c.mlp_bias),
        *linear(f"{path}/mlp/down", f"{name}.fc2", c.mlp_bias),
    ]


def rules(c: DecoderConfig) -> list[Rule]:
    return [
        same("embedding", "embed_tokens.weight"),
        positions(),
        *(rule for i in range(c.layers) for rule in layer_rules(c, f"layers/{i}", f"layers.{i}")),
        *norm("norm", "final_layer_norm"),
        *([] if c.tied else [transposed("head", "lm_head.weight")]),
    ]


FAMILY = Family(
    model_types=("opt",), anchor="embed_tokens.weight", config=config, rules=rules, to_hf=to_hf, stem="model.decoder."
)
