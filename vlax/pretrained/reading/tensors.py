"""Reading safetensors: a directory's tensors by name, found and checked by their headers, read one at a time.

The format (https://github.com/huggingface/safetensors): 8 bytes of header length, a JSON header {name: {dtype, shape,
data_offsets}}, then the bytes. It is read here with plain file reads and not through the library's memory map: mapped pages
count towards the process, and the host would hold a model twice while it loads.
"""

import dataclasses
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vlax.errors import VlaxError
from vlax.storage import hub
from vlax.storage.state import load_json

DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
INDEX = "model.safetensors.index.json"
HEADER_BYTES = 100_000_000  # the format's own limit
MOST_AXES, MOST = 32, 1 << 48  # of a shape, and what a length or an offset is below
AGAIN = "download it again"


@dataclasses.dataclass(frozen=True)
class Later:
    """An array whose values are read when they are asked for."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(), dtype)


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where one tensor lies: `offset` in bytes from the start of the file."""

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self) -> np.ndarray:
        array = np.fromfile(self.file, self.dtype, math.prod(self.shape), offset=self.offset)
        return array.reshape(self.shape)


def headers(directory: Path) -> dict[str, Stored]:
    """Every tensor of the directory's safetensors, without reading their bytes.

    VlaxError: no safetensors at all, only .bin weights, a shard of the index that is missing, a truncated or broken file.
    """
    stored: dict[str, Stored] = {}
    for file in _files(directory):
        for name, tensor in file_header(file).items():
            if name in stored:
                raise VlaxError(
                    f"tensor {name!r} is in both {stored[name].file.name} and {file.name} of {directory}; remove one"
                )
            stored[name] = tensor
    return stored


def _files(directory: Path) -> list[Path]:
    index = directory / INDEX
    if index.is_file():
        named = hub.read_json(index).get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(shard, str) for shard in named.values()):
            raise VlaxError(f"{index} is not a safetensors index (JSON with a weight_map); download it again")
        shards = sorted(set(named.values()))
        if outside := [shard for shard in shards if Path(shard).name != shard or "\\" in shard or not shard.strip(".")]:
            raise VlaxError(f"{index} names the shard {outside[0]!r}, which is no file beside it; take another checkpoint")
        missing = [shard for shard in shards if not (directory / shard).is_file()]
        if missing:
            raise VlaxError(
                f"{directory} lacks {len(missing)} of the {len(shards)} shards that {INDEX} lists, the first is {missing[0]}; "
                f"download it again"
            )
        return [directory / shard for shard in shards]
    single = directory / "model.safetensors"
    files = [single] if single.is_file() else sorted(file for file in directory.glob("*.safetensors") if file.is_file())
    if len(files) > 1:
        raise VlaxError(f"{directory} holds {len(files)} safetensors files and no {INDEX}; download the index too")
    if not files and any(file.suffix in (".bin", ".pt", ".pth") for file in directory.iterdir()):
        raise VlaxError(
            f"{directory} holds torch .bin weights only; vlax reads safetensors. Take a revision that has them, or convert "
            f"where torch is installed: transformers.AutoModel.from_pretrained(DIR).save_pretrained(OUT)"
        )
    if not files:
        raise VlaxError(f"{directory} holds no model.safetensors and no {INDEX}; name the directory that has the weights")
    return files


def file_header(file: Path) -> dict[str, Stored]:
    """The tensors of one file. VlaxError when it is truncated or broken: every tensor has the bytes that its shape and dtype
    ask for, and together they fill the file, without gaps, one behind another."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size or length > HEADER_BYTES:
            raise VlaxError(f"{file} is truncated: {size} bytes do not hold its header of {length}; download it again")
        content = stream.read(length)
    entries = load_json(f"{file} is no safetensors file: its header", content, AGAIN)
    if not isinstance(entries, dict):
        raise VlaxError(f"{file} is no safetensors file: its header is a {type(entries).__name__}; {AGAIN}")
    entries.pop("__metadata__", None)
    for name, entry in entries.items():
        _check_entry(file, name, entry)
    end = 8 + length
    stored = {}
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        (begin, stop), shape, dtype = entry["data_offsets"], tuple(entry["shape"]), np.dtype(DTYPES[entry["dtype"]])
        if stop - begin != math.prod(shape) * dtype.itemsize:
            raise VlaxError(f"{file}: tensor {name!r} has {stop - begin} bytes for shape {shape}; {AGAIN}")
        if 8 + length + begin != end:
            raise VlaxError(f"{file}: tensor {name!r} begins at byte {begin} and not where the one before it ends; {AGAIN}")
        stored[name], end = Stored(file, end, shape, dtype), 8 + length + stop
    if end != size:
        raise VlaxError(f"{file} is truncated or broken: {size} bytes where its header promises {end}; {AGAIN}")
    return {name: stored[name] for name in entries}


def _check_entry(file: Path, name: str, entry: Any) -> None:
    """VlaxError where one tensor's entry is not {"dtype", "shape", "data_offsets"} of names and natural numbers."""
    whole = isinstance(entry, dict) and {"dtype", "shape", "data_offsets"} <= entry.keys() and isinstance(entry["dtype"], str)
    lists = [entry["shape"], entry["data_offsets"]] if whole else []
    sane = [isinstance(given, list) and all(type(n) is int and 0 <= n < MOST for n in given) for given in lists]
    if sane != [True, True] or len(lists[0]) > MOST_AXES or len(lists[1]) != 2:
        raise VlaxError(f"{file}: tensor {name!r} has the entry {str(entry)[:200]}, which is none of safetensors; {AGAIN}")
    if entry["dtype"] not in DTYPES:
        raise VlaxError(
            f"{file}: tensor {name!r} has dtype {entry['dtype']}, which is not implemented; choose another checkpoint"
        )
