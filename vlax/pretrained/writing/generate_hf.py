"""Runs this checkpoint with transformers and torch, without vlax.

    python generate.py picture.png "caption:"

A prompt is [image tokens | BOS, if the tokenizer has one | text], and `mask` under "vlax" in config.json says who sees whom
in it. With `image_bidirectional` image tokens see each other and text is causal. The stock class by itself is causal, so that
mask is passed in, once, when the prompt is read; generated tokens see everything before them in any case.
"""

import sys
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText, PreTrainedTokenizerFast


def load(directory, dtype=torch.float32, device="cpu"):
    """(model, tokenizer, image processor)"""
    model = AutoModelForImageTextToText.from_pretrained(directory, dtype=dtype).eval().to(device)
    if getattr(model.config.vision_config, "tie_last_hidden_states", False):
        check_features(model)
    # The tokenizer as it was saved; AutoTokenizer may exchange it for the decoder family's own.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    return model, tokenizer, AutoImageProcessor.from_pretrained(directory, backend="pil")


@torch.no_grad()
def check_features(model):
    """Versions of transformers that don't know `tie_last_hidden_states` would take features without their last norm."""
    size = model.config.vision_config.image_size
    pixels = torch.zeros(1, 3, size, size, dtype=model.dtype, device=model.device)
    out = model.model.vision_tower(pixels, output_hidden_states=True)
    if not torch.equal(out.hidden_states[-1], out.last_hidden_state):
        raise SystemExit("this transformers does not know tie_last_hidden_states; install the version named in README.md")


def inputs(model, tokenizer, processor, image, prompt, answer=()):
    """The arguments of model(...) for one picture (or None) and prompt; `answer`: token ids that follow the prompt."""
    own = model.config.vlax
    images = 0 if image is None else own["image_tokens"]
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    text = bos + tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = [model.config.image_token_id] * images + text + list(answer)
    out = {"input_ids": torch.tensor([ids], device=model.device)}
    if images:
        pixels = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
        out["pixel_values"] = pixels.to(model.device, model.dtype)
    if own["mask"] == "image_bidirectional":
        sees = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        sees[:images, :images] = True
        mask = torch.zeros(sees.shape, dtype=model.dtype).masked_fill(~sees, torch.finfo(model.dtype).min)
        out["attention_mask"] = mask[None, None].to(model.device)
    if own["mask"] == "prefix_lm":  # 0: sees all of the prompt, 1: causal
        out["token_type_ids"] = torch.tensor([[0] * (images + len(text)) + [1] * len(answer)], device=model.device)
    return out


@torch.no_grad()
def generate_ids(model, tokenizer, processor, image, prompt, max_new_tokens=32):
    """Ids of the most likely answer, token by token, EOS included."""
    ids: list[int] = []
    step, cache = inputs(model, tokenizer, processor, image, prompt), None
    while len(ids) < max_new_tokens and tokenizer.eos_token_id not in ids:
        out = model(**step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        ids.append(int(out.logits[0, -1].argmax()))
        step = {"input_ids": torch.tensor([ids[-1:]], device=model.device)}
    return ids


def generate(model, tokenizer, processor, image, prompt, max_new_tokens=32):
    """The answer's text."""
    ids = generate_ids(model, tokenizer, processor, image, prompt, max_new_tokens)
    return tokenizer.decode(ids, skip_special_tokens=True).strip()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    own_model, own_tokenizer, own_processor = load(Path(__file__).parent)
    print(generate(own_model, own_tokenizer, own_processor, Image.open(sys.argv[1]), sys.argv[2]))
