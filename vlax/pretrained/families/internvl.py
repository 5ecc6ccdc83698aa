"""InternVL in transformers' layout (arXiv 2504.10479): InternViT, squares of features joined to one, a norm, two layers, Qwen2.

The mask is causal. A picture is seen as a whole; the checkpoints were also shown parts of it, before the whole and within one
pair of `<img>` and `</img>`, which vlax does not write.
"""

from collections.abc import Callable

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.pretrained.families import fields
from vlax.pretrained.families.rules import Rule, Whole, linear, norm


def config(hf: dict, vision: VisionConfig, decoder: DecoderConfig) -> VLMConfig:
    fields.require(hf, vision_feature_layer=-1, vision_feature_select_strategy="default")
    ratio = round(1 / hf["downsample_ratio"])
    if vision.grid % ratio:
        step = vision.patch_size * ratio
        raise VlaxError(
            f"internvl config: {vision.grid} x {vision.grid} patches can't be joined {ratio} x {ratio}: give an image_size of "
            f"a multiple of {step} pixels, such as {max(1, vision.image_size // step) * step}"
        )
    act = fields.activation(hf["projector_hidden_act"])
    projector = ProjectorConfig("mlp", vision.width, decoder.width, ratio, act, norm="layer", eps=1e-5)  # torch's own eps
    return VLMConfig(decoder=decoder, vision=vision, projector=projector, mask="causal")


def rules(c: ProjectorConfig) -> list[Rule]:
    name = "multi_modal_projector"
    return [
        *norm("norm", f"{name}.layer_norm"),
        *linear("fc1", f"{name}.linear_1", c.bias),
        *linear("fc2", f"{name}.linear_2", c.bias),
    ]


def picture(hf: dict, token: Callable[[int | str], str]) -> dict[str, str]:
    return {"token": token(hf["image_token_id"]), "before": token("<img>"), "after": token("</img>")}


MODEL = Whole(
    model_types=("internvl",), anchor="multi_modal_projector.layer_norm.weight", config=config, rules=rules, picture=picture
)
