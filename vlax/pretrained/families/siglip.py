"""SigLIP (arXiv 2303.15343) and SigLIP 2 at fixed resolution (arXiv 2502.14786), which share one layout, and SigLIP 2 NaFlex.

NaFlex is one checkpoint for grids of every shape; vlax gives it a square one, of `run.image_size`. At that grid it is a SigLIP,
and is written as one.
"""

import dataclasses

from vlax.errors import VlaxError
from vlax.models.vision import VisionConfig
from vlax.pretrained.families import fields
from vlax.pretrained.families.rules import Family, Rule, identity_norm, linear, norm, patch_conv, same

# CLIP has the same ones.
FIELDS = {
    "image_size": "image_size", "patch_size": "patch_size", "width": "hidden_size", "layers": "num_hidden_layers",
    "heads": "num_attention_heads", "mlp_dim": "intermediate_size", "activation": "hidden_act", "eps": "layer_norm_eps",
}  # fmt: skip


def config(hf: dict) -> VisionConfig:
    fields.require(hf, num_channels=3)
    return VisionConfig(**fields.read(FIELDS, hf))


def naflex(hf: dict) -> VisionConfig:
    """At the grid of its table of positions: 16 x 16 patches of the checkpoints that there are."""
    side = round(hf["num_patches"] ** 0.5)
    if side**2 != hf["num_patches"]:
        raise VlaxError(
            f"siglip2 config: num_patches={hf['num_patches']} is no square, which is not implemented; choose another checkpoint"
        )
    return config(hf | {"image_size": side * fields.side(hf["patch_size"])})


def to_hf(c: VisionConfig) -> dict:
    kind = {"model_type": "siglip_vision_model", "architectures": ["SiglipVisionModel"]}
    return kind | fields.write(FIELDS, c) | {"vision_use_head": False}  # there is no pooling head to write


def layer_rules(path: str, name: str) -> list[Rule]:
    """One encoder layer; CLIP's has the same names."""
    return [
        *norm(f"{path}/norm1", f"{name}.layer_norm1"),
        *(rule for x in "qkv" for rule in linear(f"{path}/attention/{x}", f"{name}.self_attn.{x}_proj")),
        *linear(f"{path}/attention/o", f"{name}.self_attn.out_proj"),
        *norm(f"{path}/norm2", f"{name}.layer_norm2"),
        *linear(f"{path}/mlp/up", f"{name}.mlp.fc1"),
        *linear(f"{path}/mlp/down", f"{name}.mlp.fc2"),
    ]


def rules(c: VisionConfig) -> list[Rule]:
    conv = patch_conv("patch/kernel", "embeddings.patch_embedding.weight", c.patch_size)
    return [conv, same("patch/bias", "embeddings.patch_embedding.bias"), *shared_rules(c)]


def naflex_rules(c: VisionConfig) -> list[Rule]:
    """Its patches come flattened, as ours do, to a matrix in place of a convolution."""
    return [*linear("patch", "embeddings.patch_embedding"), *shared_rules(c)]


def shared_rules(c: VisionConfig) -> list[Rule]:
    return [
        same("position", "embeddings.position_embedding.weight"),
        *(rule for i in range(c.layers) for rule in layer_rules(f"layers/{i}", f"encoder.layers.{i}")),
        *(norm("post_norm", "post_layernorm") if c.post_norm else []),
    ]


FAMILY = Family(
    model_types=("siglip_vision_model",),
    anchor="embeddings.patch_embedding.weight",
    config=config,
    rules=rules,
    to_hf=to_hf,
    stem="vision_model.",
    filler=lambda c: {} if c.post_norm else identity_norm("post_layernorm", c.width),
    ignored=(r"head\..*", r"embeddings\.position_ids"),  # the attention pooling head, a buffer
    outside=(r"text_model\..*", r"logit_(scale|bias)"),
)
# The tower of Idefics3 and SmolVLM.
IDEFICS = dataclasses.replace(FAMILY, model_types=("idefics3_vision", "smolvlm_vision"))
NAFLEX = dataclasses.replace(
    FAMILY, model_types=("siglip2_vision_model",), config=naflex, rules=naflex_rules, resampling="bilinear, antialiased"
)
