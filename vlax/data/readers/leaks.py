"""The leak filter: pictures that a score is computed on never train the model.

    picture_key("COCO_val2014_000000391895.jpg")   ->  "coco/391895"     one picture, whatever COCO release names it
    picture_key("coco/train2017/000000391895.jpg") ->  "coco/391895"
    picture_key("flickr30k/images/1000092795.jpg") ->  "1000092795"      a name that no other data set gives by chance
    picture_key("mine/a.jpg")                      ->  ""                a name that says nothing beyond its folder

A row is dropped when the key of its picture, or its picture's whole path, is that of an evaluation row. Karpathy's test
pictures are from COCO's val2014, which train2017 and LLaVA's lists share with it: hence keys across releases.
"""

import itertools
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlax.rows import Source

SCHEMA = pa.schema([("keys", pa.list_(pa.uint32()))])
BLOCK = 1 << 16  # rows of a record batch

_COCO = re.compile(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})")
# Flickr and Open Images ids; a counter (with its leading zeros) or a word is neither.
_DISTINCTIVE = re.compile(r"[1-9]\d{7,}|(?=.*[a-f])[0-9a-f]{12,}")


def picture_key(name: str) -> str:
    """What a file name says about the picture beyond its folder; "" where it says nothing."""
    stem = re.split(r"[/\\]", name)[-1].rsplit(".", 1)[0]
    coco = _COCO.fullmatch(stem)
    if coco:
        return f"coco/{int(coco[1])}"
    return stem.lower() if _DISTINCTIVE.fullmatch(stem.lower()) else ""


def keys(path: str, image_id: str = "", place: str = "") -> set[str]:
    """The keys of one picture: what its file's name says (its id's, where it is no file of its own), and where it lies.

    path: its file, "" within a container; place: where a container has it, e.g. "/data/a.parquet: row 7".
    """
    return {key for key in (picture_key(path or image_id), path, place) if key}


def evaluation_pictures(sources: Iterable[Source]) -> frozenset[str]:
    """Keys of all pictures of evaluation sources. Embedded sources have none: their splits are disjoint."""
    found: set[str] = set()
    for source in sources:
        listed = getattr(source, "pictures", None)
        for picture in listed() if listed else ():
            found |= keys(*picture)
    return frozenset(found)


def columns(keys: Iterable[Collection[str]]) -> Iterator[pa.RecordBatch]:
    """The keys of rows as numbers, which are 4 bytes each and may meet: record batches of SCHEMA."""
    keys = iter(keys)
    while part := list(itertools.islice(keys, BLOCK)):
        ends = np.array([0, *itertools.accumulate(map(len, part))], np.int32)
        numbers = pa.array(map(_number, itertools.chain.from_iterable(part)), pa.uint32())
        yield pa.RecordBatch.from_arrays([pa.ListArray.from_arrays(pa.array(ends), numbers)], schema=SCHEMA)


def dropped(blocks: Iterable[pa.RecordBatch], drop: frozenset[str], keys: Callable[[int], Collection[str]]) -> Sequence[int]:
    """The rows that have a key in `drop`, in order. blocks: of `columns`; keys: those of a row."""
    wanted, found, begin = pa.array(sorted({_number(key) for key in drop}), pa.uint32()), list[int](), 0
    for block in blocks:
        column = block.column("keys")
        hits = np.flatnonzero(pc.is_in(column.values, wanted).to_numpy(zero_copy_only=False))
        rows = np.unique(np.searchsorted(column.offsets.to_numpy(), hits, "right") - 1) + begin
        found += [row for row in rows.tolist() if not drop.isdisjoint(keys(row))]
        begin += len(block)
    return found


def _number(key: str) -> int:
    return zlib.crc32(key.encode("utf-8", "surrogatepass"))
