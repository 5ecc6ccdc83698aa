"""What a disk refuses: it is full or read-only, or not this user's. One line, wherever and as whatever it was raised.

OSError: [Errno 28] No space left on device              Python's, which often knows no file
ValueError: RESOURCE_EXHAUSTED: Failed writing: "/w/checkpoints/8.orbax-checkpoint-tmp/d/0b": ...: No space left on device
"""

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from vlax.errors import VlaxError

REFUSED = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "this user's quota of the disk is used up",
    errno.EFBIG: "no file may be as large as this one (ulimit -f)",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk fails",
    errno.EACCES: "this user has no permission",
    errno.EPERM: "this user has no permission",
}
NAMED = (errno.EACCES, errno.EPERM, errno.EIO)  # sockets, processes and devices raise these too: files alone have a name
ORBAX = "orbax-checkpoint-tmp"  # part of the names of folders that become a checkpoint


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """VlaxError in place of what a disk refused within; other exceptions pass."""
    try:
        yield
    except VlaxError:
        raise
    except Exception as error:
        if text := refusal(error):
            raise VlaxError(text) from error
        raise


def quieten() -> None:
    """From here on tensorstore's threads print nothing of writes that orbax no longer waits for, since the first failed."""
    shown, late = sys.excepthook, "Event loop is closed"
    sys.excepthook = lambda kind, value, trace: None if str(value) == late else shown(kind, value, trace)


def refusal(error: BaseException) -> str:
    """The line for a refusal anywhere in an exception's chain, causes and groups; "" for any other exception."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        code, file = _code(one), _file(one)
        if code and (file or code not in NAMED):
            return _line(code, file)
        waiting += [other for other in (one.__cause__, one.__context__, *getattr(one, "exceptions", ())) if other is not None]
    return ""


def _code(error: BaseException) -> int:
    if isinstance(error, OSError):
        return error.errno if error.errno in REFUSED else 0
    return next((code for code in REFUSED if os.strerror(code) in str(error)), 0)  # as C++ has it


def _file(error: BaseException) -> str:
    """Which file it was about: as the error has it, or its text, or the innermost function that has an open file or a path."""
    if isinstance(error, OSError):
        if isinstance(error.filename, str | os.PathLike):
            return str(error.filename)
        if error.errno in NAMED:
            return ""
    elif quoted := re.search(r'"(/[^"]+)"', str(error)):
        return quoted[1]
    found, trace = "", error.__traceback__
    while trace is not None:
        for value in trace.tb_frame.f_locals.values():
            name = value if isinstance(value, os.PathLike) else getattr(value, "name", "") if hasattr(value, "fileno") else ""
            if str(name).startswith("/"):
                found = str(name)
        trace = trace.tb_next
    return found


def _line(code: int, file: str) -> str:
    way_out = "name another folder" if code not in (errno.ENOSPC, errno.EDQUOT) else "make room there, or name another folder"
    again = f"{way_out}, and give the same command again: what was written before is whole"
    if not file:
        return f"a file could not be written: {REFUSED[code]}; {again}"
    parts = Path(file).parts
    folder = Path(*parts[: next((at for at, part in enumerate(parts) if ORBAX in part), len(parts) - 1)])
    there = next((parent for parent in (folder, *folder.parents) if parent.exists()), Path("/"))
    room = ""
    with contextlib.suppress(OSError):
        disk = os.statvfs(there)
        nodes = ", no file more" if not disk.f_favail and disk.f_files else ""
        room = f" ({disk.f_bavail * disk.f_frsize / 1e6:,.1f} of {disk.f_blocks * disk.f_frsize / 1e6:,.1f} MB are free{nodes})"
    return f"{folder}: {REFUSED[code]}{room}, at {Path(file).name}; {again}"
