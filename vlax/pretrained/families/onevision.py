"""LLaVA-OneVision (arXiv 2408.03326): the tower, projector and decoder of LLaVA's layout, and a learned token after a picture.

The mask is causal. Each of several pictures is padded to a square, all its features are tokens, and `image_newline` ends it.
One picture alone is shown in parts, too, which are sewn together, cut to the picture's shape and given that token at the end
of each row (`vlax/images/anyres.py`).
"""

import dataclasses
import re
from collections.abc import Callable

from vlax.errors import VlaxError
from vlax.images.anyres import AnyRes
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.pretrained.families import llava
from vlax.pretrained.families.rules import Rule, Whole, same


def config(hf: dict, vision: VisionConfig, decoder: DecoderConfig) -> VLMConfig:
    c = llava.config(hf, vision, decoder)
    preprocess = dataclasses.replace(c.tower.preprocess, anyres=anyres(hf, c.tower.vision.grid))
    return dataclasses.replace(c, projector=dataclasses.replace(c.tower.projector, newline=True), preprocess=preprocess)


def anyres(hf: dict, side: int) -> AnyRes:
    """How a picture alone is shown; side: patches a side of a part."""
    size, how, points = hf["vision_config"]["image_size"], str(hf["vision_aspect_ratio"]), hf["image_grid_pinpoints"]
    found = re.fullmatch(r"anyres_max_(\d+)", how)
    if not found:
        raise VlaxError(f"llava_onevision config: vision_aspect_ratio={how!r} is not implemented, only anyres_max_N is")
    if not points or any(length % size for point in points for length in point):
        raise VlaxError(
            f"llava_onevision config: image_grid_pinpoints are to be multiples of the tower's {size} pixels, and "
            f"{next((p for p in points or [] if any(x % size for x in p)), 'none')} is not; choose another checkpoint"
        )
    return AnyRes(tuple((height // size, width // size) for height, width in points), side, int(found[1]))


def rules(c: ProjectorConfig) -> list[Rule]:
    return [*llava.rules(c), same("newline", "image_newline")]


def picture(hf: dict, token: Callable[[int | str], str]) -> dict[str, str]:
    return {"token": token(hf["image_token_index"]), "before": "", "after": ""}


MODEL = Whole(
    model_types=("llava_onevision",), anchor=llava.MODEL.anchor, config=config, rules=rules, picture=picture,
)  # fmt: skip
