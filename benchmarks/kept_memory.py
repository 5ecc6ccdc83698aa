"""What a train step of the embedded stages costs where freed memory is kept, and where glibc gives it back.

    python -m benchmarks.kept_memory [--stages stage0:vision,stage0:decoder] [--steps 30] [--repeats 2]

Each figure is of a fresh process, in turns, so that what else the machine does meets both. The losses are compared bit by bit.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

from vlax.process import memory


def measure(name: str, steps: int) -> dict[str, float | str]:
    """In this process: milliseconds and page faults a step after five of them, the last loss, the largest size in MB."""
    memory.keep()
    import jax
    from etils import epath

    from vlax.commands import config_flag, setup
    from vlax.data.batches.pipeline import iterate
    from vlax.training import guess, session, stages, start

    config, _ = config_flag.parse([f"--config={name}"], required=True)
    with tempfile.TemporaryDirectory() as folder:
        config = guess.settled(setup.settings(config), folder)
        s = session.build(stages.chain(config, epath.Path(folder))[-1])
        with jax.set_mesh(s.mesh):
            state, frozen = start.initial_state(s)
            batches = [batch for batch, _ in zip(iterate(s.batches), range(4), strict=False)]
            for step in range(5 + steps):
                if step == 5:
                    before, cpu, wall = resource.getrusage(resource.RUSAGE_SELF), time.process_time(), time.perf_counter()
                state, values = s.train_step(state, frozen, s.place(batches[step % 4]))
                loss = float(values["loss_sum"])
    cpu, wall, after = time.process_time() - cpu, time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_ms": 1e3 * cpu / steps, "wall_ms": 1e3 * wall / steps, "faults": (after.ru_minflt - before.ru_minflt) / steps,
        "largest_mb": after.ru_maxrss / 1024, "loss": loss.hex(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", default="stage0:vision,stage0:decoder")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.steps)))
        return
    print("| stage | freed memory | CPU ms | wall ms | page faults | largest, MB |\n|---|---|---|---|---|---|")
    for name in args.stages.split(","):
        losses = set()
        for kept in ("0", "1") * args.repeats:
            command = [sys.executable, "-m", "benchmarks.kept_memory", f"--one={name}", f"--steps={args.steps}"]
            done = subprocess.run(
                command, env={**os.environ, memory.VARIABLE: kept}, check=True, capture_output=True, text=True
            )
            found = json.loads(done.stdout.splitlines()[-1])
            losses.add(found.pop("loss"))
            figures = " | ".join(f"{value:,.0f}" for value in found.values())
            print(f"| {name} | {('given back', 'kept')[int(kept)]} | {figures} |", flush=True)
        assert len(losses) == 1, losses


if __name__ == "__main__":
    main()
