"""The full-size recipe on stand-ins: its configs, layer shapes and file formats; random weights. `make recipe-check`

    python -m benchmarks.recipe                                    # every :0.9b config, two updates, 2 + 2 layers
    python -m benchmarks.recipe --layers=0 --stages=stage3 --updates=1 --rows=1     # as deep as they are: minutes, and 19 GB

It says that the day weights and data are at hand the recipe begins; it says nothing of how well it learns. What is cut: depth,
vocabulary (with --layers), rows a batch, rows of held-out loss and the samples decoded beside it.
"""

import argparse
import contextlib
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

import vlax
from benchmarks import recipe_cases
from vlax.training import metrics

STAGES = ("stage1", "stage2", "stage3", "stage4", "pathvqa")
VOCAB = 512


def config(name: str, folder: Path, backbones: tuple[str, str], updates: int, rows: int, last: bool) -> ConfigDict:
    """`configs/NAME.py:0.9b` with the stand-ins' directories, cut in rows and updates. last: of a chain that starts nowhere
    else, so that tower and decoder come from their directories."""
    made = vlax.config(f"{name}:0.9b")
    run = made.run
    run.data_root, (run.vision, run.decoder) = str(folder / "data"), backbones
    run.compilation_cache, run.tensorboard, run.threads, run.log_every = "", False, 2, 1
    for stage in (made.stage, *made.parents.values()):
        stage.steps, stage.batch_size, stage.eval_batches, stage.generate_samples = updates, rows * stage.accumulate, 1, 0
    if last:
        made.stage.init = {"vision": "pretrained", "projector": "fresh", "decoder": "pretrained"}
        made.parents = {}
    return made


def run(folder: Path, stages: Sequence[str] = STAGES, layers: int = 2, updates: int = 2, rows: int = 1) -> list[dict]:
    """Trains each stage from the export of the one before; a record each: seconds, first and last loss, GB at the peak."""
    recipe_cases.write_data(folder / "data")
    backbones = recipe_cases.write_backbones(folder, layers, VOCAB if layers else 0)
    records = []
    for name in stages:
        begun = time.monotonic()
        vlax.train(config(name, folder, backbones, updates, rows, last=len(stages) == 1), str(folder / "run"))
        losses = [record["loss"] for record in metrics.read(folder / "run" / name) if record["kind"] == "train"]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        records.append({"stage": name, "seconds": time.monotonic() - begun, "first": losses[0], "last": losses[-1], "GB": peak})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--layers", type=int, default=2, help="of tower and decoder each; 0: all of them")
    parser.add_argument("--updates", type=int, default=2)
    parser.add_argument("--rows", type=int, default=1, help="of a micro-batch")
    parser.add_argument("--folder", default="", help="a new one, that stays; otherwise all of it goes when it is done")
    args = parser.parse_args()
    if args.folder and Path(args.folder).exists():
        raise SystemExit(f"{args.folder} is there already: name a new folder, or delete it")
    kept = contextlib.nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory(prefix="vlax-recipe-")
    with kept as folder:
        records = run(Path(folder), args.stages, args.layers, args.updates, args.rows)
    print(f"\n{'stage':<9}{'seconds':>9}{'first loss':>12}{'last loss':>11}{'GB at the peak':>16}")
    for record in records:
        print(
            f"{record['stage']:<9}{record['seconds']:>9.1f}{record['first']:>12.3f}{record['last']:>11.3f}{record['GB']:>16.1f}"
        )


if __name__ == "__main__":
    main()
