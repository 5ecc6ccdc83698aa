"""Checkpoints {state, data} to resume from.

    workdir/stageN/checkpoints/STEP   trainable parameters, optimizer state, step (orbax, asynchronous); data position (JSON):
                                      {step, plan: its hash, order: of the rows (absent: 1), text: its settings
                                      (absent: version 1), first_losses}
    workdir/stageN/seals/STEP.json    what its files hold (`storage/seal.py`), written once the save has ended

    workdir/stageN/validation.json    {STEP: validation loss of that checkpoint, null without one}, written after it

    workdir/stageN/damaged/STEP       what is not what was written: said, set aside before orbax reads it, never gone on from

A checkpoint that a kill left without its seal is taken as orbax committed it; one that is not in validation.json has its
validation still before it.
"""

import concurrent.futures
import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from vlax.errors import VlaxError
from vlax.model import exports
from vlax.params import distributed
from vlax.storage import paths, seal, state


@dataclasses.dataclass
class Best:
    """Orbax policy: the `count` checkpoints of lowest validation loss are kept."""

    losses: Mapping[int, float | None]
    count: int

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> Sequence[bool]:
        known = {info.step: loss for info in checkpoints if (loss := self.losses.get(info.step)) is not None}
        best = sorted(known, key=lambda step: (known[step], step))[: self.count]
        return [info.step in best for info in checkpoints]


def recorded(stage: epath.Path) -> dict[str, Any] | None:
    """What a stage's directory was started with, by its newest sound checkpoint, else its export: {order: of the rows
    (`data/batches/order.py`), text: how it becomes ids (`text/settings.py`)}, an entry of which older versions have none. None
    where there is neither, and the stage begins. Orbax is not asked: nothing is set aside here."""
    folder = stage / "checkpoints"
    steps = (
        sorted((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), reverse=True) if folder.exists() else ()
    )
    for step in steps:
        try:
            seal.check(folder / str(step), "data", way_out="", seal=stage / "seals" / f"{step}.json")
            found = state.read(folder / str(step) / "data" / "metadata", "")
        except VlaxError:  # damaged, which is said when the checkpoints are opened
            continue
        return dict(found)
    if not (stage / "export" / "manifest.json").exists():
        return None
    manifest = exports.read_manifest(stage / "export")
    return {**manifest["data"], "text": manifest.get("text")}


def recorded_order(stage: epath.Path) -> int | None:
    """The order of rows that a stage's directory was started with; None where the stage begins."""
    found = recorded(stage)
    return None if found is None else int(found.get("order", 1))


def ahead(stage: epath.Path) -> None:
    """Begins to compare the checkpoints of a stage's directory with their seals (`seal.ahead`), before they are opened."""
    folder = stage / "checkpoints"
    for path in folder.iterdir() if folder.exists() else ():
        if path.name.isdecimal():
            seal.ahead(path, stage / "seals" / f"{path.name}.json")


class Checkpoints:
    """The checkpoints of one stage. Kept are the `last` newest, so that there is one to fall back to, the `best` on validation,
    and with `hours` one for each so many."""

    def __init__(self, directory: str | epath.Path, *, last: int = 2, best: int = 1, hours: float = 0):
        self.directory = epath.Path(directory)
        self._damaged = self._set_aside()
        distributed.any_host(False)  # no host opens the folder before the first one has set aside what is damaged
        self._losses: dict[int, float | None] = {}
        keep: list[Any] = [policies.LatestN(last), Best(self._losses, best)]
        keep += [policies.EveryNSeconds(int(hours * 3600))] if hours else []
        options = ocp.CheckpointManagerOptions(preservation_policy=policies.AnyPreservationPolicy(keep))
        self._manager = ocp.CheckpointManager(paths.absolute(self.directory), options=options)
        self._losses.update(self._read_losses())
        self._sealing = concurrent.futures.ThreadPoolExecutor(1)
        self._unsealed: dict[int, float] = {}  # step: when its save began
        self.seconds = 0.0  # that the last save took, until it was looked for

    def save(self, step: int, values: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Starts an asynchronous save, unless there is one of this step."""
        if step in self._manager.all_steps():
            return
        self._seal_path(step).unlink(missing_ok=True)  # of a checkpoint that was passed over
        self._unsealed[step] = time.monotonic()
        items = ocp.args.Composite(state=ocp.args.StandardSave(dict(values)), data=ocp.args.JsonSave(dict(data)))
        self._manager.save(step, args=items)

    def committed(self, step: int) -> bool:
        """Whether a save has ended; any thread may ask."""
        path = self.directory / str(step)
        return bool(path.exists() and ocp.utils.is_checkpoint_finalized(path))

    def validated(self, step: int) -> bool:
        return step in self._losses

    def record(self, step: int, loss: float | None) -> None:
        """The validation loss of a step that was saved (None: the stage has no held-out rows) enters the choice of the best."""
        self._losses[step] = loss
        if distributed.is_main():
            there = {str(step): self._losses[step] for step in self._manager.all_steps() if step in self._losses}
            state.write_json(self.directory.parent / "validation.json", there)

    def delete(self, step: int) -> None:
        """Removes a checkpoint that nobody should go on from."""
        self.wait()
        self._manager.delete(step)

    def _read_losses(self) -> dict[int, float | None]:
        """Of the steps that are there; those of earlier versions of vlax lie in orbax's own metrics."""
        again = "delete it: the best is then chosen among the states that follow"
        path, steps = self.directory.parent / "validation.json", self._manager.all_steps()
        found = state.read(path, again) if path.exists() else {}
        for step in steps:
            old = self.directory / str(step) / "metrics" / "metrics"
            if str(step) not in found and old.exists():
                found[str(step)] = state.read(old, again).get("loss")
        return {int(step): loss for step, loss in found.items() if int(step) in steps}

    def seal(self) -> None:
        """Seals the saves that have ended, in another thread; costs a look at the disk while one has not."""
        if not distributed.is_main():
            return
        for step in sorted(self._unsealed):
            if self.committed(step):
                self.seconds = time.monotonic() - self._unsealed.pop(step)
                self._sealing.submit(self._write_seal, step)

    def _write_seal(self, step: int) -> None:
        try:
            seal.write(self.directory / str(step), self._seal_path(step))
        except OSError as error:  # it is gone already, or the disk is full: the checkpoint itself is committed
            logging.warning("checkpoint %d was not sealed: %s", step, error)

    def _seal_path(self, step: int) -> epath.Path:
        return self.directory.parent / "seals" / f"{step}.json"

    def _set_aside(self) -> list[int]:
        """The damaged steps. Orbax reads some files of every step when it opens the folder, and fails by what they say."""
        damaged = []
        names = [path.name for path in self.directory.iterdir()] if self.directory.exists() else []
        for step in sorted(int(name) for name in names if name.isdecimal()):
            try:
                seal.check(self.directory / str(step), way_out="it is set aside", seal=self._seal_path(step))
            except VlaxError as error:
                logging.warning("WARNING: the checkpoint at step %d is damaged: %s", step, error)
                damaged.append(step)
                if distributed.is_main():
                    target = self.directory.parent / "damaged" / str(step)
                    target.parent.mkdir(exist_ok=True)
                    if target.exists():
                        target.rmtree()
                    (self.directory / str(step)).rename(target)
                    self._seal_path(step).unlink(missing_ok=True)
        return damaged

    def latest(self) -> int | None:
        """The newest step, or None before the first save. VlaxError where there were some and all are damaged."""
        step: int | None = self._manager.latest_step()
        if self._damaged and step is None:
            raise VlaxError(
                f"{self.directory}: no checkpoint is whole (steps {', '.join(map(str, self._damaged))}, now in "
                f"{self.directory.parent / 'damaged'}). Copy one back from elsewhere, or start again: the stage begins anew"
            )
        if step is not None and self._damaged and max(self._damaged) > step:
            logging.warning("going on from step %d: %d steps are trained again", step, max(self._damaged) - step)
        return step

    def best(self) -> tuple[int, float] | None:
        """(step, validation loss) of the best checkpoint that was validated."""
        steps = self._manager.all_steps()
        scored = [(loss, step) for step in steps if (loss := self._losses.get(step)) is not None]
        return (min(scored)[1], min(scored)[0]) if scored else None

    def data(self, step: int) -> dict[str, Any]:
        position: dict[str, Any] = self._manager.restore(step, args=ocp.args.Composite(data=ocp.args.JsonRestore())).data
        return position

    def restore(self, step: int, target: Mapping[str, Any]) -> dict[str, Any]:
        """The state of a step, restored onto the shardings of `target` (abstract or concrete arrays).

        VlaxError when the stored tree is another one.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        try:
            args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            state: dict[str, Any] = self._manager.restore(step, args=args).state
        except (ValueError, KeyError, TypeError) as error:
            first = str(error).strip().splitlines()[0][:200]
            raise VlaxError(
                f"checkpoint {self.directory / str(step)} does not fit this run ({first}). Use the config that wrote it, or "
                "another --workdir"
            ) from error
        return state

    def wait(self) -> None:
        """Until what was saved is on disk and sealed."""
        self._manager.wait_until_finished()
        self.seal()
        self._sealing.submit(lambda: None).result()
        kept = {str(step) for step in self._manager.all_steps()}
        for file in self._seal_path(0).parent.glob("*.json") if distributed.is_main() else ():
            if file.stem not in kept:
                file.unlink(missing_ok=True)

    def close(self) -> None:
        self.wait()
        self._sealing.shutdown()
        self._manager.close()
