"""The interface of trackers, and what keeps a run safe from them.

with following(plan) as heard:  # what the loop tells of what it records
    loop.train(session, listeners=heard)
attach(plan, ["eval/report.html"], {"captions CIDEr": 1.7})  # to the runs of a stage that has ended
"""

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from etils import epath

from vlax.errors import VlaxError
from vlax.params import distributed
from vlax.storage import paths
from vlax.training.listeners import Listener, Progress
from vlax.training.stages import StagePlan, closest

BOARD = "tensorboard"  # written by `metrics.Writer`, whose file lies in the stage's directory
PROJECT = "vlax"  # what runs are filed under, unless the tracker's own variable names another


@dataclasses.dataclass(frozen=True)
class About:
    """What a tracker files a stage under.

    id       the same for the same directory, so that a stage that goes on goes on in its run
    name     "WORKDIR/STAGE", of the workdir its last folder; group: that folder
    config   the settings that make the stage what it is (`StagePlan.identity`)
    parents  lineage: {part of the model: {"stage": ..., "id": of its run}}
    """

    id: str
    name: str
    group: str
    directory: epath.Path
    config: Mapping[str, Any]
    parents: Mapping[str, Mapping[str, str]]


class Tracker(Protocol):
    """One run of one tracker. Whatever it raises is a warning (`Spared`)."""

    def begin(self, about: About) -> None:
        """Opens the run of a stage, anew or where it stands."""

    def record(self, progress: Progress) -> None:
        """Scalars by `KIND/NAME` over updates; of a validation also its samples."""

    def attach(self, file: epath.Path) -> None:
        """Keeps a file, such as the report, with the run."""

    def summary(self, values: Mapping[str, float]) -> None:
        """Scores of a stage that has ended."""

    def end(self, whole: bool) -> None:
        """Closes the run; `whole`: nothing was raised."""


# name: (module, class, package, how it is installed)
_KNOWN = {
    "wandb": ("vlax.training.trackers.wandb", "Wandb", "wandb", "vlax[wandb]"),
    "mlflow": ("vlax.training.trackers.mlflow", "Mlflow", "mlflow", "vlax[mlflow]"),
    "trackio": ("vlax.training.trackers.trackio", "Trackio", "trackio", "vlax[trackio]"),
}
NAMES = (BOARD, *_KNOWN)


class Spared:
    """A tracker that never ends a run: at its first error it is left alone, with a warning."""

    def __init__(self, name: str):
        self.name, self.alive = name, True
        self.tracker: Tracker | None = None

    def __call__(self, method: str, *args: Any) -> None:
        if not self.alive:
            if method == "end" and self.tracker is not None:  # its run is closed all the same, if that can be done
                with contextlib.suppress(Exception):
                    self.tracker.end(False)
            return
        try:
            self.tracker = self.tracker or _make(self.name)
            getattr(self.tracker, method)(*args)
        except Exception as error:  # of servers, disks and their own making
            self.alive = False
            first = (str(error).strip().splitlines() or [""])[0][:300]
            logging.warning("WARNING: %s failed (%s: %s); the run goes on without it", self.name, type(error).__name__, first)


def _make(name: str) -> Tracker:
    module, kind, _, _ = _KNOWN[name]
    made: Tracker = getattr(importlib.import_module(module), kind)()
    return made


def check(names: Sequence[str]) -> None:
    """VlaxError for a tracker that there is not, or whose package is not installed; before anything runs."""
    for name in names:
        if name not in NAMES:
            raise VlaxError(f"run.trackers has {name!r}, and there are {', '.join(NAMES)}{closest(name, NAMES)}")
        if name in _KNOWN and importlib.util.find_spec(_KNOWN[name][2]) is None:
            raise VlaxError(f"run.trackers has {name!r}, which is not installed: pip install '{_KNOWN[name][3]}'")


def of(plan: StagePlan) -> About:
    """What trackers are told of a stage."""
    parents = {part: {"stage": where.name, "id": _id(where)} for part, where in plan.parents.items()}
    group = plan.directory.parent.name or "runs"
    return About(_id(plan.directory), f"{group}/{plan.name}", group, plan.directory, plan.identity, parents)


def _id(directory: epath.Path) -> str:
    """16 hexadecimal digits of where a stage lies."""
    return hashlib.sha256(str(paths.absolute(directory)).encode()).hexdigest()[:16]


def _open(names: Sequence[str], about: About) -> list[Spared]:
    """The trackers of a stage, begun; what fails at its import is a warning, too."""
    made = [Spared(name) for name in dict.fromkeys(names) if name != BOARD]
    for one in made:
        one("begin", about)
    return made


def checked(names: Sequence[str]) -> Callable[[StagePlan], contextlib.AbstractContextManager[list[Listener]]]:
    """`following`, once `check` has let the names pass."""
    check(names)
    return following


@contextlib.contextmanager
def following(plan: StagePlan) -> Iterator[list[Listener]]:
    """What hears of a stage while it is trained, on the first host; the runs of its trackers are ended with the block."""
    made = _open(plan.run.trackers, of(plan)) if distributed.is_main() else []

    def heard(one: Spared) -> Listener:
        return lambda progress: one("record", progress)

    whole = False
    try:
        yield [heard(one) for one in made]
        whole = True
    finally:
        for one in made:
            one("end", whole)


def attach(plan: StagePlan, files: Sequence[epath.Path], scores: Mapping[str, float]) -> None:
    """Adds an evaluation's files and scores to the runs of its stage."""
    for one in _open(plan.run.trackers, of(plan)) if distributed.is_main() else []:
        for file in files:
            one("attach", file)
        one("summary", scores)
        one("end", True)
