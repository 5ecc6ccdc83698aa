"""Flips single bits of what vlax wrote, one a trial, and reads it as training and its users do: is every flip named?

    python -m benchmarks.flips --trials=200 --seed=0        # a table; exit code 1 where a flip passed

A micro chain (`micro_chain.py`) is trained, its export written for transformers, and a set prepared, all by vlax's own
commands. A trial flips one bit of one file in a checkpoint, an export, an hf/ folder or the prepared set, a small file as
likely as a large one. Named: an error, or the sentence of a checkpoint that is set aside, has the name of the file, or of the
seal that lists it. Silent: nothing was said, and something else was read. Unread: nothing was said, and the very same was read
(a card, the header of an Arrow file): no trial, another bit is flipped instead.
"""

import argparse
import collections
import contextlib
import json
import logging
import random
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import vlax
from benchmarks.break_things import files, flip
from vlax.errors import VlaxError

ROWS = 24  # of the prepared set
RESULTS = ("named", "another name", "silent", "unread")


def made(folder: Path) -> dict[str, Path]:
    """Trains, exports and prepares; {kind: its folder}."""

    def run(*argv: str) -> None:
        done = subprocess.run([sys.executable, "-m", "vlax", *argv], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"vlax {' '.join(argv)}: {done.stderr[-2000:]}")

    stage = folder / "w" / "stage1"
    run("train", "--config=benchmarks/micro_chain.py", f"--workdir={folder / 'w'}")
    run("export", str(stage / "export"), "--to=hf", f"--out={folder / 'hf'}")
    write_pictures(folder / "own")
    run("data", "prepare", str(folder / "own" / "rows.json"), str(folder / "set"), "--image_size=16")
    return {"checkpoint": stage / "checkpoints", "export": stage / "export", "hf folder": folder / "hf",
            "prepared set": folder / "set"}  # fmt: skip


def write_pictures(folder: Path) -> None:
    folder.mkdir()
    for number in range(ROWS):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    rows = [{"image": f"{number}.png", "caption": f"a dog {number}"} for number in range(ROWS)]
    (folder / "rows.json").write_text(json.dumps(rows))


def read_checkpoint(folder: Path) -> Any:
    """As a run that goes on: what is damaged is said in a log and set aside. Given back afterwards."""
    from vlax.training.checkpoints import Checkpoints

    checkpoints = Checkpoints(str(folder))
    step = checkpoints.latest()
    checkpoints.close()
    return step


def read_model(folder: Path) -> Any:
    return told(vlax.load(str(folder)))


def read_hf(folder: Path) -> Any:
    return told(vlax.from_pretrained(str(folder)))


def told(model: vlax.Model) -> Any:
    """All that is read of a model: parameters, tokenizer, shapes."""
    from vlax.params import groups

    return groups.checksum(model.params), model.encoder.tokenizer.backend_tokenizer.to_str(), repr(model.config)


def read_set(folder: Path) -> Any:
    """Every row and every pixel, as an epoch does, and what the leak filter compares."""
    from vlax.data.sources import open_source

    source: Any = open_source({"kind": "prepared", "path": str(folder)}, "", train=True)
    rows = [source[at] for at in range(len(source))]
    pixels = [picture.open().tobytes() for row in rows for picture in row.pictures]
    return repr([(row.id, row.turns) for row in rows]), pixels, source.looks().hashes.tobytes()


READ: dict[str, Callable[[Path], Any]] = {
    "checkpoint": read_checkpoint, "export": read_model, "hf folder": read_hf, "prepared set": read_set,
}  # fmt: skip


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """The warnings that are logged meanwhile."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger().removeHandler(handler)


def tried(kind: str, folder: Path, rng: random.Random, whole: Any) -> tuple[str, str]:
    """(what came of one flip, one of RESULTS, and what was said); the folder is as before afterwards. whole: what is read of
    it then."""
    copy = folder.with_name(f"{folder.name}-whole")
    shutil.copytree(folder, copy)
    beside = [folder.parent / name for name in ("seals", "damaged", "validation.json")] if kind == "checkpoint" else []
    kept = {path: path.with_name(f"{path.name}-whole") for path in beside if path.exists()}
    for path, other in kept.items():
        (shutil.copytree if path.is_dir() else shutil.copy)(path, other)
    name = flip(folder, rng)
    said, same = "", True
    try:
        with logged() as lines:
            same = READ[kind](folder) == whole
        said = " ".join(lines)
    except VlaxError as error:
        said = str(error)
    finally:
        for path in [folder, *beside]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        for path, other in {folder: copy, **kept}.items():
            other.rename(path)
    if not said:
        return ("unread" if same else "silent"), name
    return ("named" if Path(name).name in said or "seal.json" in said else "another name"), f"{name}: {said}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())  # what is said is counted, not shown
    rng, counts = random.Random(args.seed), collections.Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory(prefix="vlax-flips-") as where:
        folders = made(Path(where))
        whole = {kind: READ[kind](folder) for kind, folder in folders.items()}
        for kind, folder in folders.items():
            print(
                f"{kind}: {len(files(folder))} files, {sum(file.stat().st_size for file in files(folder)):,} bytes", flush=True
            )
        for trial in range(args.trials):
            kind, result = list(folders)[trial % len(folders)], "unread"
            while result == "unread":
                result, said = tried(kind, folders[kind], rng, whole[kind])
                counts[kind, result] += 1
                if result != "named":
                    print(f"{trial}: {kind}, {result}: {said[:300]}", flush=True)
    print("\n| | flips that were read | " + " | ".join(RESULTS) + " |\n|---|" + "---|" * (1 + len(RESULTS)))
    for kind in folders:
        numbers = [counts[kind, result] for result in RESULTS]
        print(f"| {kind} | {sum(numbers[:-1])} | " + " | ".join(map(str, numbers)) + " |")
    sys.exit(args.trials > sum(counts[kind, "named"] for kind in folders))


if __name__ == "__main__":
    main()
