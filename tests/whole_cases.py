"""Tiny whole models of random weights, written by transformers as their owners would, with a tokenizer."""

import pathlib

from benchmarks.backbones import redraw
from vlax.text.bpe import train_bpe

TEXTS = ["caption: a brown dog runs over the grass", "question: is it red? answer: no, two children play in the snow"]
VOCAB = 320  # embedding rows; the tokenizer has fewer
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = SIZES | {"image_size": 16, "patch_size": 8}
TEXT = SIZES | {"vocab_size": VOCAB, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 256}
CHAT = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% if m['role'] == 'assistant' %}<eos>{% endif %}{% endfor %}"
CHAT += "{% if add_generation_prompt %}<assistant>{% endif %}"


GEMMA_CHAT = (  # of gemma-3-4b-it, but for what it says of roles out of order
    "{{ bos_token }}{%- for message in messages -%}"
    "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}{{ '<start_of_turn>' + role + '\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] | trim }}{%- else -%}{%- for item in message['content'] -%}"
    "{%- if item['type'] == 'image' -%}{{ '<start_of_image>' }}"
    "{%- elif item['type'] == 'text' -%}{{ item['text'] | trim }}{%- endif -%}{%- endfor -%}{%- endif -%}"
    "{{ '<end_of_turn>\n' }}{%- endfor -%}{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"
)
GEMMA_TOKENS = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}


ONEVISION_CHAT = (  # of llava-onevision-qwen2-0.5b-ov-hf, without its videos
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
    "{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\n' + content['text'] }}{% endfor %}"
    "{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ '\n' + content['text'] }}{% endgeneration %}{% endfor %}{% endif %}"
    "{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INTERNVL_CHAT = (  # of InternVL3-1B-hf, without its videos
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
PARTS = {  # of LLaVA-OneVision: up to 3 x 3 of a picture, whose tokens are shrunk where they are those of more than 4
    "image_grid_pinpoints": [[16 * rows, 16 * columns] for rows in (1, 2, 3) for columns in (1, 2, 3)],
    "vision_aspect_ratio": "anyres_max_4",
}
TURNS = ["<|im_start|>", "<|im_end|>"]
WITHIN = {  # name: (chat template, tokens that it needs, Settings.picture)
    "gemma3": (GEMMA_CHAT, ["<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>"], {
        "token": "<start_of_image>", "before": "\n\n<start_of_image>", "after": "<end_of_image>\n\n"}),
    "onevision": (ONEVISION_CHAT, [*TURNS, "<image>"], {"token": "<image>", "before": "", "after": ""}),
    "internvl": (INTERNVL_CHAT, [*TURNS, "<IMG_CONTEXT>", "<img>", "</img>"], {
        "token": "<IMG_CONTEXT>", "before": "<img>", "after": "</img>"}),
}  # fmt: skip


def gemma3(directory: pathlib.Path, tokenizer, vision):
    """Gemma 3's model; its processor is written."""
    import transformers

    tokenizer.add_special_tokens({"extra_special_tokens": ["<start_of_turn>", "<end_of_turn>", *GEMMA_TOKENS.values()]})
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in GEMMA_TOKENS.items()}
    layers = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
    config = transformers.Gemma3Config(
        vision_config=vision, text_config=transformers.Gemma3TextConfig(**TEXT | layers), mm_tokens_per_image=4,
        boi_token_index=ids["boi_token"], eoi_token_index=ids["eoi_token"], image_token_index=ids["image_token"],
    )  # fmt: skip
    tokenizer.model_specific_special_tokens = GEMMA_TOKENS
    tokenizer._set_model_specific_special_tokens(GEMMA_TOKENS)
    images = transformers.Gemma3ImageProcessorPil(size={"height": vision.image_size, "width": vision.image_size})
    processor = transformers.Gemma3Processor(images, tokenizer, chat_template=GEMMA_CHAT, image_seq_length=4)
    processor.save_pretrained(directory)
    return transformers.Gemma3ForConditionalGeneration(config)


def write(name: str, directory: pathlib.Path, chat_template: str = "") -> pathlib.Path:
    """Writes "llava" (SigLIP, two layers between, Qwen2; causal), "onevision" (the same and a newline), "internvl" (InternViT,
    2 x 2 features joined), both with chat templates, "paligemma" (SigLIP, one layer, Gemma; prefix_lm), "smolvlm" (SigLIP,
    2 x 2 features joined, Llama; causal) or "gemma3" (SigLIP, 2 x 2 features averaged, Gemma 3; image_bidirectional), with
    its processor."""
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
    elif name in ("onevision", "internvl"):
        tokenizer.chat_template, tokens, around = WITHIN[name]
        tokenizer.add_special_tokens({"extra_special_tokens": tokens})
        more = {"text_config": transformers.Qwen2Config(**TEXT, tie_word_embeddings=True), "tie_word_embeddings": True}
        more |= {"image_token_id": tokenizer.convert_tokens_to_ids(around["token"])}
        if name == "onevision":
            eye = transformers.SiglipVisionConfig(**VISION, vision_use_head=False)
            config = transformers.LlavaOnevisionConfig(vision_config=eye, **more, **PARTS)
            side = {"height": VISION["image_size"], "width": VISION["image_size"]}
            points = PARTS["image_grid_pinpoints"]
            transformers.LlavaOnevisionImageProcessorPil(size=side, image_grid_pinpoints=points).save_pretrained(directory)
            model = transformers.LlavaOnevisionForConditionalGeneration(config)
        else:
            eye = transformers.InternVLVisionConfig(**VISION, attention_bias=True)
            model = transformers.InternVLForConditionalGeneration(transformers.InternVLConfig(vision_config=eye, **more))
    elif name == "gemma3":
        vision = transformers.SiglipVisionConfig(**VISION | {"image_size": 32, "vision_use_head": False})
        redraw(gemma3(directory, tokenizer, vision), 5.0).save_pretrained(directory)
        return directory
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
    if name == "onevision":
        redraw(model, 5.0)
    model.eval().save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory
