"""Prints what a train step costs beside PyTorch's, by the same weights, batches, mask, freezing and loss positions.

    python -m benchmarks.training                                       # pip install -r requirements-parity.txt
    python -m benchmarks.training --huge_pages                          # of both sides, by glibc
    python -m benchmarks.training --sizes 7m --stages stage3 --arms vlax compiled scan remat --steps 30
    python -m benchmarks.training --sizes 0.9b --dtype bfloat16 --batch 16      # with a GPU

    vlax                  the stage's own step as `vlax train` runs it
    given back            the same, where glibc gives freed memory back to the system (VLAX_KEEP_MEMORY=0)
    scan, remat           the same with run.layers=scan, and with run.remat=full
    eager, compiled       transformers' LLaVA as people train it: labels in, backward, clip, fused AdamW; then torch.compile
    tuned                 compiled, and logits of the text positions alone

The model is the stage's own with random weights, exported and opened by transformers; `causal`, so that the stock class does
the same. Parity first: loss and gradient norms of the first step. Each arm has --turns fresh processes, in turn; a time is the
median of a process's steps, of all cores together ("CPU ms", one figure a process) and by the clock ("ms"); ratios are of the
medians over processes. Pictures are normalised before anything is timed for PyTorch, within the step for vlax.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.timing import SIZES, Taken
from vlax.process import memory

# Of each arm of vlax: what its processes have in their environment, and what of `run` is another.
VLAX: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "vlax": ({}, {}),
    "given back": ({memory.VARIABLE: "0"}, {}),
    "scan": ({}, {"layers": "scan"}),
    "remat": ({}, {"remat": "full"}),
}
TORCH = ("eager", "compiled", "tuned")
HUGE_PAGES = "glibc.malloc.hugetlb=1"
LOSS, NORM = {"float32": 1e-4, "bfloat16": 2e-2}, {"float32": 0.02, "bfloat16": 0.1}
COLUMNS = ("model", "stage", "arm", "CPU ms", "ms", "samples/s", "CPU / vlax", "time / vlax", "MB")


def run(arm: str, flags: argparse.Namespace, size: str, stage: str, folder: Path) -> Taken:
    """One process of one arm."""
    environment = {**os.environ, **VLAX.get(arm, ({}, {}))[0]}
    if flags.huge_pages:
        environment["GLIBC_TUNABLES"] = HUGE_PAGES
    about = ["--one", arm, "--folder", str(folder), "--sizes", size, "--stages", stage, "--batch", str(flags.batch)]
    about += ["--steps", str(flags.steps), "--dtype", flags.dtype, "--threads", str(flags.threads)]
    command = [sys.executable, "-m", "benchmarks.training", *about]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arm}, {size}, {stage}:\n{done.stderr.strip()[-3000:]}")
    return Taken(**json.loads(done.stdout.splitlines()[-1]))


def apart(arm: str, ours: Taken, theirs: Taken, dtype: str) -> str:
    """What keeps an arm from being compared; "" where it computes the same."""
    if not abs(ours.loss - theirs.loss) <= LOSS[dtype] * abs(ours.loss):
        return f"{arm}: its first loss is {theirs.loss:.6f}, vlax's {ours.loss:.6f}"
    for name, norm in ours.norms.items():
        if not abs(norm - theirs.norms[name]) <= NORM[dtype] * norm:
            return f"{arm}: its gradient norm of {name} is {theirs.norms[name]:.5f}, vlax's {norm:.5f}"
    return ""


def compare(size: str, stage: str, flags: argparse.Namespace) -> int:
    """Prints the lines of one stage at one size. Returns the FLOPs of a step's products."""
    order, taken = ["vlax", *(arm for arm in flags.arms if arm != "vlax")] * flags.turns, dict[str, list[Taken]]()
    with tempfile.TemporaryDirectory() as name:
        for arm in order:
            taken.setdefault(arm, []).append(run(arm, flags, size, stage, Path(name)))
            if reason := apart(arm, taken["vlax"][0], taken[arm][-1], flags.dtype):
                raise SystemExit(f"{reason}; nothing is compared")
        about = json.loads((Path(name) / "about.json").read_text())
    for line in table(stage, about["parameters"], flags.batch, taken):
        print("| " + " | ".join(line) + " |", flush=True)
    if flags.out:
        Path(flags.out).mkdir(parents=True, exist_ok=True)
        for arm, each in taken.items():
            told = {"size": size, "stage": stage, "arm": arm, **about, "turns": [dataclasses.asdict(turn) for turn in each]}
            (Path(flags.out) / f"{size}-{stage}-{arm.replace(' ', '_')}.json").write_text(json.dumps(told, indent=1))
    return int(about["products"])


def table(stage: str, parameters: int, batch: int, taken: dict[str, list[Taken]]) -> list[list[str]]:
    """A line an arm, in the order of COLUMNS."""
    cpu = {arm: [statistics.median(turn.cpu) for turn in each] for arm, each in taken.items()}
    once = {arm: statistics.median(each) for arm, each in cpu.items()}
    wall = {arm: statistics.median(statistics.median(turn.wall) for turn in each) for arm, each in taken.items()}
    return [
        [
            f"{parameters / 1e6:.2f} M", stage, arm, " ".join(f"{one:,.1f}" for one in cpu[arm]), f"{wall[arm]:,.1f}",
            f"{1e3 * batch / wall[arm]:,.0f}", f"{once[arm] / once['vlax']:.2f}", f"{wall[arm] / wall['vlax']:.2f}",
            f"{max(turn.largest_mb for turn in taken[arm]):,.0f}",
        ]
        for arm in taken
    ]  # fmt: skip


def rate(product: Callable[[], object], side: int, count: int = 20) -> float:
    """GFLOP a CPU second of products of float32 matrices with so many rows and columns."""
    product()
    begun = time.process_time()
    for _ in range(count):
        product()
    return 2e-9 * side**3 * count / (time.process_time() - begun)


def ceilings(threads: int, torch_too: bool, side: int = 1024) -> dict[str, float]:
    """What the cores have to give, by each library: `rate`."""
    import jax
    import jax.numpy as jnp

    square, dot = jnp.ones((side, side)), jax.jit(jnp.dot)
    found = {"XLA": rate(lambda: dot(square, square).block_until_ready(), side)}
    if torch_too:
        import torch

        torch.set_num_threads(threads or torch.get_num_threads())
        theirs = torch.ones(side, side)
        found["PyTorch"] = rate(lambda: theirs @ theirs, side)
    return found


def one(flags: argparse.Namespace) -> Taken:
    """In this process, which `run` started: one arm."""
    if flags.one in TORCH:
        from benchmarks import torch_peer  # each side imports what it needs and no more

        return torch_peer.arm(flags)
    memory.keep()  # as `vlax train` does; PyTorch's processes are as a user starts them
    from benchmarks.arms import config_of, vlax_arm

    config = config_of(flags.sizes[0], flags.stages[0], flags.batch, flags.dtype, VLAX[flags.one][1])
    return vlax_arm(config, flags.steps, flags.folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["embedded", "7m"], choices=SIZES)
    parser.add_argument("--stages", nargs="+", default=["stage1", "stage3"], choices=["stage1", "stage2", "stage3"])
    parser.add_argument("--arms", nargs="+", default=[*TORCH, "given back"], choices=[*VLAX, *TORCH])
    parser.add_argument("--batch", type=int, default=64, help="rows")
    parser.add_argument("--steps", type=int, default=20, help="timed, after five that are not")
    parser.add_argument("--turns", type=int, default=2, help="processes of each arm")
    parser.add_argument("--dtype", default="float32", choices=sorted(LOSS))
    parser.add_argument("--threads", type=int, default=0, help="of torch, which spin while they wait; 0: as many as it takes")
    parser.add_argument("--huge_pages", action="store_true", help="GLIBC_TUNABLES=" + HUGE_PAGES)
    parser.add_argument("--out", default="", help="folder for a JSON an arm")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        print(json.dumps(dataclasses.asdict(one(flags))))
        return
    torch_too = any(arm in TORCH for arm in flags.arms)
    if torch_too and importlib.util.find_spec("torch") is None:
        raise SystemExit("torch is not installed: pip install -r requirements-parity.txt, or give --arms of vlax's alone")
    packages = ("jax", "torch", "transformers") if torch_too else ("jax",)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} CPUs, {versions}, {flags.dtype}, {flags.batch} rows"
    )
    rates = ceilings(flags.threads, torch_too)
    said = ", ".join(f"{name} {value:.1f}" for name, value in rates.items())
    print(f"products: {said} GFLOP a CPU second; torch's threads: {flags.threads or 'as many as it takes'}\n")
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    products = {(size, stage): compare(size, stage, flags) for size in flags.sizes for stage in flags.stages}
    print("\nThe products of a step, and the CPU ms that they take at XLA's rate:")
    for (size, stage), flops in products.items():
        print(f"{size}, {stage}: {flops / 1e9:.1f} GFLOP, {flops / 1e6 / rates['XLA']:,.0f} ms")


if __name__ == "__main__":
    main()
