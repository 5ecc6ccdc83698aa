"""Runs experiments: the sweep of rates, then every arm over every seed, stage by stage, so that seeds share compiled programs.

OUT/stages/seed-1/stage1-3f9a1c2e    exports and logs, shared by all arms that ask for the same
OUT/mask/causal/seed-1.json          what was measured; read back, not measured again
OUT/mask/{sweep,findings}.json, table.md, *.png, page.html
OUT/training.log                     what training prints
"""

import contextlib
import dataclasses
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.findings import arms, outcomes, results, writing
from vlax.findings.experiment import Experiment, Plan
from vlax.findings.outcomes import Bench
from vlax.process import activity, lease, watchdog
from vlax.storage import state
from vlax.suites import protocol
from vlax.training import agreement, chain
from vlax.training.stages import StagePlan
from vlax.training.unsound import Unsound

SWEEP = "sweep.json"
AGAIN = "what is finished is kept; the same command goes on"
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Arm:
    """One arm of one seed: the stages that it trains, parents first, and by outcome the stage that it is measured of."""

    name: str
    seed: int
    train: tuple[StagePlan, ...]
    measured: dict[str, StagePlan]

    def file(self, out: epath.Path, experiment: Experiment) -> epath.Path:
        return out / experiment.name / slug(self.name) / f"seed-{self.seed}.json"

    def key(self, experiment: Experiment) -> str:
        """Of all that its figures depend on."""
        asked = [dataclasses.asdict(outcome) for outcome in experiment.outcomes.values()]
        suites = [self.measured[o.name].stage.suites[o.suite].to_dict() for o in experiment.outcomes.values() if o.suite]
        return protocol.digest([[plan.name for plan in self.train], asked, suites])


def slug(name: str) -> str:
    """`"25 % unfrozen" -> "25-percent-unfrozen"`: an arm's folder."""
    return re.sub(r"[^\w.]+", "-", name.replace("%", "percent")).strip("-")


def prepared(config: ConfigDict, experiment: Experiment, name: str, seed: int, factor: float, out: epath.Path) -> Arm:
    """An arm of a seed, its rates times a factor."""
    made = arms.changed(config, experiment.arms[name], experiment.swept, factor)
    train: dict[str, StagePlan] = {}
    measured = {}
    for outcome in experiment.outcomes.values():
        plans = arms.chain(made, outcome.stage, seed, out / "stages")
        measured[outcome.name] = plans[-1]
        train |= {plan.name: plan for plan in (plans[:-1] if outcome.of == "perplexity" else plans)}
    return Arm(name, seed, tuple(train.values()), measured)


def run(config: ConfigDict, plan: Plan, out: epath.Path, say: Say = print) -> dict[str, dict[str, Any]]:
    """{experiment: its results}, written anew whenever an arm is measured. VlaxError for whatever is wrong with an arm, before
    anything is trained."""
    for experiment in plan.experiments:
        for name in experiment.arms:
            prepared(config, experiment, name, plan.seeds[0], 1.0, out)
    found = {}
    bench = Bench(config.run.data_root)
    with watchdog.watching(chain.stacks(out), agreement.peers), lease.hold(out):
        for experiment in plan.experiments:
            swept = sweep(config, experiment, plan, out, say)
            for name in experiment.arms:
                made = [prepared(config, experiment, name, seed, swept["factor"], out) for seed in plan.seeds]
                if left := [arm for arm in made if scores(out, experiment, arm) is None]:
                    _arm(experiment, left, bench, out, say)
                    report(config, experiment, plan, swept, out)
            found[experiment.name] = report(config, experiment, plan, swept, out)
            say(f"\n{results.text(found[experiment.name])}\n\n{out / experiment.name / 'page.html'} has it all")
    return found


def report_all(config: ConfigDict, plan: Plan, out: epath.Path, say: Say = print) -> None:
    """Tables and pages of what has been measured. VlaxError where an experiment has not begun."""
    for experiment in plan.experiments:
        file = out / experiment.name / SWEEP
        if not file.exists() and len(plan.factors) > 1:
            raise VlaxError(f"{experiment.name} has not come to its arms in {out}: run the same command without --report")
        swept = state.read(file, "delete it, and run the experiment again") if file.exists() else _unswept(plan)
        say(results.text(report(config, experiment, plan, swept, out)) + "\n")


def report(config: ConfigDict, experiment: Experiment, plan: Plan, swept: Mapping[str, Any], out: epath.Path) -> dict[str, Any]:
    """The results of what has been measured so far, written."""
    figures: dict[str, dict[int, dict[str, Any]]] = {}
    for name in experiment.arms:
        made = (prepared(config, experiment, name, seed, swept["factor"], out) for seed in plan.seeds)
        figures[name] = {arm.seed: found for arm in made if (found := scores(out, experiment, arm)) is not None}
    result = results.of(experiment, plan, swept, figures)
    writing.write(result, figures, out / experiment.name)
    return result


def _arm(experiment: Experiment, made: list[Arm], bench: Bench, out: epath.Path, say: Say) -> None:
    """Trains and measures one arm's open seeds."""
    for stage in zip(*(arm.train for arm in made), strict=True):
        for plan in stage:
            trained(plan, out, say)
    for arm in made:
        with activity.phase(f"{experiment.name}: {arm.name}, seed {arm.seed}", AGAIN), _logged(out):
            figures = {o.name: outcomes.measure(bench, o, arm.measured[o.name]) for o in experiment.outcomes.values()}
            file = arm.file(out, experiment)
            file.parent.mkdir(parents=True, exist_ok=True)
            state.write_json(file, {"key": arm.key(experiment), "arm": arm.name, "seed": arm.seed, "figures": figures})
        shown = ", ".join(f"{name} {each['score']:.3f}" for name, each in figures.items())
        say(f"{experiment.name}: {arm.name}, seed {arm.seed}: {shown}")


def scores(out: epath.Path, experiment: Experiment, arm: Arm) -> dict[str, Any] | None:
    """{outcome: what was measured} of an arm and seed; None where it is not there, or was of other fields."""
    file = arm.file(out, experiment)
    if not file.exists():
        return None
    kept = state.read(file, "delete it, and run the same command again")
    figures: dict[str, Any] | None = kept.get("figures") if kept.get("key") == arm.key(experiment) else None
    return figures


def trained(plan: StagePlan, out: epath.Path, say: Say) -> None:
    """Trains a stage unless it is finished. Its checkpoints go: the export is what others begin from."""
    if plan.finished:
        return
    say(f"training {plan.directory.relative_to(out)}")
    try:
        with _logged(out):
            chain.train_stage(plan, lambda built: None)
    except activity.Interrupted:
        say(f"stopped: what is trained of it is saved; {AGAIN}")
        raise
    shutil.rmtree(plan.directory / "checkpoints", ignore_errors=True)


def sweep(config: ConfigDict, experiment: Experiment, plan: Plan, out: epath.Path, say: Say) -> dict[str, Any]:
    """{"factor": of the least held-out loss, "losses": {factor: mean over arms}, "seed", "of"}: one for all arms, chosen on the
    validation set with a seed that no arm is measured with. Of one factor nothing is to be chosen."""
    if len(plan.factors) == 1:
        return _unswept(plan)
    stage, source = experiment.rates
    losses: dict[str, float] = {}
    for factor in plan.factors:
        found = []
        for name in experiment.sweep:
            made = arms.changed(config, experiment.arms[name], experiment.swept, factor)
            plans = arms.chain(made, stage, plan.sweep_seed, out / "stages")
            try:
                for each in plans:
                    trained(each, out, say)
                found.append(outcomes.curve(plans[-1].directory, source)[-1][1])
            except Unsound as error:  # too high a rate is an answer
                say(f"rates times {factor:g}: {error}")
                found.append(math.inf)
        losses[f"{factor:g}"] = sum(found) / len(found)
        say(f"{experiment.name}: rates times {factor:g}: held-out loss {losses[f'{factor:g}']:.4f}")
    best = min(plan.factors, key=lambda factor: losses[f"{factor:g}"])
    swept = {"factor": best, "losses": losses, "seed": plan.sweep_seed, "of": list(experiment.sweep), "on": [stage, source]}
    (out / experiment.name).mkdir(parents=True, exist_ok=True)
    state.write_json(out / experiment.name / SWEEP, swept, indent=1)
    return swept


def _unswept(plan: Plan) -> dict[str, Any]:
    return {"factor": plan.factors[0], "losses": {}}


@contextlib.contextmanager
def _logged(out: epath.Path) -> Iterator[None]:
    """What training and scoring print goes to a file: a page of header a stage, hundreds of stages."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "training.log").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield
