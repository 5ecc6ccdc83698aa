"""The training loop of one stage, top to bottom: restore, step, log, validate, save, export."""

import collections
import contextlib
import math
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np
from tqdm import tqdm

from vlax.data.batches.pipeline import iterate
from vlax.errors import VlaxError
from vlax.params import distributed, groups
from vlax.storage import state as files
from vlax.training import console, handover, metrics, start
from vlax.training.checkpoints import Checkpoints
from vlax.training.session import Session
from vlax.training.steps import State
from vlax.training.stop import Interrupted, Stop

FIRST_LOSSES = 10  # micro-steps whose losses are recorded for --replay
IN_FLIGHT = 2  # steps dispatched ahead of the one whose metrics are looked at
Sample = Callable[[State, groups.Params], dict[str, float]]  # (state, frozen) -> scores


class Loop:
    """State of a running stage; `train` below is its story."""

    bar: tqdm  # drawn from when the header is printed

    def __init__(self, session: Session):
        self.session, self.plan, self.stage, self.run = session, session.plan, session.plan.stage, session.plan.run
        self.checkpoints = Checkpoints(self.plan.directory / "checkpoints", **self.run.keep)
        self.window = metrics.Window()
        self.pending: collections.deque[tuple[int, dict[str, jax.Array], np.ndarray, int]] = collections.deque()
        self.first_losses: list[float] = []

    def restore(self) -> tuple[int, State, groups.Params]:
        """(micro-step to begin with, state, frozen)"""
        state, frozen = start.initial_state(self.session)
        latest = self.checkpoints.latest()
        if latest is None:
            return 0, state, frozen
        data = self.checkpoints.data(latest)
        plan_hash = self.session.batches.plan.hash
        if data["plan"] != plan_hash:
            raise VlaxError(
                f"{self.plan.directory}: the training data changed since the checkpoint at step {latest} (row plan "
                f"{data['plan']}, now {plan_hash}). Restore the files, or start in another --workdir"
            )
        self.first_losses = data["first_losses"]
        return data["step"], self.checkpoints.restore(latest, state), frozen

    def save(self, micro: int, state: State, validation: Mapping[str, float] | None = None) -> None:
        data = {"step": micro, "plan": self.session.batches.plan.hash, "first_losses": self.first_losses}
        self.checkpoints.save(micro, state, data, validation)
        if distributed.is_main():
            files.write_json(self.plan.directory / "first_losses.json", self.first_losses)

    def settle(self, keep: int) -> None:
        """Looks at the metrics of all but the last `keep` dispatched steps, and stops the run where one went wrong."""
        while len(self.pending) > keep:
            micro, device_metrics, rows, images = self.pending.popleft()
            values = {name: float(value) for name, value in jax.device_get(device_metrics).items()}
            if values["tokens"] == 0:
                raise VlaxError(
                    f"step {micro}: the batch has no answer token to learn from (rows {self.names(rows)}). "
                    f"Are the rows longer than --config.stage.text_length={self.stage.text_length}?"
                )
            if not values.pop("finite"):
                self.fail(micro, values, rows)
            if micro < FIRST_LOSSES:
                self.first_losses.append(values["loss_sum"])
            self.window.add(values, images)

    def names(self, rows: np.ndarray) -> str:
        mixture = self.session.batches.collate.mixture
        shown = [mixture.name(int(row)) for row in rows.ravel()[:8]]
        return ", ".join(shown) + (f" and {rows.size - 8} more" if rows.size > 8 else "")

    def fail(self, micro: int, values: Mapping[str, float], rows: np.ndarray) -> None:
        self.checkpoints.wait()
        norms = ", ".join(f"{k.split('/')[1]} {v:g}" for k, v in values.items() if k.startswith("grad_norm/"))
        loss = values["loss_sum"] / values["tokens"]
        latest = self.checkpoints.latest()
        kept = f"the checkpoint at step {latest} is intact" if latest is not None else "there is no checkpoint yet"
        raise VlaxError(
            f"stage {self.plan.name} stopped at step {micro}: loss {loss:g}, gradient norms: {norms}; "
            f"rows: {self.names(rows)}. {kept}. Lower --config.stage.learning_rate, or look at those rows"
        )

    def validate(self, state: State, frozen: groups.Params) -> dict[str, float]:
        """{"loss": mean over the held-out sources, "loss/NAME": ...} per answer token."""
        out = {}
        for name, batches in self.session.validation.items():
            sums: collections.Counter[str] = collections.Counter()
            for batch in iterate(batches, threads=self.run.threads, prefetch=self.run.prefetch):
                device = self.session.eval_step(state["params"], frozen, self.session.place(batch, validation=True))
                sums.update({key: float(value) for key, value in jax.device_get(device).items()})
            out[f"loss/{name}"] = sums["loss_sum"] / max(sums["tokens"], 1)
        return {"loss": float(np.mean(list(out.values()))), **out} if out else {}


def train(session: Session, *, sample: Sample | None = None) -> None:
    """Runs a stage from where it stands to its export. `sample(state, frozen) -> dict` is the small generative evaluation.

    Raises Interrupted after SIGTERM or Ctrl-C, VlaxError when the loss is not finite.
    """
    loop, plan = Loop(session), session.plan
    main = distributed.is_main()
    with jax.set_mesh(session.mesh), Stop() as stop, contextlib.ExitStack() as stack:
        begin, state, frozen = loop.restore()
        if main:
            console.print_header(session, begin)
        writer = metrics.Writer(plan.directory, begin // session.per_update, tensorboard=plan.run.tensorboard, enabled=main)
        loop.bar = console.progress_bar(session, begin, main)
        stack.callback(loop.bar.close)  # an error's text starts on a line of its own
        data = iterate(session.batches, begin, plan.run.threads, plan.run.prefetch)
        loop.window.reset()
        for micro in range(begin, session.micro_steps):
            asked = time.monotonic()
            try:
                batch = next(data)
            except VlaxError:  # over the drop budget: what was learned stays, and goes on with a quarantine list
                if distributed.hosts() == 1 and micro > begin:
                    loop.settle(0)
                    loop.save(micro, state)
                    loop.checkpoints.close()
                raise
            loop.window.waited += time.monotonic() - asked
            state, values = session.train_step(state, frozen, session.place(batch))
            loop.pending.append((micro, values, batch["row"], int(batch["has_image"].sum()) * distributed.hosts()))
            loop.settle(IN_FLIGHT)
            done = micro + 1
            loop.checkpoints.seal()
            if done % session.per_update == 0:
                _after_update(loop, done, state, frozen, writer, sample)
            if distributed.any_host(bool(stop.requested)):  # all leave the loop at the same step
                loop.settle(0)
                loop.save(done, state)
                loop.checkpoints.close()
                tqdm.write(f"{stop.requested}: saved step {done} in {plan.directory / 'checkpoints'}; the same command goes on")
                raise Interrupted(130 if stop.requested == "SIGINT" else 143)
        loop.settle(0)
        loop.bar.close()
        _finish(loop, state)
    writer.close()


def _after_update(
    loop: Loop, done: int, state: State, frozen: groups.Params, writer: metrics.Writer, sample: Sample | None
) -> None:
    """Log and validate where the cadence says so."""
    session, stage = loop.session, loop.stage
    update = done // session.per_update
    last = done == session.micro_steps
    loop.bar.update(1)
    if update % loop.run.log_every == 0 or last:
        loop.settle(0)
        summary = {**loop.window.summary(), **session.batches.collate.left_out.summary()}
        writer.write(update, "train", summary)
        console.show_progress(loop.bar, update, session.updates, summary)
        loop.window.reset()
    if last or (stage.eval_every and update % stage.eval_every == 0):
        loop.settle(0)
        values = loop.validate(state, frozen)
        if values and not math.isfinite(values["loss"]):
            raise VlaxError(
                f"stage {session.plan.name}: validation loss is {values['loss']} after update {update}; nothing was saved over"
            )
        scores = sample(state, frozen) if sample else {}
        writer.write(update, "validation", {**values, **scores})
        if values:
            tqdm.write(console.validation_line(session.plan.name, update, values, scores))
        loop.save(done, state, {"loss": values["loss"]} if values else None)
        loop.window.reset()  # the rates are those of training alone


def _finish(loop: Loop, state: State) -> None:
    """Exports the selected state (and the other one beside it), and says where everything is."""
    session = loop.session
    loop.checkpoints.wait()
    best = loop.checkpoints.best()
    if best and best[0] != session.micro_steps:
        restored = loop.checkpoints.restore(best[0], state)["params"]
        last = state["params"]
        chosen, other, name = (restored, last, "last") if loop.stage.select == "best" else (last, restored, "best")
        handover.export(session, other, session.plan.directory / f"export-{name}", best if name == "best" else None)
        handover.export(session, chosen, session.plan.export, best if loop.stage.select == "best" else None)
    else:
        handover.export(session, state["params"], session.plan.export, best)
    loop.checkpoints.close()
    if distributed.is_main():
        console.print_footer(session)


def replay(session: Session) -> str:
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
