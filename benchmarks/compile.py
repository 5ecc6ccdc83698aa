"""Prints what the `:0.9b` stages take of devices that need not be here, by their real compilers, as a table for the docs.

    python -m benchmarks.compile --preset=gpu-compile     one H100 and eight; needs the extra `gpu`
    python -m benchmarks.compile --preset=tpu-compile     v5e:2x4, v6e:2x4, v5e:8x8; needs the extra `tpu`
    python -m benchmarks.compile --stages=3 --devices=h100 --kernels=cudnn --set stage.accumulate=1 --set stage.batch_size=64

Each line is a process of its own, one at a time: libtpu is held by one, and a compiler's memory goes with it. Sizes are GiB a
device: arguments (state, frozen parameters, batch), temporaries, and their sum beside what the device gives out, which is 75 %
of a GPU's memory, as JAX allocates by default. Rows are those of one micro-batch over all devices, at the longest text.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
from typing import Any

PRESETS = {
    "gpu-compile": {"devices": ["h100", "h100:8"], "kernels": ["cudnn", "xla"]},
    "tpu-compile": {"devices": ["v5e:2x4", "v6e:2x4", "v5e:8x8"], "kernels": ["xla"]},
}
COLUMNS = (
    "stage", "device", "rows", "text", "layers", "remat", "attention", "arguments", "temporaries", "together", "of", "seconds",
    "collectives",
)  # fmt: skip


def changed(config: Any, setting: str) -> None:
    """`run.remat=mlp` into a config, by the type that the field has."""
    path, _, value = setting.partition("=")
    part, _, field = path.partition(".")
    old = config[part][field]
    if isinstance(old, tuple):
        config[part][field] = tuple(int(number) for number in value.split(",") if number)
    elif hasattr(old, "keys"):  # the mesh: data, fsdp, tp
        config[part][field] = dict(zip(old, map(int, value.split(",")), strict=True))
    else:
        config[part][field] = type(old)(value)


def configured(stage: str, settings: list[str]) -> Any:
    """The `:0.9b` config of a stage, with settings of the command line."""
    config = importlib.import_module(f"configs.stage{stage}").get_config("0.9b")
    for setting in settings:
        changed(config, setting)
    return config


def same(stage: str, settings: list[str]) -> tuple[Any, ...]:
    """What of a stage its program depends on, but for constants."""
    s = configured(stage, settings).stage
    how = s.accumulation, s.accumulate if s.accumulation == "scan" else s.accumulate > 1
    return (
        tuple(sorted(s.trainable.items())),
        s.batch_size // s.accumulate,
        s.text_length,
        s.packing,
        s.images,
        s.lora.rank,
        *how,
    )


def one(stage: str, device: str, kernel: str, settings: list[str]) -> dict[str, Any]:
    """One line of the table."""
    import jax

    from vlax.models.cores import Kernels
    from vlax.training import backward, peaks, programs, topologies
    from vlax.training.planning import Counter

    config = configured(stage, settings)
    run, asked, target = config.run, config.stage, peaks.target(device)
    run.remat = backward.planned(Counter(run, asked, platform=target.platform), target).remat
    line = {
        "stage": stage, "device": device, "rows": asked.batch_size // asked.accumulate, "text": asked.text_length,
        "layers": programs.loop(run.layers, target.platform), "remat": run.remat, "attention": kernel,
    }  # fmt: skip
    on = topologies.mesh(device, (run.mesh.data, run.mesh.fsdp, run.mesh.tp))
    of = topologies.limit(device) / topologies.GIB
    try:
        made = topologies.compiled(run, asked, on, asked.text_length, Kernels(kernel, kernel))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {**line, "of": f"{of:.1f}", "collectives": "doesn't fit: " + str(error).splitlines()[0][:160]}
    sizes = {"arguments": made.arguments, "temporaries": made.temporaries, "together": made.peak}
    found = ", ".join(f"{count:,} {name}" for name, count in made.collectives.items()) or "none"
    gib = {name: f"{size / topologies.GIB:.1f}" for name, size in sizes.items()}
    return {**line, **gib, "of": f"{of:.1f}", "seconds": f"{made.seconds:.0f}", "collectives": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", choices=sorted(PRESETS))
    parser.add_argument("--stages", nargs="+", default=["1", "2", "3", "4"])
    parser.add_argument("--devices", nargs="+", default=[])
    parser.add_argument("--kernels", nargs="+", default=[])
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="run.remat=mlp, stage.accumulate=1")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # this process compiles, and prints JSON
    args = parser.parse_args()
    given = PRESETS.get(args.preset or "", {"devices": ["h100"], "kernels": ["xla"]})
    chosen, kernels = args.devices or given["devices"], args.kernels or given["kernels"]
    if args.one:
        print(json.dumps(one(args.stages[0], chosen[0], kernels[0], args.set)))
        return
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "flax", "optax"))
    print(f"{versions}\n\n| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    env, known = {**os.environ, "JAX_PLATFORMS": "cpu"}, dict[tuple[Any, ...], str]()
    for stage in args.stages:
        for device in chosen:
            for kernel in kernels:
                alike = (*same(stage, args.set), device, kernel)
                if alike in known:
                    print(f"| {stage} | {device} | the program of stage {known[alike]}" + " |" * (len(COLUMNS) - 2), flush=True)
                    continue
                known[alike] = stage
                flags = ["--one", "--stages", stage, "--devices", device, "--kernels", kernel]
                flags += [word for setting in args.set for word in ("--set", setting)]
                command = [sys.executable, "-m", "benchmarks.compile", *flags]
                done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
                if done.returncode:
                    sys.exit(done.stderr.strip().splitlines()[-1])
                line = json.loads(done.stdout.splitlines()[-1])
                print("| " + " | ".join(str(line.get(name, "")) for name in COLUMNS) + " |", flush=True)


if __name__ == "__main__":
    main()
