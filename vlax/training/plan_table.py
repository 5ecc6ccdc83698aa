"""What `--plan` prints."""

import dataclasses
import importlib.metadata
import sys
from collections.abc import Mapping

import jax
from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.models.cores import Kernels
from vlax.params import groups, sharding
from vlax.printing import columns
from vlax.training import backward, guess, peaks, planning, session, stages, topologies
from vlax.training.peaks import Target
from vlax.training.planning import Cost, Counter, Way
from vlax.training.topologies import GIB

HEADS = (
    "stage", "parameters", "trained", "rows x micro-batches", "text", "remat", "state", "temporaries", "together", "",
    "TFLOP a row", "rows/s", "hours",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Line:
    """One stage: the way of its config, what that costs, where the figures are from, and another way where it doesn't fit or
    does twice what need not be."""

    stage: ConfigDict
    counter: Counter
    way: Way
    cost: Cost
    source: str
    instead: tuple[Way, Cost] | None


def show(config: ConfigDict, workdir: str, device: str, *, compiles: bool = True) -> None:
    """Prints the plan of a chain for `device` ("": the one at hand, on a CPU an H100)."""
    target, own = (peaks.target(device), None) if device else _here()
    lines: list[Line] = []
    plans = stages.chain(guess.settled(config, workdir), workdir)
    for at, plan in enumerate(plans):
        session.check_settings(plan.run, plan.stage)
        print(f"planning {plan.name} ...", file=sys.stderr, flush=True)
        counter = Counter(plan.run, plan.stage, planning.model(plans[: at + 1]), target.platform)
        lines.append(_line(counter, target, own, compiles))
    print(text(lines, target))


def _here() -> tuple[Target, jax.sharding.Mesh | None]:
    there = jax.devices()
    if there[0].platform == "cpu":
        return peaks.target("h100"), None
    kind = peaks.kind(there[0].device_kind)
    if kind is None:
        raise VlaxError(f"--plan knows no {there[0].device_kind}; name a device that it knows: --device=h100")
    known = peaks.target(kind)
    limit = (there[0].memory_stats() or {}).get("bytes_limit", known.limit)
    whole = sharding.make_mesh((1, -1, 1))
    return dataclasses.replace(known, name=f"{len(there)} x {there[0].device_kind}", chips=len(there), limit=limit), whole


def _line(counter: Counter, target: Target, own: jax.sharding.Mesh | None, compiles: bool) -> Line:
    stage = counter.stage
    way = backward.planned(counter, target)
    cost, source = _cost(counter, way, target, own, compiles)
    well = cost.peak <= target.limit and way.remat == "none"
    instead = None if well else counter.cheapest(stage.text_length, target)
    return Line(stage, counter, way, cost, source, instead)


def _cost(counter: Counter, way: Way, target: Target, own: jax.sharding.Mesh | None, compiles: bool) -> tuple[Cost, str]:
    """(figures of the compiler where it is installed, else the estimate; which of them)"""
    run, stage = counter.run, counter.stage
    guessed = counter.cost(way, stage.text_length, target.chips)
    known = own is not None or target.kind in topologies.gpus() or target.kind in topologies.TPU_GIB
    if not compiles or not known:
        return guessed, "estimated"
    shape = run.mesh.data, run.mesh.fsdp, run.mesh.tp
    fused = "xla" if target.kind in topologies.TPU_GIB else "cudnn"
    try:
        on = topologies.mesh(target.name, shape) if own is None else sharding.make_mesh(shape)
        chosen = run.copy_and_resolve_references()
        chosen.remat = way.remat
        made = topologies.compiled(chosen, stage, on, stage.text_length, Kernels(fused, fused), counter.config)
    except VlaxError:  # its compiler isn't installed
        return guessed, "estimated"
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return dataclasses.replace(
            guessed, temporaries=max(guessed.temporaries, round(target.limit))
        ), "refused by the compiler"
    return Cost(made.arguments, made.temporaries + made.outputs, guessed.flops), "compiled"


def rate(counter: Counter, target: Target, lengths: Mapping[int, float], remat: str) -> tuple[float, float]:
    """(rows a second, hours) of all devices at the assumed rate, at which what remat does twice is done, too."""
    work = sum(count * counter.flops(text, remat) for text, count in lengths.items())
    seconds = work / (peaks.MFU * target.peak * target.chips)
    return sum(lengths.values()) / seconds, seconds / 3600


def text(lines: list[Line], target: Target) -> str:
    """The whole plan: the table, what its figures rest on, and ways for the stages that don't fit."""
    table, hours, unknown = [HEADS], 0.0, False
    for line in lines:
        lengths = planning.rows(line.stage)
        rows_a_second, more = rate(line.counter, target, lengths or {line.stage.text_length: 1.0}, line.way.remat)
        hours, unknown = hours + (more if lengths else 0.0), unknown or lengths is None
        table.append((
            line.stage.name, f"{groups.count(line.counter.shapes):,}", f"{line.counter.learns:,}",
            f"{line.way.rows * target.chips} x {line.way.accumulate}", str(line.stage.text_length), line.way.remat,
            *(f"{size / GIB:.1f}" for size in (line.cost.state, line.cost.temporaries, line.cost.peak)),
            "fits" if line.cost.peak <= target.limit else "DOESN'T FIT", f"{line.cost.flops / 1e12:.2f}",
            f"{rows_a_second:,.0f}", f"{more:.1f}" if lengths else "?",
        ))  # fmt: skip
    sources = ", ".join(dict.fromkeys(line.source for line in lines))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib"))
    many = f"{target.chips} devices, each" if target.chips > 1 else "a device"
    out = [
        f"plan for {target.name}: {many} with {target.limit / GIB:.1f} GiB that a step may take. Sizes are GiB of a device "
        f"at the longest text, {sources} ({versions})",
        columns(table, left=1),
        f"rows/s and hours assume {peaks.MFU:.0%} of the peak of {target.peak / 1e12:,.0f} TFLOP/s a device, which is not "
        "measured; captions and questions are counted at the shortest bucket, all else at the longest"
        + ("; ? where the rows are known with the data alone" if unknown else ""),
        f"together {hours:.1f} hours" + (" and what is unknown" if unknown else ""),
    ]
    for line in lines:
        fits, once = line.cost.peak <= target.limit, line.counter.flops(line.stage.text_length, "none")
        if line.instead is None:
            if not fits:
                out.append(f"{line.stage.name} fits in no way: more devices, or adapters (stage.lora) and stage.quantise=int8")
            continue
        way, cost = line.instead
        if fits and cost.flops >= line.cost.flops:
            continue
        size, work = f"{cost.peak / GIB:.1f} GiB", f"{cost.flops / once:.2f}"
        done = f"would do {work} times the work in place of {line.cost.flops / once:.2f}, estimated at {size}"
        flags = way.flags("stage" if line is lines[-1] else f"parents.{line.stage.name}")
        fit = f"would fit, estimated at {size} and {work} times the work"
        out.append(f"{line.stage.name} {done if fits else fit}, with\n  {flags}")
    return "\n".join(out)
