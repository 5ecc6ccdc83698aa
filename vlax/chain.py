"""Runs a chain of stages: what is missing, in order."""

from etils import epath
from ml_collections import ConfigDict

from vlax import plots, session, stages, trainer
from vlax.evaluation import sampling


def run(config: ConfigDict, workdir: str) -> None:
    """Trains every unfinished stage that the config needs, the asked-for one last."""
    workdir = epath.Path(workdir)
    plans = stages.chain(config, workdir)
    pending = stages.todo(plans)
    for plan in pending[1:]:  # compiles nothing: a mistake in the last stage should not wait for the first to be trained
        session.build(stages.resolved(plans[: plans.index(plan) + 1])[0])
    for plan in pending:
        built = session.build(plan)
        stages.record_identity(plan)
        trainer.train(built, sample=sampling.sampler(built))
        plots.draw(config, workdir)
    if not pending:
        print(f"{plans[-1].name} is finished: {plans[-1].export}")


def replay(config: ConfigDict, workdir: str) -> None:
    """Compares the first losses of every stage that has started with its record."""
    for plan in stages.chain(config, epath.Path(workdir)):
        stages.check_identity(plan)
        if (plan.directory / "first_losses.json").exists():
            print(trainer.replay(session.build(plan)))
