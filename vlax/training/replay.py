"""`--replay`: whether a run can be had again, bit for bit."""

import jax

from vlax.errors import VlaxError
from vlax.storage import state as files
from vlax.training import start
from vlax.training.session import Session


def replay_stage(session: Session) -> str:
    """Runs the first steps of a finished or started stage again and compares their losses with the record.

    Returns a sentence; raises VlaxError when a loss differs.
    """
    path = session.plan.directory / "first_losses.json"
    if not path.exists():
        raise VlaxError(f"{session.plan.directory} has no record to replay: train the stage first")
    record = files.read(path, "train the stage again in another --workdir", list)
    with jax.set_mesh(session.mesh):
        state, frozen = start.initial_state(session)
        for micro, expected in enumerate(record):
            state, values = session.train_step(state, frozen, session.place(session.batches[micro]))
            got = float(values["loss_sum"])
            if got != expected:
                raise VlaxError(
                    f"replay of {session.plan.name} differs at step {micro}: loss sum {got!r}, recorded {expected!r} (relative "
                    f"{abs(got - expected) / abs(expected):.1e}). Other hardware or versions than those in manifest.json?"
                )
    return f"{session.plan.name}: the first {len(record)} losses are bit-equal to the record"
