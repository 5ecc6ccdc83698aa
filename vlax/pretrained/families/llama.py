"""Llama 2 and 3 (arXiv 2407.21783), and what shares their layout: SmolLM2, TinyLlama, Mistral; Qwen and Gemma build on it."""

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families import fields
from vlax.pretrained.families.rules import Family, Rule, linear, norm, same, transposed


def rope(hf: dict) -> dict:
    """The fields rope_theta and rope_scaling of a DecoderConfig; VlaxError for a kind that is not implemented."""
    values = hf["rope_parameters"]
    kind = values.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3") or values.get("partial_rotary_factor", 1.0) != 1.0:
        raise VlaxError(
            f"{hf['model_type']} config: rope_parameters {values} are not implemented; default, linear and llama3 over the "
            f"whole head are. Choose another checkpoint"
        )
    if not isinstance(values.get("rope_theta"), int | float):
        raise VlaxError(
            f"{hf['model_type']} config: rope_theta is {values.get('rope_theta')!r}, not a number: write the one that the "
            "checkpoint was trained with (10000.0 in Llama 2)"
        )
    names = ("rope_type", "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    scaling = {name: values[name] for name in names if name in values}
    if kind == "llama3":
        scaling.setdefault("original_max_position_embeddings", hf["max_position_embeddings"])
    return {"rope_theta": float(values["rope_theta"]), "rope_scaling": None if kind == "default" else scaling}


def window(hf: dict) -> dict:
    """The fields window and window_layers: those layers that `layer_types` names, or all of them without that field."""
    kinds = hf.get("layer_types") or ["sliding_attention"] * hf["num_hidden_layers"]
    unknown = set(kinds) - {"sliding_attention", "full_attention"}
    if unknown:
        raise VlaxError(
            f"{hf['model_type']} config: layer_types {sorted(unknown)} are not implemented; choose another checkpoint"
        )
    layers = tuple(i for i, kind in enumerate(kinds) if kind == "sliding_attention")
    return {"window": hf["sliding_window"], "window_layers": layers} if hf.get("sliding_window") and layers else {}


FIELDS = {
    "vocab_size": "vocab_size", "width": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads", "mlp_dim": "intermediate_size", "eps": "rms_norm_eps", "tied": "tie_word_embeddings",
}  # fmt: skip


def config(hf: dict, **options) -> DecoderConfig:
    """`options` are the fields by which a family differs from Llama."""
    bias = hf.get("attention_bias", False)
    values = {
        "head_dim": hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"],
        "activation": fields.activation(hf.get("hidden_act", "silu")),
        "mlp_bias": hf.get("mlp_bias", False), "qkv_bias": bias, "out_bias": bias,
    }  # fmt: skip
    return DecoderConfig(**(fields.read(FIELDS, hf) | values | rope(hf) | window(hf) | options))


# Rotary positions have no end: nothing here depends on this number, but other engines size their caches by it.
MAX_POSITIONS = 32_768


def to_hf(c: DecoderConfig, **own) -> dict:
    """config.json in the key names that old and new readers share; `own` are those by which a family differs."""
    mistral = c.window is not None and c.window_layers == tuple(range(c.layers))
    kind = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": c.qkv_bias, "mlp_bias": c.mlp_bias}
    if mistral:
        kind = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": c.window}
    scaling = None if c.rope_scaling is None else dict(c.rope_scaling)
    return fields.write(FIELDS, c) | {
        "head_dim": c.head_dim, "hidden_act": fields.activation_name(c.activation), "rope_theta": c.rope_theta,
        "rope_scaling": scaling, "max_position_embeddings": MAX_POSITIONS,
    } | (own or kind)  # fmt: skip


def layer_types(c: DecoderConfig) -> list[str]:
    """`layer_types` of config.json."""
    windowed = c.window_layers if c.window is not None else ()
    return ["sliding_attention" if i in windowed else "full_attention" for i in range(c.layers)]


def layer_rules(c: DecoderConfig, path: str, name: str) -> list[Rule]:
    attention, mlp = f"{name}.self_attn", f"{name}.mlp"
    norms = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm"} if c.pre_norms else {}
    if c.post_norms:  # Gemma 2
        norms |= {"norm2": "pre_feedforward_layernorm"} if c.pre_norms else {}
        norms |= {"post_norm1": "post_attention_layernorm", "post_norm2": "post_feedforward_layernorm"}
    return [
        *(rule for ours, theirs in norms.items() for rule in norm(f"{path}/{ours}", f"{name}.{theirs}", bias=False)),
        *(rule for x in "qkv" for rule in linear(f"{path}/attention/{x}", f"{attention}.{x}_proj", c.qkv_bias)),
        *linear(f"{path}/attention/o", f"{attention}.o_proj", c.out_bias),
        *(
            (same(f"{path}/attention/{x}_norm/scale", f"{attention}.{x}_norm.weight") for x in "qk")
            if c.qk_norm or c.qk_norm_joint
            else ()
        ),
        *(rule for x in ("gate", "up", "down") for rule in linear(f"{path}/mlp/{x}", f"{mlp}.{x}_proj", c.mlp_bias)),
    ]


def rules(c: DecoderConfig) -> list[Rule]:
    return [
        same("embedding", "embed_tokens.weight"),
        *(rule for i in range(c.layers) for rule in layer_rules(c, f"layers/{i}", f"layers.{i}")),
        *norm("norm", "norm", bias=False),
        *([] if c.tied else [transposed("head", "lm_head.weight")]),
    ]


FAMILY = Family(
    model_types=("llama", "mistral"),
    anchor="embed_tokens.weight",
    config=config,
    rules=rules,
    to_hf=to_hf,
    stem="model.",
    ignored=(r"layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),  # a buffer of early conversions
)
