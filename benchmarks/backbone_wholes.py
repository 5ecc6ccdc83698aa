"""The tiny whole models on which imports are compared with transformers + torch, of the shapes in `backbone_cases.py`."""

from benchmarks.backbone_cases import GEMMA, GEMMA2, GEMMA3, LLAMA, SIGLIP, VIT, Case

WHOLE_GEMMA = GEMMA | {"num_key_value_heads": 1}
TOWER = SIGLIP | {"vision_use_head": False}
LLAVA = {"image_token_index": 66, "projector_hidden_act": "gelu"}
PALIGEMMA = {"image_token_index": 66, "projection_dim": 32, "hidden_size": 32}
IDEFICS = {"image_token_id": 66, "scale_factor": 2}
WHOLE = {
    "PaliGemma": Case(
        "PaliGemmaForConditionalGeneration", "PaliGemmaConfig",
        PALIGEMMA | {"vision_config": ("SiglipVisionConfig", TOWER), "text_config": ("GemmaConfig", WHOLE_GEMMA)},
        {"prefix-LM mask": {"mask": "causal"}},
    ),
    "PaliGemma 2": Case(  # untied: a tied head answers with its own last token again and again
        "PaliGemmaForConditionalGeneration", "PaliGemmaConfig",
        PALIGEMMA | {"tie_word_embeddings": False, "vision_config": ("SiglipVisionConfig", TOWER),
                     "text_config": ("Gemma2Config", GEMMA2 | {"sliding_window": 64, "final_logit_softcapping": 30.0})},
        {"prefix-LM mask": {"mask": "image_bidirectional"}},
    ),
    "LLaVA, CLIP + Llama": Case(
        "LlavaForConditionalGeneration", "LlavaConfig",
        LLAVA | {"vision_config": ("CLIPVisionConfig", SIGLIP), "text_config": ("LlamaConfig", LLAMA)},
        {"causal mask": {"mask": "prefix_lm"}},
    ),
    "LLaVA, SigLIP + Qwen2": Case(
        "LlavaForConditionalGeneration", "LlavaConfig",
        LLAVA | {"vision_config": ("SiglipVisionConfig", TOWER), "vision_feature_select_strategy": "full",
                 "vision_feature_layer": -1, "multimodal_projector_bias": False,
                 "text_config": ("Qwen2Config", LLAMA | {"tie_word_embeddings": True})},
        {"causal mask": {"mask": "prefix_lm"}},
    ),
    "Idefics3": Case(
        "Idefics3ForConditionalGeneration", "Idefics3Config",
        IDEFICS | {"scale_factor": 4, "vision_config": ("Idefics3VisionConfig", SIGLIP | {"image_size": 56}),
                   "text_config": ("LlamaConfig", LLAMA | {"num_key_value_heads": 4})},
        {"causal mask": {"mask": "prefix_lm"}},
    ),
    "SmolVLM": Case(
        "SmolVLMForConditionalGeneration", "SmolVLMConfig",
        IDEFICS | {"vision_config": ("SmolVLMVisionConfig", SIGLIP), "text_config": ("LlamaConfig", LLAMA)},
        {"causal mask": {"mask": "image_bidirectional"}},
    ),
    "Gemma 3, whole": Case(
        "Gemma3ForConditionalGeneration", "Gemma3Config",
        {"image_token_index": 66, "mm_tokens_per_image": 4, "tie_word_embeddings": False,
         "vision_config": ("SiglipVisionConfig", TOWER | {"layer_norm_eps": 0.02}),
         "text_config": ("Gemma3TextConfig", GEMMA3)},
        {"image mask": {"mask": "causal"}, "mean of features": {"projector": {"pool": 1}},
         "projector norm": {"projector": {"norm": ""}}, "its eps": {"projector": {"eps": 0.5}}},
    ),
    "LLaVA-OneVision": Case(
        "LlavaOnevisionForConditionalGeneration", "LlavaOnevisionConfig",
        {"image_token_id": 66, "tie_word_embeddings": True, "vision_config": ("SiglipVisionConfig", TOWER),
         "image_grid_pinpoints": [[TOWER["image_size"] * y, TOWER["image_size"] * x] for y in (1, 2, 3) for x in (1, 2, 3)],
         "vision_aspect_ratio": "anyres_max_2", "text_config": ("Qwen2Config", LLAMA | {"tie_word_embeddings": True})},
        {"causal mask": {"mask": "prefix_lm"}, "parts": {"preprocess": {"anyres": None}},
         "shrinking": {"preprocess": {"anyres": {"most": 9}}}},
    ),
    "InternVL": Case(
        "InternVLForConditionalGeneration", "InternVLConfig",
        {"image_token_id": 66, "tie_word_embeddings": False,
         "vision_config": ("InternVLVisionConfig", VIT | {"image_size": 28, "layer_norm_eps": 0.03, "attention_bias": True}),
         "text_config": ("Qwen2Config", LLAMA)},
        {"causal mask": {"mask": "prefix_lm"}, "projector norm": {"projector": {"norm": ""}},
         "its eps": {"projector": {"eps": 0.5}}},
    ),
    "LLaVA, SigLIP + Gemma 2": Case(  # whose last soft cap LLaVA's class leaves out
        "LlavaForConditionalGeneration", "LlavaConfig",
        LLAVA | {"tie_word_embeddings": False, "vision_config": ("SiglipVisionConfig", TOWER),
                 "vision_feature_select_strategy": "full", "vision_feature_layer": -1,
                 "text_config": ("Gemma2Config", GEMMA2 | {"sliding_window": 64, "final_logit_softcapping": 3.0})},
        {"causal mask": {"mask": "prefix_lm"}},
    ),
}  # fmt: skip
