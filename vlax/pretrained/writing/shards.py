"""Writing safetensors: one file, or shards with an index above a size limit; one tensor in memory at a time."""

import dataclasses
import json
import math
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from vlax.pretrained.reading.tensors import DTYPES, INDEX
from vlax.storage import state

LIMIT = 4_000_000_000  # bytes of a shard
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """What is known of a tensor before its values are: `read` is called once, when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(directory: Path, tensors: Sequence[Tensor], *, limit: int = LIMIT) -> list[str]:
    """Writes model.safetensors, or model-0000i-of-0000n.safetensors and their index; returns the file names.

    What an earlier call left there is removed first. A tensor larger than `limit` has a shard of its own.
    """
    for old in (*directory.glob("model*.safetensors"), directory / INDEX):
        old.unlink(missing_ok=True)
    shards: list[list[Tensor]] = [[]]
    for tensor in tensors:
        if shards[-1] and sum(t.size for t in shards[-1]) + tensor.size > limit:
            shards.append([])
        shards[-1].append(tensor)
    if len(shards) == 1:
        names = ["model.safetensors"]
    else:
        names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        write_file(directory / name, shard)
    if len(shards) > 1:
        files = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        total = {"total_size": sum(tensor.size for tensor in tensors)}
        state.write_json(directory / INDEX, {"metadata": total, "weight_map": files}, indent=1, sort_keys=True)
    return names


def write_file(file: Path, tensors: Sequence[Tensor]) -> None:
    """One safetensors file. Wide types first: readers that map the file get aligned arrays."""
    tensors = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
    # "pt" tells transformers that matrices lie as torch lays them.
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.size
        header[tensor.name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            value = tensor.read()
            assert value.shape == tensor.shape and value.dtype == tensor.dtype, tensor.name
            stream.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
