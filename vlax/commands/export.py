"""Gives a trained model back to the Hugging Face ecosystem, and checks that it computes the same there.

python -m vlax export runs/embedded/stage3/export --to=hf --out=exported
python -m vlax export runs/embedded/stage3/export --to=hf --out=decoder --part=decoder
python -m vlax export runs/embedded/stage3/export --to=hf --push=USER/NAME --license=apache-2.0
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from vlax.commands.flags import words
from vlax.errors import VlaxError
from vlax.evaluation import stock_mask
from vlax.model import api, exports
from vlax.models.vlm import VLMConfig
from vlax.pretrained.writing import cards, logit_check, push, trial, whole, wording, writer
from vlax.pretrained.writing.shards import LIMIT
from vlax.storage import paths
from vlax.text import settings, tokenizer
from vlax.text.prompts import Encoder

PARTS = ("all", "decoder", "vision")


def export(
    directory: str,
    out: str,
    *,
    part: str = "all",
    limit: int = LIMIT,
    check: bool = True,
    mask_rows: int = stock_mask.ROWS,
    known: cards.Known = cards.NOTHING,
) -> tuple[whole.Written, str]:
    """Writes the vlax export `directory` in Hugging Face layout to the new directory `out`, with a model card.

    part: "all", or the "decoder" or the "vision" tower alone. limit: bytes of a weights file. check: compare logits where torch
    is installed. mask_rows: test rows of each set on which a model whose mask the stock class lacks is run without it, too.
    known: what the files don't say and the card shall.
    Returns (what was written, one sentence about the check); VlaxError when `directory` is no finished export,
    `out` is not empty, the model cannot be expressed, what was written reads texts otherwise, or the check fails: then the
    files are there and say so.
    """
    manifest, config = exports.read_manifest(directory), exports.read_config(directory)
    if part not in PARTS:
        raise VlaxError(f"part={part!r} is not one of {', '.join(PARTS)}")
    if paths.remote(out):
        raise VlaxError(f"--out={out}: exports are written to a local directory; write there and copy it")
    target = Path(paths.absolute(out))
    if target.exists() and any(target.iterdir()):
        raise VlaxError(f"--out={out} is not empty; name a new directory")
    if part == "vision" and config.vision is None:
        raise VlaxError(f"{directory} has no vision tower; export it with --part=decoder")
    tokens = exports.read_tokenizer(directory)
    encoder = Encoder(tokens, manifest.get("template_name", "plain"), settings.from_dict(manifest.get("text")))
    model = functools.cache(lambda: api.load(directory))
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written beside `out` and renamed when all of it is there: whatever fails on the way leaves nothing that looks whole.
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as beside:
        files = Path(beside) / target.name
        written = write_part(part, files, config, exports.lazy_params(directory), encoder, limit)
        text = {} if part == "vision" else try_text(files, written.layout, config, encoder)
        if written.layout == "llava" and config.mask == "image_bidirectional":
            text["cost"] = stock_mask.cost(directory, model(), mask_rows)
        sentence, failed = run_check(model, files, written) if check else ("The logit check was switched off.", False)
        packages = {"vlax export format": str(exports.FORMAT), "transformers": importlib.metadata.version("transformers")}
        (files / "README.md").write_text(cards.card(directory, config, written, text, sentence, packages, known))
        files.replace(target)
    if failed:
        raise VlaxError(f"{out}: {sentence} Don't use these files; please report the model's config.json")
    return written, sentence


def write_part(part: str, out: Path, config: VLMConfig, params: Mapping, encoder: Encoder, limit: int) -> whole.Written:
    """The weights, settings and tokenizer of all of a model, or of the part asked for."""
    if part == "all":
        written = whole.write_model(out, config, params, encoder, limit=limit)
    elif part == "decoder":
        said = wording.wording(encoder)
        writer.write_decoder(out, config.decoder, params, encoder.tokenizer, limit=limit, said=said)
        written = whole.Written("decoder")
    else:
        writer.write_vision(out, config.tower.vision, params, preprocess=config.preprocess)
        written = whole.Written("vision")
    if written.layout in ("decoder", "apart"):
        written.notes += tokenizer_notes(out / ("decoder" if written.layout == "apart" else ""), encoder.tokenizer)
    return written


def try_text(files: Path, layout: str, config: VLMConfig, encoder: Encoder) -> dict[str, Any]:
    """What the card says of texts, after a try of the files: the text that a stock processor turns into the ids of training."""
    said = wording.wording(encoder)
    trial.check_tokenizer(files / ("decoder" if layout == "apart" else ""), said, encoder)
    stock, size = layout in ("llava", "paligemma"), config.vision.image_size if config.vision else 0
    images = config.tokens_per_image if stock else 0
    recipe = None if layout == "apart" else trial.recipe(files, layout, said, encoder, images, size)
    return cards.spoken(said, recipe, encoder)


def tokenizer_notes(directory: Path, tokens) -> list[str]:
    """A warning where AutoTokenizer, going by the model type, makes another tokenizer of the files."""
    stock: Any = tokenizer.open_tokenizer(directory)
    if stock.backend_tokenizer.to_str() == tokens.backend_tokenizer.to_str():
        return []
    return [
        f"Load the tokenizer with `PreTrainedTokenizerFast.from_pretrained`: `AutoTokenizer` goes by the model type and takes "
        f"`{type(stock).__name__}`, which cuts text otherwise than this model was trained on."
    ]


def run_check(model: Callable[[], api.Model], target: Path, written: whole.Written) -> tuple[str, bool]:
    """(one sentence, whether it failed)"""
    reason = logit_check.missing()
    if reason:
        return f"The logit check was skipped: {reason}.", False
    with jax.default_matmul_precision("highest"):  # GPUs and TPUs round float32 products otherwise
        difference = logit_check.check(target, written.layout, model())
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "torch"))
    failed = not difference <= logit_check.TOLERANCE  # NaN fails
    what = "features" if written.layout == "vision" else "logits"
    return (
        f"Logit check {'FAILED' if failed else 'passed'}: the {what} of these files under {versions} differ from vlax by "
        f"{difference:.1e} of their range on two examples (tolerance {logit_check.TOLERANCE:.0e}, float32).",
        failed,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    add("export", help="an export directory: WORKDIR/STAGE/export")
    add("--to", choices=["hf"], default="hf", help="the layout: Hugging Face safetensors, config, tokenizer, card")
    add("--out", default="", help="a new directory")
    add("--push", default="", metavar="USER/NAME", help="upload it to that repository of the Hugging Face hub, a private one")
    add("--public", action="store_true", help="--push: make the repository one that everybody sees")
    add("--license", default="", help="for the card: an identifier such as apache-2.0")
    add("--datasets", type=words, default=(), help="for the card: ids of the hub, of what it was trained on")
    add("--part", choices=PARTS, default="all", help="the whole model, the decoder alone, or the tower alone")
    add("--shard_gb", type=float, default=LIMIT / 1e9, help="largest weights file, in GB")
    add("--mask_rows", type=int, default=stock_mask.ROWS, help="test rows of a set on which a mask that stock classes lack is "
        "left out, to say in the card what that changes; 0: none")  # fmt: skip
    add("--check", action=argparse.BooleanOptionalAction, default=True, help="compare logits, if torch is there")


def main(args: argparse.Namespace) -> None:
    more = {"limit": int(args.shard_gb * 1e9), "check": args.check, "mask_rows": args.mask_rows}
    known = cards.Known(args.license, tuple(args.datasets))
    if not args.out and not args.push:
        raise VlaxError("where to? Pass --out=DIR, or --push=USER/NAME, or both")
    if args.public and not args.push:
        raise VlaxError("--public belongs to --push")
    if args.push:
        push.check(args.push)
    with tempfile.TemporaryDirectory(prefix="vlax-push-") as beside:
        out = args.out or str(Path(beside) / "files")
        written, sentence = export(args.export, out, part=args.part, **more, known=known)
        print(f"{args.out or args.push}: {written.layout} layout")
        for line in (*written.obstacles, *written.notes, sentence):
            print(f"  {line}")
        if args.push:
            print(f"pushed to {push.push(Path(out), args.push, private=not args.public)}")
