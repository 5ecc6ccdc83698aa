"""Devices that a plan may be made for: how fast their makers say they are, and what a step may take of their memory."""

import dataclasses
import math

from vlax.errors import VlaxError
from vlax.training import topologies

MFU = 0.35  # share of a device's peak that training is assumed to reach; docs/benchmarks.md says what was measured
# Peak of dense bf16 products in TFLOP/s with float32 sums, by the makers' data sheets, and memory in bytes.
PEAKS = {
    "h100": (989, 80e9), "h200": (989, 141e9), "a100-40": (312, 40e9), "a100-80": (312, 80e9), "rtx4090": (165, 24e9),
    "rtx3090": (71, 24e9), "l40s": (362, 48e9), "v4": (275, 0), "v5e": (197, 0), "v5p": (459, 0), "v6e": (918, 0),
}  # fmt: skip
KINDS = {"H100": "h100", "H200": "h200", "A100-SXM4-40GB": "a100-40", "A100": "a100-80", "4090": "rtx4090", "3090": "rtx3090",
         "L40S": "l40s", "v5 lite": "v5e", "v6 lite": "v6e", "v5p": "v5p", "TPU v5": "v5p", "v4": "v4"}  # fmt: skip


def kind(device_kind: str) -> str | None:
    """The row of PEAKS for what JAX calls a device, `"NVIDIA H100 80GB HBM3" -> "h100"`; None where there is none."""
    return next((name for word, name in KINDS.items() if word in device_kind), None)


@dataclasses.dataclass(frozen=True)
class Target:
    """name: as it was asked for; kind: a row of PEAKS; chips; limit: bytes of one that a step may take; peak: FLOP/s of one."""

    name: str
    kind: str
    chips: int
    limit: float
    peak: float

    @property
    def platform(self) -> str:
        """What JAX calls it."""
        return "tpu" if self.kind in topologies.TPU_GIB else "gpu"


def target(name: str) -> Target:
    """`h100`, `h100:8`, `v5e:2x4`. VlaxError for what is none."""
    kind, _, layout = name.partition(":")
    try:
        chips = math.prod(int(size) for size in (layout or "1").split("x"))
        assert kind in PEAKS and chips > 0
    except (ValueError, AssertionError):
        known = ", ".join(f"{known}:2x4" if known in topologies.TPU_GIB else known for known in PEAKS)
        raise VlaxError(f"--device={name} is none that is known here: {known}; several GPUs are h100:8") from None
    flops, memory = PEAKS[kind]
    here = kind in topologies.TPU_GIB or kind in topologies.gpus()
    limit = topologies.limit(kind) if here else topologies.PREALLOCATED * memory
    return Target(name, kind, chips, limit, flops * 1e12)
