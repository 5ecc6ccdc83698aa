"""made.json beside scores.json: what an evaluation is about and how it was made, for the head of its report.

scores.json has none of it, since the same predictions give the same file, whoever scores them and whenever.
"""

import datetime
import importlib.metadata
import shlex
import sys
from pathlib import Path

from etils import epath

from vlax import __version__
from vlax.evaluation.runner import Evaluation
from vlax.storage import state

_PACKAGES = ("jax", "flax", "transformers", "pycocoevalcap")


def write(mine: Evaluation, twin: Evaluation | None) -> None:
    """{"model": ..., "stage": ..., ...}, all of it text, in the order in which it is shown."""
    model, known = mine.model, mine.about.get("model", {})
    told = {"predictions": known.get("predictions"), "model": model.where if model else None, "stage": known.get("stage")}
    if model:
        steps, created = (model.manifest.get(key) for key in ("micro_steps", "created"))
        seen = model.config.preprocess
        told |= {
            "checkpoint": ", ".join([*([f"step {steps:,}"] if steps else []), *([f"exported {created}"] if created else [])]),
            "weights": ", ".join(f"{part} {mark[:8]}" for part, mark in (known.get("checksums") or {}).items()),
            "mask": known.get("mask"), "computed in": known.get("dtype"),
            "picture size": f"{seen.size} x {seen.size} pixels" if seen else "no pictures",
        }  # fmt: skip
    told["data"] = "; ".join(f"{t.name}: {t.source.name}, {len(t.rows):,} rows, {t.source.fingerprint[:12]}" for t in mine.sets)
    told["blind twin"] = "images deranged by image id" if twin else ""
    told["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    told["command"] = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    versions = {"vlax": __version__, **{name: importlib.metadata.version(name) for name in _PACKAGES}}
    told["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    state.write_json(mine.directory / "made.json", {key: str(value) for key, value in told.items() if value}, indent=1)


def read(directory: epath.Path) -> dict[str, str]:
    """{} of an evaluation that was made before there was such a file."""
    path = directory / "made.json"
    return state.read(path, "run eval.py again") if path.exists() else {}
