"""Paths as users type them: relative ones, `~`, and object stores (`gs://bucket/path`)."""

import os

from etils import epath

from vlax.errors import VlaxError


def remote(path: epath.PathLike) -> bool:
    """Whether a path lies on an object store: objects can't be appended to, and transformers can't read them in place."""
    return "://" in str(path)


def absolute(path: epath.PathLike) -> epath.Path:
    """Orbax refuses relative paths; users type them."""
    return epath.Path(path) if remote(path) else epath.Path(os.path.abspath(os.path.expanduser(str(path))))


def join(base: epath.PathLike, path: epath.PathLike) -> epath.Path:
    """`"/data" + "a.json" -> /data/a.json`; a path that says where it starts (`/a.json`, `gs://b/a.json`) stays."""
    return epath.Path(path) if remote(path) else epath.Path(base) / path


def read_file(path: epath.Path) -> bytes:
    try:
        content: bytes = path.read_bytes()
    except FileNotFoundError:
        raise VlaxError(f"there is no file {path}; mend the path in the data source or --config.run.data_root=DIR") from None
    except OSError as error:
        raise VlaxError(f"{path} cannot be read ({error}); mend the path or its permissions") from None
    return content
