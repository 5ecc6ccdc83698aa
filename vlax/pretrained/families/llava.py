"""LLaVA-1.5's layout (arXiv 2310.03744, `LlavaForConditionalGeneration`): CLIP or SigLIP, a two-layer MLP, Llama or Qwen2.

The mask is causal, unless the checkpoint is an export of vlax whose config says otherwise under "vlax". vlax puts the image
first: a prompt in which text precedes it (Vicuna's "USER: <image>") is read in another order.
"""

import dataclasses

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.pretrained.families import fields
from vlax.pretrained.families.rules import Rule, Whole, hidden_state, linear

# Those whose stock class the stock LLaVA class drives rightly (Gemma 2: without the last cap).
DECODERS = (
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "smollm3", "phi3", "olmo2", "stablelm",
)  # fmt: skip


def config(hf: dict, vision: VisionConfig, decoder: DecoderConfig) -> VLMConfig:
    layer, strategy = hf["vision_feature_layer"], hf["vision_feature_select_strategy"]
    if not isinstance(layer, int):
        raise VlaxError(
            f"{hf['model_type']} config: vision_feature_layer={layer} is not implemented, only one layer is; choose another "
            "checkpoint"
        )
    wanted = "default" if vision.class_token else "full"  # "default" drops the first token
    if strategy != wanted:
        raise VlaxError(
            f"{hf['model_type']} config: vision_feature_select_strategy={strategy!r} is not implemented for a tower "
            f"{'with' if vision.class_token else 'without'} a class token, only {wanted!r}; choose another checkpoint"
        )
    # With this field the last hidden state is the post-normed one.
    tied = hf["vision_config"].get("tie_last_hidden_states") and layer in (-1, vision.layers)
    vision = vision if tied else hidden_state(vision, layer)
    act, bias = fields.activation(hf["projector_hidden_act"]), hf["multimodal_projector_bias"]
    projector = ProjectorConfig("mlp", vision.width, decoder.width, activation=act, bias=bias)
    mask = (hf.get("vlax") or {}).get("mask", "causal")
    # The stock class takes the decoder without its head's soft cap (Gemma 2), and so was the checkpoint trained.
    decoder = dataclasses.replace(decoder, logit_softcap=None)
    return VLMConfig(decoder=decoder, vision=vision, projector=projector, mask=mask)


def to_hf(c: VLMConfig) -> dict:
    """What config.json says beside its towers. The tower is written as far as it runs: its last layer's output is taken."""
    vision, projector, _ = c.tower
    return {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "image_seq_length": c.tokens_per_image,
        "projector_hidden_act": fields.activation_name(projector.activation),
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default" if vision.class_token else "full",
        "multimodal_projector_bias": projector.bias,
    }


def obstacles(c: VLMConfig, decoder: str) -> list[str]:
    """Why LLaVA's stock class would compute something else; decoder: the model_type of the decoder's family."""
    vision, projector, _ = c.tower
    found = []
    if c.mask not in ("causal", "image_bidirectional"):
        found.append(
            f"the mask is {c.mask}: the stock class masks causally, so what image and prompt tokens see of each other would be "
            f"lost"
        )
    if c.mask == "image_bidirectional" and c.decoder.window is not None:
        found.append("a mask that is passed in replaces the decoder's sliding window: all layers would see everything before")
    if projector.kind != "mlp":
        found.append("the projector is one linear layer: the stock class applies two with an activation between them")
    if projector.pixel_shuffle > 1:
        found.append(
            f"the projector joins {projector.pixel_shuffle} x {projector.pixel_shuffle} features to a token: the stock "
            f"class makes a token of each"
        )
    if projector.pool > 1 or projector.norm or projector.newline:
        found.append("the projector averages or norms features, or writes tokens of its own: the stock class does not")
    if vision.registers:
        found.append("the tower has register tokens: the stock class drops the class token alone and takes them for features")
    elif vision.class_token and vision.post_norm:
        found.append("the features are the tower's post-normed ones: of a DINOv2 the stock class takes them before that norm")
    if decoder not in DECODERS:
        found.append(f"the stock class is right around {', '.join(DECODERS)} only, and the decoder is {decoder}")
    elif c.decoder.logit_softcap is not None:
        found.append("the stock class leaves out the soft cap of the decoder's logits")
    return found


def rules(c: ProjectorConfig) -> list[Rule]:
    return [
        *linear("fc1", "multi_modal_projector.linear_1", c.bias),
        *linear("fc2", "multi_modal_projector.linear_2", c.bias),
    ]


MODEL = Whole(
    model_types=("llava",), anchor="multi_modal_projector.linear_1.weight", config=config, rules=rules, to_hf=to_hf,
    obstacles=obstacles,
)  # fmt: skip
