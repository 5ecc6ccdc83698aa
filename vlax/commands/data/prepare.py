"""`python -m vlax data prepare SOURCE OUT`: a source's pictures resized once, and its rows, in ArrayRecord shards.

    python -m vlax data prepare coco/annotations/captions_train2014.json coco-train-224 --images=coco/train2014
    python -m vlax data prepare pathvqa pathvqa-val --split=validation --no-train --vision=siglip-base
    python -m vlax data prepare '{"kind": "coco", "annotations": "captions.json", "images": "images"}' out --codec=raw

`readers/prepared.py` says what OUT holds and reads it. The same source and settings give the same bytes again (with the same
Pillow, which encodes them); a run that was interrupted is taken up where its last whole shard ended.
"""

import argparse
import hashlib
import importlib.metadata
import io
import json
import math
import os
from collections.abc import Mapping

import numpy as np
from etils import epath
from tqdm import tqdm

from vlax.commands.data import row_shards
from vlax.commands.data.against import without
from vlax.commands.data.picture_shards import Encoding, PictureShards
from vlax.commands.data.runner_argument import add_runner_flags, started
from vlax.commands.data.runners import Local, Runner
from vlax.commands.data.source_argument import add_source_flags, source_spec
from vlax.data.batches.quarantine import Quarantine, read_quarantine
from vlax.data.readers import pictures, prints, stored
from vlax.data.readers.faults import Faults
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.process import lease
from vlax.rows import Source
from vlax.storage import seal, state

NAMED = 10  # pictures that an error names
AGAIN = "remove the folder and prepare it again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the command; `main` takes what they parse to."""
    add = parser.add_argument
    add("source", help="a file or folder of any format that vlax reads, or the JSON of a data source {'kind': ...}")
    add("out", help="the folder to write; an interrupted run is taken up there")
    add_source_flags(parser)
    add("--task", default="", help="of captions: caption (the default) or describe")
    add("--train", action=argparse.BooleanOptionalAction, default=True, help="rows to train on, or to evaluate on")
    add("--limit", type=int, default=None, help="only the first rows")
    add("--vision", default="", help="a checkpoint: pictures are resized as its vision tower wants them")
    add("--image-size", type=int, default=None, help="pixels a side (224, or the checkpoint's)")
    add("--resize", choices=("squash", "crop", "pad"), help="without --vision, as vlax.images.Preprocess (squash)")
    add(
        "--edge", type=int, default=None, help="of crop and pad: the shorter edge before the middle is cut out (the image size)"
    )
    add("--filter", choices=tuple(stored.FILTERS), help="of the resize (bicubic)")
    add("--codec", choices=tuple(stored.BYTES_PER_PIXEL), default="jpeg", help="raw and png keep every pixel as it is")
    add("--quality", type=int, default=95, help="of jpeg")
    add("--shard-mb", type=int, default=256, help="size of a shard of pictures, about")
    add_runner_flags(parser, workers=os.cpu_count() or 1)
    add("--quarantine", default="", help="the doctor's quarantine.jsonl: its rows are left out")
    add("--drop-budget", type=float, default=0.001, help="share of the rows whose picture may turn out not to decode")
    about = "evaluation sets, whose pictures are left out: by name, and by what they show where the doctor has looked"
    add("--against", nargs="+", default=[], metavar="EVAL", help=about)
    add("--licence", default="", help="text for the manifest")


def main(args: argparse.Namespace) -> None:
    pictures.allow_outside(args.allow_outside)
    spec = source_spec(args.source, args.images, base=args.data_root, kind=args.kind, columns=args.columns)
    spec |= {key: value for key in ("split", "task", "limit") if (value := getattr(args, key))}
    quarantine = read_quarantine(args.quarantine) if args.quarantine else Quarantine()
    source = without(args, spec, Faults(quarantine))
    encoding = Encoding(preprocess_of(args), args.codec, args.quality)
    drawn = spec.get("kind") in ("scenes", "cells", "pairs")  # these know no such difference
    train = None if drawn else spec.get("train", args.train)
    with lease.hold(args.out), started(args) as runner:
        manifest = prepare(
            source, args.out, encoding, spec=spec, train=train, shard_mb=args.shard_mb, runner=runner,
            licence=args.licence, quarantine=quarantine, drop_budget=args.drop_budget,
        )  # fmt: skip
    print(f"{args.out}: {json.dumps(manifest['counts'])}")
    if args.codec == "jpeg":
        print(f"JPEG 4:4:4 of quality {args.quality}: stored pixels are off by {json.dumps(manifest['difference'])}")


def preprocess_of(args: argparse.Namespace) -> Preprocess:
    """The Preprocess that the flags ask for: a checkpoint's own, or one by size, mode, edge and filter."""
    if args.vision:
        given = [name for name in ("resize", "edge", "filter") if getattr(args, name) is not None]
        if given:
            raise VlaxError(
                f"--{given[0]}: {args.vision} says how its pictures are resized; leave --{given[0]} or --vision out"
            )
        from vlax.pretrained.reading import loader

        return loader.preprocess(args.vision, image_size=args.image_size)
    size = 224 if args.image_size is None else args.image_size
    mode = args.resize or "squash"
    if mode == "squash" and args.edge:
        raise VlaxError(f"--edge={args.edge}: --resize=squash has no edge; add --resize=crop or pad, or leave --edge out")
    edge = (args.edge or size) if mode != "squash" else 0
    if size < 1 or (edge and edge < size):
        raise VlaxError(
            f"--image-size={size} --edge={edge}: a size is at least 1, and an edge at least the size; mend the flags"
        )
    return Preprocess(size, mode, edge, stored.FILTERS[args.filter or "bicubic"])


def prepare(source: Source, out, how: Encoding, *, spec=None, train: bool | None = None, shard_mb: int = 256,
            workers: int = 4, licence: str = "", quarantine: Quarantine | None = None, drop_budget: float = 0.001,
            progress: bool = True, runner: Runner | None = None) -> dict:  # fmt: skip
    """Writes a prepared set, or the rest of one, and returns its manifest.

    spec, train  how the source was opened: for the manifest, and so that rows to train on are not evaluated on
    drop_budget  share of the rows that may be left out because their picture does not decode (a positive share allows one);
                 VlaxError with the first of them beyond it. Quarantined rows don't count
    runner       who encodes the pictures; None: `workers` threads. It changes no byte
    """
    out = epath.Path(out)
    if not 0 <= drop_budget < 1 or shard_mb < 1 or not 1 <= how.quality <= 100:
        given = f"--drop-budget={drop_budget} --shard-mb={shard_mb} --quality={how.quality}"
        raise VlaxError(f"{given}: the budget is below 1, the others are at least 1 and quality at most 100; mend the flags")
    gathered = row_shards.gather(source, quarantine or Quarantine(), progress)
    plan = _plan(source, gathered, how, train, shard_mb)
    if _begin(out, plan):
        return state.read(out / "manifest.json", AGAIN)
    pictures = PictureShards(source, gathered, out, how, plan["pictures_per_shard"])
    lost, allowed = [], math.ceil(drop_budget * len(source))
    with tqdm(total=len(gathered.opened), desc=source.name, unit="picture", disable=not progress) as bar:
        for _ in pictures.write(runner or Local(workers), bar):
            lost = row_shards.lost(source, gathered, pictures.reasons)
            if len(lost) > allowed:
                _write(out, "dropped.jsonl", "".join(lost).encode())
                raise VlaxError(_over_budget(source, gathered, pictures.reasons, len(lost), allowed, drop_budget, out))
    first: dict[tuple[int, int], str] = {}  # pictures with the same bytes go by the name of the first of them
    relative = (name.removeprefix(gathered.folder) for name in gathered.names)
    names = [first.setdefault(place, name) for place, name in zip(pictures.places, relative, strict=True)]
    rows, table, captions = row_shards.write(source, gathered, pictures.reasons, names, out)
    kept = sum(entry["records"] for entry in rows)
    if not kept:
        raise VlaxError(f"{out}: no row of {source.name} is left to prepare; mend the source or the quarantine list")
    index = np.array(pictures.places, np.int32).reshape(-1, 2)
    files = {"index.npy": _npy(index), "rows.npy": _npy(table), "dropped.jsonl": "".join(lost).encode(),
             prints.NAME: _npy(prints.from_hex(pictures.looks))}  # fmt: skip
    off, total, most = pictures.off
    manifest = plan | {
        "source": {"name": source.name, "fingerprint": source.fingerprint, "spec": spec, "folder": gathered.folder},
        "licence": licence,
        "dropped": getattr(source, "dropped_by", {}),
        "counts": {"rows": kept, **_counts(gathered, pictures, len(lost))},
        "captions": captions,
        **({"several": True} if gathered.several else {}),
        "shards": [*rows, *pictures.files],
        "files": [_write(out, name, content) for name, content in files.items()],
        "difference": {"mean_abs": round(off / max(total, 1), 4), "largest": most, "of": 255, "values": total},
    }
    content = state.as_json(manifest, end="\n", indent=1, ensure_ascii=False)
    entries = manifest["shards"] + manifest["files"]
    known = {entry["file"]: {key: entry[key] for key in ("bytes", "sha256")} for entry in entries}
    seal.write(out, coming={"manifest.json": content}, known=known)
    state.write(out / "manifest.json", content)
    (out / "progress").rmtree()
    return manifest


def _counts(gathered: row_shards.Gathered, pictures: PictureShards, lost: int) -> dict[str, int]:
    return {
        "rows_text_only": int((gathered.picture == row_shards.TEXT_ONLY).sum()),
        "rows_quarantined": int((gathered.picture == row_shards.QUARANTINED).sum()),
        "rows_undecodable": lost,
        "pictures": sum(entry["records"] for entry in pictures.files),
        "pictures_named": len(gathered.names),
        "pictures_undecodable": len(pictures.reasons),
    }


def _plan(source: Source, gathered: row_shards.Gathered, how: Encoding, train: bool | None, shard_mb: int) -> dict:
    """All that the bytes of the shards depend on; the manifest begins with it."""
    return {
        "format": stored.FORMAT,
        "source": source.fingerprint,
        "rows_of_source": len(source),
        "train": train,
        "quarantined_sha256": gathered.digest,
        "preprocess": stored.settings(how.preprocess),
        "codec": {"name": how.codec} | ({"quality": how.quality, "subsampling": "4:4:4"} if how.codec == "jpeg" else {}),
        "pictures_per_shard": how.per_shard(shard_mb),
        "versions": {name: importlib.metadata.version(name) for name in ("pillow", "array_record", "pyarrow")},
    }


def _begin(out: epath.Path, plan: dict) -> bool:
    """Whether OUT is finished already. VlaxError where something else lies there."""
    for name in ("manifest.json", "progress/plan.json"):
        if (out / name).exists():
            finished, there = name == "manifest.json", state.read(out / name, AGAIN)
            if finished:
                there["source"] = there["source"]["fingerprint"]
            differ = [key for key in plan if there.get(key) != plan[key]]
            if differ:
                shown = "; ".join(f"{key} {json.dumps(there.get(key))}, now {json.dumps(plan[key])}" for key in differ)
                raise VlaxError(f"{out} was prepared otherwise ({shown}); name another folder, or remove this one")
            if finished and (out / "progress").exists():  # the end of a run was cut off
                (out / "progress").rmtree()
            return finished
    if out.exists() and any(path.name != lease.NAME for path in out.iterdir()):
        raise VlaxError(f"{out} holds other files and nothing prepared; name another folder, or empty this one")
    (out / "progress").mkdir(parents=True, exist_ok=True)
    state.write_json(out / "progress" / "plan.json", plan)
    return False


def _over_budget(
    source: Source, gathered: row_shards.Gathered, reasons: Mapping[int, str], lost: int, allowed: int, share: float, out
) -> str:
    first = [f"row {source[gathered.opened[n]].id}: {reason}" for n, reason in sorted(reasons.items())[:NAMED]]
    budget = f"the drop budget allows {allowed} (--drop-budget={share:g})"
    mend = f"Mend the pictures or raise --drop-budget and give the same command again (all so far are in {out}/dropped.jsonl)"
    what = f"{lost} of {len(source)} rows are about pictures that cannot be opened"
    return f"{what}, and {budget}: {'; '.join(first)}. {mend}, or pass --quarantine with the doctor's list and another OUT"


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _write(out: epath.Path, name: str, content: bytes) -> dict:
    state.write(out / name, content)
    return {"file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
