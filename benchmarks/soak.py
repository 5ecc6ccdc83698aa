"""One process that trains, is stopped, fails and goes on for as long as asked: do memory, threads and open files stay?

    python -m benchmarks.soak --minutes=15 --seed=0

Each round trains the first stage of the micro chain in this process, with something of FAULTS happening to it, and goes on
until it is finished. After the warm-up (a quarter of the time) the growth is printed; the exit code is 1 where it is a leak.

"resident" is what the kernel counts, "in use" what malloc has handed out and nobody has freed (glibc), "of Python" what
Python's own allocator has, which takes its memory elsewhere. What grows in the first alone is free memory, scattered between
the pieces in use. Behind the table stands how much TensorStore keeps for good of each of its calls that orbax makes.
"""

import argparse
import contextlib
import ctypes
import gc
import io
import logging
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import break_things, micro_chain
from vlax.process import activity, memory
from vlax.training import chain
from vlax.training.feed import Feed

# In all: more is a leak.
GROWTH = {"MB resident": 40.0, "MB in use": 10.0, "MB of Python": 40.0, "threads": 3, "files": 5, "objects": 20_000}
STAGES = ("stage0_decoder",)


def signalled(number: signal.Signals) -> Callable[[random.Random], object]:
    return lambda rng: break_things.at_step(rng, lambda: os.kill(os.getpid(), number), STAGES)


FAULTS: dict[str, Callable[[random.Random], object]] = {
    "nothing": lambda rng: None,
    "SIGTERM": signalled(signal.SIGTERM),
    "SIGHUP": signalled(signal.SIGHUP),
    "raising source": break_things.raising,
    "NaN in a step": break_things.not_a_number,
    "error after a step": lambda rng: break_things.at_step(rng, lambda: 1 // 0, STAGES),
}


def play(rng: random.Random, workdir: Path) -> str:
    """One round; returns the fault's name."""
    from vlax.training import session

    name = rng.choice(sorted(FAULTS))
    originals = activity.progress, Feed._fill, session.build
    FAULTS[name](rng)
    config: Any = micro_chain.get_config()
    config.stage = config.parents.stage0_decoder
    config.stage.steps, config.parents = 12, {}
    for _ in range(8):
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                chain.run(config, str(workdir), lambda built: None)
            break
        except (Exception, activity.Interrupted):
            activity.progress, Feed._fill, session.build = originals  # type: ignore[method-assign]
    else:
        raise SystemExit(f"{name}: it goes on failing")
    activity.progress, Feed._fill, session.build = originals  # type: ignore[method-assign]
    shutil.rmtree(workdir)
    return name


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2 of glibc, summed over its arenas."""

    NAMES = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES]


def held() -> dict[str, float]:
    """What this process holds now. objects: those that Python's collector follows."""
    jax.clear_caches()  # compiled programs of rounds that are over
    gc.collect()
    pages, used = int(Path("/proc/self/statm").read_text().split()[1]), 0.0
    if hasattr(libc := ctypes.CDLL(None), "mallinfo2"):
        libc.malloc_trim(0)  # what was freed and is not given back yet is no leak
        libc.mallinfo2.restype = _Mallinfo
        found = libc.mallinfo2()
        pages, used = int(Path("/proc/self/statm").read_text().split()[1]), (found.uordblks + found.hblkhd) / 1e6
    return {"MB resident": pages * os.sysconf("SC_PAGE_SIZE") / 1e6, "MB in use": used, "MB of Python": of_python() / 1e6,
            "threads": threading.active_count(), "files": len(os.listdir("/proc/self/fd")),
            "objects": len(gc.get_objects())}  # fmt: skip


def of_python() -> int:
    """Bytes that Python's allocator of small objects has handed out; it says so on stderr alone."""
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            sys._debugmallocstats()
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
        file.seek(0)
        found = re.search(rb"# bytes in allocated blocks\s*=\s*([\d,]+)", file.read())
    return int(found[1].replace(b",", b"")) if found else 0


def lost() -> dict[str, float]:
    """Bytes that each call of TensorStore's leaves behind for good, of an array in OCDBT as orbax stores them."""
    import tensorstore

    with tempfile.TemporaryDirectory() as folder:
        store = {"driver": "file", "path": f"{folder}/"}
        form = {"shape": [32, 16], "dtype": "<f4", "chunks": [32, 16]}
        kvstore = {"driver": "ocdbt", "base": store}
        array = tensorstore.open({"driver": "zarr", "kvstore": kvstore, "path": "a", "metadata": form}, create=True).result()
    calls = {
        "to_json of a store": tensorstore.KvStore.Spec(store).to_json,
        "to_json of an array": array.spec().to_json,
        "metrics": lambda: tensorstore.experimental_collect_matching_metrics("/tensorstore/kvstore/"),
    }
    return {name: per_call(call) for name, call in calls.items()}


def per_call(call: Callable[[], object], times: int = 200) -> float:
    call()
    gc.collect()
    before = of_python()
    for _ in range(times):
        call()
    gc.collect()
    return (of_python() - before) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    memory.keep()  # as `vlax train` does
    jax.config.update("jax_compilation_cache_dir", os.path.expanduser("~/.cache/vlax/xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    logging.disable(logging.WARNING)
    rng, begin, rows = random.Random(args.seed), time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        while (now := (time.monotonic() - begin) / 60) < args.minutes:
            name = play(rng, Path(folder) / "w")
            rows.append({"minutes": now, **held()})
            print(f"{len(rows):4d} {name:<20}" + "  ".join(f"{key} {value:.1f}" for key, value in rows[-1].items()), flush=True)
    late = [row for row in rows if row["minutes"] > args.minutes / 4]
    grown = {}
    print(f"\n| {len(late)} rounds | first | last | growth by a fitted line | around it |\n|---|---|---|---|---|")
    for key in GROWTH:
        numbers, values = np.arange(len(late)), np.array([row[key] for row in late])
        slope, begin = np.polyfit(numbers, values, 1)
        grown[key], noise = slope * len(late), np.std(values - slope * numbers - begin)
        print(f"| {key} | {values[0]:.1f} | {values[-1]:.1f} | {grown[key]:+.1f} ({slope:+.3f} a round) | ±{noise:.1f} |")
    print(", ".join(f"{name} {size:,.0f}" for name, size in lost().items()), "bytes a call that TensorStore never frees")
    sys.exit(any(grown[key] > limit for key, limit in GROWTH.items()))


if __name__ == "__main__":
    main()
