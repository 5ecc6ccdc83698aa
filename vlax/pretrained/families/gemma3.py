"""Gemma 3 from 4B on (arXiv 2503.19786): SigLIP, squares of features averaged to one, an RMS norm, a matrix, the text model.

The tokens of a picture see each other, all else is causal; a sliding window cuts across both. A picture stands within the
text, between tokens of its own ("\\n\\n<start_of_image>", "<end_of_image>\\n\\n"). It is seen as a whole: the parts that the
processor can add (pan and scan) are not shown.
"""

import math
from collections.abc import Callable

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.pretrained.families.rules import Rule, Whole, same


def config(hf: dict, vision: VisionConfig, decoder: DecoderConfig) -> VLMConfig:
    own = hf["vision_config"]
    patches, side = own["image_size"] // own["patch_size"], math.isqrt(hf["mm_tokens_per_image"])
    if side**2 != hf["mm_tokens_per_image"] or not side or patches % side:
        raise VlaxError(
            f"gemma3 config: {patches} x {patches} patches can't be averaged to mm_tokens_per_image="
            f"{hf['mm_tokens_per_image']} in equal squares, which is not implemented; choose another checkpoint"
        )
    ratio = patches // side
    if vision.grid % ratio:
        step = vision.patch_size * ratio
        raise VlaxError(
            f"gemma3 config: {vision.grid} x {vision.grid} patches can't be averaged {ratio} x {ratio}: give an image_size of "
            f"a multiple of {step} pixels, such as {max(1, vision.image_size // step) * step}"
        )
    projector = ProjectorConfig(
        "linear", vision.width, decoder.width, bias=False, pool=ratio, norm="rms", eps=own["layer_norm_eps"]
    )
    return VLMConfig(decoder=decoder, vision=vision, projector=projector, mask="image_bidirectional")


def rules(c: ProjectorConfig) -> list[Rule]:
    name = "multi_modal_projector"
    return [same("fc1/kernel", f"{name}.mm_input_projection_weight"), same("norm/scale", f"{name}.mm_soft_emb_norm.weight")]


def picture(hf: dict, token: Callable[[int | str], str]) -> dict[str, str]:
    begin, end = token(hf["boi_token_index"]), token(hf["eoi_token_index"])
    return {"token": begin, "before": f"\n\n{begin}", "after": f"{end}\n\n"}


MODEL = Whole(
    model_types=("gemma3",), anchor="multi_modal_projector.mm_soft_emb_norm.weight", config=config, rules=rules, picture=picture
)
