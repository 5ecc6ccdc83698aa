"""DINOv3's ViTs (arXiv 2508.10104): DINOv2 with registers, rotary positions in place of learned ones, and no bias on keys."""

import numpy as np

from vlax.models.vision import VisionConfig
from vlax.pretrained.families import fields
from vlax.pretrained.families.rules import Arrays, Family, Rule, identity_norm, linear, norm, patch_conv, same

FIELDS = {
    "image_size": "image_size", "patch_size": "patch_size", "width": "hidden_size", "layers": "num_hidden_layers",
    "heads": "num_attention_heads", "mlp_dim": "intermediate_size", "activation": "hidden_act", "eps": "layer_norm_eps",
    "gated_mlp": "use_gated_mlp", "registers": "num_register_tokens", "rope_theta": "rope_theta", "key_bias": "key_bias",
    "mlp_bias": "mlp_bias",
}  # fmt: skip


def config(hf: dict) -> VisionConfig:
    fields.require(hf, num_channels=3, query_bias=True, value_bias=True, proj_bias=True)
    return VisionConfig(**fields.read(FIELDS, hf), class_token=True, layer_scale=True)


def to_hf(c: VisionConfig) -> dict:
    kind = {"model_type": "dinov3_vit", "architectures": ["DINOv3ViTModel"]}
    return kind | fields.write(FIELDS, c) | {"rope_theta": c.rope_theta or 100.0}  # learned positions show on reading back


def filler(c: VisionConfig) -> dict:
    return {"embeddings.mask_token": ((1, 1, c.width), 0.0)} | ({} if c.post_norm else identity_norm("norm", c.width))


def prefix() -> Rule:
    """Class token [1,1,D] and registers [1,R,D], of which there may be none, <-> prefix [1+R,D]."""

    def read(x: Arrays) -> Arrays:
        return [np.concatenate([x[0][0], x[1][0]])]

    def write(x: Arrays) -> Arrays:
        return [x[0][None, :1], x[0][None, 1:]]

    return Rule(("embeddings.cls_token", "embeddings.register_tokens"), ("prefix",), read, write)


def layer_rules(c: VisionConfig, path: str, name: str) -> list[Rule]:
    sides = ("gate", "up", "down") if c.gated_mlp else ("up", "down")
    attention = f"{name}.attention"
    return [
        *norm(f"{path}/norm1", f"{name}.norm1"),
        *(rule for x in "qvo" for rule in linear(f"{path}/attention/{x}", f"{attention}.{x}_proj", c.attention_bias)),
        *linear(f"{path}/attention/k", f"{attention}.k_proj", c.attention_bias and c.key_bias),
        same(f"{path}/scale1", f"{name}.layer_scale1.lambda1"),
        *norm(f"{path}/norm2", f"{name}.norm2"),
        *(rule for x in sides for rule in linear(f"{path}/mlp/{x}", f"{name}.mlp.{x}_proj", c.mlp_bias)),
        same(f"{path}/scale2", f"{name}.layer_scale2.lambda1"),
    ]


def rules(c: VisionConfig) -> list[Rule]:
    return [
        patch_conv("patch/kernel", "embeddings.patch_embeddings.weight", c.patch_size),
        same("patch/bias", "embeddings.patch_embeddings.bias"),
        prefix(),
        *(rule for i in range(c.layers) for rule in layer_rules(c, f"layers/{i}", f"layer.{i}")),
        *(norm("post_norm", "norm") if c.post_norm else []),
    ]


FAMILY = Family(
    model_types=("dinov3_vit",),
    anchor="embeddings.cls_token",
    config=config,
    rules=rules,
    to_hf=to_hf,
    filler=filler,
    ignored=(r"embeddings\.mask_token", r"rope_embeddings\.inv_freq"),  # used in pretraining only; a buffer
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
