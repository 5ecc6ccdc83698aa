"""Opens the data source that a config names.

open_source({"kind": "scenes", "split": "train", "style": "ai"})
open_source({"kind": "coco", "annotations": "captions_train.json", "images": "images"}, data_root, train=True)
open_source({"kind": "vqa", "questions": "q.json", "annotations": "a.json", "images": "images"}, data_root, train=True)
open_source({"kind": "karpathy", "annotations": "dataset_coco.json", "images": "images", "split": "train+restval"}, data_root)
open_source({"path": "mine.jsonl"}, data_root)      without a kind, the file is looked at (`recognise.py`)
"""

import inspect
from collections.abc import Callable, Collection, Mapping

from vlax.data.embedded.cells import CellSource
from vlax.data.embedded.scenes import SceneSource
from vlax.data.readers.coco import CocoCaptions
from vlax.data.readers.faults import STRICT, Faults
from vlax.data.readers.gqa import GqaQuestions
from vlax.data.readers.karpathy import Karpathy
from vlax.data.readers.llava import Conversations
from vlax.data.readers.lxmert import LxmertQuestions
from vlax.data.readers.sharegpt import ShareGpt
from vlax.data.readers.table import Table
from vlax.data.readers.textvqa import TextVqa
from vlax.data.readers.vqa import VqaQuestions
from vlax.errors import VlaxError
from vlax.rows import Source

_ROWS = {"train": bool, "limit": int}
_CAPTIONS = {**_ROWS, "task": str}
_DIALOGUES = {**_CAPTIONS, "columns": dict, "strip": str, "skip_multi_image": bool}
_CONTAINER = {"images": str, **_CAPTIONS, "columns": dict, "split": str}
_JSON = {"annotations": str, "images": str, "": None}
# The fields of each kind with their types; those after "" may be left out (or None).
FIELDS = {
    "scenes": {"split": str, "style": str, "": None, "seed": int, "size": int},
    "cells": {"split": str, "": None, "seed": int, "size": int},
    "coco": {**_JSON, **_CAPTIONS},
    "karpathy": {"annotations": str, "images": str, "split": str, "": None, **_CAPTIONS},
    "llava": {**_JSON, **_DIALOGUES},
    "sharegpt": {**_JSON, **_DIALOGUES},
    "vqa": {"questions": str, "annotations": str, "images": str, "": None, **_ROWS},
    "gqa": {**_JSON, **_ROWS},
    "textvqa": {**_JSON, **_ROWS},
    "lxmert": {**_JSON, **_ROWS},
    "table": {"path": str, "": None, "images": str, **_CAPTIONS, "columns": dict, "strip": str},
    "hf": {"path": str, "": None, **_CONTAINER},
    "webdataset": {"path": str, "": None, **_CONTAINER},
    "tfds": {"path": str, "": None, **_CONTAINER},
    "arrayrecord": {"path": str, "": None, **_CONTAINER},
    "prepared": {"path": str, "": None, **_CONTAINER},
}
READERS = {
    "scenes": SceneSource,
    "cells": CellSource,
    "coco": CocoCaptions,
    "karpathy": Karpathy,
    "llava": Conversations,
    "sharegpt": ShareGpt,
    "vqa": VqaQuestions,
    "gqa": GqaQuestions,
    "textvqa": TextVqa,
    "lxmert": LxmertQuestions,
    "table": Table,
}
PATHS = ("questions", "annotations", "path", "images")  # the fields that are files or folders


def open_source(
    spec: Mapping, data_root: str = "", *, train: bool = True, drop_image_ids: Collection[str] = (), faults: Faults = STRICT
) -> Source:
    """The source of one spec; VlaxError for an unknown kind, field, split or style and for files that don't fit.

    spec            "kind" and the fields of that kind (`FIELDS`); or "path" and any of them: the kind is recognised then
    data_root       what the paths of a file source are relative to; any path that epath opens (gs:// too)
    train           whether a file source yields rows to train on, where its spec does not say
    drop_image_ids  pictures whose rows a file source leaves out (leak filter); the embedded splits are disjoint already
    faults          what becomes of rows that a reader cannot take (`faults.py`)
    """
    data_root = str(data_root or "")
    fields = {key: _plain(value) for key, value in dict(spec).items() if value is not None}
    if "kind" not in fields and "path" in fields:
        fields = _recognised(fields, data_root)
    kind = fields.pop("kind", None)
    _check_fields(kind, fields)
    reader = _reader(kind)
    if kind in ("scenes", "cells"):
        return reader(**fields)
    own = {"base": _base(kind, fields, data_root), "drop_image_ids": drop_image_ids}
    if "faults" in inspect.signature(reader).parameters:  # containers have rows of one shape, or none
        own["faults"] = faults
    return reader(**{"train": train, **fields, **own})


def _reader(kind: str) -> Callable[..., Source]:
    """The class that reads a kind. Containers are imported when they are asked for, with the packages that they need."""
    if kind in READERS:
        return READERS[kind]
    elif kind == "hf":
        from vlax.data.readers.parquet import HfTable

        return HfTable
    elif kind == "webdataset":
        from vlax.data.readers.webdataset import WebDataset

        return WebDataset
    elif kind == "tfds":
        from vlax.data.readers.tfds import TfdsSource

        return TfdsSource
    elif kind == "prepared":
        from vlax.data.readers.prepared import PreparedSource

        return PreparedSource
    else:
        from vlax.data.readers.arrayrecord import ArrayRecords

        return ArrayRecords


def _plain(value):
    """A mapping (ml_collections' too, which is no Mapping) as a dict; anything else as it is."""
    return dict(value) if isinstance(value, Mapping) or hasattr(value, "to_dict") else value


def _recognised(fields: dict, data_root: str) -> dict:
    """The fields of a spec with a path and no kind, as what lies there asks for; what the spec says itself stays."""
    from vlax.data.recognise.recognise import recognise

    base = _base("by path", fields, data_root)
    found = recognise(fields["path"], fields.get("images", ""), base=base)
    own = {key: value for key, value in fields.items() if key != "path"}
    return {**found.spec, **own}


def _check_fields(kind, fields: dict) -> None:
    if kind not in FIELDS:
        raise VlaxError(f"data source: there is no kind {kind!r}; the kinds are {', '.join(FIELDS)}")
    names = list(FIELDS[kind])
    needed, optional = names[: names.index("")], names[names.index("") + 1 :]
    valid = f"{kind} has the fields {', '.join(needed)} and, if wanted, {', '.join(optional)}"
    for name, value in fields.items():
        if not name or name not in names:
            raise VlaxError(f"data source {kind}: there is no field {name!r}; {valid}")
        expected = FIELDS[kind][name]
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            raise VlaxError(f"data source {kind}: {name} is {value!r}; it should be of type {expected.__name__}")
    for name in needed:
        if name not in fields:
            if (kind, name) == ("vqa", "annotations"):
                valid = f"questions without answers (test, test-dev) are nothing to learn from or to score on. {valid}"
            raise VlaxError(f"data source {kind}: {name} is missing; {valid}")


def _base(kind: str, fields: dict, data_root: str) -> str:
    """`data_root`, which may be empty only where no path is relative to it."""
    paths = [fields[name] for name in PATHS if fields.get(name)]
    relative = [path for path in paths if not str(path).startswith("/") and "://" not in str(path)]
    if relative and not data_root:
        raise VlaxError(
            f"data source {kind} reads {relative[0]} from the data root, which is not set; pass --config.run.data_root=DIR"
        )
    return data_root
