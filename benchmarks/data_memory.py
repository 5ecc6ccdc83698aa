"""Prints how much memory the data pipeline holds over many batches of a mixture, without a model or a device.

    python -m benchmarks.data_memory                        plain batches
    python -m benchmarks.data_memory --plan=packed --batches=20000

Three sources: captioned pictures in COCO files, more than the cache has room for, so that pictures are decoded to the end; text
that vlax makes; and a table of questions. Everything that may grow for a while (cached pictures, tokenised texts, lengths of
rows) has been met long before the first quarter of the batches is over; after it the figures should stay where they are.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from vlax.commands.data import prepare
from vlax.commands.data.picture_shards import Encoding
from vlax.data.batches.lengths import Lengths
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.packing import PackedPlan
from vlax.data.batches.pipeline import Collator, HostBatches, ImageCache, iterate
from vlax.data.batches.row_plan import BucketPlan, Plan
from vlax.data.embedded.scenes import SceneSource
from vlax.data.sources import open_source
from vlax.images import Preprocess
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder

PICTURES, QUESTIONS, SCENES = 600, 4000, 2000  # how much there is of each source
TEXT, BUCKETS, SLOTS = 192, (32, 64, 192), 4


def files(folder: Path) -> None:
    """PICTURES photograph-like JPEGs with two captions each in COCO's format, and QUESTIONS about them in a table."""
    (folder / "images").mkdir()
    scenes, images, captions = SceneSource("train", "human", size=PICTURES), [], []
    for at in range(PICTURES):
        row = scenes[5 * at]
        assert row.picture is not None
        large = np.asarray(row.picture.open().resize((160, 120)), np.float32)
        noise = np.random.default_rng(at).normal(0, 8, large.shape)
        Image.fromarray(np.clip(large + noise, 0, 255).astype(np.uint8)).save(folder / "images" / f"{at}.jpg")
        images.append({"id": at, "file_name": f"{at}.jpg"})
        captions += [{"image_id": at, "caption": scenes[5 * at + k].turns[0].answer} for k in range(2)]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    asked = SceneSource("train", "questions", size=QUESTIONS // 5)
    rows = [
        {"image": f"{at % PICTURES}.jpg", "question": asked[at].turns[0].question, "answer": asked[at].turns[0].answer}
        for at in range(QUESTIONS)
    ]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))


def batches(folder: Path, args: argparse.Namespace) -> HostBatches:
    """The pipeline as a stage builds it."""
    captions = open_source({"kind": "coco", "annotations": "captions.json", "images": "images"}, str(folder))
    if args.prepared:
        prepare.prepare(captions, folder / "prepared", Encoding(Preprocess(args.size), "jpeg", 95), train=True, progress=False)
        captions = open_source({"kind": "prepared", "path": "prepared"}, str(folder))
    sources = [
        captions,
        open_source({"kind": "scenes", "split": "train", "style": "text", "size": SCENES}),
        open_source({"kind": "table", "path": "questions.jsonl", "images": "images"}, str(folder)),
    ]
    mixture = Mixture(sources, [1.0, 0.5, 1.0], seed=0)
    texts = [turn.answer for source in sources for at in range(min(200, len(source))) for turn in source[at].turns]
    encoder = Encoder(train_bpe(["caption: question: answer: describe:", *texts], 600), "plain")
    cache = ImageCache(args.cache_mb << 20)
    collate = Collator(mixture, encoder, TEXT, Preprocess(args.size), cache, "drop", ("flip", "shift"))
    lengths, plan = Lengths(encoder), Plan(mixture, args.batch, TEXT)
    if args.plan == "buckets":
        plan = BucketPlan(mixture, args.batch, TEXT, buckets=BUCKETS, lengths=lengths, overlong="drop")
    elif args.plan == "packed":
        plan = PackedPlan(mixture, args.batch, TEXT, SLOTS, lengths=lengths, overlong="drop")
    return HostBatches(collate, plan, args.batches)


def resident() -> float:
    """Megabytes of this process that are in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=20_000, help="how many (default: %(default)s)")
    parser.add_argument("--every", type=int, default=2000, help="batches between two figures (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="rows a batch (default: %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default: %(default)s)")
    parser.add_argument("--cache-mb", type=int, default=4, help="of pictures kept decoded (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="that build batches (default: %(default)s)")
    parser.add_argument("--prepared", action="store_true", help="read the captioned pictures as `prepare` stores them")
    parser.add_argument("--plan", choices=("plain", "buckets", "packed"), default="plain", help="layout of the batches")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        files(Path(name))
        made = batches(Path(name), args)
        print(
            f"{args.plan}: {args.batch} rows a batch, {args.threads} threads, {made.collate.mixture.epoch_size:,} rows an epoch"
        )
        print(f"before the first batch: {resident():.1f} MB", flush=True)
        begin, pictures, figures = time.monotonic(), 0, []
        for number, batch in enumerate(iterate(made, threads=args.threads), 1):
            pictures += int(batch["has_image"].sum())
            if number % args.every == 0:
                figures.append(resident())
                passed = f"{pictures:,} pictures, {number / (time.monotonic() - begin):.0f} batches/s"
                print(f"after {number:,} batches: {figures[-1]:.1f} MB ({passed})", flush=True)
        cache = made.collate.cache
        print(f"cache: {cache.size / 2**20:.1f} of {args.cache_mb} MB; left out: {dict(made.collate.left_out.counts)}")
        later = figures[len(figures) // 4 :]
        drift = f"the last less the first {later[-1] - later[0]:+.1f} MB"
        print(f"after the first quarter: {min(later):.1f} to {max(later):.1f} MB, {drift}")


if __name__ == "__main__":
    main()
