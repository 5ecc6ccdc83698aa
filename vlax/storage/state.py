"""Small files that are replaced as a whole: manifests, configs, scores, progress."""

import contextlib
import functools
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from vlax.errors import VlaxError
from vlax.storage import paths

LINE_BYTES = 64 << 20  # of one line of JSON, or one record's


@contextlib.contextmanager
def replacing(path: Path | epath.Path) -> Iterator[Path]:
    """A local file to write, which takes its place when it is whole: a killed process leaves the old one."""
    if paths.remote(path):
        with tempfile.TemporaryDirectory() as folder:
            yield (part := Path(folder) / path.name)
            epath.Path(part).copy(path, overwrite=True)
        return
    # In the same folder, since a file cannot be renamed across disks; of another name each time, since the processes of a run
    # may write the same file at once.
    part = Path(f"{path}.{secrets.token_hex(4)}.tmp")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # a power cut after the rename must not leave an empty file
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write(path: Path | epath.Path, content: bytes) -> None:
    """Writes a file that is there only when it is whole."""
    with replacing(path) as part:
        part.write_bytes(content)


def as_json(values: Any, end: str = "", **layout: Any) -> bytes:
    """JSON in UTF-8; half a surrogate pair, which has none, as its escape. layout: of `json.dumps` (indent, sort_keys, ...);
    end: what follows the text."""
    return (json.dumps(values, **layout) + end).encode("utf-8", "backslashreplace")


def write_json(path: Path | epath.Path, values: Any, end: str = "", **layout: Any) -> None:
    """`write` of what `as_json` makes."""
    write(path, as_json(values, end, **layout))


def read(path: Path | epath.Path, way_out: str, kind: type[Any] = dict) -> Any:
    """The JSON object (or list, by `kind`) in a file. VlaxError says which file, what is wrong with it and the way out."""
    try:
        if fault := paths.irregular(path, paths.FILE_BYTES):
            raise VlaxError(f"{path} {fault}; {way_out}")
        content = path.read_bytes()
    except OSError as error:
        raise VlaxError(f"{path} cannot be read ({error}); {way_out}") from None
    if not content.strip():
        raise VlaxError(f"{path} is empty; {way_out}")
    values = load_json(path, content, way_out)
    if not isinstance(values, kind):
        raise VlaxError(f"{path} is not a JSON {'object' if kind is dict else kind.__name__}; {way_out}")
    return values


def load_json(
    where: object, content: bytes | str, way_out: str = "fetch or export it again", limit: int = paths.FILE_BYTES
) -> Any:
    """The value of a JSON text: the one place of vlax that reads JSON. VlaxError names the place and the way out: for what is
    no JSON, for more than `limit` bytes, and for more levels than Python's parser takes (just under 1,000)."""
    if len(content) > limit:
        raise VlaxError(f"{where} has {len(content):,} bytes of JSON, limit {limit:,}; {way_out}")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        reason = "its lists are nested too deeply" if isinstance(error, RecursionError) else error
        raise VlaxError(f"{where} is not JSON ({reason}); {way_out}") from None


load_line = functools.partial(load_json, limit=LINE_BYTES)  # of JSON lines, or the JSON of one record


@contextlib.contextmanager
def understood(where: object, way_out: str) -> Iterator[None]:
    """Around what is made of a file of others: whatever else than a VlaxError it raises says that the content is not as it
    should be (a text where a list was looked for, an offset that leads nowhere), which is a VlaxError that names the file."""
    try:
        yield
    except VlaxError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise VlaxError(f"{where} does not hold what it should ({type(error).__name__}: {said}); {way_out}") from error
