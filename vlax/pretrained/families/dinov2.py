"""DINOv2 (arXiv 2304.07193), also with registers (arXiv 2309.16588): class token, layer scale, in its giant form SwiGLU."""

import dataclasses

import numpy as np

from vlax.models.vision import VisionConfig
from vlax.pretrained.families import fields
from vlax.pretrained.families.rules import Arrays, Family, Rule, fused, identity_norm, linear, norm, patch_conv, reshaped, same


def swiglu(hidden: int) -> int:
    """SwiGLU keeps the parameter count: two thirds of the width, rounded up to a multiple of 8."""
    return (int(hidden * 2 / 3) + 7) // 8 * 8


FIELDS = {
    "image_size": "image_size", "patch_size": "patch_size", "width": "hidden_size", "layers": "num_hidden_layers",
    "heads": "num_attention_heads", "eps": "layer_norm_eps",
}  # fmt: skip


def config(hf: dict) -> VisionConfig:
    fields.require(hf, num_channels=3, qkv_bias=True)
    hidden, gated = int(hf["hidden_size"] * hf["mlp_ratio"]), hf["use_swiglu_ffn"]
    return VisionConfig(
        **fields.read(FIELDS, hf),
        mlp_dim=swiglu(hidden) if gated else hidden,
        activation="silu" if gated else fields.activation(hf["hidden_act"]),
        gated_mlp=gated,
        class_token=True,
        registers=hf.get("num_register_tokens", 0),
        layer_scale=True,
    )


def to_hf(c: VisionConfig) -> dict:
    ratios = [r for r in range(1, 17) if (swiglu(c.width * r) if c.gated_mlp else c.width * r) == c.mlp_dim]
    kind: dict = {"model_type": "dinov2", "architectures": ["Dinov2Model"]}
    if c.registers:
        kind = {"model_type": "dinov2_with_registers", "architectures": ["Dinov2WithRegistersModel"],
                "num_register_tokens": c.registers}  # fmt: skip
    return kind | fields.write(FIELDS, c) | {
        "mlp_ratio": ratios[0] if ratios else 4,  # whole numbers only: any other width shows on reading back
        "hidden_act": "gelu" if c.gated_mlp else fields.activation_name(c.activation), "use_swiglu_ffn": c.gated_mlp,
    }  # fmt: skip


def filler(c: VisionConfig) -> dict:
    return {"embeddings.mask_token": ((1, c.width), 0.0)} | ({} if c.post_norm else identity_norm("layernorm", c.width))


def prefix(c: VisionConfig) -> Rule:
    """Class token [1,1,D] and registers [1,R,D] <-> prefix [1+R,D]."""
    names = ("embeddings.cls_token", *(("embeddings.register_tokens",) if c.registers else ()))

    def read(x: Arrays) -> Arrays:
        return [np.concatenate([tokens[0] for tokens in x])]

    def write(x: Arrays) -> Arrays:
        return [x[0][None, :1], *([x[0][None, 1:]] if c.registers else [])]

    return Rule(names, ("prefix",), read, write)


def layer_rules(path: str, name: str, gated: bool) -> list[Rule]:
    attention = zip("qkv", ("query", "key", "value"), strict=True)
    if gated:
        sides = (f"{path}/mlp/gate", f"{path}/mlp/up")
        mlp = [
            fused([f"{side}/kernel" for side in sides], f"{name}.mlp.weights_in.weight", transpose=True),
            fused([f"{side}/bias" for side in sides], f"{name}.mlp.weights_in.bias"),
            *linear(f"{path}/mlp/down", f"{name}.mlp.weights_out"),
        ]
    else:
        mlp = [*linear(f"{path}/mlp/up", f"{name}.mlp.fc1"), *linear(f"{path}/mlp/down", f"{name}.mlp.fc2")]
    return [
        *norm(f"{path}/norm1", f"{name}.norm1"),
        *(rule for x, y in attention for rule in linear(f"{path}/attention/{x}", f"{name}.attention.attention.{y}")),
        *linear(f"{path}/attention/o", f"{name}.attention.output.dense"),
        same(f"{path}/scale1", f"{name}.layer_scale1.lambda1"),
        *norm(f"{path}/norm2", f"{name}.norm2"),
        *mlp,
        same(f"{path}/scale2", f"{name}.layer_scale2.lambda1"),
    ]


def rules(c: VisionConfig) -> list[Rule]:
    return [
        patch_conv("patch/kernel", "embeddings.patch_embeddings.projection.weight", c.patch_size),
        same("patch/bias", "embeddings.patch_embeddings.projection.bias"),
        prefix(c),
        reshaped("position", "embeddings.position_embeddings", (-1, c.width), (1, -1, c.width)),
        *(rule for i in range(c.layers) for rule in layer_rules(f"layers/{i}", f"encoder.layer.{i}", c.gated_mlp)),
        *(norm("post_norm", "layernorm") if c.post_norm else []),
    ]


FAMILY = Family(
    model_types=("dinov2",),
    anchor="embeddings.cls_token",
    config=config,
    rules=rules,
    to_hf=to_hf,
    filler=filler,
    ignored=(r"embeddings\.mask_token",),  # used in pretraining only
    outside=(r"classifier\..*",),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
# The reference resamples positions with antialiasing in the version with registers only.
REGISTERS = dataclasses.replace(FAMILY, model_types=("dinov2_with_registers",), resampling="bicubic, antialiased")
