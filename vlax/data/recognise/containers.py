"""Which container of rows and pictures a file or folder is: by its first bytes, or by the files in it.

of_files(Path("train.parquet"), ...)    ({"kind": "hf", "path": Path("train.parquet")}, "a parquet file")
of_shards(Path("pathvqa"))              ({"kind": "hf", "path": Path("pathvqa"), "split": "train"}, "parquet files (...)")
"""

import contextlib
import re
from collections.abc import Iterable, Mapping

from etils import epath

from vlax.data.readers import shards, table_file
from vlax.data.recognise import picture_folder
from vlax.errors import VlaxError
from vlax.storage import state

MAGIC = [  # (offset, bytes, kind, what)
    (0, b"PAR1", "hf", "a parquet file"),
    (0, b"ARROW1", "hf", "an arrow file"),
    (0, b"\xff\xff\xff\xff", "hf", "an arrow stream"),
    (257, b"ustar", "webdataset", "tar shards"),
    (0, b"\x83\xafp\xd1\r\x88J?", "arrayrecord", "an ArrayRecord file"),
]
SHARDS = [  # (pattern of file names in a folder, kind, what); tars first: downloaders write a parquet table beside each
    (r"\.(tar(\.\w+)?|tgz)$", "webdataset", "tar shards"),
    (r"\.parquet$", "hf", "parquet files"),
    (r"\.arrow$", "hf", "arrow files"),
    (shards.ARRAY_RECORD, "arrayrecord", "ArrayRecord files"),
]


def of_files(path: epath.Path, files: Mapping[str, epath.Path]) -> tuple[dict, str] | None:
    """(spec, what) of one file, or of several ({name: file}) that `path` stands for; the first one's bytes tell."""
    with next(iter(files.values())).open("rb") as file:
        head = file.read(512)
    for at, magic, kind, what in MAGIC:
        if head[at : at + len(magic)] == magic:
            return _with_split(path, next(iter(files.values())), kind, what, files if len(files) > 1 else ())
    if re.search(r"\.(tar\.\w+|tgz)$", str(path)):  # compressed: its reader says what to do
        return {"kind": "webdataset", "path": path}, "compressed tar shards"
    return None


def of_builder(path: epath.Path) -> tuple[dict, str] | None:
    """(spec, what) of a prepared folder or a TFDS builder, in a folder or up to two folders below it."""
    if (path / "manifest.json").exists() and _is_prepared(path / "manifest.json"):
        return {"kind": "prepared", "path": path}, "a prepared folder"
    inner = picture_folder.subfolders(path)
    for folder in (path, *inner, *(deeper for one in inner for deeper in picture_folder.subfolders(one))):
        if (folder / "features.json").exists() and (folder / "dataset_info.json").exists():
            return _tfds(folder)
    return None


def of_shards(path: epath.Path) -> tuple[dict, str] | None:
    """(spec, what) of a folder of shards, or of folders of shards."""
    names = [str(file)[len(str(path)) + 1 :] for file in picture_folder.files(path)]
    for pattern, kind, what in SHARDS:
        if mine := sorted(name for name in names if re.search(pattern, name)):
            return _with_split(path, path / mine[0], kind, what, mine)
    return None


def _with_split(path: epath.Path, first: epath.Path, kind: str, what: str, names: Iterable[str]) -> tuple[dict, str]:
    """Of several splits one is taken, train where there is one: of files by their names, else of rows by a column `split`."""
    splits = sorted({shards.split_of(name) for name in names} - {""})
    if kind == "hf" and len(splits) < 2:
        with contextlib.suppress(VlaxError):  # of a damaged file: its reader says so
            splits = table_file.TableFile(str(first)).distinct("split") or splits
    return _choose({"kind": kind, "path": path}, what, splits)


def _tfds(folder: epath.Path) -> tuple[dict, str]:
    info = state.read(folder / "dataset_info.json", "prepare the set again")
    splits = [str(split["name"]) for split in info.get("splits", ()) if isinstance(split, dict) and "name" in split]
    return _choose({"kind": "tfds", "path": folder}, "a TFDS folder", splits)


def _choose(spec: dict, what: str, splits: list[str]) -> tuple[dict, str]:
    if len(splits) < 2:
        return spec, what
    split = next((name for name in splits if name.startswith("train")), splits[0])
    return {**spec, "split": split}, f"{what} (splits: {', '.join(splits)})"


def _is_prepared(manifest: epath.Path) -> bool:
    try:
        data = state.read(manifest, "")
    except VlaxError:
        return False
    return "vlax" in str(data.get("format", data.get("writer", "")))
