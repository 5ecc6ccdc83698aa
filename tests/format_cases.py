"""The same six pictures and a dozen texts, written in every format that vlax reads.

WRITERS[NAME](folder) -> (path for the commands, kind that it is, rows to train on)
"""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vlax.commands import front
from vlax.data.readers.faults import STRICT
from vlax.data.sources import open_source

PICTURES = 6
NOUNS = ("dog", "cat", "cow", "hen", "fox", "owl")


def reader(kind):
    """What opens a source of one kind."""

    def opened(path, images="", train=True, *, base="", drop_image_ids=(), faults=STRICT, **fields):
        spec = {"kind": kind, "path": path, "images": images or None, **fields}
        return open_source(spec, base, train=train, drop_image_ids=drop_image_ids, faults=faults)

    return opened


def pixels(number: int) -> np.ndarray:
    """uint8[24,32,3] without a likeness to any other number's: coarse blocks, under noise."""
    rng = np.random.default_rng(number)
    blocks = rng.integers(0, 256, (6, 8, 3)).repeat(4, 0).repeat(4, 1)
    return np.clip(blocks + rng.integers(-9, 10, blocks.shape), 0, 255).astype(np.uint8)


def encoded(number: int, suffix: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(number)).save(buffer, {"png": "PNG", "jpg": "JPEG"}[suffix])
    return buffer.getvalue()


def captions(number: int) -> list[str]:
    return [f"a {NOUNS[number]} sits", f"one small {NOUNS[number]} in the grass"]


def question(number: int) -> tuple[str, str]:
    """(question, answer): what the picture shows, or whether."""
    return ("what is it?", NOUNS[number]) if number % 2 else (f"is it a {NOUNS[number]}?", "yes")


def _json(folder: Path, content, name: str = "annotations.json") -> str:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder / name)


def _pictures(folder: Path, names: list[str]) -> list[str]:
    """Writes the pictures below `images` and returns the names."""
    for number, name in enumerate(names):
        file = folder / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(number, file.suffix[1:]))
    return names


def _named(folder: Path, pattern: str = "{}.png") -> list[str]:
    return _pictures(folder, [pattern.format(n) for n in range(PICTURES)])


def coco(folder):
    images = [{"id": 40 + n, "file_name": name} for n, name in enumerate(_named(folder, "{:012d}.jpg"))]
    said = [{"image_id": 40 + n, "id": 2 * n + k, "caption": text} for n in range(6) for k, text in enumerate(captions(n))]
    return _json(folder, {"images": images, "annotations": said}), "coco", 12


def karpathy(folder):
    names = _named(folder, "val2014/{}.jpg")
    images = [
        {"filename": name[8:], "filepath": "val2014", "cocoid": 40 + n, "split": ("train", "restval", "test")[n // 2],
         "sentences": [{"raw": text} for text in captions(n)]}
        for n, name in enumerate(names)
    ]  # fmt: skip
    return _json(folder, {"images": images, "dataset": "coco"}, "dataset_coco.json"), "karpathy", 8


def _conversation(number: int, first: str) -> list[dict]:
    asked, answer = question(number)
    texts = [f"{first}{asked}", answer, "and where?", "in the grass"]
    return [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(texts)]


def llava(folder):
    rows = [
        {"id": str(n), "image": name, "conversations": _conversation(n, "<image>\n")} for n, name in enumerate(_named(folder))
    ]
    rows.append({"id": "text", "conversations": [{"from": "human", "value": "say hen"}, {"from": "gpt", "value": "hen"}]})
    return _json(folder, rows), "llava", 7


def sharegpt(folder):
    roles = {"human": "user", "gpt": "assistant"}
    rows = [
        {"images": [f"images/{name}"], "messages": [
            {"role": roles[message["from"]], "content": message["value"]} for message in _conversation(n, "<image>")]}
        for n, name in enumerate(_named(folder))
    ]  # fmt: skip
    return _json(folder, rows), "sharegpt", 6


def vqa(folder):
    _named(folder, "COCO_train2014_{:012d}.jpg")
    asked = [{"question_id": 900 + n, "image_id": n, "question": question(n)[0]} for n in range(6)]
    answered = [
        {"question_id": 900 + n, "image_id": n, "multiple_choice_answer": question(n)[1], "answer_type": "other",
         "answers": [{"answer": question(n)[1], "answer_id": k} for k in range(10)]}
        for n in range(6)
    ]  # fmt: skip
    _json(folder, {"annotations": answered, "data_subtype": "train2014"}, "v2_mscoco_train2014_annotations.json")
    name = "v2_OpenEnded_mscoco_train2014_questions.json"
    return _json(folder, {"questions": asked, "data_subtype": "train2014"}, name), "vqa", 6


def lxmert(folder):
    _named(folder, "train_{:04d}.jpg")
    rows = [
        {"img_id": f"train_{n:04d}", "sentf": {"pvqa": [question(n)[0], "where?"]},
         "labelf": {"pvqa": [{question(n)[1]: 1}, {"in the grass": 1}]}}
        for n in range(6)
    ]  # fmt: skip
    return _json(folder, rows, "pvqa_train.json"), "lxmert", 12


def gqa(folder):
    _named(folder, "{}.jpg")
    rows = {f"07{n}": dict(zip(("question", "answer"), question(n), strict=True)) | {"imageId": str(n)} for n in range(6)}
    return _json(folder, rows, "train_balanced_questions.json"), "gqa", 6


def textvqa(folder):
    _named(folder, "{}.jpg")
    rows = [
        {"question_id": n, "question": question(n)[0], "image_id": str(n), "answers": [question(n)[1]] * 9 + ["hen"]}
        for n in range(6)
    ]
    return _json(folder, {"data": rows}, "TextVQA_0.5.1_train.json"), "textvqa", 6


def jsonl(folder):
    rows = [{"image": name, "text": text} for n, name in enumerate(_named(folder)) for text in captions(n)]
    return _json(folder, "\n".join(map(json.dumps, [*rows, {"text": "the hen sits"}])), "rows.jsonl"), "table", 13


def csv(folder):
    lines = [f"{name},{question(n)[0]},{question(n)[1]}" for n, name in enumerate(_named(folder))]
    return _json(folder, "\n".join(["image,question,answer", *lines, ""]), "rows.csv"), "table", 6


def _table() -> pa.Table:
    """PathVQA's columns."""
    asked, answers = zip(*map(question, range(6)), strict=True)
    return pa.table(
        {"image": [{"bytes": encoded(n), "path": f"{n}.png"} for n in range(6)], "question": asked, "answer": answers}
    )


def parquet(folder):
    (folder / "data").mkdir()
    table = _table()
    for shard, part in enumerate((table[:4], table[4:])):
        pq.write_table(part, folder / "data" / f"train-0000{shard}-of-00002.parquet", row_group_size=2)
    pq.write_table(table[:1], folder / "data" / "validation-00000-of-00001.parquet")
    return str(folder), "hf", 6


def arrow(folder):
    (folder / "train").mkdir()
    with pa.ipc.new_stream(str(folder / "train" / "data-00000-of-00001.arrow"), _table().schema) as writer:
        writer.write_table(_table())
    return str(folder), "hf", 6


def folder(folder):
    for number in range(PICTURES):
        (folder / f"{number}.png").write_bytes(encoded(number))
        (folder / f"{number}.txt").write_text(captions(number)[0] + "\n")
    return str(folder), "folder", 6


def webdataset(folder):
    for shard in range(2):
        with tarfile.open(folder / f"pairs-{shard:06d}.tar", "w") as file:
            for n in range(3 * shard, 3 * shard + 3):
                texts = json.dumps({"caption": captions(n)}).encode()
                for name, content in ((f"{n}.jpg", encoded(n, "jpg")), (f"{n}.json", texts)):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    file.addfile(member, io.BytesIO(content))
    return str(folder / "pairs-{000000..000001}.tar"), "webdataset", 12


def tfds_builder(folder, name, features, splits, version="1.0.0"):
    """The folder of a builder that tfds itself prepares as array_record, the format that it writes without TensorFlow.

    name: of its class; splits: {split: {key: example}}, of encoded pictures: tfds needs TensorFlow to encode them.
    """
    import tensorflow_datasets as tfds

    def info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    parts = {
        "VERSION": tfds.core.Version(version), "_info": info,
        "_generate_examples": lambda self, examples: iter(examples.items()),
        "_split_generators": lambda self, manager: {split: self._generate_examples(own) for split, own in splits.items()},
    }  # fmt: skip
    builder = type(name, (tfds.core.GeneratorBasedBuilder,), parts)(data_dir=str(folder))
    builder.download_and_prepare(file_format="array_record")
    return str(builder.data_dir)


def tfds(folder):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(encoding_format="png"),
        "image/id": np.int64,
        "captions": tfds.features.Sequence({"text": tfds.features.Text()}),
    }

    def examples(numbers):
        texts = {n: [{"text": text} for text in captions(n)] for n in numbers}
        return {n: {"image": io.BytesIO(encoded(n)), "image/id": n, "captions": texts[n]} for n in numbers}

    splits = {"train": examples(range(6)), "val": examples(range(1))}
    return tfds_builder(folder, "TinyPairs", features, splits), "tfds", 12


def arrayrecord(folder):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(folder / "pairs.array_record"), "group_size:1")
    for n in range(6):
        writer.write(json.dumps({"id": str(n), "caption": captions(n)}).encode() + b"\n" + encoded(n))
    writer.close()
    return str(folder / "pairs.array_record"), "arrayrecord", 12


def prepared(folder):
    """Rows of the COCO files; what `prepare` makes of a prepared set must be that set again."""
    flags = ["--codec=png", "--image-size=16", "--workers=1"]
    assert front.main(["data", "prepare", coco(folder)[0], str(folder / "out"), *flags]) == 0
    return str(folder / "out"), "prepared", 12


def scenes(folder):
    return json.dumps({"kind": "scenes", "split": "train", "style": "human", "size": 2}), "scenes", 10


def cells(folder):
    return json.dumps({"kind": "cells", "split": "train", "size": 8}), "cells", 24


WRITERS = {
    writer.__name__: writer
    for writer in (coco, karpathy, llava, sharegpt, vqa, lxmert, gqa, textvqa, jsonl, csv, parquet, arrow, folder, webdataset,
                   tfds, arrayrecord, prepared, scenes, cells)
}  # fmt: skip
