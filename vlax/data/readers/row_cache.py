"""Rows that were read once are mapped from then on: no annotation file is opened again while it is the same.

    FOLDER/rows/KEY/rows.arrow, rows.npy    what was read (`item_table.py`)
    FOLDER/rows/KEY/entry.json              what else the reader found out: facts, faults, a digest of all of it; written last
    FOLDER/rows/KEY/aside.json              the part of it that few want, which may be long

KEY stands for all that rows depend on: the files' paths, sizes and times, how they are read, and the code that reads them. One
process of a host makes an entry, the others wait for it; a damaged one is made again; one that was not opened for `UNUSED` days
goes when another is made. Where nothing can be written, rows are kept in memory.
"""

import functools
import hashlib
import io
import logging
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from etils import epath

import vlax.rows
from vlax.data.readers import item_batches
from vlax.data.readers.item_table import Mapped
from vlax.errors import VlaxError
from vlax.storage import cache, paths, state

SMALL = 2 << 20
UNUSED = 30  # days
RECENT = 2.0  # seconds: a file may still change without a new time
AGAIN = "give the same command again: it is read anew from its source"
Made = Generator[pa.RecordBatch, None, dict[str, Any]]


def key(files: Iterable[epath.PathLike], *given: Any) -> str:
    """Names what is made of some files in a given way; "" where it is not worth keeping or can't be told from a later state."""
    states = []
    try:
        for file in map(str, files):
            if paths.remote(file):
                found = epath.Path(file).stat()
                states.append((file, found.length, int(found.mtime) * 10**9))
            else:
                own = os.stat(file)
                states.append((os.path.abspath(file), own.st_size, own.st_mtime_ns))
    except OSError:
        return ""  # whoever reads it says why
    now = time.time()
    if sum(size for _, size, _ in states) < SMALL or any(abs(now - at / 1e9) < RECENT for *_, at in states):
        return ""
    return derived(states, *given)


def derived(*of: Any) -> str:
    """A key for what is made of something, by this code, that has a name or a key."""
    return hashlib.sha256(state.as_json([_code(), pa.__version__, *of], default=str, sort_keys=True)).hexdigest()[:40]


@functools.cache
def _code() -> str:
    """Digest of the code that makes rows: no entry outlives a change of it."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256()
    for file in (Path(vlax.rows.__file__), *files):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def kept(
    key: str, schema: pa.Schema, made: Callable[[], Made], aside: bool = False
) -> tuple[Sequence[pa.RecordBatch] | Mapped, dict[str, Any]]:
    """(the record batches of `made`, the JSON that it returns), from the entry of a key; it is written where it is not there.

    made   begins anew at every call. Its exceptions pass
    aside  whether the value "aside" of that JSON is wanted; None takes its place otherwise
    """
    if key:
        folder = cache.folder() / "rows" / key
        try:
            if found := _load(folder, schema, aside):
                return found
            with cache.alone(folder):
                return _load(folder, schema, aside) or _make(folder, schema, made(), aside)
        except _Raised as raised:
            raise raised.error from raised.error.__cause__
        except OSError as error:
            _say(cache.folder(), str(error))
    blocks: list[pa.RecordBatch] = []
    running = made()
    while True:
        try:
            blocks.append(next(running))
        except StopIteration as end:
            return blocks, end.value


def found(key: str, schema: pa.Schema) -> Sequence[pa.RecordBatch] | Mapped | None:
    """The record batches of an entry, here or in the folder that commands without a workdir use; None where there is none."""
    for folder in dict.fromkeys((cache.folder(), cache.home())):
        try:
            if there := _load(folder / "rows" / key, schema, False):
                return there[0]
        except OSError:  # as if there were none
            continue
    return None


def forget(key: str) -> None:
    """Removes an entry."""
    shutil.rmtree(cache.folder() / "rows" / key, ignore_errors=True)


class _Raised(Exception):
    """What a reader raised while its rows were written: no fault of the disk that they are written to."""

    def __init__(self, error: Exception):
        self.error = error


@functools.cache  # once for each folder
def _say(folder: Path, reason: str) -> None:
    way_out = "rows are kept in memory; $VLAX_CACHE names another folder"
    logging.warning("WARNING: %s cannot be written (%s): %s", folder, reason, way_out)


def _make(folder: Path, schema: pa.Schema, made: Made, aside: bool) -> tuple[Mapped, dict[str, Any]]:
    _prune(folder.parent)
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    part.mkdir()
    returned: list[dict[str, Any]] = []

    def pulled() -> Generator[pa.RecordBatch, None, None]:
        try:
            returned.append((yield from made))
        except Exception as error:
            raise _Raised(error) from None

    try:
        table = item_batches.places([item_batches.write(part / "rows.arrow", schema, pulled())])
        (values,) = returned
        buffer = io.BytesIO()
        np.save(buffer, table)
        files = {"rows.npy": buffer.getvalue(), "aside.json": state.as_json(values.pop("aside", None))}
        for name, content in files.items():
            (part / name).write_bytes(content)
        entry: dict[str, Any] = {"values": values, "bytes": (part / "rows.arrow").stat().st_size}
        entry["sha256"] = {"": _digest(entry), **{name: hashlib.sha256(content).hexdigest() for name, content in files.items()}}
        (part / "entry.json").write_bytes(state.as_json(entry))
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if not (found := _load(folder, schema, aside)):
        raise VlaxError(f"{folder} changed while it was written; {AGAIN}")
    return found


def _digest(entry: dict[str, Any]) -> str:
    return hashlib.sha256(state.as_json(entry, sort_keys=True)).hexdigest()


def _load(folder: Path, schema: pa.Schema, aside: bool) -> tuple[Mapped, dict[str, Any]] | None:
    """An entry, None where there is none or a damaged one. OSError where it cannot be read."""
    try:
        content = (folder / "entry.json").read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        entry = state.load_json(folder / "entry.json", content)
        files = {name: (folder / name).read_bytes() for name in ["rows.npy", *(["aside.json"] if aside else [])]}
        wanted = entry.pop("sha256")
        digests = {"": _digest(entry), **{name: hashlib.sha256(content).hexdigest() for name, content in files.items()}}
        if (folder / "rows.arrow").stat().st_size != entry["bytes"] or any(wanted[name] != digests[name] for name in digests):
            raise ValueError
        found = np.load(io.BytesIO(files["rows.npy"]), allow_pickle=False)
        entry["values"]["aside"] = state.load_json(folder / "aside.json", files["aside.json"]) if aside else None
    except (VlaxError, ValueError, KeyError, AttributeError, TypeError, FileNotFoundError):
        logging.warning("WARNING: %s is damaged: it is made again", folder)
        return None
    if time.time() - (folder / "entry.json").stat().st_mtime > 86400:
        os.utime(folder / "entry.json")  # it is in use
    blocks = Mapped(str(folder), found, ["rows.arrow"], schema, AGAIN, spoilt=str(folder / "entry.json"))
    blocks.open()
    return blocks, entry["values"]


def _prune(folder: Path) -> None:
    """Removes entries that were not opened for long."""
    before = time.time() - UNUSED * 86400
    for path in folder.iterdir():
        file = path / "entry.json"
        if path.is_dir() and (file if file.exists() else path).stat().st_mtime < before:
            shutil.rmtree(path, ignore_errors=True)
