"""Runs experiments: the sweep of rates, then every arm over every seed, stage by stage, so that seeds share compiled programs.

OUT/stages/seed-1/stage1-3f9a1c2e    exports and logs, shared by all arms that ask for the same
OUT/mask/causal/seed-1.json          what was measured; read back, not measured again
OUT/mask/{sweep,findings}.json, table.md, *.png, page.html
OUT/training.log                     what training prints; training-1.log of a second process (`shares.py`)
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import re
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.findings import arms, opening, outcomes, results, shares, writing
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
    """{experiment: its results}, written anew with each arm. VlaxError for a faulty arm or data, before anything is trained."""
    for experiment in plan.experiments:
        for name in experiment.arms:
            prepared(config, experiment, name, plan.seeds[0], 1.0, out)
    found, bench, (number, count) = {}, Bench(config.run.data_root), shares.mine()
    if count == 1:  # else their parent has looked
        opening.check(config, plan, out, AGAIN)
    with watchdog.watching(chain.stacks(out), agreement.peers), lease.hold(out, on=count == 1):  # else their parent has it
        for experiment in plan.experiments:
            swept = sweep(config, experiment, plan, out, say)
            now = functools.partial(report, config, experiment, plan, swept, out)
            made = [
                [prepared(config, experiment, name, seed, swept["factor"], out) for seed in plan.seeds]
                for name in experiment.arms
            ]
            _arms(experiment, made, bench, out, say, now)
            found[experiment.name] = now()
            if number == 0:
                say(f"\n{results.text(found[experiment.name])}\n\n{out / experiment.name / 'page.html'} has it all")
    return found


def report_all(config: ConfigDict, plan: Plan, out: epath.Path, say: Say = print) -> None:
    """Tables and pages of what has been measured. VlaxError where an experiment has not begun."""
    for experiment in plan.experiments:
        if (swept := chosen(experiment, plan, out)) is None:
            raise VlaxError(f"{experiment.name} has not come to its arms in {out}: run the same command without --report")
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


def _arms(
    experiment: Experiment, made: list[list[Arm]], bench: Bench, out: epath.Path, say: Say, written: Callable[[], object]
) -> None:
    """Trains and measures the open seeds of all arms; `written` is called whenever an arm has all of its seeds."""
    items: dict[epath.Path, shares.Item] = {}
    for arm in made:
        open_seeds = [each for each in arm if scores(out, experiment, each) is None]
        for stage in zip(*(each.train for each in open_seeds), strict=True):
            for plan in stage:
                items.setdefault(plan.directory, _stage(plan, out, say))
        for each in open_seeds:
            file = each.file(out, experiment)
            measured = functools.partial(lambda each: scores(out, experiment, each) is not None, each)

            def measure(each: Arm = each, arm: list[Arm] = arm) -> None:
                _measure(experiment, each, bench, out, say)
                if all(scores(out, experiment, other) is not None for other in arm):
                    written()

            items[file] = shares.Item(file, [plan.directory for plan in each.train], measured, measure)
    shares.work(list(items.values()))


def _stage(plan: StagePlan, out: epath.Path, say: Say) -> shares.Item:
    needs = [epath.Path(parent) for parent in plan.parents.values()]
    return shares.Item(plan.directory, needs, lambda: plan.finished, lambda: trained(plan, out, say))


def _measure(experiment: Experiment, arm: Arm, bench: Bench, out: epath.Path, say: Say) -> None:
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


def chosen(experiment: Experiment, plan: Plan, out: epath.Path) -> dict[str, Any] | None:
    """What `sweep` has found; None before it has."""
    file = out / experiment.name / SWEEP
    if file.exists():
        return dict(state.read(file, "delete it, and run the experiment again"))
    return _unswept(plan) if len(plan.factors) == 1 else None


def sweep(config: ConfigDict, experiment: Experiment, plan: Plan, out: epath.Path, say: Say) -> dict[str, Any]:
    """{"factor": of the least held-out loss, "losses": {factor: mean over arms}, "seed", "of"}: one for all arms, chosen on the
    validation set with a seed that no arm is measured with. Of one factor nothing is to be chosen."""
    if len(plan.factors) == 1:
        return _unswept(plan)
    stage, source = experiment.rates
    chains: dict[float, list[list[StagePlan]]] = {}
    for factor in plan.factors:
        made = (arms.changed(config, experiment.arms[name], experiment.swept, factor) for name in experiment.sweep)
        chains[factor] = [arms.chain(each, stage, plan.sweep_seed, out / "stages") for each in made]
    each = {p.directory: _tried(p, out, say) for chain in itertools.chain(*chains.values()) for p in chain}
    shares.work(list(each.values()))
    losses = {
        f"{factor:g}": statistics.fmean(
            math.inf if _failed(plans[-1]).exists() else outcomes.curve(plans[-1].directory, source)[-1][1] for plans in of
        )
        for factor, of in chains.items()
    }
    for times, loss in losses.items() if shares.mine()[0] == 0 else ():
        say(f"{experiment.name}: rates times {times}: held-out loss {loss:.4f}")
    best = min(plan.factors, key=lambda factor: losses[f"{factor:g}"])
    swept = {"factor": best, "losses": losses, "seed": plan.sweep_seed, "of": list(experiment.sweep), "on": [stage, source]}
    (out / experiment.name).mkdir(parents=True, exist_ok=True)
    state.write_json(out / experiment.name / SWEEP, swept, indent=1)
    return swept


def _failed(plan: StagePlan) -> epath.Path:
    """Is there where a sweep's stage can't be trained, or one that it begins with: too high a rate is an answer."""
    return plan.directory.parent / f"{plan.name}.failed"


def _tried(plan: StagePlan, out: epath.Path, say: Say) -> shares.Item:
    parents = [epath.Path(parent) for parent in plan.parents.values()]
    mark = _failed(plan)

    def do() -> None:
        said = [file.read_text() for parent in parents if (file := parent.parent / f"{parent.name}.failed").exists()]
        if not said:
            try:
                return trained(plan, out, say)
            except Unsound as error:
                say(str(error))
                said = [str(error)]
        state.write(mark, said[0].encode())

    return shares.Item(plan.directory, parents, lambda: plan.finished or mark.exists(), do)


def _unswept(plan: Plan) -> dict[str, Any]:
    return {"factor": plan.factors[0], "losses": {}}


@contextlib.contextmanager
def _logged(out: epath.Path) -> Iterator[None]:
    """What training and scoring print goes to a file: a page of header a stage, hundreds of stages."""
    out.mkdir(parents=True, exist_ok=True)
    number = shares.mine()[0]
    with (
        (out / f"training{f'-{number}' * bool(number)}.log").open("a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        yield
