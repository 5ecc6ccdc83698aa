"""The training loop of one stage: restore, step, log, save, validate, export."""

import collections
import contextlib
import logging
import math
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from tqdm import tqdm

from vlax.errors import VlaxError
from vlax.params import distributed, groups
from vlax.process import activity, stop
from vlax.process.activity import NOW, Interrupted
from vlax.storage import state as files
from vlax.training import agreement, console, gauges, handover, metrics, profile, start, throughput, unsound
from vlax.training.checkpoints import Checkpoints
from vlax.training.feed import Feed
from vlax.training.held_out import held_out
from vlax.training.listeners import Listener, Progress, Shown, tell
from vlax.training.session import Session
from vlax.training.steps import State
from vlax.training.unsound import Unsound

FIRST_LOSSES = 10  # micro-steps whose losses are recorded for --replay
IN_FLIGHT = 2  # steps dispatched ahead of the one whose metrics are looked at
RESCUE = 30.0  # seconds for the others to join a save after an error: they may wait in a collective that nobody joins any more
AGAIN = "the same command goes on"
Sample = Callable[[State, groups.Params], tuple[dict[str, float], list[Shown]]]  # (state, frozen) -> scores, some rows


class Loop:
    """State of a running stage; `train` below is its story. `state` has learned from the first `done` of its micro-steps."""

    state: State
    frozen: groups.Params
    writer: metrics.Writer
    bar: tqdm  # drawn from when the header is printed

    def __init__(self, session: Session, sample: Sample | None = None, listeners: Sequence[Listener] = ()):
        self.session, self.plan, self.stage, self.run = session, session.plan, session.plan.stage, session.plan.run
        self.checkpoints = Checkpoints(self.plan.directory / "checkpoints", **self.run.keep)
        self.window, self.compiler = metrics.Window(throughput.Meter(session)), gauges.Compiler()
        self.pending: collections.deque[tuple[int, dict[str, jax.Array], np.ndarray, throughput.Counts]] = collections.deque()
        self.profile, self.first_losses = profile.Profile(session), list[float]()
        self.mixture, self.left_out = session.batches.collate.mixture, session.batches.collate.left_out
        self.sample, self.begin, self.done, self.left, self.listeners = sample, 0, 0, False, listeners

    def restore(self) -> None:
        """The state of the newest whole checkpoint, or the one that the stage begins with."""
        self.state, self.frozen = start.initial_state(self.session)
        latest = self.checkpoints.latest()
        if latest is None:
            return
        data = self.checkpoints.data(latest)
        plan_hash = self.session.batches.plan.hash
        if data["plan"] != plan_hash:
            raise VlaxError(
                f"{self.plan.directory}: the training data changed since the checkpoint at step {latest} (row plan "
                f"{data['plan']}, now {plan_hash}). Restore the files, or start in another --workdir"
            )
        self.first_losses = data["first_losses"]
        self.begin = self.done = data["step"]
        self.state = self.checkpoints.restore(latest, self.state)

    def save(self) -> None:
        data = {"step": self.done, "plan": self.session.batches.plan.hash, "order": self.mixture.version}
        data |= {"text": self.session.encoder.settings.to_dict(), "first_losses": self.first_losses}
        with NOW.busy():
            self.checkpoints.save(self.done, self.state, data)
        if distributed.is_main():
            files.write_json(self.plan.directory / "first_losses.json", self.first_losses)

    def settle(self, keep: int) -> None:
        """Looks at the metrics of all but the last `keep` dispatched steps, and stops the run where one went wrong."""
        while len(self.pending) > keep:
            micro, device_metrics, rows, counts = self.pending.popleft()
            values = {name: float(value) for name, value in jax.device_get(device_metrics).items()}
            if values["tokens"] == 0:
                raise Unsound(
                    f"step {micro}: the batch has no answer token to learn from (rows {self.mixture.names(rows)}). "
                    f"Are the rows longer than --config.stage.text_length={self.stage.text_length}?"
                )
            if not values.pop("finite"):
                self.checkpoints.wait()
                raise unsound.loss(self.plan.name, micro, values, self.mixture.names(rows), self.checkpoints.latest())
            if micro < FIRST_LOSSES:
                self.first_losses.append(values["loss_sum"])
            self.window.add(values, counts)

    def step(self, batch: dict[str, np.ndarray]) -> None:
        """One micro-step, and what the cadence says about its end."""
        compiles = gauges.compiling(self.session, self.phase("compilation", f"nothing is lost; {AGAIN}"))
        with compiles if self.done == self.begin else contextlib.nullcontext(), self.profile.step(self.done):
            self.state, values = self.session.train_step(self.state, self.frozen, self.session.place(batch))
        self.pending.append((self.done, values, batch["row"], self.window.meter.count(batch)))
        self.profile.after(self.done, values)
        self.settle(IN_FLIGHT)
        self.done += 1
        activity.progress(self.done, self.session.micro_steps)
        self.checkpoints.seal()
        if self.done % self.session.per_update:
            return
        update, last = self.done // self.session.per_update, self.done == self.session.micro_steps
        self.bar.update(1)
        if update % self.run.log_every == 0 or last:
            self.log(update)
        if self.due():
            self.settle(0)
            self.save()  # before, so that the validation may be left at any moment
            self.validate()

    def due(self) -> bool:
        """Whether the steps done are to be validated."""
        update, inside = divmod(self.done, self.session.per_update)
        cadence = bool(self.stage.eval_every) and update % self.stage.eval_every == 0
        return self.done > 0 and not inside and (cadence or self.done == self.session.micro_steps)

    def phase(self, what: str, leave: str = "", step: int | None = None) -> contextlib.AbstractContextManager[None]:
        """A phase of the stage. step: its checkpoint must be on disk before the phase is left."""
        ready = (lambda: True) if step is None else lambda: self.checkpoints.committed(step)
        return activity.phase(f"{self.plan.name}: {what}", leave, ready)

    def log(self, update: int) -> None:
        self.settle(0)
        summary = {**self.window.summary(), **self.left_out.summary(), **gauges.read(self.session, update, self.compiler)}
        self.record(update, "train", summary)
        console.show_progress(self.bar, update, self.session.updates, summary)
        self.window.reset()

    def record(self, update: int, kind: str, values: dict[str, float], shown: Sequence[Shown] = ()) -> None:
        self.writer.write(update, kind, values, shown)
        tell(self.listeners, Progress(self.plan.name, kind, update, self.session.updates, values, shown))

    def validate(self) -> None:
        """Held-out losses and the small generative evaluation of the state that was just saved."""
        update = self.done // self.session.per_update
        with NOW.anew(), self.phase("validation", f"step {self.done} is saved; {AGAIN}", self.done):
            values = held_out(self.session, self.state, self.frozen)
            if values and not math.isfinite(values["loss"]):
                self.checkpoints.delete(self.done)
                raise Unsound(
                    f"stage {self.plan.name}: validation loss is {values['loss']} after update {update}; nothing was saved over"
                )
            with NOW.anew():
                scores, shown = self.sample(self.state, self.frozen) if self.sample else ({}, [])
            if values or scores:
                self.record(update, "validation", {**values, **scores}, shown)
            self.checkpoints.record(self.done, values["loss"] if values else None)
        if values:
            console.say(console.validation_line(self.plan.name, update, values, scores))
        self.window.reset()  # the rates are those of training alone

    def leave(self, why: Exception | Interrupted) -> None:
        """Saves what was learned, on all hosts alike, and raises `why`."""
        self.left, saved = True, f"nothing was trained after step {self.done}; what was saved is"
        if self.checkpoints.seconds > NOW.left:  # what can't be ended is not begun
            took = f"{self.checkpoints.seconds:.0f} s, and {max(NOW.left, 0):.0f} s are left"
            saved = f"step {self.done} was not saved (the last save took {took}); older ones are"
        elif self.done > self.begin:
            self.settle(0)
            self.save()
            saved = f"saved step {self.done}"
        with NOW.busy():
            self.checkpoints.close()
        stopped = f"{NOW.requested}: " * isinstance(why, Interrupted)
        if stopped or self.done > self.begin:
            console.say(f"{stopped}{saved} in {self.plan.directory / 'checkpoints'}; {AGAIN}")
        raise why

    def rescue(self, error: Exception) -> None:
        """After an error between two steps: what was learned until then is saved before it ends the run."""
        gone = any(array.is_deleted() for array in jax.tree.leaves(self.state))  # donated to the step that failed
        if gone or self.left or isinstance(error, (Unsound, activity.Lost)):
            return
        try:
            agreement.meet(self.left_out, error, RESCUE)
            self.leave(error)
        except Exception as second:  # the one that is raised is the first
            if second is not error:
                logging.warning("step %d was not saved: %s", self.done, second)

    def finish(self) -> None:
        """Exports the selected state (and the other one beside it), and says where everything is."""
        session, directory, stage = self.session, self.plan.directory, self.stage
        with self.phase("export", f"step {self.done} is saved; {AGAIN}", self.done):
            best = self.checkpoints.best()
            if best and best[0] != session.micro_steps:
                restored, last = self.checkpoints.restore(best[0], self.state)["params"], self.state["params"]
                chosen, other, name = (restored, last, "last") if stage.select == "best" else (last, restored, "best")
                handover.export(session, other, directory / f"export-{name}", best if name == "best" else None)
                handover.export(session, chosen, self.plan.export, best if stage.select == "best" else None)
            else:
                for name in ("best", "last") if distributed.is_main() else ():  # of before the stage was extended
                    (directory / f"export-{name}" / "manifest.json").unlink(missing_ok=True)
                handover.export(session, self.state["params"], self.plan.export, best)
        self.checkpoints.close()
        if distributed.is_main():
            console.print_footer(session)


def train(session: Session, *, sample: Sample | None = None, listeners: Sequence[Listener] = ()) -> None:
    """Runs a stage to its export. `sample` is the small generative evaluation; listeners hear what is recorded.

    Raises Interrupted after SIGTERM, SIGINT or SIGHUP, VlaxError when the loss is not finite. Whatever ends it, what was
    learned is saved where it is worth that.
    """
    loop, plan, main = Loop(session, sample, listeners), session.plan, distributed.is_main()
    with jax.set_mesh(session.mesh), stop.listening(), contextlib.ExitStack() as stack:
        with loop.phase("restore", f"nothing is lost; {AGAIN}"):
            loop.restore()
            if main:
                console.print_header(session, loop.begin)
            resumed, validated = loop.begin // session.per_update, loop.checkpoints.validated(loop.begin)
            loop.writer = metrics.Writer(plan.directory, resumed, validated, tensorboard=metrics.board(plan.run), enabled=main)
        loop.bar = console.progress_bar(session, loop.begin, main)
        stack.callback(loop.bar.close)  # an error's text starts on a line of its own
        feed = stack.enter_context(contextlib.closing(Feed(session.batches, loop.begin, plan.run)))
        stack.enter_context(loop.profile)
        loop.window.reset()
        NOW.step, NOW.of = loop.begin, session.micro_steps
        with loop.phase("training"), NOW.watched(plan.run.watchdog_minutes * 60):
            try:
                _run(loop, feed)
                with NOW.busy():
                    loop.checkpoints.wait()
            except Exception as error:
                loop.rescue(error)
                raise
        loop.bar.close()
        loop.finish()
    loop.writer.close()


def _run(loop: Loop, feed: Feed) -> None:
    if loop.due() and not loop.checkpoints.validated(loop.done):
        loop.validate()
    while loop.done < loop.session.micro_steps:
        asked = time.monotonic()
        batch = feed.next()  # None where a stop was asked for; an exception, which the other hosts must hear of
        why = agreement.meet(loop.left_out, batch if isinstance(batch, Exception) else None)
        if why is not None:
            loop.leave(why)
        loop.window.waited += time.monotonic() - asked
        assert isinstance(batch, dict), "or there was a reason to leave"
        loop.step(batch)
    loop.settle(0)
