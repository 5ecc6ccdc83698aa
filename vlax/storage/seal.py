"""Seals: what every file of a finished folder holds, so that a flipped bit, a cut or missing file is named before it is read.

    export/seal.json   {"format": 1, "files": {"config.json": {"bytes": 812, "sha256": "9f..."}, "params/d/ab": ..., ...},
                        "sha256": of the files' entries}

A seal is written after all that it covers, or, where another file says that the folder is finished, just before that one, whose
content it then knows already. Readers compare what they are about to read; what was compared is not compared again while its
size and time of change stay. What will be read later can be compared `ahead`, beside other work.
"""

import concurrent.futures
import contextlib
import hashlib
import logging
import os
import queue
import threading
from collections.abc import Mapping
from typing import Any

from etils import epath

from vlax.errors import VlaxError
from vlax.storage import paths, state

NAME, FORMAT = "seal.json", 1
SHOWN = 3  # damaged files that an error names

_verify = True
_compared: set[tuple[str, str, int]] = set()  # (file, its digest, time of change)
_ahead: dict[str, tuple[set[str], list[threading.Thread]]] = {}  # by seal: its large files, and who compares them already
LARGE = 1 << 20  # bytes: smaller files are compared when they are read


def verify(on: bool) -> None:
    """Switches comparing on or off for this process (run.verify): off, terabytes on a remote store need not be read twice."""
    global _verify
    if not on:
        logging.warning("WARNING: run.verify=False: exports and checkpoints are read without comparing them with their seals")
    _verify = on


def write(
    folder: epath.PathLike,
    seal: epath.Path | None = None,
    *,
    coming: Mapping[str, bytes] | None = None,
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Seals every file below `folder`, in `folder`/seal.json or the file `seal`.

    coming: {name: content} of files that the caller writes next. known: {name: {"bytes", "sha256"}} where the caller took them
    while it wrote: then these files and the coming ones are all that is sealed.
    """
    folder = epath.Path(folder)
    seal = folder / NAME if seal is None else seal
    entries: dict[str, Any] = dict(known or {})
    names = [] if known else [name for name in _below(folder) if folder / name != seal and name not in (coming or {})]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        entries |= zip(names, pool.map(lambda name: _entry(folder / name), names), strict=True)
    for name, content in (coming or {}).items():
        entries[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    seal.parent.mkdir(parents=True, exist_ok=True)
    state.write_json(seal, {"format": FORMAT, "files": entries, "sha256": _digest(entries)}, indent=1, sort_keys=True)


def check(folder: epath.PathLike, *parts: str, way_out: str, seal: epath.Path | None = None) -> bool:
    """Compares the files of `parts` (files or folders below `folder`; none: all) with the seal; False where there is no seal.

    VlaxError names the files that differ or are missing.
    """
    folder = epath.Path(folder)
    seal = folder / NAME if seal is None else seal
    if not seal.exists():
        return False
    if not _verify:
        return True
    entries = _entries(seal, way_out)
    wanted = [name for name in entries if not parts or any(f"{name}/".startswith(f"{part}/") for part in parts)]
    names, threads = _ahead.get(str(seal), (set(), []))
    if names.intersection(wanted):
        for thread in threads:
            thread.join()
        _ahead.pop(str(seal), None)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(lambda name: _fault(folder / name, entries[name]), wanted)
    faults = [fault for fault in found if fault]
    if faults:
        more = f", and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise VlaxError(f"{'; '.join(faults[:SHOWN])}{more} (by {seal}); {way_out}")
    return True


def ahead(folder: epath.PathLike, seal: epath.Path | None = None) -> None:
    """Begins to compare the large files of a folder, in threads that no end of the process waits for. Nothing is said of what
    they find, and nothing may be read yet: `check` waits for them, and finds the sound files done."""
    folder = epath.Path(folder)
    seal = folder / NAME if seal is None else seal
    if not _verify or str(seal) in _ahead:
        return
    try:
        entries = _entries(seal, "") if seal.exists() else {}
    except (VlaxError, OSError):  # whoever reads it says so
        return
    names = sorted((name for name in entries if entries[name]["bytes"] >= LARGE), key=lambda name: -entries[name]["bytes"])
    waiting = queue.SimpleQueue[str]()
    for name in names:
        waiting.put(name)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                name = waiting.get_nowait()
                _fault(folder / name, entries[name])

    half = max((os.cpu_count() or 1) // 2, 1)  # of the cores: the others are for the work that this is done beside
    threads = [threading.Thread(target=work, name="seals", daemon=True) for _ in names[:half]]
    _ahead[str(seal)] = set(names), threads
    for thread in threads:
        thread.start()


def _entries(seal: epath.Path, way_out: str) -> dict[str, Any]:
    values = state.read(seal, way_out)
    files = values.get("files")
    whole = isinstance(files, dict) and all(
        isinstance(e, dict) and e.keys() == {"bytes", "sha256"} and type(e["bytes"]) is int for e in files.values()
    )
    if values.get("format") != FORMAT or not whole or values.get("sha256") != _digest(files):
        raise VlaxError(f"{seal} is damaged; {way_out}")
    return dict(files)


def _digest(entries: Any) -> str:
    """Of the seal itself: an entry of a file that nobody reads must not be damaged unseen either."""
    return hashlib.sha256(state.as_json(entries, sort_keys=True)).hexdigest()


def _below(folder: epath.Path) -> list[str]:
    found: list[str] = []
    for entry in sorted(folder.iterdir()):
        found += [f"{entry.name}/{name}" for name in _below(entry)] if entry.is_dir() else [entry.name]
    return found


def _entry(file: epath.Path) -> dict[str, Any]:
    return {"bytes": file.stat().length, "sha256": paths.sha256(file)}


def _fault(file: epath.Path, entry: Mapping[str, Any]) -> str:
    """What is wrong with a file; "" for nothing."""
    try:
        found = file.stat()
        if found.length != entry["bytes"]:
            return f"{file} is damaged: it has {found.length:,} bytes in place of {entry['bytes']:,}"
        key = (str(file), entry["sha256"], found.mtime if paths.remote(file) else os.stat(file).st_mtime_ns)
        if key in _compared:
            return ""
        if paths.sha256(file) != entry["sha256"]:
            return f"{file} is damaged: its content is not what was written"
    except OSError as error:
        return f"{file} is missing or cannot be read ({type(error).__name__})"
    _compared.add(key)
    return ""
