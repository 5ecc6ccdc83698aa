"""Prints how fast pictures with texts become batches: from files and from prepared sets, beside a plain torch DataLoader.

    python -m benchmarks.input                                      its own pictures: embedded scenes, as JPEG of 640 x 480
    python -m benchmarks.input --data captions.json --images DIR    a user's pictures, of any format that vlax reads

All do the same work: open a picture (none is kept decoded), resize it, tokenise its first caption, stack full batches. `source`
is one thread that only opens and resizes. A figure is the median of passes that take turns, so that other load on the machine
meets all of them; files are in the page cache. torch is left out where it is not installed.
"""

import argparse
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, features

from vlax.commands.data import prepare
from vlax.commands.data.picture_shards import Encoding
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.pipeline import Collator, HostBatches, ImageCache, iterate
from vlax.data.batches.row_plan import Plan
from vlax.data.embedded.scenes import SceneSource
from vlax.data.readers.prepared import PreparedSource
from vlax.data.recognise.recognise import recognise
from vlax.data.sources import open_source
from vlax.images import Preprocess
from vlax.rows import Picture, Row, Source
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder
from vlax.text.tokenizer import Tokenizer

TEXT = 64  # tokens of a batch row
WIDTH, HEIGHT, QUALITY, NOISE = 640, 480, 90, 10.0  # of own pictures: the noise gives them a photograph's bytes
PACKAGES = ("pillow", "grain", "array_record", "tokenizers", "numpy", "torch")


def picture_of(row: Row) -> Picture:
    """The picture of a row that has one: of every row here."""
    assert row.picture is not None, row.id
    return row.picture


def own_pictures(folder: Path, count: int) -> tuple[str, str]:
    """Draws scenes and writes them as JPEG with their captions in COCO's format; (annotations, images)."""
    (folder / "images").mkdir(parents=True)
    source, images, annotations = SceneSource("train", "ai", size=count), [], []
    for at in range(count):
        name, row = f"{at:06d}.jpg", source[at]
        large = np.asarray(picture_of(row).open().resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float32)
        noise = np.random.default_rng(at).normal(0, NOISE, (HEIGHT, WIDTH, 1))
        Image.fromarray(np.clip(large + noise, 0, 255).astype(np.uint8)).save(folder / "images" / name, quality=QUALITY)
        images.append({"id": at, "file_name": name})
        annotations.append({"image_id": at, "caption": row.turns[0].answer})
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return str(folder / "captions.json"), str(folder / "images")


@dataclasses.dataclass
class Case:
    """One line of the table. run(rows) makes that many and returns how many text tokens they had (0: none were made)."""

    pictures: str
    pixels: int
    how: str
    run: Callable[[int], int]
    rates: list[float] = dataclasses.field(default_factory=list)  # images/s of each pass
    tokens: float = 0.0  # a row

    def measure(self, rows: int) -> float:
        """Runs once; images/s."""
        begin = time.perf_counter()
        tokens = self.run(rows)
        rate = rows / (time.perf_counter() - begin)
        self.tokens = tokens / rows
        return rate

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)


def bare(source: Source, preprocess: Preprocess, rows: int) -> int:
    """One thread: pictures opened and resized, no text."""
    for at in range(rows):
        picture_of(source[at % len(source)]).pixels(preprocess)
    return 0


def pipeline(source: Source, preprocess: Preprocess, tokenizer, batch: int, threads: int, rows: int) -> int:
    """vlax's own: shuffled rows, by grain's threads."""
    mixture, encoder = Mixture([source], [1.0], seed=0), Encoder(tokenizer, "plain")  # new: no text is tokenised yet
    collate = Collator(mixture, encoder, TEXT, preprocess, ImageCache(0), overlong="cut")
    batches = HostBatches(collate, Plan(mixture, batch, TEXT), rows // batch)
    return sum(int((made["segment"] > 0).sum()) for made in iterate(batches, threads=threads))


@dataclasses.dataclass
class Examples:
    """The data set that a user of torch would write: a picture as an array, and the ids of its prompt and caption."""

    source: Source
    preprocess: Preprocess
    tokenizer: Tokenizer
    rows: int

    def __post_init__(self) -> None:
        self.prompt = [self.tokenizer.bos_token_id, *self.tokenizer("caption:", add_special_tokens=False)["input_ids"]]

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> tuple[np.ndarray, list[int | None]]:
        row = self.source[index % len(self.source)]
        if isinstance(self.source, PreparedSource):
            pixels = picture_of(row).pixels(self.preprocess)
        else:
            with Image.open(row.image_name) as image:
                size = self.preprocess.size, self.preprocess.size
                pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
        answer = self.tokenizer(" " + row.turns[0].answer, add_special_tokens=False)["input_ids"]
        return pixels, (self.prompt + answer + [self.tokenizer.eos_token_id])[:TEXT]


def stack(examples: list, pad: int):
    """collate_fn: uint8[B,H,W,3] pictures, int64[B,T] ids, bool[B,T] of what is text."""
    import torch

    tokens = torch.full((len(examples), TEXT), pad)
    real = torch.zeros((len(examples), TEXT), dtype=torch.bool)
    for at, (_, ids) in enumerate(examples):
        tokens[at, : len(ids)], real[at, : len(ids)] = torch.tensor(ids), True
    return torch.from_numpy(np.stack([pixels for pixels, _ in examples])), tokens, real


class Loader:
    """A plain torch DataLoader over Examples; its workers start once and stay."""

    def __init__(self, examples: Examples, batch: int, workers: int):
        from torch.utils.data import DataLoader

        kept = {"persistent_workers": True, "multiprocessing_context": "spawn"} if workers else {}
        collate = functools.partial(stack, pad=examples.tokenizer.pad_token_id)
        self._loader = DataLoader(examples, batch, shuffle=True, num_workers=workers, collate_fn=collate, **kept)

    def __call__(self, rows: int) -> int:
        return sum(int(real.sum()) for _, _, real in self._loader)


def sources(source: Source, size: int, folder: Path) -> Iterator[tuple[str, Source]]:
    """The files, and what `prepare` makes of them."""
    yield "JPEG files", source
    for codec in ("jpeg", "raw"):
        out = folder / f"{codec}-{size}"
        prepare.prepare(source, out, Encoding(Preprocess(size), codec, 95), train=False, progress=False)
        yield f"prepared, {codec}", open_source({"kind": "prepared", "path": str(out)}, train=False)


def has_torch() -> bool:
    try:
        importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def measure(args: argparse.Namespace, source: Source, tokenizer, folder: Path) -> list[Case]:
    """The cases of one picture size after the other, `--repeats` times in turn."""
    done = []
    for size in args.sizes:
        preprocess, groups = Preprocess(size), []
        for name, opened in sources(source, size, folder):
            cases = [Case(name, size, "source, 1 thread", functools.partial(bare, opened, preprocess))]
            for threads in args.threads:
                run = functools.partial(pipeline, opened, preprocess, tokenizer, args.batch, threads)
                cases.append(Case(name, size, f"vlax, {threads} threads", run))
            rate = max(case.measure(2 * args.batch) for case in cases)  # also warms up
            rows = max(2, round(rate * args.seconds / args.batch)) * args.batch
            for workers in args.workers if has_torch() else ():
                examples = Examples(opened, preprocess, tokenizer, rows)
                cases.append(Case(name, size, f"torch, {workers} workers", Loader(examples, args.batch, workers)))
                cases[-1].run(rows)  # starts the workers
            groups.append((rows, cases))
        for _ in range(args.repeats):
            for rows, cases in groups:
                for case in cases:
                    case.rates.append(case.measure(rows))
        done += [case for _, cases in groups for case in cases]
    return done


def table(cases: list[Case]) -> str:
    """Markdown. "to torch" compares with the fastest DataLoader over the same pictures."""
    lines = ["| pictures | pixels | how | images/s | to torch | tokens/s |", "|---|---|---|---|---|---|"]
    for case in cases:
        alike = [c.rate for c in cases if (c.pictures, c.pixels) == (case.pictures, case.pixels) and c.how.startswith("torch")]
        ratio = f"{case.rate / max(alike):.2f}" if alike and case.tokens else ""
        tokens = f"{case.rate * case.tokens:,.0f}" if case.tokens else ""
        lines.append(f"| {case.pictures} | {case.pixels} | {case.how} | {case.rate:,.0f} | {ratio} | {tokens} |")
    return "\n".join(lines)


def versions() -> str:
    there = {name: importlib.metadata.version(name) for name in PACKAGES if name != "torch" or has_torch()}
    there["libjpeg-turbo"] = features.version_feature("libjpeg_turbo") or "none"
    return ", ".join(f"{name} {version}" for name, version in there.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="annotations with pictures; without it vlax makes its own")
    parser.add_argument("--images", default="", help="folder of the pictures of --data, where it is not found by itself")
    parser.add_argument("--pictures", type=int, default=256, help="so many of them (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="rows a batch (default: %(default)s)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 384], help="pixels a side (default: 224 384)")
    parser.add_argument("--threads", type=int, nargs="+", default=[0, 2, 4, 8], help="of vlax (default: 0 2 4 8)")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of torch (default: 0 2)")
    parser.add_argument("--repeats", type=int, default=3, help="passes a figure (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a pass of the fastest, about (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, images = (args.data, args.images) if args.data else own_pictures(Path(folder) / "own", args.pictures)
        spec = {**recognise(data, images, base=os.getcwd()).spec, "limit": args.pictures}
        source = open_source(spec, os.getcwd(), train=False)
        said = [source[at].turns[0].answer for at in range(len(source))]
        if not os.path.isfile(source[0].image_name):
            raise SystemExit(f"{data}: give annotations whose pictures are files; {source[0].image_name or 'a text'} is none")
        kilobytes = statistics.mean(os.path.getsize(source[at].image_name) for at in range(len(source))) / 1000
        print(f"{datetime.date.today()}; {versions()}; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the start")
        width, height = picture_of(source[0]).open().size
        about = f"{len(source)} pictures of {kilobytes:.0f} kB on average, the first of {width} x {height} pixels"
        print(f"{about}; batches of {args.batch}, medians of {args.repeats} passes\n")
        cases = measure(args, source, train_bpe(["caption:", *said] * 2, 1000), Path(folder))
    print(table(cases))
    if not has_torch():
        print("\ntorch is not installed: pip install -r requirements-parity.txt adds its lines")
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
