"""CLIP's vision tower (arXiv 2103.00020): a class token, a LayerNorm before the first layer, none on the patch features."""

import dataclasses

from vlax.models.vision import VisionConfig
from vlax.pretrained.families import fields, siglip
from vlax.pretrained.families.rules import Family, Rule, identity_norm, norm, patch_conv, reshaped, same


def config(hf: dict) -> VisionConfig:
    return dataclasses.replace(siglip.config(hf), class_token=True, pre_norm=True, post_norm=False, patch_bias=False)


def to_hf(c: VisionConfig) -> dict:
    return {"model_type": "clip_vision_model", "architectures": ["CLIPVisionModel"]} | fields.write(siglip.FIELDS, c)


def rules(c: VisionConfig) -> list[Rule]:
    return [
        patch_conv("patch/kernel", "embeddings.patch_embedding.weight", c.patch_size),
        reshaped("prefix", "embeddings.class_embedding", (1, -1), (-1,)),
        same("position", "embeddings.position_embedding.weight"),
        *norm("pre_norm", "pre_layrnorm"),  # the checkpoints' own spelling
        *(rule for i in range(c.layers) for rule in siglip.layer_rules(f"layers/{i}", f"encoder.layers.{i}")),
    ]


FAMILY = Family(
    model_types=("clip_vision_model",),
    anchor="embeddings.patch_embedding.weight",
    config=config,
    rules=rules,
    to_hf=to_hf,
    stem="vision_model.",
    filler=lambda c: identity_norm("post_layernorm", c.width),
    ignored=(r"post_layernorm\..*", r"embeddings\.position_ids"),  # the norm of the pooled class token, a buffer
    outside=(r"text_model\..*", r"(text|visual)_projection\.weight", r"logit_scale"),
    layer=-2,  # LLaVA's choice: the last layer serves the class token that the contrastive loss reads
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
