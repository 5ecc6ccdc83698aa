"""Small files that are replaced as a whole: manifests, configs, scores, progress."""

import json
import os
from pathlib import Path
from typing import Any

from etils import epath

from vlax.errors import VlaxError
from vlax.storage import paths

AnyPath = Path | epath.Path


def write(path: AnyPath, content: bytes) -> None:
    """Writes a file that is there only when it is whole: a killed process leaves the old one. Object stores do so."""
    if paths.remote(path):
        path.write_bytes(content)
        return
    part = f"{path}.tmp"  # in the same folder, since a file cannot be renamed across disks
    with open(part, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # a power cut after the rename must not leave an empty file
    os.replace(part, path)


def write_json(path: AnyPath, values: Any, end: str = "", **layout: Any) -> None:
    """`write` of JSON in UTF-8. layout: of `json.dumps` (indent, sort_keys, ...); end: what follows the text."""
    write(path, (json.dumps(values, **layout) + end).encode())


def read(path: AnyPath, way_out: str, kind: type = dict) -> Any:
    """The JSON object (or list, by `kind`) in a file. VlaxError says which file, what is wrong with it and the way out."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise VlaxError(f"{path} cannot be read ({error}); {way_out}") from None
    if not content.strip():
        raise VlaxError(f"{path} is empty; {way_out}")
    try:
        values = json.loads(content)
    except ValueError as error:
        raise VlaxError(f"{path} is not JSON ({error}); {way_out}") from None
    if not isinstance(values, kind):
        raise VlaxError(f"{path} is not a JSON {'object' if kind is dict else kind.__name__}; {way_out}")
    return values
