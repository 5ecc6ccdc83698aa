"""What the backward pass computes again: `run.remat`, where it is `auto` by the plan of the stage on the devices at hand."""

import functools
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from vlax.models import remat
from vlax.models.vlm import VLMConfig
from vlax.params import distributed
from vlax.training import peaks, planning
from vlax.training.peaks import Target
from vlax.training.planning import Cost, Counter, Way
from vlax.training.topologies import GIB

MARGIN = 0.95  # of the limit: the estimate is within a tenth of the compilers' figures, mostly above them (docs/plan.md)


def check(word: str | bool) -> None:
    """VlaxError unless it is `auto` or a kind of `models/remat.py`."""
    if word != remat.AUTO:
        remat.named(word)


def gentlest(
    counter: Counter, way: Callable[[str], Way], text: int, chips: int, limit: float, cut: int = 0
) -> tuple[Way, Cost, bool]:
    """(`way(kind)` of the first of `remat.KINDS` that is estimated to fit into `limit` bytes of a device, what it costs, True);
    (that of the last one, its cost, False) where none does. chips, cut: of `Counter.cost`."""
    for kind in remat.KINDS:
        made = way(kind)
        cost = counter.cost(made, text, chips, cut)
        if cost.peak <= MARGIN * limit:
            return made, cost, True
    return made, cost, False


def planned(counter: Counter, target: Target) -> Way:
    """How the counter's stage would run on the target: as its config says, with the remat that `auto` comes to there."""
    way = functools.partial(planning.shipped, counter.stage, counter.run, target.chips)
    if counter.run.remat != remat.AUTO:
        return way()
    return gentlest(counter, way, counter.stage.text_length, target.chips, target.limit)[0]


def limit(device: jax.Device) -> float | None:
    """Bytes of a device that a step may take; None where nobody says. Every process of a run has to come to the same answer:
    of several each takes the table's, one alone what its device reports, which XLA_PYTHON_CLIENT_MEM_FRACTION changes."""
    if device.platform == "cpu":
        return None
    told = (device.memory_stats() or {}).get("bytes_limit") if distributed.hosts() == 1 else None
    kind = peaks.kind(device.device_kind)
    return told or (peaks.target(kind).limit if kind else None)


def choose(run: ConfigDict, stage: ConfigDict, config: VLMConfig, mesh: jax.sharding.Mesh) -> tuple[str, str]:
    """(one of `remat.KINDS`, why). VlaxError for a word that is none and isn't `auto`."""
    if run.remat != remat.AUTO:
        return remat.named(run.remat), "as run.remat says"
    device = mesh.devices.flat[0]
    most = limit(device)
    if most is None:
        return "none", "nobody knows how much a step may take here" if device.platform != "cpu" else "on a CPU"
    sizes = mesh.shape
    rows = stage.batch_size // stage.accumulate // (sizes["data"] * sizes["fsdp"])
    cut = sizes["fsdp"] * sizes["tp"]
    counter = Counter(run, stage, config, device.platform)

    def way(kind: str) -> Way:
        return Way(rows, stage.accumulate, kind, cut > 1)

    made, cost, fits = gentlest(counter, way, stage.text_length, cut * sizes["data"], most, cut)
    about = f"about {cost.peak / GIB:.1f} of {most / GIB:.1f} GiB"
    if fits:
        return made.remat, f"auto: {about}"
    return made.remat, f"auto: {about}, which may not fit; --plan says what would"
