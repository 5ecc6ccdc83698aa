"""Tiny models of every family that the export writes, redrawn so that each option shows."""

import numpy as np

from vlax.models.build import abstract_part

VOCAB = 304
TEXT = ["caption: a red square", "question: is it red? answer: no, it isn't 2024"]
TEXT_SIZES = {"vocab_size": VOCAB, "width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8, "mlp_dim": 44}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8}  # fmt: skip
GEMMA = {"norm_offset": 1.0, "embed_scale": True, "activation": "gelu_tanh"}
GEMMA2 = GEMMA | {"post_norms": True, "attention_scale": 20**-0.5, "attention_softcap": 2.0, "logit_softcap": 3.0,
                  "window": 5, "window_layers": (0,)}  # fmt: skip
LONG = {"rope_type": "longrope", "factor": 32.0, "original_max_position_embeddings": 4096, "short_factor": (1.0, 2.0),
        "long_factor": (1.0, 40.0)}  # fmt: skip
LEARNED = {"norm": "layer", "gated_mlp": False, "mlp_bias": True, "qkv_bias": True, "out_bias": True, "rope_theta": None,
           "max_positions": 64, "kv_heads": 4}  # fmt: skip
DECODERS = {
    "llama": {"eps": 1e-5},
    "llama, untied": {"tied": False, "head_dim": 12, "rope_scaling": LLAMA3},
    "llama, biases": {"qkv_bias": True, "out_bias": True, "mlp_bias": True},
    "mistral": {"window": 5, "window_layers": (0, 1)},
    "qwen2": {"qkv_bias": True},
    "qwen2, window": {"qkv_bias": True, "head_dim": 12, "tied": False, "window": 5, "window_layers": (1,)},
    "qwen3": {"qk_norm": True, "head_dim": 12},
    "gpt2": LEARNED | {"activation": "gelu_tanh"},
    "opt": LEARNED | {"activation": "relu", "eps": 1e-5},
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA2
    | {
        "qk_norm": True,
        "window_rope_theta": 20.0,
        "attention_softcap": None,
        "logit_softcap": None,
        "layers": 3,
        "window_layers": (0, 2),
    },
    "smollm3": {"nope_layers": (1,), "layers": 3},
    "phi3": {"rotary_dim": 4, "rope_scaling": LONG},
    "phi3, window": {
        "window": 5,
        "window_layers": (0, 1),
        "tied": False,
        "rope_scaling": LONG
        | {"short_factor": (1.0, 2.0, 3.0, 4.0), "long_factor": (1.0, 4.0, 5.0, 6.0), "attention_factor": 1.25},
        "kv_heads": 4,
    },
    "olmo2": {"qk_norm_joint": True, "pre_norms": False, "post_norms": True},
    "granite": {"embed_multiplier": 12.0, "attention_scale": 0.015625, "residual_multiplier": 0.22, "logit_divisor": 8.0},
    "stablelm": {"norm": "layer", "qkv_bias": True, "rotary_dim": 4, "tied": False},
    "llama, yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8}},
}
SIZES = {"image_size": 30, "patch_size": 7, "width": 32, "layers": 2, "heads": 4, "mlp_dim": 64}
CLIP = {"class_token": True, "pre_norm": True, "post_norm": False, "patch_bias": False, "activation": "quick_gelu"}
DINO = {"class_token": True, "layer_scale": True, "activation": "gelu"}
TOWERS = {
    "siglip_vision_model": {"mean": (0.4, 0.5, 0.6)},
    "siglip_vision_model, not post-normed": {"post_norm": False},
    "clip_vision_model": CLIP,
    "dinov2": DINO | {"gated_mlp": True, "activation": "silu", "mlp_dim": 48},
    "dinov2_with_registers": DINO | {"registers": 3, "post_norm": False},
    "dinov3_vit": DINO | {"registers": 3, "rope_theta": 20.0, "key_bias": False, "mlp_dim": 48},
    "aimv2_vision_model": {"norm": "rms", "gated_mlp": True, "patch_norm": True, "attention_bias": False, "mlp_bias": False},
    "internvl_vision": DINO | {"post_norm": False, "mlp_dim": 44},  # at a whole ratio it is a DINOv2
    "dinov3_vit, gated": DINO | {"gated_mlp": True, "activation": "silu", "rope_theta": 100.0, "post_norm": False},
}


def drawn(module, config, path: str, dtype="float32") -> dict:
    """{path: array}, every parameter redrawn: zero biases and unit norms hide faults."""
    rng = np.random.default_rng(0)
    shapes = abstract_part(module, config)
    values = {name: rng.standard_normal(leaf.shape) * (0.3 if leaf.ndim > 1 else 0.2) for name, leaf in sorted(shapes.items())}
    return {path + name: (value + name.endswith("scale")).astype(np.dtype(dtype)) for name, value in values.items()}


def assert_same(have: dict, want: dict) -> None:
    assert have.keys() == want.keys()
    for name, value in want.items():
        assert have[name].dtype == value.dtype
        np.testing.assert_array_equal(have[name], value, err_msg=name)
