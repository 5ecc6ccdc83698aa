"""Parameters as a flat {path: array} dict: split into trainable and frozen, join, count, print and checksum.

A path reads like "decoder/layers/11/attention/q/kernel". Flat dicts are what sharding rules, optax, orbax and the
hand-over between stages work on; the nested module exists inside the step only.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from flax import nnx

from vlax.errors import VlaxError
from vlax.printing import columns

Params = dict[str, jax.Array]
Shapes = dict[str, jax.ShapeDtypeStruct]
M = TypeVar("M", bound=nnx.Module)


class Shaped(Protocol):
    """An array of numpy or jax, on a host, a device or nowhere yet."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype: ...


def flatten(module: M) -> tuple[nnx.GraphDef[M], Params]:
    """(static structure, {path: array}); abstract arrays when called under `jax.eval_shape`."""
    graphdef, state = nnx.split(module)
    return graphdef, {"/".join(map(str, path)): leaf.get_value() for path, leaf in nnx.to_flat_state(state)}


def rebuild(graphdef: nnx.GraphDef[M], params: Mapping[str, jax.Array]) -> M:
    """The module of `flatten`. Digits in a path become list indices again: as strings, layer 10 would sort before layer 2
    and `nnx.merge` would permute the layers without a word."""

    def keys(path: str) -> tuple[int | str, ...]:
        return tuple(int(part) if part.isdigit() else part for part in path.split("/"))

    flat: Mapping[Any, Any] = {keys(path): nnx.Param(value) for path, value in params.items()}
    return nnx.merge(graphdef, nnx.from_flat_state(flat))


def assign(paths: Iterable[str], patterns: Mapping[str, str], *, what: str = "trainable") -> dict[str, str]:
    """{path: group name} for the paths that some group's regular expression matches (re.search); first group wins.

    A pattern that matches nothing is a VlaxError that lists the modules there are.
    """
    found: dict[str, str] = {}
    for name, pattern in patterns.items():
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise VlaxError(f"{what} pattern {name}={pattern!r} is not a regular expression: {error}") from None
        hits = [path for path in paths if compiled.search(path)]
        if not hits:
            tops = sorted({"/".join(path.split("/")[:2]) for path in paths})
            raise VlaxError(
                f"{what} pattern {name}={pattern!r} matches no parameter. Parameters start with: {', '.join(tops)}. "
                f"Set --config.stage.trainable.{name}=REGEX to one that does."
            )
        for path in hits:
            found.setdefault(path, name)
    shadowed = [name for name in patterns if name not in found.values()]
    if shadowed:
        raise VlaxError(f"{what} pattern {shadowed[0]!r} only matches parameters that an earlier pattern took already")
    return found


def split(params: Params, assigned: Mapping[str, str]) -> tuple[Params, Params]:
    """(trainable, frozen)"""
    trainable = {path: value for path, value in params.items() if path in assigned}
    return trainable, {path: value for path, value in params.items() if path not in assigned}


def join(trainable: Params, frozen: Params) -> Params:
    return {**frozen, **trainable}


def count(params: Mapping[str, Shaped]) -> int:
    return sum(math.prod(value.shape) for value in params.values())


def size_bytes(params: Mapping[str, Shaped]) -> int:
    """Bytes in memory; four bits are half a byte but on XLA:CPU, which packs none."""
    packed = jax.default_backend() != "cpu"

    def bits(dtype: np.dtype) -> int:
        return 4 if packed and "int4" in dtype.name else 8 * dtype.itemsize

    return sum(math.prod(leaf.shape) * bits(np.dtype(leaf.dtype)) // 8 for leaf in jax.tree.leaves(dict(params)))


def arrays(params: Mapping[str, Any]) -> Params:
    """`params` with what is no array, a quantised matrix, as its arrays: "PATH/0" are its codes, "PATH/1" its scales."""
    out: Params = {}
    for path, value in params.items():
        leaves = jax.tree.leaves(value)
        out |= {path: value} if len(leaves) == 1 else {f"{path}/{n}": leaf for n, leaf in enumerate(leaves)}
    return out


def check_same_structure(have: Mapping[str, Shaped], want: Mapping[str, Shaped], origin: str) -> None:
    """Raises VlaxError unless both dicts have the same paths and shapes; names the first few that differ."""
    missing, extra = sorted(want.keys() - have.keys()), sorted(have.keys() - want.keys())
    reshaped = [
        f"{p} {tuple(have[p].shape)} for {tuple(want[p].shape)}"
        for p in sorted(want.keys() & have.keys())
        if tuple(have[p].shape) != tuple(want[p].shape)
    ]
    faults = [f"{len(x)} {name} ({', '.join(x[:3])})" for x, name in ((missing, "missing"), (extra, "unexpected")) if x]
    if reshaped:
        faults.append(f"{len(reshaped)} of another shape ({'; '.join(reshaped[:3])})")
    if faults:
        raise VlaxError(f"{origin} does not fit this model: {', '.join(faults)}. Use the shapes it was made with.")


def checksum(params: Mapping[str, np.ndarray | jax.Array]) -> str:
    """sha256 over sorted paths, dtypes, shapes and bytes: equal exactly if the parameters are bit-equal."""
    digest = hashlib.sha256()
    for path in sorted(params):
        value = np.asarray(params[path])
        digest.update(f"{path} {value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value).view(np.uint8).data if value.size else b"")
    return digest.hexdigest()


def table(params: Mapping[str, Shaped], assigned: Mapping[str, str], learning_rates: Mapping[str, float]) -> str:
    """The trainable table: one line a group, and the frozen part by module."""
    rows = [("group", "state", "parameters", "bytes", "learning rate")]
    for name in learning_rates:
        part = {path: params[path] for path, group in assigned.items() if group == name}
        rows.append((name, "trained", f"{count(part):,}", human_bytes(size_bytes(part)), f"{learning_rates[name]:g}"))
    frozen = {path: value for path, value in params.items() if path not in assigned}
    for top in sorted({path.split("/")[0] for path in frozen}):
        part = {path: value for path, value in frozen.items() if path.split("/")[0] == top}
        rows.append((top, "frozen", f"{count(part):,}", human_bytes(size_bytes(part)), "-"))
    rows.append(("total", "", f"{count(params):,}", human_bytes(size_bytes(params)), ""))
    return columns(rows, left=2)


def human_bytes(size: int) -> str:
    value = float(size)
    for unit in ("B", "KB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} GB"
