"""Pairs of small models with tokenizers and templates in the shapes of public ones, and a receiver of their exports."""

import pathlib
import re

import numpy as np
from export_cases import DECODERS, SIZES, TEXT_SIZES, TOWERS, drawn
from PIL import Image
from small_tokenizers import KINDS
from test_chat import PUBLIC, TOKENS

from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Request
from vlax.model import exports
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLM, VLMConfig
from vlax.pretrained.writing import logit_check
from vlax.text.prompts import Encoder, make
from vlax.text.settings import Settings
from vlax.text.tokenizer import size

MLP, LINEAR = {"kind": "mlp"}, {"kind": "linear"}
SHORT = DecodeConfig(max_new_tokens=8)


def encoder(kind: str, templates: str, system: str = "") -> Encoder:
    """kind: of `small_tokenizers`; templates: a set's name, a public chat template's of `test_chat`, or a TOML file."""
    made = KINDS[kind](extra=TOKENS)
    if templates in PUBLIC:
        made.add_tokens(["<think>", "</think>"])
        made.chat_template = PUBLIC[templates][0]
        return Encoder(made, "chat", Settings(date="2026-01-31", system=system))
    return make(made, templates, system)


def native(directory, encoder: Encoder, mask: str, decoder: str, tower: str, projector: dict, dtype="float32", tiles=0):
    """Writes a redrawn model as a vlax export, its embedding as large as the tokenizer; returns (config, parameters)."""
    rows = -(-(size(encoder.tokenizer) + 1) // 16) * 16
    decoder, capped, _ = decoder.partition(", no cap")
    decoder, wide, _ = decoder.partition(", wide window")
    text = DecoderConfig(
        **TEXT_SIZES
        | DECODERS[decoder]
        | {"vocab_size": rows}
        | ({"window": 400} if wide else {})
        | ({"logit_softcap": None} if capped else {})
    )
    eye = VisionConfig(**SIZES | TOWERS[tower])
    config = VLMConfig(text, eye, ProjectorConfig(vision_width=32, width=32, **projector), mask, tiles=tiles)
    params = drawn(lambda c, rngs: VLM(c, rngs=rngs), config, "", dtype)
    used = size(encoder.tokenizer)  # <image> takes a row that is never said: stock generation suppresses it
    params["decoder/embedding"][used:] = 0
    if "decoder/head" in params:
        params["decoder/head"][:, used:] = 0
    manifest = {"stage": "stage3", "template_name": encoder.templates, "text": encoder.settings.to_dict()}
    exports.export(directory, params, config, encoder.tokenizer, manifest)
    return config, params


def greedy(model, prompt: list[int], image) -> list[int]:
    """vlax's own tokens after a prompt's ids, with the one that ends them."""
    return decoded(model, Request(prompt, model.pixels(image)))


def decoded(model, request: Request) -> list[int]:
    [row] = next(iter(model.predictor(SHORT, 1).tokens(model.params, [request]))).tolist()
    ends = [at for at, token in enumerate(row) if token in model.encoder.stops]
    return row[: ends[0] + 1] if ends else row


def card_code(directory: pathlib.Path, import_line: str) -> str:
    """The block of code in an export's card that begins with a line; "" without one."""
    lines = (directory / "README.md").read_text().splitlines()
    at = [number for number, line in enumerate(lines) if line == "    " + import_line]
    if not at:
        return ""
    block = re.match(r"(?:(?:    .*)?\n)*", "\n".join(lines[at[0] :]) + "\n")[0]
    return "\n".join(line[4:] for line in block.splitlines())


def card_text(directory: pathlib.Path, prompt: str) -> str:
    """The text that the card's code makes of a prompt."""
    [line] = [
        line for line in card_code(directory, "from PIL import Image, ImageOps").splitlines() if line.startswith("text = ")
    ]
    return eval(line.removeprefix("text = "), {"prompt": prompt})


def receive(directory: pathlib.Path, tmp_path: pathlib.Path, prompt: str):
    """What somebody gets who types what the card says, for his own prompt: (processor's inputs, generated ids)."""
    code = card_code(directory, "from PIL import Image, ImageOps").replace("picture.png", str(tmp_path / "picture.png"))
    code = re.sub(r"(image, prompt = .*convert\(\"RGB\"\), ).*", lambda found: found[1] + repr(prompt), code)
    code = code.replace("max_new_tokens=32", f"max_new_tokens={SHORT.max_new_tokens}")
    scope = {"DIR": str(directory)}
    exec(code, scope)
    return scope["inputs"], scope["ids"].tolist()


def pixels(model, image) -> np.ndarray:
    """float[3,H,W], normalised as the tower wants it."""
    eye = model.config.vision
    return ((model.pixels(image) / 255.0 - np.asarray(eye.mean)) / np.asarray(eye.std)).transpose(2, 0, 1)


def picture(tmp_path: pathlib.Path) -> Image.Image:
    image = logit_check.pictures(30)[1]
    image.save(tmp_path / "picture.png")
    return image
