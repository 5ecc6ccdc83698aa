"""Prints what opening a source takes, by format: seconds and resident bytes a row, for the first opening and for a second.

    python -m benchmarks.rows                       1 M rows of each format, and 100 M of a prepared-like table
    python -m benchmarks.rows --rows=10000 --table-rows=1000000 --only=coco,llava

Every opening is a process of its own, with an empty cache for the first. Resident bytes are what the process holds more when
the source is open (mapped pages that were touched count); the peak is the largest that it ever held, above what its imports
hold. The first batch is the texts of 64 rows in random order, opening included; a plan says which rows a batch has.
`benchmarks/data_memory.py` has what is held over many batches, pictures and all.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vlax.commands.data import prepare
from vlax.commands.data.picture_shards import Encoding
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.row_plan import Plan
from vlax.data.readers import item_batches, prepared_rows
from vlax.data.readers.item_table import NARROW
from vlax.data.readers.kinds import KINDS
from vlax.data.sources import open_source
from vlax.images import Preprocess
from vlax.rows import Row, Turn
from vlax.storage import paths, seal, state

BATCH, PLANS = 64, 200
LINKED = 100_000  # rows of a file of the prepared-like table
SAID = "a brown dog runs over a green field with a red ball in its mouth"


def _listed(file: Path, begin: str, rows: Iterable[Any], end: str) -> None:
    with file.open("w") as out:
        out.write(begin)
        for number, row in enumerate(rows):
            out.write((", " if number else "") + json.dumps(row))
        out.write(end)


def coco(folder: Path, rows: int) -> dict:
    """Five captions a picture."""
    file = folder / "coco.json"
    images = ({"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg", "height": 480, "width": 640} for n in range(-(-rows // 5)))
    _listed(file, '{"images": [', images, '], "annotations": [')
    said = ({"image_id": n // 5, "id": n, "caption": f"{SAID} {n}"} for n in range(rows))
    with file.open("a") as out:
        for number, row in enumerate(said):
            out.write((", " if number else "") + json.dumps(row))
        out.write("]}")
    return {"kind": "coco", "annotations": str(file), "images": "images"}


def llava(folder: Path, rows: int) -> dict:
    """Dialogues of about 900 bytes."""
    texts = [f"<image>\nWhat is in the picture? {SAID}", f"In the picture {SAID}. {SAID}.", f"Why? {SAID}", f"{SAID}. " * 4]
    said = [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(texts)]
    made = ({"id": f"{n:012d}", "image": f"coco/train2017/{n:012d}.jpg", "conversations": said} for n in range(rows))
    _listed(folder / "llava.json", "[", made, "]")
    return {"kind": "llava", "annotations": str(folder / "llava.json"), "images": "images"}


def vqa(folder: Path, rows: int) -> dict:
    """VQAv2's two files, ten answers a question."""
    rows = min(rows, 443_757)  # as many as it trains on
    asked = ({"image_id": n // 5, "question": "What color is the dog's ball?", "question_id": n} for n in range(rows))
    _listed(folder / "questions.json", '{"data_subtype": "train2014", "questions": [', asked, "]}")
    ten = [{"answer": ("red", "dark red")[k == 3], "answer_confidence": "yes", "answer_id": k} for k in range(10)]
    told = ({"question_type": "what color", "multiple_choice_answer": "red", "answers": ten, "image_id": n // 5,
             "answer_type": "other", "question_id": n} for n in range(rows))  # fmt: skip
    _listed(folder / "annotations.json", '{"data_subtype": "train2014", "annotations": [', told, "]}")
    files = {name: str(folder / f"{name}.json") for name in ("questions", "annotations")}
    return {"kind": "vqa", **files, "images": "images"}


def jsonl(folder: Path, rows: int) -> dict:
    with (folder / "rows.jsonl").open("w") as out:
        out.writelines(json.dumps({"image": f"{n:09d}.jpg", "text": f"{SAID} {n}"}) + "\n" for n in range(rows))
    return {"kind": "table", "path": str(folder / "rows.jsonl"), "images": "images"}


def parquet(folder: Path, rows: int) -> dict:
    numbers = range(rows)
    made = {"image": [f"{n:09d}.jpg" for n in numbers], "question": [SAID] * rows, "answer": [f"{n}" for n in numbers]}
    pq.write_table(pa.table(made), folder / "train.parquet")
    return {"kind": "hf", "path": str(folder / "train.parquet"), "images": "images"}


def prepared(folder: Path, rows: int) -> dict:
    """Of rows that share six pictures."""
    (folder / "images").mkdir()
    for n in range(6):
        Image.fromarray(np.full((32, 32, 3), 40 * n, np.uint8)).save(folder / "images" / f"{n}.png")
    with (folder / "few.jsonl").open("w") as out:
        out.writelines(json.dumps({"image": f"{n % 6}.png", "text": f"{SAID} {n}"}) + "\n" for n in range(rows))
    source = open_source({"kind": "table", "path": str(folder / "few.jsonl"), "images": str(folder / "images")})
    prepare.prepare(source, folder / "prepared", Encoding(Preprocess(16), "png", 95), train=True, progress=False)
    return {"kind": "prepared", "path": str(folder / "prepared")}


def table(folder: Path, rows: int) -> dict:
    """A prepared set of many files, all of which are links to one; `rows.npy` and the seal are those of as many files."""
    path = Path(prepared(folder, 6)["path"])
    manifest = state.read(path / "manifest.json", "")
    for file in path.glob("rows*"):
        file.unlink()
    items = (
        prepared_rows.item(Row(f"{n}#0", f"{n:012d}", "caption", (Turn("", f"{SAID} {n}"),), None), n % 6, f"{n:012d}.jpg")
        for n in range(LINKED)
    )
    first = path / "rows-00000.arrow"
    batches, count = item_batches.write(first, NARROW, item_batches.blocks(items, NARROW)), -(-rows // LINKED)
    fact = {"records": LINKED, "bytes": first.stat().st_size, "sha256": paths.sha256(first)}
    for n in range(1, count):
        os.link(first, path / f"rows-{n:05d}.arrow")
    np.save(path / "rows.npy", item_batches.places([batches] * count))
    shards = [{"file": f"rows-{n:05d}.arrow", **fact} for n in range(count)]
    manifest["shards"] = [*shards, *(entry for entry in manifest["shards"] if entry["file"].startswith("images"))]
    manifest["counts"]["rows"] = LINKED * count
    manifest["files"] = [entry for entry in manifest["files"] if entry["file"] != "rows.npy"]
    own = {"bytes": (path / "rows.npy").stat().st_size, "sha256": paths.sha256(path / "rows.npy")}
    known = {entry["file"]: entry for entry in manifest["shards"] + manifest["files"]} | {"rows.npy": own}
    content = state.as_json(manifest)
    kept = {name: {key: entry[key] for key in ("bytes", "sha256")} for name, entry in known.items()}
    seal.write(path, coming={"manifest.json": content}, known=kept)
    (path / "manifest.json").write_bytes(content)
    return {"kind": "prepared", "path": str(path)}


FORMATS: dict[str, Callable[[Path, int], dict]] = {
    made.__name__: made for made in (coco, llava, vqa, jsonl, parquet, prepared, table)
}


def resident() -> int:
    """Bytes of this process that are in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def largest() -> int:
    """The most that it was since this process began; getrusage has what its parent held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def measure(spec: dict) -> dict[str, float]:
    """In a process of its own: what opening takes, then a first batch, then plans."""
    KINDS[spec["kind"]].load()
    before, begin, worked = resident(), time.perf_counter(), time.process_time()
    source = open_source(spec, "/data")
    opened, after, worked = time.perf_counter() - begin, resident(), time.process_time() - worked
    peak = largest()
    mixture = Mixture([source], [1.0], seed=0)
    plan = Plan(mixture, BATCH, 64)
    for row_id in plan.batch(0).ids.ravel():
        mixture.row(int(row_id))
    first = time.perf_counter() - begin
    begin = time.perf_counter()
    for step in range(1, PLANS + 1):
        plan.batch(step)
    each = (time.perf_counter() - begin) / PLANS
    count = len(source)
    held = {"held": (after - before) / count, "peak": peak - before}
    return {"rows": count, "seconds": opened, "cpu": worked, **held, "batch": first, "plan": each * 1000}


def figures(name: str, rows: int) -> Iterator[str]:
    """The lines of the table of one format."""
    folder = Path(tempfile.mkdtemp(prefix="vlax-rows-"))
    try:
        environment = {**os.environ, "VLAX_CACHE": str(folder / "cache")}
        os.environ["VLAX_CACHE"] = str(folder / "cache-of-this-process")
        spec = FORMATS[name](folder, rows)
        files = [Path(spec[key]) for key in ("questions", "annotations", "path") if key in spec]
        size = sum(file.stat().st_size for path in files for file in (path.iterdir() if path.is_dir() else [path]))
        time.sleep(2.1)  # younger files are not kept
        for opening in ("first", "second"):
            command = [sys.executable, "-m", "benchmarks.rows", "--open", json.dumps(spec)]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            found = json.loads(done.stdout)
            times = f"{found['seconds']:.2f} | {found['cpu']:.2f}"
            memory = f"{found['held']:,.1f} | {found['peak'] / 1e6:,.0f}"
            batch = f"{found['batch']:.2f} | {found['plan']:.2f}"
            yield f"| {name} | {found['rows']:,} | {size / 1e6:,.0f} | {opening} | {times} | {memory} | {batch} |"
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of each format (default: %(default)s)")
    parser.add_argument("--table-rows", type=int, default=100_000_000, help="of the table (default: %(default)s)")
    parser.add_argument("--only", default=",".join(FORMATS), help="formats (default: %(default)s)")
    parser.add_argument("--open", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open:
        print(json.dumps(measure(json.loads(args.open))))
        return
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("pyarrow", "numpy")))
    print(
        "| format | rows | MB | opening | seconds | CPU seconds | resident bytes a row | peak MB | first batch, s | plan, ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in args.only.split(","):
        for line in figures(name, args.table_rows if name == "table" else args.rows):
            print(line, flush=True)


if __name__ == "__main__":
    main()
