"""PaliGemma (arXiv 2407.07726) and PaliGemma 2 (arXiv 2412.03555): SigLIP, one linear layer, Gemma; prefix-LM mask.

Image features enter unscaled: the reference divides them by sqrt(width) and multiplies by it again with the embeddings, or, in
later versions, scales the text embeddings only.
"""

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.pretrained.rules import Rule, Whole, linear


def config(hf: dict, vision: VisionConfig, decoder: DecoderConfig) -> VLMConfig:
    if decoder.window is not None and vision.tokens >= decoder.window:
        raise VlaxError(
            f"paligemma config: {vision.tokens} image tokens exceed the decoder's window of {decoder.window}, across which the "
            f"reference's prefix sees all of itself; that is not implemented, choose a checkpoint of fewer pixels"
        )
    projector = ProjectorConfig("linear", vision.width, decoder.width)
    return VLMConfig(decoder=decoder, vision=vision, projector=projector, mask="prefix_lm")


def rules(c: ProjectorConfig) -> list[Rule]:
    return linear("fc1", "multi_modal_projector.linear")


MODEL = Whole(model_types=("paligemma",), anchor="multi_modal_projector.linear.weight", config=config, rules=rules)
