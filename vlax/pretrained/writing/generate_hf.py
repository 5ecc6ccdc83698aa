"""Runs this checkpoint with transformers and torch, without vlax and without code from anywhere else.

    python generate.py picture.png "PROMPT"
    python generate.py first.png second.png "PROMPT"

README.md lists the prompts that the model was trained with. Pictures come before the text; of a model that was trained with
pictures in it, a prompt may say where, by <image>. "vlax" in config.json (in projector.json, where the parts lie
apart) says the rest: a sequence is [image tokens | start | around[0] + PROMPT + around[1] | answer | one of stops], and `mask`
says who sees whom in it. A mask that the stock class does not have is passed in, once, when the prompt is read; generated
tokens see everything before them in any case.
"""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image, ImageOps
from safetensors.torch import load_file
from transformers.activations import ACT2FN

IMAGE, PLACE = "<image>", -1  # how a prompt says where a picture stands, and what stands there among ids


def load(directory, dtype=torch.float32, device="cpu"):
    """(model, tokenizer, image processor)"""
    text = pictures = directory = Path(directory)
    if (directory / "projector.json").exists():
        text, pictures = directory / "decoder", directory / "vision"
        model = Parts(directory, dtype)
    else:
        model = transformers.AutoModelForImageTextToText.from_pretrained(directory, dtype=dtype)
        if getattr(model.config.vision_config, "tie_last_hidden_states", False):
            check_features(model)
    # The tokenizer as it was saved; AutoTokenizer may exchange it for the decoder family's own.
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(text)
    if own_settings(model)["text"].get("interleaved") and IMAGE not in tokenizer.get_vocab():
        tokenizer.add_tokens([transformers.AddedToken(IMAGE, special=True, normalized=False)], special_tokens=True)
    return model.eval().to(device), tokenizer, transformers.AutoImageProcessor.from_pretrained(pictures, backend="pil")


@torch.no_grad()
def check_features(model):
    """Versions of transformers that don't know `tie_last_hidden_states` would take features without their last norm."""
    size = model.config.vision_config.image_size
    pixels = torch.zeros(1, 3, size, size, dtype=model.dtype, device=model.device)
    out = model.model.vision_tower(pixels, output_hidden_states=True)
    if not torch.equal(out.hidden_states[-1], out.last_hidden_state):
        raise SystemExit("this transformers does not know tie_last_hidden_states; install the version named in README.md")


class Parts(torch.nn.Module):
    """A tower and a decoder of stock classes, and the projector between them, which no stock class joins rightly."""

    def __init__(self, directory, dtype):
        super().__init__()
        values = json.loads((directory / "projector.json").read_text())
        self.between, self.own = values["projector"], values["vlax"]
        self.tower = transformers.AutoModel.from_pretrained(directory / "vision", dtype=dtype)
        self.decoder = transformers.AutoModelForCausalLM.from_pretrained(directory / "decoder", dtype=dtype)
        for name, value in load_file(directory / "projector.safetensors").items():
            self.register_buffer(name.replace(".", "_"), value.to(dtype))

    @property
    def device(self):
        return self.decoder.device

    @property
    def dtype(self):
        return self.decoder.dtype

    def linear(self, name, x):
        return torch.nn.functional.linear(x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias", None))

    def pictures(self, pixels):
        """[N,I,D]: what takes the places of the image tokens of N pictures."""
        out = self.tower(pixels, output_hidden_states=True)
        x = out.last_hidden_state if self.own["post_normed"] else out.hidden_states[-1]
        x = x[:, self.own["leading"] :]  # without class token and registers
        mean = self.between.get("pool", 1)
        if (
            r := self.between["pixel_shuffle"] * mean
        ) > 1:  # each r x r square of the grid, in reading order, becomes one token
            rows, count, width = x.shape
            side = round(count**0.5) // r
            x = x.reshape(rows, side, r, side, r, width).transpose(2, 3).reshape(rows, side**2, r * r, width)
            x = x.mean(2) if mean > 1 else x.flatten(2)
        if self.between.get("norm"):  # Gemma's
            x = torch.nn.functional.rms_norm(x, x.shape[-1:], 1 + self.norm_weight, self.between.get("eps", 1e-6))
        x = self.linear("fc1", x)
        return x if self.between["kind"] == "linear" else self.linear("fc2", ACT2FN[self.own["activation"]](x))

    def forward(self, input_ids, pixel_values=None, attention_mask=None, past_key_values=None, use_cache=False):
        x = self.decoder.get_input_embeddings()(input_ids.clamp(min=0))
        if pixel_values is not None:
            x = x.clone()
            # Granite's class multiplies all embeddings by a factor; vlax those of text alone.
            factor = getattr(self.decoder.config, "embedding_multiplier", 1.0)
            x[input_ids == PLACE] = self.pictures(pixel_values).flatten(0, 1) / factor
        first = 0 if past_key_values is None else past_key_values.get_seq_length()
        positions = torch.arange(first, first + x.shape[1], device=x.device)
        mask = None
        if attention_mask is not None:  # bool[S,S]
            mask = additive(attention_mask, x.dtype)
            # Qwen2 says its window's size, also where no layer has one.
            kinds, window = getattr(self.decoder.config, "layer_types", None), self.own["window"]
            if window is not None:
                near = additive(attention_mask & (positions[:, None] - positions < window), x.dtype)
                mask = {"full_attention": mask, "sliding_attention": near} if kinds else near
        more = {"past_key_values": past_key_values, "use_cache": use_cache}
        return self.decoder(inputs_embeds=x, position_ids=positions[None], attention_mask=mask, **more)


def additive(sees, dtype):
    """[1,1,S,S] of bool[S,S]."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)[None, None]


def own_settings(model):
    return model.own if isinstance(model, Parts) else model.config.vlax


def prompt_ids(own, tokenizer, prompt, pictures=0):
    """The ids of a prompt and of what stands around it, with PLACE for every <image> of a model that was trained so; of one
    that has words around a picture, pictures that the prompt does not place stand in front of it.

    ValueError where the prompt names a special token: vlax reads it as text.
    """
    before, after = own["around"]
    places, picture = own["text"].get("interleaved", False), own["text"].get("picture") or {"before": "", "after": ""}
    shown = picture["before"] + IMAGE + picture["after"]
    before = before.replace(IMAGE, "" if IMAGE in prompt else IMAGE.join(own.get("picture", ["", ""])) * pictures)
    prompt = prompt.replace(IMAGE, shown) if places else prompt
    added = tokenizer.added_tokens_decoder
    special = {i for i, token in added.items() if token.special or token.content in before + shown + after}
    special -= {tokenizer.convert_tokens_to_ids(IMAGE)} if places else set()

    def ids_of(text):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids, [i for i in ids if i in special]

    ids, found = ids_of(before + prompt + after)
    if found != ids_of(before + (shown * prompt.count(IMAGE) if places else "x") + after)[1]:
        raise ValueError("the prompt has a special token in it, which vlax reads as text and this script does not; reword it")
    if places and IMAGE in before + prompt:
        place = tokenizer.convert_tokens_to_ids(IMAGE)
        ids = [PLACE if i == place else i for i in ids]
        count = next((n for n, i in enumerate(reversed(ids)) if i != PLACE), 0)
        if count:  # a text token stands between a picture and an answer
            ids = [*ids[: -count - 1], *[PLACE] * count, ids[-count - 1]]
    return own["start"] + ids


def upright(image):
    """RGB as people see it: by its EXIF orientation, deep grey in 8 bits, white where it is transparent."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        grey = np.asarray(image)
        image = Image.fromarray((grey >> 8 if grey.dtype.kind in "iu" else np.round(grey * 255)).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def views(own, processor, image):
    """[n,3,H,W]: a picture and, of a model that was trained with tiles, the parts in which it keeps most of its pixels."""
    image, size, tiles = upright(image), own.get("image_size"), own.get("tiles", 0)
    made = functools.partial(processor, return_tensors="pt")

    def kept(columns, rows):
        scale = min(columns * size / image.width, rows * size / image.height, 1.0)
        return int(image.width * scale) * int(image.height * scale)

    grids = [(columns, rows) for rows in range(1, tiles + 1) for columns in range(1, tiles // rows + 1)] or [(1, 1)]
    columns, rows = max(grids, key=lambda one: (kept(*one), -one[0] * one[1])) if tiles else (1, 1)
    found = [made(image)["pixel_values"]]
    if columns * rows > 1:
        wide = image.resize((columns * size, rows * size), processor.resample)
        corners = [(x * size, y * size) for y in range(rows) for x in range(columns)]
        as_they_are = {key: False for key in ("do_resize", "do_center_crop", "do_pad") if hasattr(processor, key)}
        found += [made(wide.crop((x, y, x + size, y + size)), **as_they_are)["pixel_values"] for x, y in corners]
    return torch.cat(found)


def inputs(model, tokenizer, processor, image, prompt, answer=()):
    """The arguments of model(...) for a prompt and a picture, a list of them or None; `answer`: ids that follow the prompt."""
    own, apart = own_settings(model), isinstance(model, Parts)
    pictures = [] if image is None else [image] if isinstance(image, Image.Image) else list(image)
    shown = [views(own, processor, picture) for picture in pictures]
    text = prompt_ids(own, tokenizer, prompt, len(shown))
    text = text if PLACE in text else [PLACE] * len(shown) + text
    if text.count(PLACE) != len(shown):
        raise ValueError(f"the prompt has {text.count(PLACE)} {IMAGE}, and there are {len(shown)} pictures: as many of both")
    ids, owner, left, slot = [], [], iter(shown), 0  # owner: the number of each place's picture or part, 0 of text
    for token in text:
        for _ in next(left) if token == PLACE else ():
            slot += 1
            ids += [PLACE if apart else model.config.image_token_id] * own["image_tokens"]
            owner += [slot] * own["image_tokens"]
        ids, owner = (ids, owner) if token == PLACE else ([*ids, token], [*owner, 0])
    prefix = len(ids)
    ids += answer
    out = {"input_ids": torch.tensor([ids], device=model.device)}
    if shown:
        out["pixel_values"] = torch.cat(shown).to(model.device, model.dtype)
    if apart or own["mask"] == "image_bidirectional":
        sees = torch.ones(len(ids), len(ids), dtype=torch.bool, device=model.device).tril()
        of = torch.tensor(owner + [0] * len(answer), device=model.device)
        asked = torch.arange(len(ids), device=model.device) < prefix
        if own["mask"] != "causal":
            sees |= (of[:, None] == of) & (of > 0)
        if own["mask"] == "image_sees_prompt":
            sees |= (of > 0)[:, None] & (asked & (of == 0))
        if own["mask"] == "prefix_lm":
            sees |= asked[:, None] & asked
        out["attention_mask"] = sees if apart else additive(sees, model.dtype)
    elif own["mask"] == "prefix_lm":  # 0: sees all of the prompt, 1: causal
        out["token_type_ids"] = torch.tensor([[0] * prefix + [1] * len(answer)], device=model.device)
    return out


@torch.no_grad()
def generate_ids(model, tokenizer, processor, image, prompt, max_new_tokens=32):
    """Ids of the most likely answer, token by token, with the one that ends it."""
    ids, stops = [], set(own_settings(model)["stops"])
    step, cache = inputs(model, tokenizer, processor, image, prompt), None
    while len(ids) < max_new_tokens and not stops.intersection(ids):
        out = model(**step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        ids.append(int(out.logits[0, -1].argmax()))
        step = {"input_ids": torch.tensor([ids[-1:]], device=model.device)}
    return ids


def generate(model, tokenizer, processor, image, prompt, max_new_tokens=32):
    """The answer's text."""
    ids = generate_ids(model, tokenizer, processor, image, prompt, max_new_tokens)
    said = ids[:-1] if ids and ids[-1] in own_settings(model)["stops"] else ids
    return tokenizer.decode(said, skip_special_tokens=True).strip()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    print(generate(*load(Path(__file__).parent), [Image.open(name) for name in sys.argv[1:-1]], sys.argv[-1]))
