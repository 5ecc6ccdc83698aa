"""Llama 2 and 3 (arXiv 2407.21783), and what shares their layout: SmolLM2, TinyLlama, Mistral; Qwen and Gemma build on it."""

from collections.abc import Callable

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families import fields
from vlax.pretrained.families.rules import Family, Rule, linear, norm, same, transposed

SCALINGS = {  # rope_type: the fields of `rope_scaling` that go with it
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
             "mscale_all_dim", "truncate"),
    "longrope": ("factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"),
}  # fmt: skip


def rope(hf: dict, kinds: tuple[str, ...] = ("default", "linear", "llama3", "yarn"), partial: bool = False) -> dict:
    """The fields rope_theta, rope_scaling and rotary_dim of a DecoderConfig; VlaxError for a kind that is not implemented.

    kinds, partial: the types that the family's reference knows, and whether it turns a part of a head.
    """
    values = hf["rope_parameters"]
    kind, share = values.get("rope_type", "default"), values.get("partial_rotary_factor", 1.0)
    if kind not in kinds or (share != 1.0 and not partial):
        raise VlaxError(
            f"{hf['model_type']} config: rope_parameters {values} are not implemented; {', '.join(kinds)} "
            f"{'are' if partial else 'over the whole head are'}. Choose another checkpoint"
        )
    if not isinstance(values.get("rope_theta"), int | float):
        raise VlaxError(
            f"{hf['model_type']} config: rope_theta is {values.get('rope_theta')!r}, not a number: write the one that the "
            "checkpoint was trained with (10000.0 in Llama 2)"
        )
    scaling = {"rope_type": kind} | {name: values[name] for name in SCALINGS[kind] if values.get(name) is not None}
    if "original_max_position_embeddings" in SCALINGS[kind]:
        original = scaling.setdefault("original_max_position_embeddings", hf["max_position_embeddings"])
        scaling.setdefault("factor", hf["max_position_embeddings"] / original)
    turning = None if share == 1.0 else int(head_dim(hf) * share)
    theta = float(values["rope_theta"])
    return {"rope_theta": theta, "rope_scaling": None if kind == "default" else scaling, "rotary_dim": turning}


def head_dim(hf: dict) -> int:
    return hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"]


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
        "head_dim": head_dim(hf),
        "activation": fields.activation(hf.get("hidden_act", "silu")),
        "mlp_bias": hf.get("mlp_bias", False), "qkv_bias": bias, "out_bias": bias,
    }  # fmt: skip
    turns = {} if "rope_theta" in options else rope(hf)
    return DecoderConfig(**(fields.read(FIELDS, hf) | values | turns | window(hf) | options))


# Rotary positions have no end: nothing here depends on this number, but other engines size their caches by it.
MAX_POSITIONS = 32_768


def to_hf(c: DecoderConfig, **own) -> dict:
    """config.json in the key names that old and new readers share; `own` are those by which a family differs."""
    mistral = c.window is not None and c.window_layers == tuple(range(c.layers))
    kind = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "attention_bias": c.qkv_bias, "mlp_bias": c.mlp_bias}
    if mistral:
        kind = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": c.window}
    scaling = None if c.rope_scaling is None else {k: list(v) if isinstance(v, tuple) else v for k, v in c.rope_scaling.items()}
    most = MAX_POSITIONS
    if c.rope_scaling is not None and c.rope_scaling["rope_type"] == "yarn":  # what transformers expects beside the factor
        most = round(c.rope_scaling["factor"] * c.rope_scaling["original_max_position_embeddings"])
    return fields.write(FIELDS, c) | {
        "head_dim": c.head_dim, "hidden_act": fields.activation_name(c.activation), "rope_theta": c.rope_theta,
        "rope_scaling": scaling, "max_position_embeddings": most,
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
        *(rule for ours, theirs in norms.items() for rule in norm(f"{path}/{ours}", f"{name}.{theirs}", c.norm == "layer")),
        *(rule for x in "qkv" for rule in linear(f"{path}/attention/{x}", f"{attention}.{x}_proj", c.qkv_bias)),
        *linear(f"{path}/attention/o", f"{attention}.o_proj", c.out_bias),
        *(
            (same(f"{path}/attention/{x}_norm/scale", f"{attention}.{x}_norm.weight") for x in "qk")
            if c.qk_norm or c.qk_norm_joint
            else ()
        ),
        *(rule for x in ("gate", "up", "down") for rule in linear(f"{path}/mlp/{x}", f"{mlp}.{x}_proj", c.mlp_bias)),
    ]


def rules(c: DecoderConfig, layer: Callable[[DecoderConfig, str, str], list[Rule]] = layer_rules) -> list[Rule]:
    return [
        same("embedding", "embed_tokens.weight"),
        *(rule for i in range(c.layers) for rule in layer(c, f"layers/{i}", f"layers.{i}")),
        *norm("norm", "norm", c.norm == "layer"),
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
