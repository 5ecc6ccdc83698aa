"""Where activations lie on the mesh in use, said to the compiler. Without a mesh, or with one device, nothing is said.

Rows lie over `data` and `fsdp`, as batches do. Over `tp`, the residual stream, norms and all else that is done token by token
lie by token, so that no device has what the others have; what heads and the MLP's columns are computed from is gathered, and
what they give is summed (Megatron's sequence parallelism, arXiv 2205.05198). Left to itself, the compiler would rather copy
activations to all devices than gather parameters that are cut over `fsdp`, and keep the stream whole on each device along `tp`.

x is [B*S,D], as in transformers, where nothing else is said.
"""

import jax
from jax.sharding import PartitionSpec as P


def row_axes(rows: int) -> tuple[str, str] | None:
    """The axes of the mesh in use over which so many rows are cut; None where each device has all."""
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty else mesh.shape["data"] * mesh.shape["fsdp"]
    return ("data", "fsdp") if devices > 1 and rows % devices == 0 else None


def _cut(x: jax.Array, how: P) -> jax.Array:
    cut: jax.Array = jax.lax.with_sharding_constraint(x, how)
    return cut


def by_row(x: jax.Array, rows: int) -> jax.Array:
    """x [rows*...,...], cut by row."""
    axes = row_axes(rows)
    return x if axes is None else _cut(x, P(axes))


def by_row_and_width(x: jax.Array) -> jax.Array:
    """x [B,T,D] of a table that is cut along D over `fsdp`, cut by row: rows are exchanged for columns among the devices of one
    `fsdp` group, and in the backward pass the other way. Left to itself, the compiler would copy the gradients of all rows to
    all devices where there is a `data` axis, too."""
    mesh = jax.sharding.get_abstract_mesh()
    if row_axes(x.shape[0]) is not None and x.shape[-1] % mesh.shape["fsdp"] == 0:
        x = _cut(x, P("data", None, "fsdp"))
    return by_row(x, x.shape[0])


def _parted(tokens: int) -> bool:
    """Whether so many tokens are cut over `tp`."""
    mesh = jax.sharding.get_abstract_mesh()
    return not mesh.empty and mesh.shape["tp"] > 1 and tokens % mesh.size == 0


def stream(x: jax.Array, rows: int) -> jax.Array:
    """The residual stream, cut by token over all axes, or where `tp` is 1 by row."""
    if not _parted(x.shape[0]):
        return by_row(x, rows)
    return _cut(x, P(("data", "fsdp", "tp")))


def gathered(x: jax.Array) -> jax.Array:
    """All tokens of a row, whole on each device along `tp`: what products by column take, and the sum of those by row."""
    return _cut(x, P(("data", "fsdp"))) if _parted(x.shape[0]) else x


def by_column(x: jax.Array, parts: int) -> jax.Array:
    """x of so many parts side by side, heads or columns, cut by part over `tp` where that divides them."""
    if not _parted(x.shape[0]) or parts % jax.sharding.get_abstract_mesh().shape["tp"]:
        return x
    return _cut(x, P(("data", "fsdp"), "tp"))
