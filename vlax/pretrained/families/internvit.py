"""InternViT-300M, the tower of InternVL (arXiv 2404.16821): DINOv2's options under other names, and no norm of the features."""

from vlax.models.vision import VisionConfig
from vlax.pretrained.families import fields
from vlax.pretrained.families.rules import Family, Rule, linear, norm, patch_conv, reshaped, same

FIELDS = {
    "image_size": "image_size", "patch_size": "patch_size", "width": "hidden_size", "layers": "num_hidden_layers",
    "heads": "num_attention_heads", "mlp_dim": "intermediate_size", "activation": "hidden_act", "eps": "layer_norm_eps",
}  # fmt: skip


def config(hf: dict) -> VisionConfig:
    """InternViT-6B has RMSNorms, others of q and k, and no biases: it is refused."""
    fields.require(
        hf,
        num_channels=3,
        norm_type="layer_norm",
        use_qk_norm=False,
        attention_bias=True,
        use_absolute_position_embeddings=True,
    )
    post_norm = not hf["use_mean_pooling"]
    return VisionConfig(**fields.read(FIELDS, hf), class_token=True, layer_scale=True, post_norm=post_norm)


def to_hf(c: VisionConfig) -> dict:
    kind = {"model_type": "internvl_vision", "architectures": ["InternVLVisionModel"], "attention_bias": True}
    values = kind | fields.write(FIELDS, c) | {"use_mean_pooling": not c.post_norm}
    return values | {name: [values[name]] * 2 for name in ("image_size", "patch_size")}


def layer_rules(path: str, name: str) -> list[Rule]:
    attention = f"{name}.attention"
    return [
        *norm(f"{path}/norm1", f"{name}.layernorm_before"),
        *(rule for x in "qkv" for rule in linear(f"{path}/attention/{x}", f"{attention}.{x}_proj")),
        *linear(f"{path}/attention/o", f"{attention}.projection_layer"),
        same(f"{path}/scale1", f"{name}.lambda_1"),
        *norm(f"{path}/norm2", f"{name}.layernorm_after"),
        *linear(f"{path}/mlp/up", f"{name}.mlp.fc1"),
        *linear(f"{path}/mlp/down", f"{name}.mlp.fc2"),
        same(f"{path}/scale2", f"{name}.lambda_2"),
    ]


def rules(c: VisionConfig) -> list[Rule]:
    return [
        patch_conv("patch/kernel", "embeddings.patch_embeddings.projection.weight", c.patch_size),
        same("patch/bias", "embeddings.patch_embeddings.projection.bias"),
        reshaped("prefix", "embeddings.cls_token", (1, -1), (1, 1, -1)),
        reshaped("position", "embeddings.position_embeddings", (-1, c.width), (1, -1, c.width)),
        *(rule for i in range(c.layers) for rule in layer_rules(f"layers/{i}", f"encoder.layer.{i}")),
        *(norm("post_norm", "layernorm") if c.post_norm else []),
    ]


FAMILY = Family(
    model_types=("internvl_vision",),
    anchor="embeddings.cls_token",
    config=config,
    rules=rules,
    to_hf=to_hf,
    ignored=(r"embeddings\.mask_token",),
    outside=(r"(model\.)?(language_model|multi_modal_projector)\..*", r"(language_model\.)?lm_head\.weight"),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
