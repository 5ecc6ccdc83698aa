"""Where this machine keeps what it has computed from rows once: tables, indices, token lengths. All of it can be deleted at any
time and is computed again.

    cache.folder()                    $VLAX_CACHE, else what `use` was given (training: beside the workdir), else ~/.cache/vlax
    with cache.alone(path): ...       one thread of one process of this host at a time; the others wait, and find it done
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from vlax.storage import paths

VARIABLE = "VLAX_CACHE"
NAME = "vlax-cache"  # of the folder beside a workdir

_chosen: Path | None = None


def folder() -> Path:
    """The folder for this process, a local one; it may not be there yet."""
    if named := os.environ.get(VARIABLE):
        return Path(os.path.abspath(os.path.expanduser(named)))
    return _chosen or home()


def home() -> Path:
    """The folder of commands that know no workdir."""
    return Path.home() / ".cache" / "vlax"


def use(path: str | os.PathLike[str]) -> None:
    """From now on `folder()` is this one, unless $VLAX_CACHE names another."""
    global _chosen
    _chosen = Path(os.path.abspath(os.path.expanduser(path)))


def beside(workdir: str | os.PathLike[str]) -> None:
    """`use` of the folder that all workdirs beside each other share; a workdir on an object store has none."""
    if not paths.remote(workdir):
        use(Path(os.path.abspath(os.path.expanduser(workdir))).parent / NAME)


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Until it is left, nobody else of this host is within for the same path, whose folder is made. OSError where it can't be
    written. The lock ends with its process, however that ends; its file stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
