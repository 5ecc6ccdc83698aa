"""What of some runs nobody needs any more: old checkpoints, second exports, what was set aside as damaged, caches."""

import dataclasses
from collections.abc import Sequence

from etils import epath

from vlax.errors import VlaxError
from vlax.evaluation.runs import survey
from vlax.evaluation.runs.survey import Run, StageFound
from vlax.printing import columns, printable
from vlax.process import lease
from vlax.storage import cache, state


@dataclasses.dataclass(frozen=True)
class Waste:
    """A path that may go, and why; `run` is the workdir that it is of, None of a cache beside it."""

    path: epath.Path
    why: str
    size: int
    run: epath.Path | None
    beside: tuple[epath.Path, ...] = ()  # what goes with it


def find(runs: Sequence[Run], keep: int) -> list[Waste]:
    """What would go where the `keep` newest checkpoints of each stage stay, and the best on validation."""
    if keep < 1:
        raise VlaxError(f"--keep={keep}: a stage without a checkpoint can't be gone on with; keep 1")
    found = [waste for run in runs for stage in run.stages for waste in _of_stage(run, stage, keep)]
    folders = dict.fromkeys(run.directory.parent / cache.NAME for run in runs)
    caches = [path for path in folders if path.is_dir()]
    return found + [Waste(path, "a cache: it is computed again", survey.size(path), None) for path in caches]


def _of_stage(run: Run, stage: StageFound, keep: int) -> list[Waste]:
    folder, out, validation = stage.directory, [], stage.directory / "validation.json"
    losses = state.read(validation, "delete it: the best is then unknown") if validation.exists() else {}
    scored = [(loss, step) for step in stage.steps if (loss := losses.get(str(step))) is not None]
    kept = {*stage.steps[-keep:], *(step for _, step in sorted(scored)[:1])}
    for step in stage.steps:
        if step not in kept:
            path = folder / "checkpoints" / str(step)
            seal = folder / "seals" / f"{step}.json"
            out.append(Waste(path, "an old checkpoint", survey.size(path), run.directory, (seal,)))
    for path in sorted(folder.glob("export-*")):
        if path.is_dir() and stage.finished:
            why = f"the {path.name.removeprefix('export-')} state, beside the export"
            out.append(Waste(path, why, survey.size(path), run.directory))
    if (folder / "damaged").is_dir():
        path = folder / "damaged"
        out.append(Waste(path, "checkpoints that were damaged", survey.size(path), run.directory))
    return out


def text(found: Sequence[Waste]) -> str:
    """The list, and what it comes to."""
    rows = [(printable(str(waste.path)), waste.why, survey.told(waste.size)) for waste in found]
    total = survey.told(sum(waste.size for waste in found))
    return columns([*rows, (f"{len(found):,} in all", "", total)], left=2)


def remove(found: Sequence[Waste]) -> None:
    """VlaxError, before anything of a run goes, where a process writes there."""
    for run in dict.fromkeys(waste.run for waste in found):
        with lease.hold(*([run] if run else [])):
            for waste in found:
                if waste.run == run:
                    waste.path.rmtree()
                    for path in waste.beside:
                        path.unlink(missing_ok=True)
