"""What `faults.py` does to a run: faults at a moment, faults in the program's way, damage to what lies on the disk."""

import contextlib
import dataclasses
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TMPFS_MB = 24  # of the workdir that fills up


@dataclasses.dataclass(frozen=True)
class Fault:
    """strike: at a moment, to the process; patch: in the process, before it starts; damage: to the workdir, once it has ended.
    small_disk: the workdir is a disk of its own, which fills up."""

    name: str
    strike: Callable[[Any, Path, random.Random], str] | None = None
    patch: Callable[[random.Random], object] | None = None
    damage: Callable[[Path, random.Random], str] | None = None
    small_disk: bool = False

    def possible(self) -> bool:
        return not self.small_disk or os.geteuid() == 0


def send(number: signal.Signals) -> Callable[[Any, Path, random.Random], str]:
    def strike(run: Any, workdir: Path, rng: random.Random) -> str:
        os.kill(run.pid, number)
        return ""

    return strike


def fill(run: Any, workdir: Path, rng: random.Random) -> str:
    """The last byte of the disk is taken."""
    with contextlib.suppress(OSError), (workdir / "filler").open("wb") as file:
        while True:
            file.write(bytes(1 << 14))
            file.flush()
    return ""


def second(run: Any, workdir: Path, rng: random.Random) -> str:
    """The same command beside the first must be refused, and leave it alone."""
    from benchmarks.forks import start

    other = start(["train", "--config=benchmarks/micro_chain.py", f"--workdir={workdir}"], run.notes.parent / "second")
    code = other.wait()
    refused = code == 2 and str(run.pid) in other.text
    finished_before = code == 0 and run.poll() is not None
    return "" if refused or finished_before else f"NOT REFUSED: {code} {other.text[-200:]}"


STAGES = ("stage0_decoder", "stage0_vision", "stage1")


def at_step(rng: random.Random, action: Callable[[], object], stages: Sequence[str] = STAGES) -> None:
    """`action` happens after a micro-step of some stage."""
    from vlax.process import activity

    progress, stage, number = activity.progress, rng.choice(stages), rng.randrange(1, 48)

    def progressing(step: int, of: int) -> None:
        progress(step, of)
        if step == number and activity.NOW.phase.name.startswith(stage):
            action()

    activity.progress = progressing


def raising(rng: random.Random) -> None:
    """The reader of a row raises what no reader should."""
    from vlax.training.feed import Feed

    put, number = Feed._fill, rng.randrange(1, 40)

    def fill(self: Feed, iterator: Any) -> None:
        def rows() -> Any:
            for count, batch in enumerate(iterator):
                if count == number:
                    raise ZeroDivisionError("in a worker")
                yield batch

        put(self, rows())

    Feed._fill = fill  # type: ignore[method-assign]


def hanging(rng: random.Random) -> None:
    """A batch never comes. The watchdog has less patience than a user's."""
    from vlax.process import activity
    from vlax.training.feed import Feed

    put, number = Feed._fill, rng.randrange(1, 40)
    activity.FIRST, activity.SLOW, activity.COMPILES = 3, 2, 1
    watched = activity.Activity.watched
    activity.Activity.watched = lambda self, limit: watched(self, 5.0)  # type: ignore[method-assign]

    def fill(self: Feed, iterator: Any) -> None:
        def rows() -> Any:
            for count, batch in enumerate(iterator):
                if count == number:
                    time.sleep(1e6)
                yield batch

        put(self, rows())

    Feed._fill = fill  # type: ignore[method-assign]


def not_a_number(rng: random.Random) -> None:
    """A step's gradients are not finite."""
    from vlax.training import session

    build, number = session.build, rng.randrange(1, 40)

    def poisoned(plan: Any) -> Any:
        built = build(plan)
        step, calls = built.train_step, []

        def train_step(state: Any, frozen: Any, batch: Any) -> Any:
            calls.append(1)
            new, values = step(state, frozen, batch)
            return new, values | {"finite": values["finite"] * (len(calls) != number)}

        built.train_step = train_step
        return built

    session.build = poisoned


def clock_back(rng: random.Random) -> None:
    """An hour that comes twice."""
    real = time.time
    at_step(rng, lambda: setattr(time, "time", lambda: real() - 3600))


def files(workdir: Path) -> list[Path]:
    return sorted(path for path in workdir.rglob("*") if path.is_file() and path.stat().st_size and path.name != "lease.json")


def flip(workdir: Path, rng: random.Random) -> str:
    if not (there := files(workdir)):
        return "nothing was written yet"
    path = rng.choice(there)
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return str(path.relative_to(workdir))


def cut(workdir: Path, rng: random.Random) -> str:
    if not (there := files(workdir)):
        return "nothing was written yet"
    path = rng.choice(there)
    os.truncate(path, rng.randrange(path.stat().st_size))
    return str(path.relative_to(workdir))


def remove(workdir: Path, rng: random.Random) -> str:
    if not (there := files(workdir)):
        return "nothing was written yet"
    path = rng.choice(there)
    path.unlink()
    return str(path.relative_to(workdir))


def half(workdir: Path, rng: random.Random) -> str:
    """A folder of which a copy got half."""
    there = [path for pattern in ("*/checkpoints/*", "*/export", "*/hf/*") for path in workdir.glob(pattern) if path.is_dir()]
    if not there:
        return "nothing was written yet"
    folder = rng.choice(sorted(there))
    inside = files(folder)
    for path in rng.sample(inside, len(inside) // 2):
        path.unlink()
    return str(folder.relative_to(workdir))


def after_a_kill(damage: Callable[[Path, random.Random], str]) -> dict[str, Any]:
    return {"strike": send(signal.SIGKILL), "damage": damage}


FAULTS = [
    Fault("kill -9", strike=send(signal.SIGKILL)),
    Fault("SIGTERM", strike=send(signal.SIGTERM)),
    Fault("SIGHUP", strike=send(signal.SIGHUP)),
    Fault("SIGINT", strike=send(signal.SIGINT)),
    Fault("disk full", strike=fill, small_disk=True),
    Fault("second process", strike=second),
    Fault("NaN in a step", patch=not_a_number),
    Fault("raising source", patch=raising),
    Fault("hung source", patch=hanging),
    Fault("clock set back", patch=clock_back),
    Fault("flipped bit", **after_a_kill(flip)),
    Fault("truncated file", **after_a_kill(cut)),
    Fault("removed file", **after_a_kill(remove)),
    Fault("half a folder", **after_a_kill(half)),
]


def prepare(fault: Fault, workdir: Path) -> None:
    if fault.small_disk:
        workdir.mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MB}m", "tmpfs", str(workdir)], check=True)


def mend(fault: Fault, workdir: Path) -> None:
    """Room is made, as a user would."""
    if fault.small_disk:
        (workdir / "filler").unlink(missing_ok=True)


def clean(fault: Fault, workdir: Path) -> None:
    if fault.small_disk:
        subprocess.run(["umount", str(workdir)], check=True)
    shutil.rmtree(workdir, ignore_errors=True)


def obey(said: str, workdir: Path) -> bool:
    """Does what an error's text says; False where it says nothing that can be done here."""
    path = next((Path(found) for found in re.findall(rf"{re.escape(str(workdir))}[\w./-]*", said)), None)
    if path is None:
        return "goes on" in said
    path = Path(str(path).rstrip("."))
    stage = workdir / path.relative_to(workdir).parts[0] if path != workdir else workdir
    if "delete its manifest.json" in said:
        folder = next(p for p in (path, *path.parents) if p.name.startswith(("export", "vision", "decoder")) or p == stage)
        (folder / "manifest.json").unlink(missing_ok=True)
    elif "or start again" in said:
        pass  # what is damaged was set aside already
    elif "was made with another config" in said or "delete that directory" in said or "delete the stage" in said:
        shutil.rmtree(stage)
    elif "delete it" in said and path.is_file():
        path.unlink()
    else:
        return False
    return True
