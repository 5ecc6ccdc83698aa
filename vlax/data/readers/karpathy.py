"""Karpathy's split files of COCO, Flickr30k and Flickr8k (`dataset_*.json`).

    {"images": [{"filename": "COCO_val2014_000000000042.jpg", "filepath": "val2014", "cocoid": 42, "split": "restval",
                 "sentences": [{"raw": "A dog runs."}, {"raw": "A dog."}]}, ...], "dataset": "coco"}

    Karpathy("dataset_coco.json", "images", "train+restval", train=True)[1]
    ->  Row(id="42#1", image_id="42", task="caption", turns=(Turn("", "A dog."),), ...)   images/val2014/COCO_val2014_...jpg

A picture's id is its `cocoid`; Flickr has none, so there it is the file name.
"""

import collections

from vlax.data.readers.faults import STRICT
from vlax.data.readers.files import FileSource, Item
from vlax.data.readers.listed import identifier
from vlax.data.readers.reading import parse, rows, text
from vlax.errors import VlaxError
from vlax.rows import TASKS, RowFault
from vlax.storage.paths import join, read_file

SHAPE = 'Karpathy files are {"images": [{"filename", "split", "sentences": [{"raw"}]}]}'


class Karpathy(FileSource):
    """One row per caption to train on, one per picture with all references to evaluate on.

    split: "train", "restval", "val", "test", or several joined by "+". The captions paper's training split of COCO is
    "train+restval".
    """

    def __init__(self, annotations, images, split, train: bool, task="caption", *, base="", drop_image_ids=(), limit=None,
                 faults=STRICT):  # fmt: skip
        if task not in TASKS[:2]:
            raise VlaxError(f"{annotations}: captions have no task {task!r}; the tasks are {', '.join(TASKS[:2])}")
        path = join(base, annotations)
        name, content = f"karpathy-{path.stem}-{split}", read_file(path)
        listed = rows(path, parse(path, content, SHAPE), "images", SHAPE)
        wanted = _splits(path, listed, split)
        items, seen = [], set()
        for at, row in enumerate(listed):
            where = f"{path}: images[{at}]"
            with faults.row(name, where):
                if text(where, row, "split", SHAPE) not in wanted:
                    continue
                image_id, file_name, said = _picture(where, row)
                if image_id in seen:
                    raise RowFault(f"{where}: picture {image_id} occurs twice; join its sentences in one entry", "duplicate id")
                seen.add(image_id)
                if train:
                    items += [Item(f"{image_id}#{k}", image_id, file_name, "", caption) for k, caption in enumerate(said)]
                elif said:
                    items.append(Item(image_id, image_id, file_name, "", said[0], said))
        settings = {"kind": "karpathy", "train": train, "split": sorted(wanted)}
        super().__init__(name, task, str(images), base, settings, [content], items, drop_image_ids, limit)


def _picture(where: str, row: dict) -> tuple[str, str, tuple[str, ...]]:
    """(image id, file, captions) of one entry."""
    name = text(where, row, "filename", SHAPE)
    image_id = identifier(where, row, "cocoid", SHAPE) if row.get("cocoid") is not None else name
    sentences = rows(where, row, "sentences", SHAPE)
    said = tuple(text(where, sentence, "raw", SHAPE) for sentence in sentences)
    return image_id, f"{row['filepath']}/{name}" if row.get("filepath") else name, said


def _splits(path, listed: list[dict], split: str) -> set[str]:
    """`"train+restval" -> {"train", "restval"}`; an error for a name that no picture has."""
    there = collections.Counter(str(row["split"]) for row in listed if isinstance(row, dict) and row.get("split"))
    wanted = set(split.split("+"))
    if unknown := sorted(wanted - set(there)):
        counts = ", ".join(f"{name} ({count} pictures)" for name, count in there.items())
        raise VlaxError(f"{path} has no split {unknown[0]!r}; it has {counts or 'no pictures'}")
    return wanted
