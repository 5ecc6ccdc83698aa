"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm, biases everywhere, q, k and v in one Conv1D tensor."""

from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families.rules import Family, Rule, activation, activation_name, fused, norm, require, same, transposed


def config(hf: dict) -> DecoderConfig:
    require(hf, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    width, heads = hf["n_embd"], hf["n_head"]
    return DecoderConfig(
        vocab_size=hf["vocab_size"],
        width=width,
        layers=hf["n_layer"],
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        mlp_dim=hf["n_inner"] or 4 * width,
        activation=activation(hf["activation_function"]),
        gated_mlp=False,
        mlp_bias=True,
        norm="layer",
        eps=hf["layer_norm_epsilon"],
        qkv_bias=True,
        out_bias=True,
        rope_theta=None,
        max_positions=hf["n_positions"],
        tied=hf["tie_word_embeddings"],
        attention_scale=None if hf["scale_attn_weights"] else 1.0,
    )


def to_hf(c: DecoderConfig) -> dict:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": c.vocab_size,
        "n_embd": c.width,
        "n_layer": c.layers,
        "n_head": c.heads,
        "n_inner": c.mlp_dim,
        "n_positions": c.max_positions,
        "activation_function": activation_name(c.activation, "gelu_new"),
        "layer_norm_epsilon": c.eps,
        "scale_attn_weights": c.attention_scale is None,
        "tie_word_embeddings": c.tied,
    }


def conv1d(path: str, name: str) -> list[Rule]:
    """Conv1D is stored as [in,out], like our kernels."""
    return [same(f"{path}/kernel", f"{name}.weight"), same(f"{path}/bias", f"{name}.bias")]


def layer_rules(path: str, name: str) -> list[Rule]:
    qkv = [f"{path}/attention/{x}" for x in "qkv"]
    return [
        *norm(f"{path}/norm1", f"{name}.ln_1"),
        fused([f"{x}/kernel" for x in qkv], f"{name}.attn.c_attn.weight"),
        fused([f"{x}/bias" for x in qkv], f"{name}.attn.c_attn.bias"),
        *conv1d(f"{path}/attention/o", f"{name}.attn.c_proj"),
        *norm(f"{path}/norm2", f"{name}.ln_2"),
        *conv1d(f"{path}/mlp/up", f"{name}.mlp.c_fc"),
        *conv1d(f"{path}/mlp/down", f"{name}.mlp.c_proj"),
    ]


def rules(c: DecoderConfig) -> list[Rule]:
    return [
        same("embedding", "wte.weight"),
        same("position", "wpe.weight"),
        *(rule for i in range(c.layers) for rule in layer_rules(f"layers/{i}", f"h.{i}")),
        *norm("norm", "ln_f"),
        *([] if c.tied else [transposed("head", "lm_head.weight")]),
    ]


FAMILY = Family(
    model_types=("gpt2",),
    anchor="wte.weight",
    config=config,
    rules=rules,
    to_hf=to_hf,
    stem="transformer.",
    ignored=(r"h\.\d+\.attn\.(bias|masked_bias)",),  # causal-mask buffers of early conversions
)
