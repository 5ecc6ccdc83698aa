"""From an arm to the stages that it trains. A stage is named by its content, so that arms share what is the same in them.

WORKDIRS/seed-1/stage1-3f9a1c2e is stage 1 with one set of fields over one set of parents: whichever arm, of whichever
experiment, asks for the same again finds it trained.
"""

import hashlib
import json
from collections.abc import Collection, Mapping

from etils import epath
from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.findings.experiment import Changes
from vlax.storage import state
from vlax.training import stages
from vlax.training.stages import StagePlan

# Fields of run and stage that came into being after stages were first named by their content: switched off they are in no name,
# so that what was trained before is still found.
SINCE = ("bf16_momentum",)


def changed(config: ConfigDict, changes: Changes, swept: Collection[str] = (), factor: float = 1.0) -> ConfigDict:
    """A copy of the base with an arm's fields, each set as a whole, and the rates of some stages times a factor. VlaxError for
    a field that there is not."""
    made: ConfigDict = config.copy_and_resolve_references()
    by_name = {stage.name: stage for stage in (*made.parents.values(), made.stage)}
    for path, value in changes:
        at, *inner, last = [made.run if path.startswith("run.") else by_name[path.split(".")[0]], *path.split(".")[1:]]
        for part in inner:
            at = at[part]
        if last not in at:
            raise VlaxError(f"an arm changes {path}, and there is no such field{stages.closest(last, at)}")
        with at.unlocked():
            at[last] = ConfigDict(value) if isinstance(value, Mapping) else value
    for name in swept:
        by_name[name].learning_rate = {group: rate * factor for group, rate in by_name[name].learning_rate.items()}
    return made


def chain(config: ConfigDict, stage: str, seed: int, workdirs: epath.Path) -> list[StagePlan]:
    """The stage and all that it needs, parents first, of one seed, under the names of their content."""
    made: ConfigDict = config.copy_and_resolve_references()
    with made.unlocked():
        made.run.seed = seed
        by_name = {each.name: each for each in (*made.parents.values(), made.stage)}
        made.stage, made.parents = by_name.pop(stage), ConfigDict(by_name)
    workdir, names = workdirs / f"seed-{seed}", dict[str, str]()
    for plan in stages.chain(made, workdir):
        own = plan.stage
        with own.unlocked():
            own.init = ConfigDict({part: names.get(origin, origin) for part, origin in own.init.items()})
            names[own.name] = own.name = f"{own.name}-{_digest(plan)}"
    with made.unlocked():
        made.parents = ConfigDict({each.name: each for each in made.parents.values()})
    return stages.chain(made, workdir)


def _digest(plan: StagePlan) -> str:
    """Of what makes a stage what it is, and of what is written down while it trains."""
    made = {part: {k: v for k, v in values.items() if v or k not in SINCE} for part, values in plan.identity.items()}
    seen = {field: state.load_json(field, json.dumps(_plain(plan.stage[field]))) for field in ("validation", "eval_every")}
    seen |= {"batches": plan.stage.eval_batches}
    return hashlib.sha256(json.dumps([made, seen], sort_keys=True).encode()).hexdigest()[:8]


def _plain(value: object) -> object:
    return value.to_dict() if isinstance(value, ConfigDict) else value
