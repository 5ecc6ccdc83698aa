"""LLaVA-1.5's layout (arXiv 2310.03744, `LlavaForConditionalGeneration`): CLIP or SigLIP, a two-layer MLP, Llama or Qwen2.

The mask is causal. vlax puts the image first: a prompt in which text precedes it (Vicuna's "USER: <image>") is read in
another order.
"""

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.pretrained.rules import Rule, Whole, activation, hidden_state, linear


def config(hf: dict, vision: VisionConfig, decoder: DecoderConfig) -> VLMConfig:
    layer, strategy = hf["vision_feature_layer"], hf["vision_feature_select_strategy"]
    if not isinstance(layer, int):
        raise VlaxError(
            f"llava config: vision_feature_layer={layer} is not implemented, only one layer is; choose another checkpoint"
        )
    wanted = "default" if vision.class_token else "full"  # "default" drops the first token
    if strategy != wanted:
        raise VlaxError(
            f"llava config: vision_feature_select_strategy={strategy!r} is not implemented for a tower "
            f"{'with' if vision.class_token else 'without'} a class token, only {wanted!r}; choose another checkpoint"
        )
    vision = hidden_state(vision, layer)
    act, bias = activation(hf["projector_hidden_act"]), hf["multimodal_projector_bias"]
    projector = ProjectorConfig("mlp", vision.width, decoder.width, activation=act, bias=bias)
    return VLMConfig(decoder=decoder, vision=vision, projector=projector, mask="causal")


def rules(c: ProjectorConfig) -> list[Rule]:
    return [
        *linear("fc1", "multi_modal_projector.linear_1", c.bias),
        *linear("fc2", "multi_modal_projector.linear_2", c.bias),
    ]


MODEL = Whole(model_types=("llava",), anchor="multi_modal_projector.linear_1.weight", config=config, rules=rules)
