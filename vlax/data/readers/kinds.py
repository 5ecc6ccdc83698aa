"""The kinds of data there are: what reads each, and the fields of its spec. One more kind is one more line here.

A reader is imported when it is asked for, with the packages that it needs.
"""

import pkgutil
from collections.abc import Callable, Mapping
from typing import NamedTuple

_ROWS = {"train": bool, "limit": int}
_CAPTIONS = {**_ROWS, "task": str}
_RECORDS = {**_CAPTIONS, "columns": dict, "split": str, "choices": str, "skip_multi_image": bool}
_DIALOGUES = {**_RECORDS, "strip": str}
_DRAWN = {"seed": int, "size": int}
_JSON = {"annotations": str, "images": str}
_PATH = {"path": str}
_CONTAINER = {"images": str, **_RECORDS}


class Kind(NamedTuple):
    """reader: "file:class" in `vlax.data`; needed, optional: {field of the spec: its type}."""

    reader: str
    needed: Mapping[str, type]
    optional: Mapping[str, type]

    @property
    def fields(self) -> dict[str, type]:
        return {**self.needed, **self.optional}

    def load(self) -> Callable:
        return pkgutil.resolve_name(f"vlax.data.{self.reader}")


KINDS = {
    "scenes": Kind("embedded.scenes:SceneSource", {"split": str, "style": str}, _DRAWN),
    "cells": Kind("embedded.cells:CellSource", {"split": str}, _DRAWN),
    "pairs": Kind("embedded.pairs:PairSource", {"split": str}, _DRAWN),
    "coco": Kind("readers.annotations:Annotations", _JSON, _CAPTIONS),
    "karpathy": Kind("readers.annotations:Annotations", {**_JSON, "split": str}, _CAPTIONS),
    "llava": Kind("readers.table:Table", _JSON, _DIALOGUES),
    "sharegpt": Kind("readers.table:Table", _JSON, _DIALOGUES),
    "vqa": Kind("readers.annotations:Annotations", {"questions": str, **_JSON}, _ROWS),
    "gqa": Kind("readers.annotations:Annotations", _JSON, _ROWS),
    "textvqa": Kind("readers.annotations:Annotations", _JSON, _ROWS),
    "lxmert": Kind("readers.annotations:Annotations", _JSON, _ROWS),
    "table": Kind("readers.table:Table", _PATH, {"images": str, **_DIALOGUES}),
    "hf": Kind("readers.parquet:HfTable", _PATH, _CONTAINER),
    "folder": Kind("readers.folder:PictureFolder", _PATH, {**_RECORDS}),
    "webdataset": Kind("readers.webdataset:WebDataset", _PATH, _CONTAINER),
    "tfds": Kind("readers.tfds:TfdsSource", _PATH, _CONTAINER),
    "arrayrecord": Kind("readers.arrayrecord:ArrayRecords", _PATH, _CONTAINER),
    "prepared": Kind("readers.prepared:PreparedSource", _PATH, {"images": str, **_CAPTIONS, "columns": dict, "split": str}),
}
PATHS = ("questions", "annotations", "path", "images")  # the fields that are files or folders
