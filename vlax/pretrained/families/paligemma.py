"""PaliGemma (arXiv 2407.07726) and PaliGemma 2 (arXiv 2412.03555): SigLIP, one linear layer, Gemma; prefix-LM mask.

Image features enter unscaled: the reference divides them by sqrt(width) and multiplies by it again with the embeddings, or, in
later versions, scales the text embeddings only.
"""

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.pretrained.families.rules import Rule, Whole, linear


def config(hf: dict, vision: VisionConfig, decoder: DecoderConfig) -> VLMConfig:
    if decoder.window is not None and vision.tokens >= decoder.window:
        raise VlaxError(
            f"paligemma config: {vision.tokens} image tokens exceed the decoder's window of {decoder.window}, across which the "
            f"reference's prefix sees all of itself; that is not implemented, choose a checkpoint of fewer pixels"
        )
    projector = ProjectorConfig("linear", vision.width, decoder.width)
    return VLMConfig(decoder=decoder, vision=vision, projector=projector, mask="prefix_lm")


def to_hf(c: VLMConfig) -> dict:
    """What config.json says beside its towers."""
    return {
        "model_type": "paligemma",
        "architectures": ["PaliGemmaForConditionalGeneration"],
        "projection_dim": c.decoder.width,
        "hidden_size": c.decoder.width,
    }


def obstacles(c: VLMConfig, decoder: str) -> list[str]:
    """Why PaliGemma's stock class would compute something else; decoder: the model_type of the decoder's family."""
    vision, projector, _ = c.tower
    found = []
    if c.mask != "prefix_lm":
        found.append(f"the mask is {c.mask}: the stock class uses prefix_lm")
    if decoder not in ("gemma", "gemma2"):
        found.append(f"the mask prefix_lm has a stock class around Gemma only, and the decoder is {decoder}")
    plain = projector == ProjectorConfig("linear", vision.width, c.decoder.width, activation=projector.activation)
    if not plain:
        found.append("the projector is not one linear layer with a bias, the only thing that the stock class applies")
    if vision.class_token or not vision.post_norm:
        found.append("the stock class takes the post-normed features of a tower without class token")
    if c.decoder.window is not None and vision.tokens >= c.decoder.window:
        found.append("there are more image tokens than the decoder's window holds: the stock class's prefix sees across it")
    return found


def rules(c: ProjectorConfig) -> list[Rule]:
    return linear("fc1", "multi_modal_projector.linear")


MODEL = Whole(
    model_types=("paligemma",), anchor="multi_modal_projector.linear.weight", config=config, rules=rules, to_hf=to_hf,
    obstacles=obstacles,
)  # fmt: skip
