"""How many runs experiments are, and about how long they take: before any is started, and before one goes on."""

import dataclasses

from etils import epath
from ml_collections import ConfigDict

from vlax.findings import arms, runner
from vlax.findings.experiment import Plan
from vlax.printing import columns
from vlax.training.stages import StagePlan


@dataclasses.dataclass
class Work:
    """Of one experiment, beyond what earlier ones have: stages to train, their updates and positions, suites to score. Stages
    whose length is known when they begin alone (`unknown` of them) count as of no updates."""

    stages: int = 0
    updates: int = 0
    positions: int = 0
    scored: int = 0
    unknown: int = 0

    def minutes(self, seconds: dict[str, float]) -> float:
        each = (self.positions * seconds["position"], self.stages * seconds["stage"], self.scored * seconds["score"])
        return sum(each) / 60


def left(config: ConfigDict, plan: Plan, out: epath.Path) -> dict[str, Work]:
    """{experiment: what is still to do}. Rates that a sweep has still to choose are taken to be those of factor 1."""
    counted: set[str] = set()
    found = {}
    for experiment in plan.experiments:
        work = found[experiment.name] = Work()
        swept = runner.chosen(experiment, plan, out)
        for factor in plan.factors if swept is None else ():
            for name in experiment.sweep:
                made = arms.changed(config, experiment.arms[name], experiment.swept, factor)
                _add(work, arms.chain(made, experiment.rates[0], plan.sweep_seed, out / "stages"), counted)
        for name in experiment.arms:
            for seed in plan.seeds:
                arm = runner.prepared(config, experiment, name, seed, swept["factor"] if swept else 1.0, out)
                if runner.scores(out, experiment, arm) is None:
                    _add(work, arm.train, counted)
                    work.scored += sum(outcome.of == "suite" for outcome in experiment.outcomes.values())
    return found


def _add(work: Work, plans: list[StagePlan] | tuple[StagePlan, ...], counted: set[str]) -> None:
    for plan in plans:
        if str(plan.directory) in counted or plan.finished:
            continue
        counted.add(str(plan.directory))
        work.stages += 1
        work.updates += plan.stage.steps
        vision = plan.run.shapes.vision
        seen = (vision.image_size // vision.patch_size) ** 2 if "vision" in plan.stage.init else 0
        work.positions += plan.stage.steps * plan.stage.batch_size * (plan.stage.text_length + seen)
        work.unknown += plan.stage.steps == 0


def text(config: ConfigDict, plan: Plan, out: epath.Path) -> str:
    """The table of `--plan`, and the header of a run."""
    found = left(config, plan, out)
    rows = [("experiment", "arms", "seeds", "stages to train", "updates", "suites to score", "minutes")]
    for experiment in plan.experiments:
        work = found[experiment.name]
        more = " and more" if work.unknown else ""
        rows.append((experiment.name, str(len(experiment.arms)), str(len(plan.seeds)), f"{work.stages:,}",
                     f"{work.updates:,}{more}", f"{work.scored:,}", f"{work.minutes(dict(plan.seconds)):.0f}"))  # fmt: skip
    total = sum(work.minutes(dict(plan.seconds)) for work in found.values())
    return (
        f"{columns(rows)}\n{total:.0f} minutes in all, by config.findings.seconds; arms share stages that are the same, and "
        f"what is finished in {out} is not counted"
    )
