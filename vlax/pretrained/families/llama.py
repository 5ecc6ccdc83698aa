"""Llama 2 and 3 (arXiv 2407.21783), and what shares their layout: SmolLM2, TinyLlama, Mistral; Qwen and Gemma build on it."""

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families.rules import Family, Rule, activation, activation_name, linear, norm, same, transposed


def rope(hf: dict) -> dict:
    """The fields rope_theta and rope_scaling of a DecoderConfig; VlaxError for a kind that is not implemented."""
    values = hf["rope_parameters"]
    kind = values.get("rope_type", "default")
    if kind not in ("default", "linear", "llama3") or values.get("partial_rotary_factor", 1.0) != 1.0:
        raise VlaxError(
            f"{hf['model_type']} config: rope_parameters {values} are not implemented; default, linear and llama3 over the "
            f"whole head are. Choose another checkpoint"
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


def config(hf: dict, **options) -> DecoderConfig:
    """`options` are the fields by which a family differs from Llama."""
    heads = hf["num_attention_heads"]
    values = {
        "vocab_size": hf["vocab_size"],
        "width": hf["hidden_size"],
        "layers": hf["num_hidden_layers"],
        "heads": heads,
        "kv_heads": hf["num_key_value_heads"],
        "head_dim": hf.get("head_dim") or hf["hidden_size"] // heads,
        "mlp_dim": hf["intermediate_size"],
        "activation": activation(hf.get("hidden_act", "silu")),
        "mlp_bias": hf.get("mlp_bias", False),
        "eps": hf["rms_norm_eps"],
        "qkv_bias": hf.get("attention_bias", False),
        "out_bias": hf.get("attention_bias", False),
        "tied": hf["tie_word_embeddings"],
        **rope(hf),
        **window(hf),
    }
    return DecoderConfig(**(values | options))


# Rotary positions have no end: nothing here depends on this number, but other engines size their caches by it.
MAX_POSITIONS = 32_768


def to_hf(c: DecoderConfig, **fields) -> dict:
    """config.json in the key names that old and new readers share; `fields` are those by which a family differs."""
    mistral = c.window is not None and c.window_layers == tuple(range(c.layers))
    kind = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": c.qkv_bias, "mlp_bias": c.mlp_bias}
    if mistral:
        kind = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": c.window}
    return {
        "vocab_size": c.vocab_size,
        "hidden_size": c.width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.mlp_dim,
        "hidden_act": activation_name(c.activation),
        "rms_norm_eps": c.eps,
        "tie_word_embeddings": c.tied,
        "rope_theta": c.rope_theta,
        "rope_scaling": None if c.rope_scaling is None else dict(c.rope_scaling),
        "max_position_embeddings": MAX_POSITIONS,
    } | (fields or kind)


def layer_types(c: DecoderConfig) -> list[str]:
    """`layer_types` of config.json."""
    windowed = c.window_layers if c.window is not None else ()
    return ["sliding_attention" if i in windowed else "full_attention" for i in range(c.layers)]


def layer_rules(c: DecoderConfig, path: str, name: str) -> list[Rule]:
    attention, mlp = f"{name}.self_attn", f"{name}.mlp"
    norms = {"norm1": "input_layernorm", "norm2": "post_attention_layernorm"}
    if c.post_norms:  # Gemma 2
        norms |= {"post_norm1": "post_attention_layernorm", "norm2": "pre_feedforward_layernorm"}
        norms |= {"post_norm2": "post_feedforward_layernorm"}
    return [
        *(rule for ours, theirs in norms.items() for rule in norm(f"{path}/{ours}", f"{name}.{theirs}", bias=False)),
        *(rule for x in "qkv" for rule in linear(f"{path}/attention/{x}", f"{attention}.{x}_proj", c.qkv_bias)),
        *linear(f"{path}/attention/o", f"{attention}.o_proj", c.out_bias),
        *((same(f"{path}/attention/{x}_norm/scale", f"{attention}.{x}_norm.weight") for x in "qk") if c.qk_norm else ()),
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
