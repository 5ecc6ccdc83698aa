"""Runs a chain of stages: what is missing, in order."""

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from etils import epath
from ml_collections import ConfigDict

from vlax.errors import spared
from vlax.params import distributed
from vlax.process import activity, lease, stop, watchdog
from vlax.process.activity import NOW
from vlax.storage import disk, paths
from vlax.training import agreement, exclusion, guess, lineage, loop, profile, session, stages, start
from vlax.training.listeners import Listener
from vlax.training.replay import replay_stage

Follow = Callable[[stages.StagePlan], contextlib.AbstractContextManager[Sequence[Listener]]]


def run(
    config: ConfigDict,
    workdir: str,
    sampler: Callable[[session.Session], loop.Sample | None],
    *,
    extend: int = 0,
    fork: str = "",
    listeners: Sequence[Listener] = (),
    follow: Follow = lambda plan: contextlib.nullcontext(()),
) -> None:
    """Trains every unfinished stage that the config needs, the asked-for one last.

    extend: updates to add to it, where it is finished. fork: another workdir, in which it begins from its state here.
    listeners: hear what is recorded. follow: who hears of one stage (`trackers/`, which lies above this room).
    sampler: makes of a Session its small generative evaluation (`evaluation/sampling.py`), which lies above this room.
    """
    origin, workdir = workdir, fork or workdir
    with stop.listening(), watchdog.watching(stacks(workdir), agreement.peers):
        NOW.grace = config.run.grace_seconds
        try:
            with disk.explained(), lease.hold(workdir, on=distributed.is_main()):
                _run(
                    lineage.fork(config, origin, fork) if fork else config,
                    epath.Path(workdir),
                    sampler,
                    extend,
                    listeners,
                    follow,
                )
        except BaseException as error:
            agreement.tell_end(error)
            raise


def stacks(workdir: epath.PathLike) -> Path:
    """Where the watchdog of this host writes what every thread was doing."""
    folder = tempfile.gettempdir() if paths.remote(workdir) else workdir
    return Path(folder) / f"stacks-host{distributed.host()}.txt"


def _run(
    config: ConfigDict,
    workdir: epath.Path,
    sampler: Callable[[session.Session], loop.Sample | None],
    extend: int,
    listeners: Sequence[Listener],
    follow: Follow,
) -> None:
    config = guess.settled(config, workdir, keep=True)
    plans = stages.chain(config, workdir)
    if extend:
        lineage.extend(plans[-1], extend)
    pending = stages.todo(plans)
    for plan in pending[:1]:
        start.compare_ahead(plan)
    for plan in pending[1:]:  # compiles nothing: a mistake in the last stage should not wait for the first to be trained
        built = session.build(stages.resolved(plans[: plans.index(plan) + 1])[0])
        if plan is plans[-1]:
            profile.check(built)
    for plan in pending:
        train_stage(plan, sampler, listeners=listeners, follow=follow, profiled=plan is plans[-1])
        with activity.phase("train: between stages", f"nothing is lost; {loop.AGAIN}"):
            if distributed.is_main():
                with spared("curves.png"):
                    draw(config, workdir)
    if not pending:
        print(f"{plans[-1].name} is finished: {plans[-1].export}")


def draw(config: ConfigDict, workdir: epath.Path) -> None:
    """curves.png"""
    from vlax.training import plots  # matplotlib takes a second, for which no stage is to wait

    plots.draw(config, workdir)


def train_stage(
    plan: stages.StagePlan,
    sampler: Callable[[session.Session], loop.Sample | None],
    *,
    listeners: Sequence[Listener] = (),
    follow: Follow = lambda plan: contextlib.nullcontext(()),
    profiled: bool = False,
) -> None:
    """One stage from where it stands to its export; its parents are finished, and its workdir is this process's to write in."""
    with activity.phase(f"{plan.name}: build", f"nothing is lost; {loop.AGAIN}"):
        start.compare_ahead(plan)
        built = session.build(plan)
        stages.check_end(plan, built.micro_steps)
        if profiled:
            profile.check(built)
        stages.record_identity(plan)
        stages.record_length(plan, built.micro_steps, built.per_update)
        exclusion.record(plan, built.batches.collate.mixture.sources)
        sample = sampler(built)
    with follow(plan) as heard:
        loop.train(built, sample=sample, listeners=[*listeners, *heard])


def replay(config: ConfigDict, workdir: str) -> None:
    """Compares the first losses of every stage that has started with its record."""
    for plan in stages.chain(guess.settled(config, workdir), epath.Path(workdir)):
        stages.check_identity(plan)
        if (plan.directory / "first_losses.json").exists():
            print(replay_stage(session.build(plan)))
