"""The tiny checkpoints on which imports are compared with transformers + torch: shapes, and the options to switch off.

Shapes are odd on purpose: widths that are no power of two, images with pixels beyond the last patch, more positions than RoPE's
original length and than the sliding window, caps within the logits' reach, an eps that is no rounding error.
"""

import dataclasses

LENGTH, VOCAB = 21, 67


@dataclasses.dataclass(frozen=True)
class Case:
    """model, config: names of transformers classes; `off`: {option: fields replaced}; `load`: arguments of the import.

    own: those of `off` that no other family has; the quick tests switch off these alone. None: they switch off all.
    """

    model: str
    config: str
    values: dict
    off: dict
    load: dict = dataclasses.field(default_factory=dict)
    nest: str = ""  # the argument of a containing config that takes this one
    own: tuple[str, ...] | None = None

    def quick(self) -> "Case":
        return self if self.own is None else dataclasses.replace(self, off={name: self.off[name] for name in self.own})


VIT = {"hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 7}
SIGLIP = VIT | {"image_size": 30, "layer_norm_eps": 0.03}  # 30 pixels: two of them beyond the last whole patch
DINO = VIT | {"image_size": 28, "layer_norm_eps": 0.03, "mlp_ratio": 2}
ACTIVATION, EPS = {"activation": "relu"}, {"eps": 1e-6}
DINO_OFF = {
    "activation": {"activation": "gelu_tanh"}, "eps": EPS, "layer scale": {"layer_scale": False},
    "class token": {"class_token": False, "registers": 0}, "post norm": {"post_norm": False},
}  # fmt: skip
DINO3 = VIT | {"image_size": 30, "layer_norm_eps": 0.03, "num_register_tokens": 3, "rope_theta": 20.0}
DINO3_OFF = DINO_OFF | {
    "registers": {"registers": 0}, "theta": {"rope_theta": 1e4}, "activation": {"activation": "relu"},
}  # fmt: skip
AIMV2 = VIT | {"image_size": 30, "rms_norm_eps": 0.03}
AIMV2_OFF = {
    "activation": ACTIVATION, "eps": EPS, "patch norm": {"patch_norm": False}, "post norm": {"post_norm": False},
    "gated MLP": {"gated_mlp": False},
}  # fmt: skip
NAFLEX = VIT | {"num_patches": 16, "layer_norm_eps": 0.03}
SIGLIP_OFF = {
    "activation": {"activation": "gelu"}, "eps": EPS, "post norm": {"post_norm": False}, "patch bias": {"patch_bias": False},
    "mean": {"mean": (0.4, 0.5, 0.5)},
}  # fmt: skip
CLIP_OFF = {
    "activation": {"activation": "gelu"}, "eps": EPS, "class token": {"class_token": False}, "pre norm": {"pre_norm": False},
    "layer -2": {"layers": 1},
}  # fmt: skip
VISION = {
    "SigLIP": Case("SiglipVisionModel", "SiglipVisionConfig", SIGLIP, SIGLIP_OFF),
    "SigLIP in SiglipModel": Case("SiglipModel", "SiglipConfig", SIGLIP, {"eps": EPS}, nest="vision_config"),
    "CLIP": Case("CLIPVisionModel", "CLIPVisionConfig", SIGLIP, CLIP_OFF),
    "CLIP in CLIPModel": Case("CLIPModel", "CLIPConfig", SIGLIP, {"eps": EPS}, nest="vision_config"),
    "CLIP, last layer": Case("CLIPVisionModel", "CLIPVisionConfig", SIGLIP, {"layer -1": {"layers": 2}}, {"layer": -1}),
    "DINOv2": Case("Dinov2Model", "Dinov2Config", DINO, DINO_OFF),
    "DINOv2 SwiGLU": Case(
        "Dinov2Model", "Dinov2Config", DINO | {"use_swiglu_ffn": True}, DINO_OFF | {"gated MLP": {"gated_mlp": False}}
    ),
    "DINOv2 registers": Case(
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", DINO | {"num_register_tokens": 3},
        DINO_OFF | {"registers": {"registers": 0}},
    ),
    "DINOv3": Case("DINOv3ViTModel", "DINOv3ViTConfig", DINO3, DINO3_OFF, own=("theta",)),
    "DINOv3 SwiGLU": Case(
        "DINOv3ViTModel", "DINOv3ViTConfig",
        DINO3 | {"use_gated_mlp": True, "hidden_act": "silu", "key_bias": True, "num_attention_heads": 2, "mlp_bias": False},
        DINO3_OFF | {"gated MLP": {"gated_mlp": False}, "key bias": {"key_bias": False}}, own=("theta", "key bias"),
    ),
    "AIMv2": Case("Aimv2VisionModel", "Aimv2VisionConfig", AIMV2, AIMV2_OFF, own=("patch norm",)),
    "InternViT": Case(
        "InternVLVisionModel", "InternVLVisionConfig",
        VIT | {"image_size": 28, "layer_norm_eps": 0.03, "attention_bias": True},
        {"activation": ACTIVATION, "eps": EPS, "layer scale": {"layer_scale": False}, "class token": {"class_token": False}},
        own=(),
    ),
    "SigLIP 2 NaFlex": Case("Siglip2VisionModel", "Siglip2VisionConfig", NAFLEX, SIGLIP_OFF, own=()),
    "SigLIP 2 NaFlex in Siglip2Model": Case(
        "Siglip2Model", "Siglip2Config", NAFLEX, {"eps": EPS}, nest="vision_config", own=()
    ),
}  # fmt: skip

LM = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 44, "num_hidden_layers": 3, "num_attention_heads": 4}
LLAMA = LM | {"num_key_value_heads": 2, "rms_norm_eps": 0.03, "tie_word_embeddings": False, "max_position_embeddings": 64}
GEMMA = LLAMA | {"tie_word_embeddings": True, "head_dim": 12}
GEMMA2 = GEMMA | {
    "sliding_window": 5, "query_pre_attn_scalar": 20, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0,
}  # fmt: skip
GEMMA3 = GEMMA | {
    "num_hidden_layers": 6, "sliding_window": 5, "query_pre_attn_scalar": 20,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"] * 2,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
    },
}  # fmt: skip
ROPE3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 1.0,
    "beta_slow": 0.1,
}  # fmt: skip
PHI = {**LLAMA, "pad_token_id": 0, "original_max_position_embeddings": 24, "max_position_embeddings": 96}
LONG = {
    "rope_type": "longrope", "rope_theta": 20.0, "short_factor": [1.0, 1.5, 2.0, 4.0], "long_factor": [1.0, 3.0, 9.0, 30.0],
}  # fmt: skip
GRANITE = LLAMA | {
    "embedding_multiplier": 2.0, "attention_multiplier": 0.5, "residual_multiplier": 0.3, "logits_scaling": 8.0,
}  # fmt: skip
GRANITE_OFF = {
    "embedding factor": {"embed_multiplier": 1.0}, "attention factor": {"attention_scale": None},
    "residual factor": {"residual_multiplier": 1.0}, "logit divisor": {"logit_divisor": 1.0},
}  # fmt: skip
LLAMA_OFF = {
    "activation": ACTIVATION, "eps": EPS, "untied head": {"tied": True}, "theta": {"rope_theta": 5e6},
    "gated MLP": {"gated_mlp": False},
}  # fmt: skip
SCALED, WINDOW = {"RoPE scaling": {"rope_scaling": None}}, {"window": {"window": None}}
BIASES = {"qkv bias": {"qkv_bias": False}, "out bias": {"out_bias": False}, "MLP bias": {"mlp_bias": False}}
GEMMA_OFF = {
    "activation": {"activation": "gelu"}, "eps": EPS, "norm offset": {"norm_offset": 0.0},
    "embedding scale": {"embed_scale": False},
}  # fmt: skip
GEMMA2_OFF = GEMMA_OFF | WINDOW | {
    "window layers": {"window_layers": (0, 1, 2)}, "attention cap": {"attention_softcap": None},
    "logit cap": {"logit_softcap": None}, "attention scale": {"attention_scale": None}, "post norms": {"post_norms": False},
}  # fmt: skip
GEMMA3_OFF = GEMMA_OFF | WINDOW | SCALED | {
    "window layers": {"window_layers": (0, 1, 2, 3, 4, 5)}, "windows' theta": {"window_rope_theta": None},
    "attention scale": {"attention_scale": None}, "post norms": {"post_norms": False}, "q, k norm": {"qk_norm": False},
}  # fmt: skip
DECODER = {
    "Llama 2, GQA": Case("LlamaForCausalLM", "LlamaConfig", LLAMA, LLAMA_OFF),
    "Llama 3": Case("LlamaForCausalLM", "LlamaConfig", LLAMA | {"rope_parameters": ROPE3}, LLAMA_OFF | SCALED),
    "Llama, linear RoPE, biases, tied": Case(
        "LlamaForCausalLM", "LlamaConfig",
        LLAMA | {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}, "attention_bias": True,
                 "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 12},
        SCALED | BIASES,
    ),
    "Llama base model, MQA": Case(
        "LlamaModel", "LlamaConfig", LLAMA | {"num_key_value_heads": 1, "tie_word_embeddings": True}, {"eps": EPS}
    ),
    "Mistral": Case("MistralForCausalLM", "MistralConfig", LLAMA | {"sliding_window": 5}, LLAMA_OFF | WINDOW),
    "Qwen2": Case("Qwen2ForCausalLM", "Qwen2Config", LLAMA, LLAMA_OFF | {"qkv bias": {"qkv_bias": False}}),
    "Qwen2, tied, window": Case(
        "Qwen2ForCausalLM", "Qwen2Config",
        LLAMA | {"tie_word_embeddings": True, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}, WINDOW,
    ),
    "Qwen3": Case("Qwen3ForCausalLM", "Qwen3Config", LLAMA | {"head_dim": 12}, LLAMA_OFF | {"q, k norm": {"qk_norm": False}}),
    "GPT-2": Case(
        "GPT2LMHeadModel", "GPT2Config",
        {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 24, "layer_norm_epsilon": 0.03},
        BIASES | {"activation": {"activation": "gelu"}, "eps": EPS},
    ),
    "OPT": Case(
        "OPTForCausalLM", "OPTConfig", LM | {"ffn_dim": 44, "word_embed_proj_dim": 32, "max_position_embeddings": 24},
        BIASES | {"activation": {"activation": "gelu"}, "eps": {"eps": 0.03}},
    ),
    "Gemma, MQA": Case("GemmaForCausalLM", "GemmaConfig", GEMMA | {"num_key_value_heads": 1}, GEMMA_OFF),
    "Gemma 2": Case("Gemma2ForCausalLM", "Gemma2Config", GEMMA2, GEMMA2_OFF),
    "Gemma 3": Case(
        "Gemma3ForCausalLM", "Gemma3TextConfig", GEMMA3, GEMMA3_OFF, own=("windows' theta", "window layers", "q, k norm")
    ),
    "SmolLM3": Case(
        "SmolLM3ForCausalLM", "SmolLM3Config", LLAMA | {"pad_token_id": None, "no_rope_layers": [1, 0, 1]},
        LLAMA_OFF | {"layers without RoPE": {"nope_layers": ()}}, own=("layers without RoPE",),
    ),
    "Qwen2, YaRN": Case(
        "Qwen2ForCausalLM", "Qwen2Config", LLAMA | {"rope_parameters": YARN},
        SCALED | {"attention factor": {"rope_scaling": YARN | {"attention_factor": 1.0}}}, own=("attention factor",),
    ),
    "Phi-3": Case(
        "Phi3ForCausalLM", "Phi3Config", PHI | {"rope_parameters": LONG, "sliding_window": 5}, SCALED | WINDOW,
        own=("RoPE scaling",),
    ),
    "Phi-4-mini": Case(
        "Phi3ForCausalLM", "Phi3Config",
        PHI | {"hidden_size": 64, "rope_parameters": LONG | {"partial_rotary_factor": 0.5}, "tie_word_embeddings": True},
        {"partial RoPE": {"rotary_dim": None, "rope_scaling": None}}, own=("partial RoPE",),
    ),
    "OLMo 2": Case(
        "Olmo2ForCausalLM", "Olmo2Config", LLAMA | {"pad_token_id": None},
        LLAMA_OFF | {"q, k norm": {"qk_norm_joint": False}, "post norms": {"post_norms": False}},
        own=("q, k norm", "post norms"),
    ),
    "Granite": Case("GraniteForCausalLM", "GraniteConfig", GRANITE, LLAMA_OFF | GRANITE_OFF, own=tuple(GRANITE_OFF)),
    "StableLM 2": Case(
        "StableLmForCausalLM", "StableLmConfig",
        LLAMA | {"layer_norm_eps": 0.03, "use_qkv_bias": True, "partial_rotary_factor": 0.5},
        LLAMA_OFF | {"qkv bias": {"qkv_bias": False}, "partial RoPE": {"rotary_dim": None}}, own=("partial RoPE",),
    ),
}  # fmt: skip
