"""Data in several files: which files a path means, whose split they are, and ArrayRecord files that are whole.

expand("pairs-{08..10}.tar")                      ["pairs-08.tar", "pairs-09.tar", "pairs-10.tar"]
split_of("data/train-00000-of-00002.parquet")     "train"
split_of("default/validation/0000.parquet")       "validation"
split_of("data-00000-of-00001.arrow")             ""
split_of("human/data-00000-of-00001.arrow")       "human"
"""

import functools
import os
import re
from collections.abc import Callable, Iterable

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

from vlax.errors import VlaxError
from vlax.storage import state
from vlax.storage.paths import check_regular, join, sha256

ARRAY_RECORD = r"\.array_?record(-\d+-of-\d+)?$"
RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"
ALIASES = {"training": "train", "valid": "validation", "val": "validation", "dev": "validation", "testing": "test"}
SPLITS = {"train", "validation", "test", *ALIASES}


def expand(pattern: str) -> list[str]:
    """The names that braces stand for: {000..010} counts with leading zeros, {a,b} lists."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    head, tail = pattern[: found.start()], pattern[found.end() :]
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if ends and int(ends[1]) > int(ends[2]):
        raise VlaxError(f"{pattern}: the range {{{found[1]}}} counts down; write {{{ends[2]}..{ends[1]}}}")
    words = [f"{n:0{len(ends[1])}d}" for n in range(int(ends[1]), int(ends[2]) + 1)] if ends else found[1].split(",")
    return [name for word in words for name in expand(f"{head}{word}{tail}")]


def listed(base, path: str, kind: str, what: str) -> dict[str, epath.Path]:
    """{name: file} that a file, a folder, a glob or braces mean, in the order of their names.

    base  what a relative path is relative to
    kind  pattern of the file names that are taken from a folder; other files there are not looked at
    what  names them in an error: "parquet or arrow"

    Names are relative to the folder that the path begins with, so that the same files elsewhere have the same names.
    """
    found = _listed(str(join(base, path)), path, kind, what)
    for file in found.values():
        check_regular(file, "remove it, or name the others")
    return found


def _listed(top: str, path: str, kind: str, what: str) -> dict[str, epath.Path]:
    if "{" in top:
        files = [epath.Path(name) for name in expand(top)]
        missing = [file for file in files if not file.exists()]
        if missing:
            raise VlaxError(
                f"{path}: there is no file {missing[0]} ({len(missing)} of {len(files)} are missing); mend the range"
            )
        root = top[: top.index("{")].rpartition("/")[0]
        return {str(file)[len(root) :].lstrip("/"): file for file in files}
    if re.search(r"[*?\[]", top):
        parts = top.split("/")
        at = next(i for i, part in enumerate(parts) if re.search(r"[*?\[]", part))
        root, files = epath.Path("/".join(parts[:at]) or "."), []
        files = [file for file in root.glob("/".join(parts[at:])) if not file.is_dir()]
    else:
        root = epath.Path(top)
        if not root.exists():
            raise VlaxError(
                f"there is no file or folder {root}; mend the path in the data source or --config.run.data_root=DIR"
            )
        if not root.is_dir():
            return {root.name: root}
        found = [file for depth in ("*", "*/*", "*/*/*") for file in root.glob(depth)]  # "**" is refused for object stores
        files = [file for file in found if re.search(kind, file.name) and not file.name.startswith((".", "cache-"))]
        prepared = {file.parent for file in files if file.name.startswith("rows-") and (file.parent / "rows.npy").exists()}
        files = [file for file in files if file.parent not in prepared]  # a set that was written into its source's folder
    if not files:
        raise VlaxError(f"{root} holds no {what} files ({path}); give the folder that does, or one file")
    return {str(file)[len(str(root)) :].lstrip("/"): file for file in sorted(files, key=str)}


def split_of(name: str) -> str:
    """The split that a file's name tells, or the nearest folder above it; "" where neither does."""
    *folders, file = name.split("/")
    sharded = re.match(r"(.+?)-\d+-of-\d+", file)
    if sharded and sharded[1] != "data":
        return sharded[1]
    for part in (re.sub(r"\.\w+$", "", file), *reversed(folders)):
        known = [word for word in re.split(r"[^a-z]+", part.lower()) if word in SPLITS]
        if known:
            return known[0]
    # A `DatasetDict` that was saved has a folder for each split, whatever that is called.
    return folders[-1] if sharded and folders and file.endswith(".arrow") else ""


def same_split(one: str, other: str) -> bool:
    """val, valid, dev and validation are one name."""
    return ALIASES.get(one.lower(), one.lower()) == ALIASES.get(other.lower(), other.lower())


def of_split(files: dict[str, epath.Path], split: str, where: str) -> dict[str, epath.Path]:
    """The files of one split; without a split all, which must then be of one. val, valid, dev and validation are one name."""
    by_split = {name: split_of(name) for name in files}
    splits = sorted(set(by_split.values()) - {""})
    if not split:
        if len(splits) > 1:
            raise VlaxError(f"{where} holds the splits {', '.join(splits)}; name one: split={splits[0]!r}")
        return files
    chosen = {n: f for n, f in files.items() if by_split[n] == split}
    chosen = chosen or {n: f for n, f in files.items() if same_split(by_split[n], split)}
    if not chosen:
        said = f"it holds {', '.join(splits)}" if splits else "its file names tell no split: leave split out"
        raise VlaxError(f"{where} has no files of the split {split!r}; {said}")
    return chosen


class Kept:
    """What a source keeps open: make(key) of the keys met last, for any thread. A pickled copy opens its own."""

    def __init__(self, make: Callable, size: int = 512):
        self._make, self._size = make, size
        self._get = functools.lru_cache(size)(make)

    def __call__(self, *key):
        return self._get(*key)

    def __reduce__(self):
        return Kept, (self._make, self._size)


class Reader:
    """An ArrayRecord file for random access. VlaxError unless it is there and whole."""

    def __init__(self, path: str):
        if not os.path.exists(path):
            raise VlaxError(f"there is no file {path}; mend the path, or prepare or copy the data again")
        self.path, self._opened = path, ArrayRecordReader(path, options=RANDOM_ACCESS)
        if not self._opened.ok():
            raise VlaxError(f"{path} is not a whole ArrayRecord file; copy or prepare it again")

    def _read(self, what: str, *where) -> list[bytes]:
        try:
            return self._opened.read(*where)
        except (RuntimeError, ValueError, IndexError) as error:
            reason = str(error).split(";")[0]
            raise VlaxError(f"{self.path}: {what} cannot be read ({reason}); copy or prepare the file again") from None

    def record(self, at: int) -> bytes:
        return self._read(f"record {at}", [at])[0]

    def records(self, step: int = 256) -> Iterable[bytes]:
        """All records in order, read `step` at a time."""
        total = self._opened.num_records()
        for begin in range(0, total, step):
            yield from self._read(f"records from {begin} on", begin, min(begin + step, total))


def write(path: epath.Path, contents: Iterable[bytes], options: str) -> dict:
    """An ArrayRecord file, there only when it is whole. {"file", "records", "bytes", "sha256"}.

    The bytes depend on the records and the options alone.
    """
    with state.replacing(path) as part:
        writer, count = ArrayRecordWriter(str(part), options), 0
        try:
            for content in contents:
                writer.write(content)
                count += 1
        finally:
            writer.close()
        if not part.exists():
            raise VlaxError(f"{path} cannot be written; make its folder writable or choose another")
        return {"file": path.name, "records": count, "bytes": part.stat().st_size, "sha256": sha256(part)}
