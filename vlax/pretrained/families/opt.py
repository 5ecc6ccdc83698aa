"""OPT (arXiv 2205.01068) in its pre-norm form: learned positions whose table starts with two unused rows, ReLU."""

import numpy as np

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families.rules import Family, Rule, activation, activation_name, linear, norm, require, same, transposed

UNUSED_ROWS = 2  # the reference looks up position + 2


def config(hf: dict) -> DecoderConfig:
    require(hf, do_layer_norm_before=True, _remove_final_layer_norm=False, layer_norm_elementwise_affine=True)
    width, heads = hf["hidden_size"], hf["num_attention_heads"]
    if hf["word_embed_proj_dim"] != width:
        raise VlaxError(
            f"opt config: word_embed_proj_dim={hf['word_embed_proj_dim']} other than hidden_size={width} (opt-350m) is not "
            f"implemented; choose another OPT size"
        )
    return DecoderConfig(
        vocab_size=hf["vocab_size"],
        width=width,
        layers=hf["num_hidden_layers"],
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        mlp_dim=hf["ffn_dim"],
        activation=activation(hf["activation_function"]),
        gated_mlp=False,
        mlp_bias=hf["enable_bias"],
        norm="layer",
        eps=1e-5,  # no field of the config: torch's default
        qkv_bias=hf["enable_bias"],
        out_bias=hf["enable_bias"],
        rope_theta=None,
        max_positions=hf["max_position_embeddings"],
        tied=hf["tie_word_embeddings"],
    )


def to_hf(c: DecoderConfig) -> dict:
    return {
        "model_type": "opt",
        "architectures": ["OPTForCausalLM"],
        "vocab_size": c.vocab_size,
        "hidden_size": c.width,
        "word_embed_proj_dim": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "ffn_dim": c.mlp_dim,
        "activation_function": activation_name(c.activation),
        "enable_bias": c.qkv_bias,
        "max_position_embeddings": c.max_positions,
        "do_layer_norm_before": True,
        "tie_word_embeddings": c.tied,
    }


def positions() -> Rule:
    def write(x):
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
