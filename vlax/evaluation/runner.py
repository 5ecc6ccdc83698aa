"""From a model and the test sets of a stage to predictions on disk, scores with intervals, a table and a sheet of samples.

Predictions are written and flushed batch by batch before anything is scored; a run that was cut off goes on by id.
"""

import dataclasses
import hashlib
import json
import logging
import random
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from tqdm import tqdm

from vlax.api import Model
from vlax.data.prompts import template_hash
from vlax.data.rows import Row, Source
from vlax.data.sources import open_source
from vlax.decoding import DecodeConfig
from vlax.errors import VlaxError
from vlax.predict import Request

BATCH = 32  # rows of a physical batch: part of the protocol, since logits are not bit-equal across batch sizes


@dataclasses.dataclass(frozen=True)
class TestSet:
    """A named held-out source, with the rows whose pictures may have been exchanged."""

    name: str
    source: Source
    rows: list[Row]

    @property
    def is_caption(self) -> bool:
        return self.rows[0].task != "question"


def open_sets(specs: Mapping, data_root: str, limit: int = 0) -> list[TestSet]:
    """The test sets of a config; `limit` > 0 keeps the first rows of each."""
    if not specs:
        raise VlaxError("this config names no test set: fill in stage.test")
    sets = []
    for name, spec in specs.items():
        source = open_source(spec, data_root, train=False)
        rows = [source[i] for i in range(min(limit or len(source), len(source)))]
        sets.append(TestSet(name, source, rows))
    return sets


def derange(rows: Sequence[Row], seed: int) -> list[Row]:
    """The blind twin's rows: every picture replaced by another row's, no picture left in place.

    Ids in a seeded order, each taking the next one's picture: one cycle, so no fixed point. Rows about the same picture get
    the same wrong one. VlaxError with fewer than two pictures.
    """
    ids = sorted({row.image_id for row in rows if row.open_image})
    if len(ids) < 2:
        raise VlaxError("a blind twin needs at least two pictures to exchange")
    random.Random(seed).shuffle(ids)
    pictures = {row.image_id: row for row in rows if row.open_image}
    swapped = {image_id: pictures[ids[(i + 1) % len(ids)]] for i, image_id in enumerate(ids)}
    return [
        dataclasses.replace(row, open_image=swapped[row.image_id].open_image, image_name=swapped[row.image_id].image_name)
        if row.open_image
        else row
        for row in rows
    ]


def protocol(model: Model, sets: Sequence[TestSet], decode: DecodeConfig, blind_seed: int | None) -> dict:
    """Everything that a score depends on, and a hash of it. `model` identifies the weights and is outside the hash."""
    settings = {
        "sets": {s.name: {"source": s.source.name, "fingerprint": s.source.fingerprint, "rows": len(s.rows)} for s in sets},
        "prompts": {s.name: model.encoder.prompt_text(s.rows[0].task, "{question}") for s in sets},
        "templates": template_hash(model.encoder.templates),
        "decoding": dataclasses.asdict(decode),
        "physical_batch": BATCH,
        "mask": model.config.mask,
        "post_processing": "text up to EOS, special tokens and outer spaces removed",
        "metrics": {s.name: "pycocoevalcap 1.2 with PTB tokenisation" if s.is_caption else "vqav2@official" for s in sets},
        "blind": None if blind_seed is None else {"images": "deranged by image id", "seed": blind_seed},
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
    return {
        **settings,
        "hash": digest,
        "model": {"stage": model.manifest.get("stage"), "checksums": model.manifest.get("checksums")},
    }


def requests(model: Model, rows: Sequence[Row]) -> list[Request]:
    """One Request a row: its first turn's prompt and its picture."""
    preprocess = model.config.preprocess
    pictures: dict[str, np.ndarray] = {}
    out = []
    for number, row in enumerate(rows):
        image = None
        if row.open_image is not None and preprocess:
            if row.image_id not in pictures:
                pictures = {row.image_id: preprocess.apply(row.open_image())}  # rows about one picture are neighbours
            image = pictures[row.image_id]
        out.append(Request(model.encoder.prompt(row.task, row.turns[0].question), image, number))
    return out


def predict(model: Model, sets: Sequence[TestSet], decode: DecodeConfig, directory: epath.Path, proto: Mapping) -> list[dict]:
    """All predictions, made or read back from `directory/predictions.jsonl`: one dict a row, in order.

    The file's first line is the protocol; lines of another protocol or of other weights are started afresh.
    """
    path = directory / "predictions.jsonl"
    directory.mkdir(parents=True, exist_ok=True)
    head = {"protocol": proto["hash"], "model": proto["model"]}
    done = _read_predictions(path, head)
    if not done:
        path.write_text(json.dumps(head) + "\n")
    for test in sets:
        wanted = [row for row in test.rows if (test.name, row.id) not in done]
        if not wanted:
            continue
        if len(wanted) < len(test.rows):
            logging.info("%s: %d of %d predictions are there already", test.name, len(test.rows) - len(wanted), len(test.rows))
        longest = max(len(model.encoder.prompt(row.task, row.turns[0].question)) for row in test.rows)
        predictor = model.predictor(decode, BATCH)
        texts = predictor.texts(model.params, requests(model, wanted), -(-longest // 16) * 16)
        with tqdm(total=len(wanted), desc=f"{test.name}", unit="row", mininterval=0.5) as bar:
            position = 0
            for batch in texts:
                rows = wanted[position : position + len(batch)]
                lines = [prediction(test, row, text) for row, text in zip(rows, batch, strict=True)]
                _append(path, lines)
                done.update({(line["set"], line["id"]): line for line in lines})
                position += len(batch)
                bar.update(len(batch))
    return [done[test.name, row.id] for test in sets for row in test.rows]


def prediction(test: TestSet, row: Row, text: str) -> dict:
    """One line of predictions.jsonl."""
    return {
        "set": test.name, "id": row.id, "image_id": row.image_id, "task": row.task, "question": row.turns[0].question,
        "prediction": text, "references": list(row.references), "answer_type": row.answer_type, "image": row.image_name,
    }  # fmt: skip


def _append(path: epath.Path, lines: Sequence[Mapping]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if "://" in str(path):  # objects in a bucket cannot be appended to: one numbered file a batch beside the head
        number = sum(1 for _ in path.parent.glob("predictions-*.jsonl"))
        (path.parent / f"predictions-{number:06d}.jsonl").write_text(text)
        return
    with path.open("a") as file:
        file.write(text)


def _read_predictions(path: epath.Path, head: Mapping) -> dict[tuple[str, str], dict]:
    """{(set, id): line}; empty unless the file is there and begins with `head`. A half-written last line is cut off."""
    if not path.exists():
        return {}
    text = path.read_text()
    if text and not text.endswith("\n"):
        text = text[: text.rfind("\n") + 1]
        path.write_text(text)
    if not text or json.loads(text.splitlines()[0]) != head:
        for chunk in path.parent.glob("predictions-*.jsonl"):
            chunk.unlink()
        return {}
    return {(line["set"], line["id"]): line for line in read_lines(path)}


def read_lines(path: epath.Path) -> list[dict]:
    """The predictions of a predictions.jsonl and of the numbered files beside it, without the protocol line."""
    paths = [path, *sorted(path.parent.glob("predictions-*.jsonl"))]
    return [json.loads(line) for p in paths for line in p.read_text().splitlines()][1:]
