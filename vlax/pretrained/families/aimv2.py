"""AIMv2 (arXiv 2411.14402): a ViT with RMSNorm, also of the patches, gated MLPs, and no biases behind the patches."""

from vlax.models.vision import VisionConfig
from vlax.pretrained.families import fields
from vlax.pretrained.families.rules import Family, Rule, linear, norm, patch_conv, same

FIELDS = {
    "image_size": "image_size", "patch_size": "patch_size", "width": "hidden_size", "layers": "num_hidden_layers",
    "heads": "num_attention_heads", "mlp_dim": "intermediate_size", "activation": "hidden_act", "eps": "rms_norm_eps",
    "attention_bias": "qkv_bias", "mlp_bias": "mlp_bias",
}  # fmt: skip


def config(hf: dict) -> VisionConfig:
    fields.require(hf, num_channels=3, is_native=False)
    return VisionConfig(**fields.read(FIELDS, hf), norm="rms", gated_mlp=True, patch_norm=True)


def to_hf(c: VisionConfig) -> dict:
    kind = {"model_type": "aimv2_vision_model", "architectures": ["Aimv2VisionModel"], "use_head": False}
    return kind | fields.write(FIELDS, c)


def layer_rules(c: VisionConfig, path: str, name: str) -> list[Rule]:
    attention = f"{name}.attention"
    return [
        *norm(f"{path}/norm1", f"{name}.rms_norm1", bias=False),
        *(rule for x in "qkv" for rule in linear(f"{path}/attention/{x}", f"{attention}.{x}_proj", c.attention_bias)),
        *linear(f"{path}/attention/o", f"{attention}.out_proj", c.attention_bias),
        *norm(f"{path}/norm2", f"{name}.rms_norm2", bias=False),
        *(rule for x in ("gate", "up", "down") for rule in linear(f"{path}/mlp/{x}", f"{name}.ffn.{x}_proj", c.mlp_bias)),
    ]


def rules(c: VisionConfig) -> list[Rule]:
    return [
        patch_conv("patch/kernel", "embeddings.patch_embed.weight", c.patch_size),
        same("patch/bias", "embeddings.patch_embed.bias"),
        *norm("patch_norm", "embeddings.rms_norm", bias=False),
        same("position", "embeddings.position_embedding.weight"),
        *(rule for i in range(c.layers) for rule in layer_rules(c, f"layers/{i}", f"encoder.layers.{i}")),
        *(norm("post_norm", "rms_norm", bias=False) if c.post_norm else []),
    ]


FAMILY = Family(
    model_types=("aimv2_vision_model",),
    anchor="embeddings.patch_embed.weight",
    config=config,
    rules=rules,
    to_hf=to_hf,
    filler=lambda c: {} if c.post_norm else {"rms_norm.weight": ((c.width,), 1.0)},
    ignored=(r"head\..*", r"embeddings\.position_ids"),  # the attention pooling head, a buffer
    outside=(r"text_model\..*", r"(text|visual)_projection\.weight", r"logit_scale"),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
