"""What the arms of `benchmarks.training` measure. It imports neither jax nor torch."""

import dataclasses
import resource
import time
from collections.abc import Callable

SIZES = ("embedded", "7m", "0.9b")
BATCHES = 4  # that the steps go round


@dataclasses.dataclass
class Taken:
    """Loss and gradient norms by group of the first step, CPU and wall milliseconds of the timed ones, and the most memory."""

    loss: float
    norms: dict[str, float]
    cpu: list[float]
    wall: list[float]
    largest_mb: float


def timed(
    step: Callable[[int], dict[str, float]], first: Callable[[int], dict[str, float]], steps: int, warm: int = 5
) -> tuple[dict[str, float], list[float], list[float]]:
    """(what `first` says of the first step, CPU and wall milliseconds of each of `steps` after `warm` in all)"""
    begun = first(0)
    for number in range(1, warm):
        step(number)
    cpu, wall = [], []
    for number in range(warm, warm + steps):
        before = time.process_time(), time.perf_counter()
        step(number)
        cpu.append(1e3 * (time.process_time() - before[0]))
        wall.append(1e3 * (time.perf_counter() - before[1]))
    return begun, cpu, wall


def largest() -> float:
    """MB that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
