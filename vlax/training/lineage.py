"""What becomes of a stage after its end: it is extended, or another run is forked from it.

--extend=STEPS      so many updates more, in the same directory, under the same settings. The state goes on where it ended, with
                    AdamW's moments and the rows that come next; the learning rate goes through warm-up and cosine anew over
                    the added updates. It ended at (or near) its least, so that a cosine stretched over all updates would jump
                    to where it never was, and no run would be what either schedule says; a restart (arXiv 1608.03983) is the
                    same kind of pass again. WORKDIR/STAGE/extended.json has what was added, in turn.
--fork=NEW_WORKDIR  another run of the stage, at update 0 with a fresh optimizer, from the parameters of this one: of its
                    export, or of the newest checkpoint of one that is not finished. Its settings are its own. They lie in
                    NEW_WORKDIR/STAGE/forked, an export, so that nothing that happens to the first run reaches the second.
"""

import dataclasses
import logging
import shutil
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.params import distributed
from vlax.process import lease
from vlax.storage import state
from vlax.training import guess, handover, session, stages, start
from vlax.training.checkpoints import Checkpoints
from vlax.training.stages import EXTENDED, FORKED, StagePlan


def extend(plan: StagePlan, steps: int) -> None:
    """Adds updates to a finished stage, whose directory is this process's to write in; where the same addition is unfinished,
    it goes on. VlaxError where there is nothing to extend, or others began from it."""
    stages.check_identity(plan)
    added = plan.extended
    if not plan.finished:
        if not added or added[-1] != steps:
            what = f"its extension by {added[-1]} updates is not finished" if added else "it is not finished"
            raise VlaxError(
                f"{plan.directory} can't be extended: {what}. The same command without --extend goes on; --fork=NEW_WORKDIR "
                "begins another run from its newest checkpoint"
            )
    else:
        _check_extensible(plan)
        if distributed.is_main():
            state.write_json(plan.directory / EXTENDED, [*added, steps])
    distributed.any_host(False)  # no host reads the list before it is written
    if distributed.is_main():
        peaks = ", ".join(f"{group} {rate:g}" for group, rate in plan.stage.learning_rate.items())
        print(
            f"{plan.name} goes on for {steps:,} updates: state, moments and rows where they ended; the learning rate warms "
            f"up and falls along a cosine anew over these {steps:,} (peaks: {peaks})"
        )


def _check_extensible(plan: StagePlan) -> None:
    folder, fork = plan.directory / "checkpoints", "begin another run from its export instead: --fork=NEW_WORKDIR"
    if not folder.exists() or not any(path.name.isdecimal() for path in folder.iterdir()):
        raise VlaxError(f"{plan.directory} can't be extended: its checkpoints are gone; {fork}")
    for other in sorted(plan.directory.parent.iterdir()):
        file = other / "config.json"
        if other.name == plan.name or not file.exists() or not stages.started(other):
            continue
        if plan.name in state.read(file, "mend it").get("stage", {}).get("init", {}).values():
            raise VlaxError(
                f"{plan.directory} can't be extended: {other.name} began from its export, which would change; {fork}"
            )


def fork(config: ConfigDict, workdir: epath.PathLike, new: epath.PathLike) -> ConfigDict:
    """Writes NEW/STAGE/forked, unless it is there, and returns the settled config of the run to begin there. VlaxError where
    there is nothing to fork, or NEW holds another run."""
    old, target = epath.Path(workdir) / config.stage.name, epath.Path(new) / config.stage.name
    config = guess.settled(config, new, keep=True, like=old)
    if (target / FORKED / "manifest.json").exists():
        return config
    if stages.started(target):
        raise VlaxError(f"--fork={new}: {target} holds a run already; name a new directory")
    if not stages.started(old):
        raise VlaxError(f"there is nothing to fork: {old} has neither checkpoints nor an export")
    plan = _as_recorded(config, old)
    with lease.hold(workdir, on=distributed.is_main()):
        if plan.finished and distributed.is_main():
            shutil.rmtree(target / FORKED, ignore_errors=True)
            _copy(plan.export, target / FORKED)
        elif not plan.finished:
            _write_newest(plan, target / FORKED)
    distributed.any_host(False)
    logging.info("%s forked to %s", old, target)
    return config


def _as_recorded(config: ConfigDict, old: epath.Path) -> StagePlan:
    """The stage as it was started, whatever the config says now."""
    have = stages.renamed(state.read(old / "config.json", "name the workdir of a run"))
    config = config.copy_and_resolve_references()
    with config.unlocked():
        for part in ("run", "stage"):
            for name, value in have[part].items():
                config[part][name] = _typed(value)
    stage, directory = config.stage, old.parent
    parents = {p: directory / o for p, o in stage.init.items() if o not in (*stages.GIVEN, FORKED)}
    return StagePlan(config.run, stage, old, parents)


def _typed(value: Any) -> Any:
    if isinstance(value, dict):
        return ConfigDict({key: _typed(inner) for key, inner in value.items()})
    return tuple(value) if isinstance(value, list) else value


def _copy(source: epath.Path, target: epath.Path) -> None:
    """The manifest comes last: a copy without one is made again."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir(), key=lambda path: path.name == "manifest.json"):
        if path.is_dir():
            _copy(path, target / path.name)
        else:
            path.copy(target / path.name, overwrite=True)


def _write_newest(plan: StagePlan, target: epath.Path) -> None:
    """An export of the newest checkpoint, beside which nothing is written."""
    stage = plan.stage.copy_and_resolve_references()
    with stage.unlocked():
        stage.backbone = ""
    built = session.build(dataclasses.replace(plan, stage=stage))
    with jax.set_mesh(built.mesh):
        first, _ = start.initial_state(built)
        checkpoints = Checkpoints(plan.directory / "checkpoints", **plan.run.keep)
        step = checkpoints.latest()
        if step is None:
            raise VlaxError(f"there is nothing to fork: {plan.directory} has no checkpoint")
        handover.export(built, checkpoints.restore(step, first)["params"], target, None)
        checkpoints.close()
