"""The logit check of an export: transformers and torch on the written files against vlax on the export they were written from.

Optional: it needs torch. The difference is max |a - b| over the range of vlax's values, in float32.
"""

import importlib.util
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from vlax.errors import VlaxError
from vlax.params import groups
from vlax.pretrained.reading.loader import decoder_config, vision_config

TOLERANCE = 1e-4
ANSWERS = ("a red square", "no")


def missing() -> str:
    """Why there can be no check, or ""."""
    return "" if importlib.util.find_spec("torch") else "torch is not installed (pip install -r requirements-parity.txt)"


def check(directory, layout: str, model) -> float:
    """The difference of an export; NaN where either side has one. VlaxError where generate.py gives a prompt other ids.

    layout: `Written.layout`; model: the vlax.Model of the native export that it was written from.
    """
    kinds = {"llava": whole, "paligemma": whole, "apart": whole, "decoder": decoder, "vision": vision}
    ours, theirs = kinds[layout](Path(directory), model)
    return float(np.max([np.abs(a - b).max() / np.ptp(a) for a, b in zip(ours, theirs, strict=True)]))


def pictures(size: int) -> list[Image.Image]:
    """Two pictures of colour patches, of another size and shape than the tower's: resizing is part of the check."""
    rng = np.random.default_rng(0)
    patches = [rng.integers(0, 256, (5, 4 + i, 3), dtype=np.uint8) for i in range(2)]
    return [Image.fromarray(p).resize((size + 9, 2 * size - 5), Image.Resampling.NEAREST) for p in patches]


def examples(model) -> tuple[list[str], list[str], list[list[int]]]:
    """Two prompts as a user says them, the same with what the templates put around them, and the ids of their answers."""
    encoder, question = model.encoder, "is it red?"
    said = [encoder.prompts["caption"], encoder.prompts["question"].replace("{question}", question)]
    prompts = [encoder.prompt_text("caption", ""), encoder.prompt_text("question", question)]
    return said, prompts, [encoder.answer(answer, prompt) for prompt, answer in zip(prompts, ANSWERS, strict=True)]


def script(directory: Path) -> Any:
    """The generate.py of an export, as a module."""
    spec = importlib.util.spec_from_file_location("exported_generate", directory / "generate.py")
    assert spec is not None and spec.loader is not None
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    return run


def whole(directory: Path, model):
    """Logits of the answers' tokens: generate.py's inputs in the stock class or the parts that it joins, and model.logits."""
    import torch

    run = script(directory)
    parts = run.load(directory)
    images, (said, prompts, answers) = pictures(model.config.vision.image_size), examples(model)
    ours, theirs = model.logits(images, prompts, ANSWERS), []
    for image, text, prompt, answer in zip(images, said, prompts, answers, strict=True):
        have, want = run.prompt_ids(run.own_settings(parts[0]), parts[1], text), model.encoder.typed(prompt)
        if have != want:
            raise VlaxError(f"{directory}: generate.py turns {text!r} into {have}, and training had {want}; please report it")
        with torch.no_grad():
            logits = parts[0](**run.inputs(*parts, image, text, answer)).logits[0].numpy()
        theirs.append(logits[-len(answer) - 1 : -1, : ours.shape[-1]])
    return [row[: len(answer)] for row, answer in zip(ours, answers, strict=True)], theirs


def features(directory: Path, image: np.ndarray):
    """The stock tower's features [B,I,D] of uint8[B,H,W,3], as torch."""
    import torch
    from transformers import AutoModel

    config = vision_config(directory)
    pixels = (image / 255.0 - np.asarray(config.mean)) / np.asarray(config.std)
    tower = AutoModel.from_pretrained(directory, dtype=torch.float32).eval()
    with torch.no_grad():
        out = tower(torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2), output_hidden_states=True)
    hidden = out.last_hidden_state if config.post_norm else out.hidden_states[-1]
    return hidden[:, int(config.class_token) + config.registers :]


def vision(directory: Path, model):
    """Features of the tower."""
    size = model.config.vision.image_size
    image = np.stack([model.pixels(picture) for picture in pictures(size)])
    run = jax.jit(lambda params, image: groups.rebuild(model.graphdef, params).vision(image))
    return [np.asarray(run(model.params, image))], [features(directory, image).numpy()]


def causal_lm(directory: Path, embeddings, positions, sees: np.ndarray):
    """The stock decoder's logits [S,V] of embeddings(model) -> [1,S,D] under a mask bool[S,S], its sliding windows included."""
    import torch
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    config = decoder_config(directory)

    def additive(allowed):
        return torch.zeros(allowed.shape).masked_fill(~torch.tensor(allowed), torch.finfo(torch.float32).min)[None, None]

    mask = additive(sees)
    if config.window is not None:
        windowed = additive(sees & (positions[:, None] - positions[None] < config.window))
        kinds = getattr(lm.config, "layer_types", None)
        mask = {"full_attention": mask, "sliding_attention": windowed} if kinds else windowed
    with torch.no_grad():
        inputs = {"inputs_embeds": embeddings(lm), "position_ids": torch.tensor(positions)[None]}
        return lm(**inputs, attention_mask=mask).logits[0].numpy()


def decoder(directory: Path, model):
    """Logits of text alone."""
    import torch

    (_, prompts, answers), ours, theirs = examples(model), [], []

    @jax.jit
    def run(params, ids, positions, sees):
        language = groups.rebuild(model.graphdef, params).decoder
        return language.logits(language(language.embed(ids), positions[None], sees[None]))[0]

    for prompt, answer in zip(prompts, answers, strict=True):
        ids = np.asarray([model.encoder.typed(prompt) + answer], np.int32)
        positions, sees = np.arange(ids.shape[1]), np.tril(np.ones((ids.shape[1],) * 2, bool))
        ours.append(np.asarray(run(model.params, ids, positions, sees)))
        tokens = torch.tensor(ids, dtype=torch.long)
        theirs.append(causal_lm(directory, lambda lm, t=tokens: lm.get_input_embeddings()(t), positions, sees))
    return ours, theirs
