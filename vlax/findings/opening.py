"""What is wrong with an experiment's data is found before anything is trained: a mistake in the last arm should not wait."""

from etils import epath
from ml_collections import ConfigDict

from vlax.findings import arms
from vlax.findings.experiment import Plan
from vlax.process import activity
from vlax.training import session, stages

DATA = ("mixture", "epoch_of", "validation", "text_length")


def check(config: ConfigDict, plan: Plan, out: epath.Path, leave: str) -> None:
    """Builds one stage of every kind of data that is still to be trained on, which compiles nothing.

    leave: what to say where it is stopped. VlaxError of the first that can't be read.
    """
    seen = set()
    for experiment in plan.experiments:
        for changes in experiment.arms.values():
            made = arms.changed(config, changes)
            for last in dict.fromkeys(outcome.stage for outcome in experiment.outcomes.values()):
                plans = arms.chain(made, last, plan.seeds[0], out / "stages")
                for at, each in enumerate(plans):
                    data = repr([each.stage[field] for field in DATA])
                    if data not in seen and not each.finished:
                        seen.add(data)
                        with activity.phase(f"{experiment.name}: opening its data", leave):
                            session.build(stages.resolved(plans[: at + 1])[0])
