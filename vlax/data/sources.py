"""Opens the data source that a config names.

open_source({"kind": "scenes", "split": "train", "style": "ai"})
open_source({"kind": "cells", "split": "test"})
open_source({"kind": "coco", "annotations": "captions_train.json", "images": "images"}, data_root, train=True)
open_source({"kind": "vqa", "questions": "q.json", "annotations": "a.json", "images": "images"}, data_root, train=True)
"""

from collections.abc import Collection, Mapping

from vlax.data.cells import CellSource
from vlax.data.formats.coco import CocoCaptions
from vlax.data.formats.llava import Conversations
from vlax.data.formats.vqa import VqaQuestions
from vlax.data.rows import Source
from vlax.data.scenes import SceneSource
from vlax.errors import VlaxError

# The fields of each kind with their types; those after "" may be left out (or None).
FIELDS = {
    "scenes": {"split": str, "style": str, "": None, "seed": int, "size": int},
    "cells": {"split": str, "": None, "seed": int, "size": int},
    "coco": {"annotations": str, "images": str, "": None, "train": bool, "task": str, "limit": int},
    "llava": {"annotations": str, "images": str, "": None, "train": bool, "task": str, "limit": int},
    "vqa": {"questions": str, "annotations": str, "images": str, "": None, "train": bool, "limit": int},
}


def open_source(spec: Mapping, data_root: str = "", *, train: bool = True, drop_image_ids: Collection[str] = ()) -> Source:
    """The source of one spec; VlaxError for an unknown kind, field, split or style and for files that don't fit.

    spec            "kind" and the fields of that kind (`FIELDS`)
    data_root       what the paths of a file source are relative to; any path that epath opens (gs:// too)
    train           whether a file source yields rows to train on, where its spec does not say
    drop_image_ids  pictures whose rows a file source leaves out (leak filter); the embedded splits are disjoint already
    """
    fields = {key: value for key, value in dict(spec).items() if value is not None}
    kind = fields.pop("kind", None)
    _check_fields(kind, fields)
    if kind == "scenes":
        return SceneSource(**fields)
    elif kind == "cells":
        return CellSource(**fields)
    fields = {"train": train, **fields, "base": _base(kind, fields, str(data_root or "")), "drop_image_ids": drop_image_ids}
    if kind == "coco":
        return CocoCaptions(**fields)
    elif kind == "llava":
        return Conversations(**fields)
    else:
        return VqaQuestions(**fields)


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
            raise VlaxError(f"data source {kind}: {name} is missing; {valid}")


def _base(kind: str, fields: dict, data_root: str) -> str:
    """`data_root`, which may be empty only where no path is relative to it."""
    paths = [fields[name] for name in ("questions", "annotations", "images") if name in fields]
    relative = [path for path in paths if not path.startswith("/") and "://" not in path]
    if relative and not data_root:
        raise VlaxError(
            f"data source {kind} reads {relative[0]} from the data root, which is not set; pass --config.run.data_root=DIR"
        )
    return data_root
