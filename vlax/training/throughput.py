"""How fast a stage runs: what its batches hold, what a row costs, and what share of the devices' peak that is."""

import concurrent.futures
import dataclasses
from collections.abc import Mapping

import jax
import numpy as np

from vlax.errors import spared
from vlax.params import distributed
from vlax.training import peaks
from vlax.training.session import Session


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of batches, on all hosts together.

    samples    examples: rows of the data, of which a packed row has several
    images     pictures
    text, seen   tokens of text, prompts included, and of pictures
    positions  of the sequence, padding included
    rows       (text length, rows of a batch that have an example), by length
    """

    samples: int = 0
    images: int = 0
    text: int = 0
    seen: int = 0
    positions: int = 0
    rows: Mapping[int, int] = dataclasses.field(default_factory=dict)

    def __add__(self, more: "Counts") -> "Counts":
        numbers = ("samples", "images", "text", "seen", "positions")
        lengths = sorted({*self.rows, *more.rows})
        return Counts(
            **{name: getattr(self, name) + getattr(more, name) for name in numbers},
            rows={length: self.rows.get(length, 0) + more.rows.get(length, 0) for length in lengths},
        )

    @property
    def padding(self) -> float:
        """Share of the positions that hold nothing."""
        return 1.0 - (self.text + self.seen) / self.positions if self.positions else 0.0


def counts(batch: Mapping[str, np.ndarray], tokens_per_image: int, hosts: int = 1) -> Counts:
    """Counts of one host's batch, times the hosts, whose batches are taken to be alike. Leading axes may be any."""
    example, images = batch["example"], int(batch["has_image"].sum())
    last, slots = example.max(-1), batch["has_image"].size
    return Counts(
        samples=hosts * int(last.sum()),
        images=hosts * images,
        text=hosts * int((example > 0).sum()),
        seen=hosts * int(batch["shown"].sum() if "shown" in batch else images * tokens_per_image),
        positions=hosts * (example.size + slots * tokens_per_image),
        rows={example.shape[-1]: hosts * int((last > 0).sum())},
    )


class Meter:
    """What `counts` are worth in one session. peak: FLOP/s of one device; None where nobody knows it."""

    def __init__(self, session: Session):
        self.session, self.config = session, session.config
        self.peak = peak(session)
        self._flops: dict[int, concurrent.futures.Future[float]] = {}
        if self.peak is not None:  # counting takes seconds, while the first step compiles
            pool = concurrent.futures.ThreadPoolExecutor(1, "flops")
            self._flops = {length: pool.submit(self._row, length) for length in sorted(session.batches.plan.lengths_used)}
            pool.shutdown(wait=False)

    def count(self, batch: Mapping[str, np.ndarray]) -> Counts:
        return counts(batch, self.config.tokens_per_image, distributed.hosts())

    def _row(self, length: int) -> float:
        """FLOPs of a row with so many text tokens, as `--plan` counts them, nothing done twice."""
        from vlax.training import planning  # it brings the compilers of other devices

        counter = planning.Counter(self.session.plan.run, self.session.plan.stage, self.config)
        return counter.flops(length, "none")

    def mfu(self, seen: Counts, seconds: float) -> dict[str, float]:
        """{"mfu": share of the peak of all devices that the products of these rows took in so many seconds}; {} where the peak
        is not known. A row counts at its static length, padding included; what remat does twice counts once."""
        if self.peak is None:
            return {}
        with spared("the count of a step's FLOPs"):
            work = sum(rows * self._flops[length].result() for length, rows in seen.rows.items())
            return {"mfu": work / (seconds * self.peak * self.session.mesh.size)}
        self.peak = None  # said once
        return {}


def peak(session: Session) -> float | None:
    """FLOP/s of one device: run.peak_tflops, or what its maker says of bf16; None for a device that is in no table."""
    asked = session.plan.run.peak_tflops
    if asked:
        return float(asked) * 1e12
    kind = peaks.kind(jax.local_devices()[0].device_kind)
    return None if kind is None else peaks.PEAKS[kind][0] * 1e12
