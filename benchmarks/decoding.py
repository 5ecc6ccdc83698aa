"""Prints how fast answers are decoded beside transformers' `generate`, by the same weights, for batches of several sizes.

    python -m benchmarks.decoding
    python -m benchmarks.decoding --width 512 --layers 8 --repeats 5        # a larger decoder
    python -m benchmarks.decoding --questions 5 --batches 32 --pixels 224   # vlax alone: several questions about each picture

A random LLaVA of the embedded model's size, exported and opened by transformers; parity first: both write the same tokens.
Each time is the least of several, in milliseconds of all cores together, of one prompt with its picture a row and 32 tokens
each; the arms take turns: vlax, transformers, vlax. Pictures are prepared for both before.

With --questions, rows share pictures as in an evaluation set, and the arms are what becomes of them: each row by itself, each
picture through tower and projector once, each picture through the decoder once, too; then by row again. Same tokens first.
"""

import argparse
import dataclasses
import datetime
import functools
import itertools
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from configs import stage4
from vlax.decoding.generator import Generator
from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Predictor, Request
from vlax.decoding.seen import looking
from vlax.model.api import Model
from vlax.models.build import abstract_model
from vlax.models.vlm import VLMConfig
from vlax.params import sharding
from vlax.pretrained.writing import whole
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder
from vlax.training import topologies

PROMPT, TOKENS, STOP = 16, 32, 2  # STOP has no embedding, so that nobody says it and all answers are as long


def model_of(width: int, layers: int, pixels: int = 0) -> Model:
    """The embedded model, causal so that a stock class computes the same, with a decoder of that width, for pictures of that
    size (0: its own)."""
    config = stage4.get_config()
    config.run.mask = "causal"
    made = topologies.model_config(config.run, config.stage)
    decoder = dataclasses.replace(made.decoder, layers=layers or made.decoder.layers, vocab_size=512)
    if width:
        heads: dict[str, Any] = {"heads": width // 64, "kv_heads": width // 64, "head_dim": 64}
        decoder = dataclasses.replace(decoder, width=width, mlp_dim=width * 8 // 3 // 16 * 16, **heads)
    projector = dataclasses.replace(made.tower.projector, width=decoder.width)
    vision = dataclasses.replace(made.tower.vision, image_size=pixels or made.tower.vision.image_size)
    made = VLMConfig(decoder, vision, projector, "causal")
    graphdef, shapes = abstract_model(made, np.float32)
    rng, params = np.random.default_rng(0), dict[str, Any]()
    for path, shape in sorted(shapes.items()):
        value = rng.standard_normal(shape.shape) * (shape.shape[0] ** -0.5 if path.endswith("kernel") else 0.2)
        params[path] = jax.numpy.asarray(value + path.endswith("scale"), np.float32)
    params["decoder/embedding"] = params["decoder/embedding"].at[STOP].set(0)
    encoder = Encoder(train_bpe(["what colour is the circle? a red square"] * 4, 300), "plain")
    return Model(made, params, encoder, graphdef, sharding.make_mesh((1, 1, 1), jax.devices()[:1]), {})


def batch_of(model: Model, rows: int) -> dict[str, Any]:
    rng, size = np.random.default_rng(1), model.config.tower.preprocess.size
    ones = np.ones((rows, PROMPT), np.int32)
    return {
        "image": rng.integers(0, 256, (rows, 1, size, size, 3)).astype(np.uint8), "has_image": np.ones((rows, 1), bool),
        "tokens": rng.integers(3, 290, (rows, PROMPT)).astype(np.int32), "segment": ones, "example": ones,
        "row": np.arange(rows, dtype=np.int32)[:, None],
    }  # fmt: skip


def transformers_of(model: Model, directory: str) -> Callable[[dict[str, Any], int], np.ndarray]:
    """(batch, beams) -> tokens, by the stock class."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    whole.write_model(directory, model.config, model.params, model.encoder)
    stock = transformers.LlavaForConditionalGeneration.from_pretrained(directory).eval()
    seen, vision = model.config.tokens_per_image, model.config.tower.vision

    def generate(batch: dict[str, Any], beams: int) -> np.ndarray:
        rows = len(batch["tokens"])
        ids = np.concatenate([np.full((rows, seen), stock.config.image_token_id), batch["tokens"]], axis=1)
        pixels = (batch["image"][:, 0].transpose(0, 3, 1, 2) / 255 - vision.mean[0]) / vision.std[0]
        values = torch.tensor(pixels, dtype=torch.float32)
        how = {"max_new_tokens": TOKENS, "num_beams": beams, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        mask = torch.ones(ids.shape, dtype=torch.long)
        with torch.no_grad():
            out = stock.generate(input_ids=torch.tensor(ids), attention_mask=mask, pixel_values=values, **how)
        return np.asarray(out[:, ids.shape[1] :])

    return generate


def least(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of all cores: on a machine that has other work, too, those of a clock say little."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return min(times)


def beside_transformers(model: Model, flags: argparse.Namespace) -> None:
    print("| rows | beams | vlax, ms | again | transformers, ms | transformers / vlax |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        theirs = transformers_of(model, directory)
        for beams in flags.beams:
            ours = Generator(model.graphdef, model.config, DecodeConfig(TOKENS, beams), (STOP,), 0)
            for rows in flags.batches:
                batch = batch_of(model, rows)
                mine, others = np.asarray(ours(model.params, batch)[0]), theirs(batch, beams)
                if (mine != others).any():
                    raise SystemExit(f"{rows} rows, {beams} beams: tokens differ; nothing is compared")
                run: Callable[[], Any] = lambda: jax.block_until_ready(ours(model.params, batch))  # noqa: B023, E731
                first = least(run, flags.repeats)
                other = least(lambda: theirs(batch, beams), flags.repeats)  # noqa: B023
                again = least(run, flags.repeats)
                ratio = other / min(first, again)
                cells = f"{1e3 * first:.1f} | {1e3 * again:.1f} | {1e3 * other:.1f} | {ratio:.1f}"
                print(f"| {rows} | {beams} | {cells} |", flush=True)


def about_the_same_pictures(model: Model, flags: argparse.Namespace) -> None:
    print("| rows | beams | tokens | by row, ms | again | one tower, ms | one prefill, ms | by row / one prefill |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for beams, rows, length in itertools.product(flags.beams, flags.batches, (1, TOKENS)):
        batch = batch_of(model, rows)
        asked = [
            Request(ids, batch["image"][row - row % flags.questions, 0]) for row, ids in enumerate(batch["tokens"].tolist())
        ]
        arms = []
        how = DecodeConfig(length, beams)
        tower, prefill = (looking(model.graphdef, model.config, model.encoder, model.mesh, rows) for _ in range(2))
        assert tower is not None, "the model sees"
        tower.prefix = False
        for seen in (None, tower, prefill):
            arm = Predictor(model.graphdef, model.config, model.encoder, how, rows, model.mesh, seen=seen)
            arm.generate.stops = (STOP,)
            arms.append(functools.partial(lambda arm: next(arm.tokens(model.params, asked, PROMPT)), arm))  # noqa: B023
        if any((arms[0]() != arm()).any() for arm in arms[1:]):
            raise SystemExit(f"{rows} rows, {beams} beams: tokens differ; nothing is compared")
        first, once, whole, again = (least(arm, flags.repeats) for arm in (*arms, arms[0]))
        cells = " | ".join(f"{1e3 * value:.1f}" for value in (first, again, once, whole))
        print(f"| {rows} | {beams} | {length} | {cells} | {min(first, again) / whole:.2f} |", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="rows of a batch")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 4], help="beams")
    parser.add_argument("--width", type=int, default=0, help="of the decoder, a multiple of 64; 0: the embedded model's")
    parser.add_argument("--layers", type=int, default=0, help="of the decoder; 0: the embedded model's")
    parser.add_argument("--pixels", type=int, default=0, help="of a picture's side; 0: the embedded model's")
    parser.add_argument("--questions", type=int, default=0, help="rows that share a picture; 0: none, beside transformers")
    parser.add_argument("--threads", type=int, default=1, help="of torch, whose threads spin while they wait for each other")
    parser.add_argument("--repeats", type=int, default=10, help="times that each arm runs, in each of its turns")
    flags = parser.parse_args(argv)
    model = model_of(flags.width, flags.layers, flags.pixels)
    size, versions = sum(value.size for value in model.params.values()), f"jax {jax.__version__}"
    if not flags.questions:
        import torch
        import transformers

        torch.set_num_threads(flags.threads)
        versions += f", torch {torch.__version__}, transformers {transformers.__version__}"
    seen = f"{model.config.tokens_per_image} tokens a picture, {PROMPT} a prompt"
    print(f"{datetime.date.today()}, {platform.machine()}, {versions}; {size / 1e6:.1f} M parameters, {seen}\n")
    (about_the_same_pictures if flags.questions else beside_transformers)(model, flags)


if __name__ == "__main__":
    main()
