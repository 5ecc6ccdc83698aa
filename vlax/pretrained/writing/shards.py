"""Writing safetensors: one file, or shards with an index above a size limit; one tensor in memory at a time."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vlax.pretrained.reading.tensors import DTYPES, INDEX, Later
from vlax.storage import state

LIMIT = 4_000_000_000  # bytes of a shard
CODES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}


def write_tensors(directory: Path, tensors: Mapping[str, Later], *, limit: int = LIMIT) -> list[str]:
    """Writes model.safetensors, or model-0000i-of-0000n.safetensors and their index; returns the file names.

    What an earlier call left there is removed first. A tensor larger than `limit` has a shard of its own.
    """
    for old in (*directory.glob("model*.safetensors"), directory / INDEX):
        old.unlink(missing_ok=True)
    shards: list[dict[str, Later]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and sum(t.size for t in shards[-1].values()) + tensor.size > limit:
            shards.append({})
        shards[-1][name] = tensor
    files = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    files = files if len(shards) > 1 else ["model.safetensors"]
    for file, shard in zip(files, shards, strict=True):
        write_file(directory / file, shard)
    if len(shards) > 1:
        places = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        total = {"total_size": sum(tensor.size for tensor in tensors.values())}
        state.write_json(directory / INDEX, {"metadata": total, "weight_map": places}, indent=1, sort_keys=True)
    return files


def write_file(file: Path, tensors: Mapping[str, Later]) -> None:
    """One safetensors file. Wide types first: readers that map the file get aligned arrays."""
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize))
    # "pt" tells transformers that matrices lie as torch lays them.
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.size
        header[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for name, tensor in tensors.items():
            value = tensor.read()
            assert value.shape == tensor.shape and value.dtype == tensor.dtype, name
            stream.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
