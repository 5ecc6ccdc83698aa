"""Tiny whole models of random weights, written by transformers as their owners would, with a tokenizer."""

import pathlib

from vlax.text.bpe import train_bpe

TEXTS = ["caption: a brown dog runs over the grass", "question: is it red? answer: no, two children play in the snow"]
VOCAB = 320  # embedding rows; the tokenizer has fewer
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = SIZES | {"image_size": 16, "patch_size": 8}
TEXT = SIZES | {"vocab_size": VOCAB, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 256}
CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% if m['role'] == 'assistant' %}<eos>{% endif %}{% endfor %}"
CHAT += "{% if add_generation_prompt %}<assistant>{% endif %}"


def write(name: str, directory: pathlib.Path, chat_template: str = "") -> pathlib.Path:
    """Writes "llava" (SigLIP, two layers between, Qwen2; causal), "paligemma" (SigLIP, one layer, Gemma; prefix_lm) or
    "smolvlm" (SigLIP, 2 x 2 features joined, Llama; causal)."""
    import torch
    import transformers

    torch.manual_seed(0)
    vision = transformers.SiglipVisionConfig(**VISION)
    tokenizer = train_bpe(TEXTS * 4, 300)
    if chat_template:
        tokenizer.chat_template = chat_template
    if name == "llava":
        config = transformers.LlavaConfig(
            vision_config=vision, text_config=transformers.Qwen2Config(**TEXT, tie_word_embeddings=True), image_token_index=310,
            vision_feature_layer=-1, vision_feature_select_strategy="full",
        )  # fmt: skip
        model = transformers.LlavaForConditionalGeneration(config)
    elif name == "smolvlm":
        config = transformers.SmolVLMConfig(
            vision_config=transformers.SmolVLMVisionConfig(**VISION), text_config=transformers.LlamaConfig(**TEXT),
            image_token_id=310, scale_factor=2,
        )  # fmt: skip
        model = transformers.SmolVLMForConditionalGeneration(config)
    else:
        config = transformers.PaliGemmaConfig(
            vision_config=vision, text_config=transformers.GemmaConfig(**TEXT), image_token_index=310, projection_dim=16
        )
        model = transformers.PaliGemmaForConditionalGeneration(config)
    model.eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
