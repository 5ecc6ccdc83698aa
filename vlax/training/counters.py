"""What a step costs, counted from its jaxpr: products and residuals. No device, no compilation, no weights."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from flax import nnx
from jax.extend import core

from vlax.models.vlm import VLM
from vlax.params.groups import Shapes
from vlax.training import steps


def equations(jaxpr: Any, times: int = 1) -> Iterator[tuple[core.JaxprEqn, int]]:
    """All equations with how often each runs: those inside of calls, scans and rematerialised bodies too. Each branch of a
    `cond` counts as if it were taken."""
    for eqn in jaxpr.eqns:
        yield eqn, times
        often = times * (eqn.params["length"] if eqn.primitive.name == "scan" else 1)
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner, often)


def dot_flops(jaxpr: Any) -> int:
    """Floating-point operations of all dot products."""
    total = 0
    for eqn, times in equations(jaxpr):
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            left: Any = eqn.invars[0].aval
            out: Any = eqn.outvars[0].aval
            total += 2 * times * math.prod(left.shape[axis] for axis in contracted) * math.prod(out.shape)
    return total


def residuals(
    trainable: Shapes, frozen: Shapes, batch: Mapping[str, Any], graphdef: nnx.GraphDef[VLM], config: steps.StepConfig
) -> list[jax.ShapeDtypeStruct]:
    """What the forward pass of one micro-batch keeps for its backward pass, parameters and batch excepted."""

    def kept(trainable: Any, frozen: Any, batch: Any) -> list[jax.Array]:
        return jax.tree.leaves(jax.vjp(lambda p: steps.loss_sum(p, frozen, batch, graphdef, config)[0], trainable)[1])

    jaxpr = jax.make_jaxpr(kept)(trainable, frozen, batch).jaxpr
    found: dict[int, Any] = {id(var): var.aval for var in jaxpr.outvars if isinstance(var, core.Var)}
    for var in jaxpr.invars:
        found.pop(id(var), None)
    return [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in found.values()]


def residual_bytes(
    trainable: Shapes, frozen: Shapes, batch: Mapping[str, Any], graphdef: nnx.GraphDef[VLM], config: steps.StepConfig
) -> int:
    kept = residuals(trainable, frozen, batch, graphdef, config)
    return sum(math.prod(value.shape) * value.dtype.itemsize for value in kept)
