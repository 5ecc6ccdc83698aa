"""Prints the table of docs/backbones.md: every family imported from a tiny checkpoint and compared with transformers + torch.

    python -m benchmarks.backbones            # or the rows whose names begin so: python -m benchmarks.backbones "Gemma 3" DINO

The tests run the same cases (`backbone_cases.py`). A case writes a randomly initialised checkpoint of which every parameter is
redrawn (defaults hide faults: zero biases, unit norms, caps that never bite), imports it and compares logits or features in
float32. With any option of the family switched off, the result must miss the tolerance by ten times.
"""

import dataclasses
import sys
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from benchmarks.backbone_cases import DECODER, LENGTH, VISION, VOCAB, Case
from benchmarks.backbone_wholes import WHOLE
from vlax.images import anyres
from vlax.models.decoder import Decoder
from vlax.models.vision import VisionTower
from vlax.models.vlm import VLM, VLMConfig
from vlax.params import groups
from vlax.pretrained.reading.loader import load_decoder, load_vision, load_vlm

SHAPES = ((41, 90), (120, 37))  # height, width of the pictures of which parts are shown: wide and tall
TOLERANCE = 1e-4  # of the range of the reference values


def redraw(model, gain: float = 50.0, seed: int = 0):
    """Every parameter anew: matrices at a gain that makes attention sharp; biases, norms and layer scales off their start.

    The forms of GELU differ by 5e-4 at most, near -2: MLPs are drawn to work there, and loudly (`gain`).
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(model.named_parameters()):
            noise = torch.randn(value.shape, generator=generator)
            first = any(part in name for part in ("fc1", "c_fc", "gate_proj"))
            last = any(part in name for part in ("fc2", "mlp.c_proj", "down_proj"))
            if "patch" in name or any(part in name for part in ("embed", "wte", "wpe", "token")):
                value.copy_(noise * 0.1 if "patch" in name else noise * 0.5 + 0.3)
            elif value.ndim >= 2:
                size = value.shape[0] if "GPT2" in type(model).__name__ else value[0].numel()
                value.copy_(noise * (gain if last else 1.7) / size**0.5)
                if "gate_proj" in name:  # no bias: the embeddings' mean pushes it instead
                    value.sub_(5.0 / size)
            else:
                value.add_(noise * 0.3 - (2.5 if first else 0.0))
    return model.eval()


def write(case: Case, directory: Path, gain: float = 50.0, seed: int = 0):
    """The case's torch model, its checkpoint written to `directory`."""
    import torch
    import transformers

    torch.set_num_threads(1)

    def config(name, values):
        nested = {key: config(*value) if isinstance(value, tuple) else value for key, value in values.items()}
        return getattr(transformers, name)(**nested, attn_implementation="eager")

    text = {"text_config": {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}}
    values = {case.nest: case.values, **text} if case.nest else case.values
    model = redraw(getattr(transformers, case.model)(config(case.config, values)), gain, seed)
    model.save_pretrained(directory)
    return model


def build(module, config, params: dict, prefix: str):
    """The module on those of `params` that it has; an option switched off needs fewer of them, or fewer rows."""
    graphdef, shapes = groups.flatten(nnx.eval_shape(lambda: module(config, rngs=nnx.Rngs(0))))
    cut = {path: params[prefix + path][tuple(map(slice, leaf.shape))] for path, leaf in shapes.items()}
    return groups.rebuild(graphdef, {path: jnp.asarray(value) for path, value in cut.items()})


def pixels(image: np.ndarray, config):
    """uint8[B,H,W,3] -> torch f32[B,3,H,W], normalised as the tower's config says."""
    import torch

    return torch.tensor((image / 255.0 - np.asarray(config.mean)) / np.asarray(config.std), dtype=torch.float32).permute(
        0, 3, 1, 2
    )


def vision_case(case: Case, directory: Path, image_size: int | None = None, seed: int = 0):
    """(reference features [B,I,D], config -> features of vlax, config, report)"""
    import torch

    model = write(case, directory, seed=seed)
    config, params, report = load_vision(directory, image_size=image_size, **case.load)
    image = np.random.default_rng(0).integers(0, 256, (2, config.image_size, config.image_size, 3), dtype=np.uint8)
    tower = model.vision_model if case.nest else model
    with torch.no_grad():
        out = tower(**vision_inputs(case, image, config, resampled=image_size is not None), output_hidden_states=True)
    layer = case.load.get("layer", -2) if "CLIP" in case.model else None
    hidden = out.last_hidden_state if layer is None else out.hidden_states[layer]
    reference = hidden[:, int(config.class_token) + config.registers :].numpy()
    return reference, lambda c: np.asarray(build(VisionTower, c, params, "vision/")(jnp.asarray(image))), config, report


def vision_inputs(case: Case, image: np.ndarray, config, resampled: bool) -> dict:
    """What the reference takes: an image, or flattened patches with the shape of their grid (NaFlex)."""
    import torch

    values = pixels(image, config)
    if "Siglip2" in case.model:
        p, grid = config.patch_size, config.grid
        patches = values[..., : p * grid, : p * grid].unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 4, 5, 1)
        flat = patches.reshape(len(image), grid**2, -1)
        shapes, seen = torch.tensor([[grid, grid]] * len(image)), torch.ones(flat.shape[:2], dtype=torch.int)
        return {"pixel_values": flat, "pixel_attention_mask": seen, "spatial_shapes": shapes}
    interpolate = {"interpolate_pos_encoding": True} if resampled and "dino" not in case.model.lower() else {}
    return {"pixel_values": values} | interpolate


def text_batch():
    """tokens, valid, positions [3,LENGTH]: a full row, one padded on the right, one on the left."""
    tokens = np.random.default_rng(0).integers(3, VOCAB, (3, LENGTH))
    index = np.arange(LENGTH)
    valid = np.stack([index >= 0, index < 14, index >= 4])
    return tokens, valid, np.maximum(np.cumsum(valid, 1) - 1, 0)


def decoder_case(case: Case, directory: Path, seed: int = 0):
    """(reference logits [n,V] at the valid positions, config -> logits of vlax, config, report)"""
    import torch

    model = write(case, directory, seed=seed)
    config, params, report = load_decoder(directory, **case.load)
    tokens, valid, positions = text_batch()
    arguments = {"input_ids": tokens, "attention_mask": valid.astype(int), "position_ids": positions}
    with torch.no_grad():
        out = model(**{name: torch.tensor(value) for name, value in arguments.items()})
        logits = out.logits if "logits" in out else out.last_hidden_state @ model.get_input_embeddings().weight.T
    mask = np.tril(np.ones((LENGTH, LENGTH), bool)) & valid[:, None] | np.eye(LENGTH, dtype=bool)

    def run(c):
        decoder = build(Decoder, c, params, "decoder/")
        hidden = decoder(decoder.embed(jnp.asarray(tokens)), jnp.asarray(positions), jnp.asarray(mask))
        return np.asarray(decoder.logits(hidden))[valid]

    return logits.numpy()[valid], run, config, report


def whole_batch(config: VLMConfig) -> dict:
    """A batch of vlax: two rows of image, prompt and answer, the second padded."""
    rng = np.random.default_rng(0)
    tokens, segment = rng.integers(3, VOCAB - 1, (2, LENGTH)), np.repeat([[1] * 9 + [2] * 12], 2, axis=0)
    segment[1, 6:] = [2] * 8 + [0] * 7
    size, sewn = config.tower.vision.image_size, config.anyres
    batch = {
        "image": rng.integers(0, 256, (2, 1, size, size, 3), dtype=np.uint8), "has_image": np.ones((2, 1), bool),
        "tokens": tokens, "segment": segment, "example": np.minimum(segment, 1),
    }  # fmt: skip
    if sewn is None:
        return batch
    shown = [Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in SHAPES]
    image = np.stack([config.tower.preprocess.views(picture, config.tiles) for picture in shown])
    return batch | {"image": image, "shown": anyres.tokens(image, sewn.side)}


def whole_inputs(batch: dict, config: VLMConfig, case: Case) -> dict:
    """The same for transformers: image tokens first, then the text; token types 0 (prefix) and 1 (answer) for PaliGemma."""
    import torch

    image_token = case.values.get("image_token_index", case.values.get("image_token_id"))
    images = np.full((len(batch["tokens"]), config.tokens_per_image), image_token)
    inputs = {
        "input_ids": np.concatenate([images, batch["tokens"]], 1),
        "attention_mask": np.concatenate([images * 0 + 1, batch["example"]], 1),
    }
    if config.mask == "prefix_lm":
        inputs["token_type_ids"] = np.concatenate([images * 0, batch["segment"] != 1], 1).astype(int)
    if "Gemma3" in case.model:  # 1: of a picture
        inputs["token_type_ids"] = np.concatenate([images * 0 + 1, batch["tokens"] * 0], 1)
    if config.anyres is not None:  # pictures have other numbers of tokens: pads come first
        hidden = np.arange(config.tokens_per_image) < config.tokens_per_image - batch["shown"]
        inputs["input_ids"][:, : config.tokens_per_image][hidden] = 0
        inputs["attention_mask"][:, : config.tokens_per_image][hidden] = 0
        size = config.tower.preprocess.size
        parts = batch["image"][:, 0, :-1].reshape(-1, size, size, 3)
        shown = pixels(parts, config.vision).reshape(2, config.looks, 3, size, size)
        inputs |= {"image_sizes": np.array(SHAPES), "batch_num_images": np.array([1, 1])}
    else:
        shown = pixels(batch["image"][:, 0], config.vision)
    if "Idefics3" in case.model or "SmolVLM" in case.model:  # which take several pictures a row
        shown = shown[:, None]
    return {name: torch.tensor(value) for name, value in inputs.items()} | {"pixel_values": shown}


def whole_case(case: Case, directory: Path):
    """(reference logits [n,V] at the text's valid positions, config -> logits of vlax, config, report)"""
    import torch

    model = write(case, directory, gain=5.0)  # two loud towers in a row amplify rounding
    config, params, report = load_vlm(directory)
    batch = whole_batch(config)
    with torch.no_grad():
        logits = model(**whole_inputs(batch, config, case)).logits
    valid = batch["example"] > 0

    def run(c):
        own = batch if c.anyres == config.anyres else whole_batch(c)
        return np.asarray(build(VLM, c, params, "")({name: jnp.asarray(value) for name, value in own.items()}))[valid]

    return logits.numpy()[:, config.tokens_per_image :][valid], run, config, report


def difference(reference: np.ndarray, value: np.ndarray) -> float:
    """max |difference| over the range of the reference; infinite where the shapes differ."""
    return float(np.abs(reference - value).max() / np.ptp(reference)) if reference.shape == value.shape else np.inf


def measure(case: Case, reference: np.ndarray, run, config) -> tuple[float, dict[str, float]]:
    """(difference of the import, {option: difference with it switched off})"""
    off = {name: difference(reference, run(changed(config, fields))) for name, fields in case.off.items()}
    return difference(reference, run(config)), off


def changed(config, fields: dict):
    """The config with other fields; {"projector": {...}} changes some of a part's, {"rope_scaling": {...}} is a value."""
    parts = {
        name: changed(part, own)
        for name, own in fields.items()
        if isinstance(own, dict) and dataclasses.is_dataclass(part := getattr(config, name))
    }
    return dataclasses.replace(config, **fields | parts)


def main(wanted: tuple[str, ...] = ("",)) -> None:
    print("| family | measured | options, with what each one misses when switched off |\n| --- | --- | --- |")
    for table, prepare in ((VISION, vision_case), (DECODER, decoder_case), (WHOLE, whole_case)):
        for name, case in table.items():
            if not name.startswith(wanted):
                continue
            with tempfile.TemporaryDirectory() as directory:
                reference, run, config, _ = prepare(case, Path(directory))
            exact, off = measure(case, reference, run, config)
            print(f"| {name} | {exact:.1e} | {', '.join(f'{option} {miss:.0e}' for option, miss in off.items())} |", flush=True)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or ("",))
