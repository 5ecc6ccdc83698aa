"""The held-out loss of a state."""

import collections

import jax
import numpy as np

from vlax.params import groups
from vlax.process.activity import NOW
from vlax.training.feed import all_of
from vlax.training.session import Session
from vlax.training.steps import State


def held_out(session: Session, state: State, frozen: groups.Params) -> dict[str, float]:
    """{"loss": mean over the held-out sources, "loss/NAME": ...} per answer token."""
    out = {}
    for name, batches in session.validation.items():
        sums: collections.Counter[str] = collections.Counter()
        for batch in all_of(batches, session.plan.run):
            device = session.eval_step(state["params"], frozen, session.place(batch, validation=True))
            sums.update({key: float(value) for key, value in jax.device_get(device).items()})
            NOW.move()
        out[f"loss/{name}"] = sums["loss_sum"] / max(sums["tokens"], 1)
    return {"loss": float(np.mean(list(out.values()))), **out} if out else {}
