"""Idefics3 (arXiv 2408.12637) and SmolVLM (arXiv 2504.05299): SigLIP, squares of features joined to one, a matrix, Llama.

The mask is causal. A picture is seen as a whole; the checkpoints were also shown parts of it, with words of their own between
them ("<row_1_col_2>"), which vlax does not write: `run.tiles` shows parts without them. Exports lie apart.
"""

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.pretrained.families.rules import Rule, Whole, linear


def config(hf: dict, vision: VisionConfig, decoder: DecoderConfig) -> VLMConfig:
    ratio = hf["scale_factor"]
    if vision.grid % ratio:
        step = vision.patch_size * ratio
        raise VlaxError(
            f"{hf['model_type']} config: {vision.grid} x {vision.grid} patches can't be joined {ratio} x {ratio}: give an "
            f"image_size of a multiple of {step} pixels, such as {max(1, vision.image_size // step) * step}"
        )
    projector = ProjectorConfig("linear", vision.width, decoder.width, pixel_shuffle=ratio, bias=False)
    return VLMConfig(decoder=decoder, vision=vision, projector=projector, mask="causal")


def rules(c: ProjectorConfig) -> list[Rule]:
    return linear("fc1", "connector.modality_projection.proj", c.bias)


MODEL = Whole(
    model_types=("idefics3", "smolvlm"), anchor="connector.modality_projection.proj.weight", config=config, rules=rules
)
