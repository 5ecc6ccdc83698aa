"""Reading safetensors: a directory's tensors by name, found and checked by their headers, read one at a time.

The format (https://github.com/huggingface/safetensors): 8 bytes of header length, a JSON header {name: {dtype, shape,
data_offsets}}, then the bytes. It is read here with plain file reads and not through the library's memory map: mapped pages
count towards the process, and the host would hold a model twice while it loads.
"""

import dataclasses
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np

from vlax.errors import VlaxError

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
        try:
            shards = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError):
            raise VlaxError(f"{index} is not a safetensors index (JSON with a weight_map); download it again") from None
        missing = [shard for shard in shards if not (directory / shard).is_file()]
        if missing:
            raise VlaxError(
                f"{directory} lacks {len(missing)} of the {len(shards)} shards that {INDEX} lists, the first is {missing[0]}; "
                f"download it again"
            )
        return [directory / shard for shard in shards]
    single = directory / "model.safetensors"
    files = [single] if single.is_file() else sorted(directory.glob("*.safetensors"))
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
    """The tensors of one file; VlaxError when it is truncated or broken."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise VlaxError(f"{file} is truncated: {size} bytes do not hold its header; download it again")
        try:
            entries = json.loads(stream.read(length))
        except ValueError:
            raise VlaxError(f"{file} is no safetensors file: its header is not JSON; download it again") from None
    entries.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if end != size:
        raise VlaxError(f"{file} is truncated or broken: {size} bytes where its header promises {end}; download it again")
    stored = {}
    for name, entry in entries.items():
        if entry["dtype"] not in DTYPES:
            raise VlaxError(
                f"{file}: tensor {name!r} has dtype {entry['dtype']}, which is not implemented; choose another checkpoint"
            )
        dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
        begin, stop = entry["data_offsets"]
        if stop - begin != math.prod(shape) * dtype.itemsize:
            raise VlaxError(f"{file}: tensor {name!r} has {stop - begin} bytes for shape {shape}; download it again")
        stored[name] = Stored(file, 8 + length + begin, shape, dtype)
    return stored
