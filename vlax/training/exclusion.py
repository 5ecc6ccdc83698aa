"""The pictures that a stage must not be trained on: by name as its sources are opened, then by what they show.

By name is what `readers/leaks.py` tells of names and ids; by what they show compares the prints that the doctor and `prepare`
have made (`readers/prints.py`), as far as they have: no picture is decoded for it here. A run keeps what it began with, in
WORKDIR/STAGE/near_duplicates.json, whoever makes or deletes prints meanwhile.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vlax.data.batches import mixture
from vlax.data.readers import leaks, prints
from vlax.data.readers.faults import Faults
from vlax.data.readers.left import Leaving
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.params import distributed
from vlax.rows import Source
from vlax.storage import state
from vlax.storage.state import load_json
from vlax.suites import files
from vlax.training import checkpoints
from vlax.training.stages import StagePlan

DRAWN = ("scenes", "cells", "pairs")  # their splits are disjoint by construction
RECORD = "near_duplicates.json"


class Shown(NamedTuple):
    """The pictures of one evaluation set. keys: as in `leaks.py`; looks: None where nobody has made them."""

    name: str
    keys: frozenset[str]
    looks: prints.Prints | None


def evaluation_pictures(plan: StagePlan) -> list[Shown]:
    """The pictures that the stage is validated and scored on, and those of the suites in run.exclude."""
    data = {name: content.to_dict()["data"] for name, content in plan.stage.suites.items()}
    data |= {name: files.read(name)["data"] for name in plan.run.exclude}
    data |= {f"stage.validation.{name}": {"validation": spec.to_dict()} for name, spec in plan.stage.validation.items()}
    specs = [(name, splits[split]) for name, splits in data.items() for split in ("test", "validation") if splits.get(split)]
    return [_pictures(name, json.dumps(spec, sort_keys=True), plan.run.data_root)
            for name, spec in specs if spec.get("kind") not in DRAWN]  # fmt: skip


def names(shown: Sequence[Shown]) -> frozenset[str]:
    return frozenset().union(*(one.keys for one in shown))


@functools.lru_cache(maxsize=32)
def _pictures(name: str, spec: str, data_root: str) -> Shown:
    try:
        source = open_source(load_json(name, spec), data_root, train=False, faults=Faults(collect=True))
        looks = source.all_looks() if isinstance(source, Leaving) else None
        return Shown(source.name, leaks.evaluation_pictures([source]), looks)
    except VlaxError as error:
        raise VlaxError(f"leak filter: the pictures of {name} must not be trained on, and {error}; or take {name} out of "
                        "stage.suites and run.exclude") from None  # fmt: skip


def leave_out(plan: StagePlan, sources: Mapping[str, Source], shown: Sequence[Shown]) -> None:
    """Takes the rows whose pictures look like evaluation pictures out of the sources of a mixture, by their names in it."""
    if not any(isinstance(source, Leaving) for source in sources.values()):
        return
    recorded = _recorded(plan)
    for name, source in sources.items():
        if isinstance(source, Leaving):
            if recorded is not None:
                near = np.array(recorded.get(name, ()), np.int64)
            else:
                near = np.zeros(0, np.int64) if plan.run.keep_near_duplicates else _near(source, shown)
            source.leave_out(_agreed(near, source.total))


def as_trained(plan: StagePlan, name: str) -> Source:
    """A source of the mixture without the rows that a finished stage was not trained on. VlaxError where it cannot be read."""
    spec = {key: value for key, value in plan.stage.mixture[name].items() if key not in mixture.SHARES}
    drop = names(evaluation_pictures(plan))
    source = open_source(spec, plan.run.data_root, drop_image_ids=drop, faults=Faults(collect=True))
    if isinstance(source, Leaving):
        source.leave_out(np.array((_recorded(plan) or {}).get(name, ()), np.int64))
    return source


def _recorded(plan: StagePlan) -> dict[str, list[int]] | None:
    """What a run began with; None for one that begins."""
    if checkpoints.recorded_order(plan.directory) is None:
        return None
    file = plan.directory / RECORD
    return state.read(file, "give the run another --workdir") if file.exists() else {}


def record(plan: StagePlan, sources: Sequence[Source]) -> None:
    """Writes down what was left out, in the order of `sources`, those of the mixture."""
    order = sorted(plan.stage.mixture, key=lambda name: (name != plan.stage.epoch_of, name))
    found = {name: list(map(int, source.near)) for name, source in zip(order, sources, strict=True)
             if isinstance(source, Leaving) and len(source.near)}  # fmt: skip
    if _recorded(plan) is None and distributed.is_main() and (found or (plan.directory / RECORD).exists()):
        plan.directory.mkdir(parents=True, exist_ok=True)
        state.write_json(plan.directory / RECORD, found)


def _near(source: Leaving, shown: Sequence[Shown]) -> np.ndarray:
    """int64[k]: the rows of the source's table that look like evaluation pictures."""
    theirs = prints.joined(one.looks for one in shown if one.looks is not None)
    return source.near_to(theirs)


def _agreed(near: np.ndarray, rows: int) -> np.ndarray:
    """The first host's, whose cache of prints the others need not have."""
    if distributed.hosts() == 1:
        return near
    flags = np.zeros(rows, bool)
    flags[near] = True
    return np.flatnonzero(distributed.from_main(flags))


def unseen(plan: StagePlan, sources: Sequence[Source]) -> str:
    """One line about sets that nobody has made prints of; "" where all have them, or nothing is excluded."""
    shown = evaluation_pictures(plan)
    missing = [one.name for one in shown if one.looks is None]
    missing += [source.name for source in sources if shown and isinstance(source, Leaving) and not source.seen]
    if not missing:
        return ""
    return (
        f"by name alone, since nobody has looked at the pictures of {', '.join(dict.fromkeys(missing))}: "
        "python -m vlax data doctor SOURCE --against EVALUATION_SET does"
    )
