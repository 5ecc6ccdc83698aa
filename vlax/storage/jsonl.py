"""Append-only JSON lines, such as predictions.jsonl and metrics.jsonl.

    metrics.jsonl                                     on a disk: each call appends to it and closes it
    metrics-000000.jsonl, metrics-000001.jsonl, ...   on an object store, where nothing can be appended to: a file a call

A process that is killed may leave half a line at the end, the torn tail: readers pass over it.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from vlax.errors import VlaxError
from vlax.storage import paths, state

AHEAD = 16  # files of a bucket that are read at once
_chunks: dict[str, int] = {}  # path: the next file's number; listing a bucket once a batch would take longer than decoding


def lines(entries: Iterable[Mapping[str, Any]]) -> bytes:
    """One a line. ASCII: a text may hold any line separator of Unicode, or half a surrogate pair, which has no UTF-8."""
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def append(path: epath.Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Adds lines and closes the file, so that they are there whatever happens next."""
    if not paths.remote(path):
        with path.open("ab") as file:
            file.write(lines(entries))
        return
    if str(path) not in _chunks:
        _chunks[str(path)] = max((int(part.stem.rpartition("-")[2]) for part in _parts(path) if part != path), default=-1) + 1
    (path.parent / f"{path.stem}-{_chunks[str(path)]:06d}.jsonl").write_bytes(lines(entries))
    _chunks[str(path)] += 1


def read(path: epath.Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """("FILE:LINE", object) of each line, the torn tail apart; None in place of what is no JSON object."""
    for part, content in _contents(path):
        for number, line in enumerate(content.split(b"\n")[:-1], 1):
            yield f"{part}:{number}", _entry(line)


def prune(path: epath.Path, keep: Callable[[dict[str, Any] | None], bool]) -> None:
    """Removes the torn tail, and the lines whose objects (None as in `read`) are not to be kept. For the one writer."""
    for part, content in _contents(path):
        *whole, tail = content.split(b"\n")
        kept = [line for line in whole if keep(_entry(line))]
        if tail or len(kept) < len(whole):
            state.write(part, b"".join(line + b"\n" for line in kept))


def mend(path: epath.Path) -> None:
    """Removes the torn tail, which objects in a bucket, being written whole, have not. For the one writer."""
    if not paths.remote(path):
        prune(path, lambda entry: True)


def _parts(path: epath.Path) -> list[epath.Path]:
    """The file and the numbered ones, of which a folder that was moved between disk and store may hold both."""
    numbered = (part for part in path.parent.glob(f"{path.stem}-*.jsonl") if re.search(r"-\d{6,}$", part.stem))
    return [*([path] if path.exists() else ()), *sorted(numbered)]


def _contents(path: epath.Path) -> Iterator[tuple[epath.Path, bytes]]:
    """Of each part, read ahead: a long run has thousands in a bucket, and each takes a journey there."""
    parts = _parts(path)
    with ThreadPoolExecutor(AHEAD) as pool:
        yield from zip(parts, pool.map(paths.read_file, parts), strict=True)


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = state.load_line("", line)
    except VlaxError:
        return None
    return entry if isinstance(entry, dict) else None
