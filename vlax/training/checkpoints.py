"""Checkpoints {state, data} to resume from.

workdir/stageN/checkpoints/STEP   trainable parameters, optimizer state, step (orbax, asynchronous); data position (JSON)
"""

from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies

from vlax.errors import VlaxError
from vlax.storage import paths


def _score(metrics: Mapping[str, float] | None) -> float:
    """Orbax keeps the highest; validation loss is better when lower."""
    return -metrics["loss"] if metrics and "loss" in metrics else float("-inf")


class Checkpoints:
    """The checkpoints of one stage: the latest one, and the best on validation, are kept."""

    def __init__(self, directory: str | epath.Path):
        self.directory = epath.Path(directory)
        keep = policies.AnyPreservationPolicy(
            [policies.LatestN(1), policies.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)]
        )
        options = ocp.CheckpointManagerOptions(preservation_policy=keep, best_fn=_score)
        self._manager = ocp.CheckpointManager(paths.absolute(self.directory), options=options)

    def save(
        self, step: int, state: Mapping[str, Any], data: Mapping[str, Any], metrics: Mapping[str, float] | None = None
    ) -> None:
        """Starts an asynchronous save. `metrics` {"loss": ...} enters it into the choice of the best."""
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(state=ocp.args.StandardSave(dict(state)), data=ocp.args.JsonSave(dict(data)))
        self._manager.save(step, args=items, metrics=dict(metrics) if metrics else None)

    def latest(self) -> int | None:
        step: int | None = self._manager.latest_step()
        return step

    def best(self) -> tuple[int, float] | None:
        """(step, validation loss) of the best checkpoint that was validated."""
        scored = [(self._manager.metrics(s)["loss"], s) for s in self._manager.all_steps() if self._manager.metrics(s)]
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
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()
