"""GPT-2 (Radford et al. 2019): learned positions, LayerNorm, biases everywhere, q, k and v in one Conv1D tensor."""

from vlax.models.decoder import DecoderConfig
from vlax.pretrained.families import fields
from vlax.pretrained.families.rules import Family, Rule, fused, norm, same, transposed

FIELDS = {
    "vocab_size": "vocab_size", "width": "n_embd", "layers": "n_layer", "heads": "n_head", "max_positions": "n_positions",
    "activation": "activation_function", "eps": "layer_norm_epsilon", "tied": "tie_word_embeddings",
}  # fmt: skip


def learned(names: dict[str, str], hf: dict, mlp_dim: int, bias: bool = True, **options) -> DecoderConfig:
    """A decoder with learned positions, which OPT is too; names: as in `fields.read`."""
    values = fields.read(names, hf)
    values |= {"kv_heads": values["heads"], "head_dim": values["width"] // values["heads"], "mlp_dim": mlp_dim}
    values |= {"mlp_bias": bias, "qkv_bias": bias, "out_bias": bias, "gated_mlp": False, "norm": "layer", "rope_theta": None}
    return DecoderConfig(**(values | options))


def config(hf: dict) -> DecoderConfig:
    fields.require(hf, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    scale = None if hf["scale_attn_weights"] else 1.0
    return learned(FIELDS, hf, hf["n_inner"] or 4 * hf["n_embd"], attention_scale=scale)


def to_hf(c: DecoderConfig) -> dict:
    kind = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    more = {"n_inner": c.mlp_dim, "scale_attn_weights": c.attention_scale is None}
    return kind | fields.write(FIELDS, c, "gelu_new") | more


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
