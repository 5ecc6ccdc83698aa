"""Runs a chain of stages: what is missing, in order."""

from collections.abc import Callable

from etils import epath
from ml_collections import ConfigDict

from vlax.params import distributed
from vlax.process import lease
from vlax.training import loop, plots, session, stages


def run(config: ConfigDict, workdir: str, sampler: Callable[[session.Session], loop.Sample | None]) -> None:
    """Trains every unfinished stage that the config needs, the asked-for one last.

    sampler: makes of a Session its small generative evaluation (`evaluation/sampling.py`), which lies above this room.
    """
    with lease.hold(workdir, on=distributed.is_main()):
        _run(config, epath.Path(workdir), sampler)


def _run(config: ConfigDict, workdir: epath.Path, sampler: Callable[[session.Session], loop.Sample | None]) -> None:
    plans = stages.chain(config, workdir)
    pending = stages.todo(plans)
    for plan in pending[1:]:  # compiles nothing: a mistake in the last stage should not wait for the first to be trained
        session.build(stages.resolved(plans[: plans.index(plan) + 1])[0])
    for plan in pending:
        built = session.build(plan)
        stages.record_identity(plan)
        loop.train(built, sample=sampler(built))
        plots.draw(config, workdir)
    if not pending:
        print(f"{plans[-1].name} is finished: {plans[-1].export}")


def replay(config: ConfigDict, workdir: str) -> None:
    """Compares the first losses of every stage that has started with its record."""
    for plan in stages.chain(config, epath.Path(workdir)):
        stages.check_identity(plan)
        if (plan.directory / "first_losses.json").exists():
            print(loop.replay(session.build(plan)))
