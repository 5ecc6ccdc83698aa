"""What of a running stage is read off, not learned: learning rates, memory, the seconds that compiling takes."""

import contextlib
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from vlax.errors import VlaxError
from vlax.params import distributed, groups
from vlax.storage import cache, state
from vlax.training import console, optimizer
from vlax.training.programs import optimizer_config
from vlax.training.session import Session

GIB = 1 << 30


class Compiler:
    """Seconds that this process spent in compilers, loading what was kept of earlier ones included."""

    EVENT = "/jax/core/compile/backend_compile_duration"
    _listens, _total = False, 0.0

    def __init__(self) -> None:
        if not Compiler._listens:  # one for all: not every version can take listeners away
            Compiler._listens = True
            jax.monitoring.register_event_duration_secs_listener(Compiler._hear)
        self._told = Compiler._total

    @staticmethod
    def _hear(event: str, duration_secs: float, **_: str | int) -> None:
        if event == Compiler.EVENT:
            Compiler._total += duration_secs

    def seconds(self) -> float:
        """Since this was made, or asked for the last time."""
        before, self._told = self._told, Compiler._total
        return self._told - before


def read(session: Session, update: int, compiler: Compiler) -> dict[str, float]:
    """{"learning_rate/GROUP": of the update that was done last, "compile_s": seconds of the compiler since the last time,
    "memory_gib/host": the most that this process had, "memory_gib/device": likewise of its first device, where it says so}."""
    plan = session.plan
    share = optimizer.schedule(optimizer_config(plan.stage, session.updates, plan.extended), np)(max(0, update - 1))
    rates = {f"learning_rate/{group}": float(peak * share) for group, peak in plan.stage.learning_rate.items()}
    memory = {"memory_gib/host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB}
    device = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return rates | {"compile_s": compiler.seconds()} | memory | ({"memory_gib/device": device / GIB} if device else {})


@contextlib.contextmanager
def compiling(session: Session, phase: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    """Says that a stage compiles, and how long that took where nothing was kept of it, if this machine has seen the like."""
    path, key = cache.folder() / "compiling.json", _key(session)
    seconds = _read(path).get(key, 0.0)
    console.say(f"compiling {session.plan.name}" + (f" (first time about {seconds:.0f} s)" if seconds >= 1 else ""))
    begin = time.monotonic()
    with phase:
        yield
    if distributed.is_main() and (took := time.monotonic() - begin) > seconds:  # less where the programs were kept
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            state.write_json(path, _read(path) | {key: round(took, 1)}, indent=1)


def _key(session: Session) -> str:
    """Of what compiles alike."""
    stage, devices = session.plan.stage, jax.devices()
    sizes = (
        f"{groups.count(session.abstract)} {stage.batch_size}/{stage.accumulate} {stage.text_length} {session.plan.run.layers}"
    )
    return f"{stage.name} {len(devices)} {devices[0].device_kind} {sizes}"


def _read(path: Path) -> dict[str, float]:
    try:
        return {str(key): float(seconds) for key, seconds in state.load_json(path, path.read_text()).items()}
    except (OSError, VlaxError, ValueError, AttributeError, TypeError):  # nothing known, or damaged: it is only told
        return {}
