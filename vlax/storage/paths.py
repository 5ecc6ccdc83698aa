"""Paths as users type them: relative ones, `~`, and object stores (`gs://bucket/path`)."""

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from vlax.errors import VlaxError

WORKDIR = "runs/embedded"  # where training writes, and what comes after it looks, unless a --workdir says otherwise
FILE_BYTES = 4 << 30  # of one file of annotations, predictions or settings, which is read as a whole


def remote(path: epath.PathLike) -> bool:
    """Whether a path lies on an object store: objects can't be appended to, and C++ and transformers can't open them."""
    return "://" in str(path)


def rooted(path: str) -> bool:
    """Whether a path says where it starts: `/a.json`, `gs://b/a.json`."""
    return path.startswith("/") or remote(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """Orbax refuses relative paths; users type them."""
    return epath.Path(path) if remote(path) else epath.Path(os.path.abspath(os.path.expanduser(str(path))))


def join(base: epath.PathLike, path: epath.PathLike) -> epath.Path:
    """`"/data" + "a.json" -> /data/a.json`; a path that says where it starts (`/a.json`, `gs://b/a.json`) stays."""
    return epath.Path(path) if remote(path) else epath.Path(base) / path


def irregular(path: epath.PathLike, limit: int = 0) -> str:
    """What keeps a file from being read, "" for nothing: "is not a regular file" (to open a FIFO waits for ever, a device may
    have no end), or more than `limit` bytes (0: any number). OSError where it is not there. Objects on a store pass."""
    if remote(path):
        return ""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    return f"has {found.st_size:,} bytes, limit {limit:,}" if limit and found.st_size > limit else ""


def check_regular(path: epath.PathLike, way_out: str) -> None:
    """VlaxError for what is not there or `irregular`."""
    try:
        fault = irregular(path)
    except OSError as error:
        fault = f"cannot be read ({error})"
    if fault:
        raise VlaxError(f"{path} {fault}; {way_out}")


def read_file(path: epath.Path) -> bytes:
    """The bytes of a file of text. VlaxError where it cannot be read, is no regular file or has more than FILE_BYTES."""
    try:
        if fault := irregular(path, FILE_BYTES):
            raise VlaxError(f"{path} {fault}; mend the path")
        content: bytes = path.read_bytes()
    except FileNotFoundError:
        raise VlaxError(f"there is no file {path}; mend the path in the data source or --config.run.data_root=DIR") from None
    except OSError as error:
        raise VlaxError(f"{path} cannot be read ({error}); mend the path or its permissions") from None
    return content


def sha256(path: Path | epath.Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def local_file(path: epath.Path) -> str:
    """What C++ readers and memory maps open: they know no object store, so a remote file is copied, once, to the temporary
    folder of this host (TMPDIR says where that is)."""
    if not remote(path):
        return str(path)
    found = path.stat()
    key = hashlib.sha256(f"{path} {found.length} {found.mtime}".encode()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / "vlax-shards" / f"{key}-{path.name}"
    if not target.exists():
        target.parent.mkdir(exist_ok=True)
        with path.open("rb") as source, tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as copy:
            shutil.copyfileobj(source, copy, 1 << 22)
        os.replace(copy.name, target)  # whole or not there: processes of one host may meet here
    return str(target)


@contextlib.contextmanager
def local_folder(path: epath.PathLike) -> Iterator[str]:
    """The folder, or a copy of the files of a remote one, which is gone afterwards."""
    if not remote(path):
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as local:
        for file in epath.Path(path).iterdir():
            (Path(local) / file.name).write_bytes(file.read_bytes())
        yield local
