"""LLaVA-OneVision (arXiv 2408.03326): the tower, projector and decoder of LLaVA's layout, and a learned token after a picture.

The mask is causal. A picture is padded to a square, all its features are tokens, and `image_newline` ends it: what the
reference makes of each of several pictures. One picture alone it also shows in parts, which are sewn together, cut to the
picture's shape and given that token at the end of each row; slots of equal numbers of tokens can't hold that, and vlax shows
it as one of several.
"""

import dataclasses
from collections.abc import Callable

from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.pretrained.families import llava
from vlax.pretrained.families.rules import Rule, Whole, same


def config(hf: dict, vision: VisionConfig, decoder: DecoderConfig) -> VLMConfig:
    c = llava.config(hf, vision, decoder)
    return dataclasses.replace(c, projector=dataclasses.replace(c.tower.projector, newline=True))


def rules(c: ProjectorConfig) -> list[Rule]:
    return [*llava.rules(c), same("newline", "image_newline")]


def picture(hf: dict, token: Callable[[int | str], str]) -> dict[str, str]:
    return {"token": token(hf["image_token_index"]), "before": "", "after": ""}


MODEL = Whole(
    model_types=("llava_onevision",), anchor=llava.MODEL.anchor, config=config, rules=rules, picture=picture,
)  # fmt: skip
