"""One mesh, one rule table: where parameters, optimizer state and batches live.

Mesh axes: `data` (batch), `fsdp` (batch, and parameters cut along one dimension), `tp` (heads and MLP columns).
"""

import logging
import re
from collections.abc import Mapping, Sequence

import jax
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vlax.errors import VlaxError
from vlax.params.groups import Shaped

AXES = ("data", "fsdp", "tp")

# (path regex, how its dimensions are cut). The first match wins; a path that none matches is an error.
RULES: tuple[tuple[str, P], ...] = (
    (r"decoder/embedding$", P("tp", "fsdp")),
    (r"decoder/head$", P("fsdp", "tp")),
    (r"/(q|k|v|up|gate)/kernel$", P("fsdp", "tp")),
    (r"/(o|down)/kernel$", P("tp", "fsdp")),
    (r"/(q|k|v|up|gate)/bias$", P("tp")),
    (r"/lora_[ab]$", P()),
    (r"projector/fc1/kernel$", P("fsdp", "tp")),
    (r"projector/fc2/kernel$", P("tp", "fsdp")),
    (r"vision/patch/kernel$", P(None, "fsdp")),
    (r"/(position|prefix)$", P(None, "fsdp")),
    (r"(norm\d?/(scale|bias)|/bias|/scale\d|/newline)$", P()),
)


def sizes(shape: tuple[int, int, int], devices: int) -> tuple[int, int, int]:
    """The sizes of the (data, fsdp, tp) axes over so many devices; one of `shape` may be -1: what the other two leave of them.
    VlaxError where they don't fit."""
    if list(shape).count(-1) > 1 or any(size == 0 or size < -1 for size in shape):
        raise VlaxError(f"mesh {tuple(shape)}: sizes are positive, and at most one is -1 (what the others leave)")
    rest = int(np.prod([size for size in shape if size != -1]))
    data, fsdp, tp = (max(1, devices // rest) if size == -1 else size for size in shape)
    if data * fsdp * tp != devices:
        raise VlaxError(
            f"mesh (data, fsdp, tp) = {(data, fsdp, tp)} needs {data * fsdp * tp} devices; there are {devices}. "
            "Set --config.run.mesh.data=-1 or --config.run.mesh.fsdp=-1, and the others to 1, to use them all"
        )
    return data, fsdp, tp


def make_mesh(shape: tuple[int, int, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A (data, fsdp, tp) mesh. One size may be -1: what the other two leave of the devices."""
    devices = jax.devices() if devices is None else devices
    # Auto axes: with Explicit ones, jax's new default, stock layers fail.
    return jax.make_mesh(sizes(shape, len(devices)), AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def spec(path: str) -> P:
    """The rule of a parameter path; VlaxError when there is none."""
    for pattern, partition in RULES:
        if re.search(pattern, path):
            return partition
    raise VlaxError(f"no sharding rule matches parameter {path!r}; add one to vlax/params/sharding.py RULES")


def parameter_shardings(params: Mapping[str, Shaped], mesh: Mesh) -> dict[str, NamedSharding]:
    """{path: sharding}. A dimension that its axis does not divide is replicated, and that is logged."""
    out = {}
    for path, value in params.items():
        axes = list(spec(path))
        for i, axis in enumerate(axes):
            if axis is not None and value.shape[i] % mesh.shape[axis]:
                logging.info("%s: dimension %d (%d) is not divided by %s=%d: replicated", path, i, value.shape[i], axis,
                             mesh.shape[axis])  # fmt: skip
                axes[i] = None
        out[path] = NamedSharding(mesh, P(*axes))
    return out


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def spread(shape: Sequence[int], sharding: NamedSharding) -> NamedSharding:
    """As `sharding` and cut over `data`, too: along a dimension of `fsdp`, so that a gradient's part lies in what is there
    already, else along the largest one; unchanged where the axis divides none."""
    mesh, parts = sharding.mesh, sharding.mesh.shape["data"]
    axes = list(sharding.spec) + [None] * (len(shape) - len(sharding.spec))
    left = [size // (mesh.shape[axis] if axis else 1) for size, axis in zip(shape, axes, strict=True)]
    there = [i for i, size in enumerate(left) if size % parts == 0]
    if parts > 1 and there:
        i = max(there, key=lambda i: (axes[i] == "fsdp", left[i]))
        axes[i] = (axes[i], "data") if axes[i] else "data"
    return NamedSharding(mesh, P(*axes))


def state_shardings(
    tx: optax.GradientTransformation, abstract_opt_state: optax.OptState, params: Mapping[str, NamedSharding], mesh: Mesh,
    zero1: bool = False,
) -> optax.OptState:  # fmt: skip
    """Shardings of an optimizer state: moments and accumulators lie as their parameters do, counters are replicated.

    Without them `jax.jit(tx.init)` would put the whole state on device 0. zero1: moments and accumulators are cut over `data`,
    too, of which each device then computes its own part of an update (ZeRO's first stage, arXiv 1910.02054).
    """
    return optax.tree.map_params(
        tx,
        lambda value, sharding: spread(value.shape, sharding) if zero1 else sharding,
        abstract_opt_state,
        dict(params),
        transform_non_params=lambda _: replicated(mesh),
    )


def batch_sharding(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """Rows over data and fsdp; `leading` unsharded axes come first (micro-batches of a scan)."""
    return NamedSharding(mesh, P(*[None] * leading, ("data", "fsdp")))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh, leading: int = 0) -> dict[str, jax.Array]:
    """This host's numpy slice as global arrays. ValueError for 64 bits: devices have 32, the rest would be lost unseen."""
    if wide := [key for key, value in batch.items() if value.dtype.itemsize > 4]:
        raise ValueError(f"{', '.join(wide)} of a batch are 64 bits wide: leave them on the host, or make them int32")
    sharding = batch_sharding(mesh, leading)
    return {key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()}


def check_batch(rows: int, mesh: Mesh) -> None:
    """Raises VlaxError when the micro-batch does not divide over the devices that share it."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % shards:
        raise VlaxError(f"a micro-batch of {rows} rows does not divide over data x fsdp = {shards} devices; "
                        f"set --config.stage.batch_size to a multiple of {shards} times stage.accumulate")  # fmt: skip
