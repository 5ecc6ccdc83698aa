"""Workdirs as they lie on disk, read without a config: how far their stages got, what they scored, what can be gone on with.

runs/mine                                                                               31.2 MiB
  stage1  400 of 400 updates  finished                              9.8 MiB  captions CIDEr 1.716 [1.602, 1.840]
  stage3  120 of 600 updates  goes on at 120                       12.1 MiB
"""

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from etils import epath

from vlax.errors import VlaxError
from vlax.printing import columns, printable
from vlax.storage import paths, state
from vlax.training import stages

DEEP = 4  # folders below DIR in which stages are looked for
MIB = 1 << 20
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Scored:
    """One score of an evaluation. folder: "eval", or "eval/SUITE"; interval: (low, high)."""

    folder: str
    set: str
    metric: str
    score: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        between = f" [{self.interval[0]:.3f}, {self.interval[1]:.3f}]" if self.interval else ""
        return f"{self.set} {self.metric} {self.score:.3f}{between}"


@dataclasses.dataclass(frozen=True)
class StageFound:
    """A stage's directory. steps: micro-steps of its checkpoints; done, of: updates, None where nothing says how many."""

    directory: epath.Path
    done: int
    of: int | None
    steps: tuple[int, ...]
    per_update: int
    finished: bool
    named: bool  # whether config.json says which config it was made with
    size: int
    scores: tuple[Scored, ...]

    @property
    def standing(self) -> str:
        """What the same command would do."""
        if self.finished:
            more = "; can be trained longer" if self.steps else ""
            return f"finished{more}"
        if not self.steps:
            return "begins anew"
        gone = "" if self.named else ", if the config is the same: config.json is missing"
        return f"goes on at {self.steps[-1] // self.per_update:,}{gone}"

    @property
    def progress(self) -> str:
        return f"{self.done:,} of {self.of:,} updates" if self.of else f"{self.done:,} updates"


@dataclasses.dataclass(frozen=True)
class Run:
    """A workdir and the stages in it, by name."""

    directory: epath.Path
    stages: tuple[StageFound, ...]

    @property
    def size(self) -> int:
        return sum(stage.size for stage in self.stages)


def find(folder: str | epath.Path) -> list[Run]:
    """The workdirs at and below a folder, by path. VlaxError where there is none."""
    top = epath.Path(folder)
    if not top.is_dir():
        raise VlaxError(f"there is no folder {top}; name one that holds workdirs, such as runs")
    by_run: dict[epath.Path, list[epath.Path]] = {}
    for stage in _stages(top, DEEP):
        by_run.setdefault(stage.parent, []).append(stage)
    if not by_run:
        raise VlaxError(f"no run lies in {top}: a stage's directory has a config.json and checkpoints or an export")
    return [Run(run, tuple(read(stage) for stage in sorted(found))) for run, found in sorted(by_run.items())]


def _stages(folder: epath.Path, deep: int) -> Iterator[epath.Path]:
    if is_stage(folder):
        yield folder
    elif deep:
        for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            yield from _stages(inner, deep - 1)


def is_stage(folder: epath.Path) -> bool:
    """Whether a stage was begun there; one of which config.json is gone has still its checkpoints or its records."""
    begun = any((folder / name).exists() for name in ("checkpoints", "metrics.jsonl", "export/manifest.json"))
    return begun and ((folder / "config.json").exists() or (folder / "metrics.jsonl").exists() or bool(checkpoints(folder)))


def checkpoints(stage: epath.Path) -> list[int]:
    """The micro-steps of a stage's checkpoints, oldest first."""
    folder = stage / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal()) if folder.exists() else []


def read(stage: epath.Path) -> StageFound:
    """What is damaged is left out, with a warning: the others are worth looking at."""
    config, manifest, length = (_read(stage / name) for name in ("config.json", "export/manifest.json", stages.LENGTH))
    found = _spared(stage, lambda: _found(stage, config, manifest, length))
    return found or _found(stage, {}, {}, {})


def _found(stage: epath.Path, config: Mapping[str, Any], manifest: Mapping[str, Any], length: Mapping[str, Any]) -> StageFound:
    settings = config.get("stage", {})
    accumulate = int(settings.get("accumulate", 1)) if settings.get("accumulation", "multisteps") == "multisteps" else 1
    accumulate = _count(length.get("per_update", accumulate))  # stages of earlier versions have no such file
    steps = checkpoints(stage)
    ended = _count(manifest.get("micro_steps"))
    whole = _count(length.get("micro_steps")) or ended
    of = whole // accumulate if whole else _count(settings.get("steps")) or None
    finished = bool(manifest) and (not length or ended >= length["micro_steps"])
    done = max([*(step // accumulate for step in steps), ended // accumulate])
    return StageFound(stage, done, of, tuple(steps), accumulate, finished, bool(config), size(stage), tuple(_scores(stage)))


def _count(value: Any) -> int:
    """A number of steps; 0 where there is none. ValueError for what is no such number."""
    if value is not None and (type(value) is not int or not 0 <= value < 1 << 53):
        raise ValueError(f"{str(value)[:80]} is no number of steps")
    return value or 0


def _scores(stage: epath.Path) -> Iterator[Scored]:
    folder = stage / "eval"
    for path in (folder, *(sorted(folder.iterdir()) if folder.exists() else ())):
        if path.is_dir():
            looked = functools.partial(_scored, _read(path / "scores.json"), str(path).removeprefix(f"{stage}/"))
            yield from _spared(path, looked) or ()


def _scored(found: Mapping[str, Any], where: str) -> list[Scored]:
    out = []
    for name, metrics in found.get("sets", {}).items():
        for metric, row in metrics.items():
            if metric != "rows":
                score, between = float(row["score"]), row.get("interval")
                out.append(Scored(where, name, metric, score, (float(between[1]), float(between[2])) if between else None))
    return out


def _spared(where: epath.Path, look: Callable[[], T]) -> T | None:
    """What `look` finds in files that may hold anything; None and a warning where it does not understand them."""
    try:
        with state.understood(where, "it is left out"):
            return look()
    except VlaxError as error:
        logging.warning("WARNING: %s", error)
        return None


def _read(file: epath.Path) -> Mapping[str, Any]:
    try:
        return state.read(file, "it is left out") if file.exists() else {}
    except VlaxError as error:
        logging.warning("WARNING: %s", error)
        return {}


def size(path: epath.Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if not paths.remote(path):
        found = ((root, name) for root, _, names in os.walk(path) for name in names)
        return sum(os.lstat(os.path.join(*each)).st_size for each in found) or (path.stat().length if path.is_file() else 0)
    return sum(each.stat().length for each in path.rglob("*") if not each.is_dir()) if path.is_dir() else path.stat().length


def told(size: int) -> str:
    return f"{size / MIB:,.1f} MiB"


def headlines(stage: StageFound) -> list[Scored]:
    """The first metric of each set of each evaluation."""
    first: dict[tuple[str, str], Scored] = {}
    for one in stage.scores:
        first.setdefault((one.folder, one.set), one)
    return list(first.values())


def text(runs: list[Run]) -> str:
    """The runs as lines for the terminal."""
    out = []
    for run in runs:
        out.append(f"{printable(str(run.directory))}  {told(run.size)}")
        rows = [(f"  {printable(s.directory.name)}", s.progress, s.standing, told(s.size)) for s in run.stages]
        for line, stage in zip(columns(rows, left=3).splitlines(), run.stages, strict=True):
            scores = [f"{one}{'' if one.folder == 'eval' else f' ({one.folder})'}" for one in headlines(stage)]
            out.append("  ".join([line, *(["; ".join(scores)] if scores else [])]))
    return "\n".join(out)
