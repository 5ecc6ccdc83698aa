"""`run.profile=START:STOP`: what hosts and devices do in a few updates, as a trace that TensorBoard and xprof open."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
from etils import epath

from vlax.errors import VlaxError, spared
from vlax.process.activity import NOW
from vlax.storage.paths import remote
from vlax.training import console, ranges
from vlax.training.session import Session


def check(session: Session) -> None:
    """VlaxError where the stage is over before the range is."""
    asked = ranges.updates(session.plan.run.profile)
    if asked.stop > session.updates:
        raise VlaxError(
            f"run.profile={session.plan.run.profile}: stage {session.plan.name} has {session.updates} updates; give "
            f"START:STOP with a STOP of at most {session.updates}"
        )


class Profile:
    """The trace of one run of a stage, in WORKDIR/STAGE/profile. One that goes on within the range traces what is left of it;
    one that begins behind it, nothing."""

    def __init__(self, session: Session):
        self.directory, per_update = session.plan.directory / "profile", session.per_update
        asked, self.asked = ranges.updates(session.plan.run.profile), session.plan.run.profile
        self.range = range(asked.start * per_update, min(asked.stop, session.updates) * per_update)
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> "Profile":
        return self

    @contextlib.contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around the dispatch of micro-step `number`, from 0."""
        if number not in self.range:
            yield
            return
        if self._folder is None:
            self._begin()
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield

    def after(self, number: int, values: Mapping[str, jax.Array]) -> None:
        """Ends the trace once the last micro-step of the range has given its metrics."""
        if self._folder is not None and number + 1 >= self.range.stop:
            jax.block_until_ready(values)
            self._end()

    def _begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vlax-profile-")
        with spared("the profile"):
            jax.profiler.start_trace(self._folder.name)

    def _end(self) -> None:
        """Stops the trace and moves it to the workdir, wherever that is."""
        folder, self._folder = self._folder, None
        if folder is None:
            return
        with NOW.busy(), folder, spared("the profile"):
            jax.profiler.stop_trace()
            where = Path(folder.name)
            for file in sorted(path for path in where.rglob("*") if path.is_file()):
                to = self.directory / file.relative_to(where)
                to.parent.mkdir(parents=True, exist_ok=True)
                epath.Path(to).write_bytes(file.read_bytes())
            local = "" if remote(self.directory) else f"; xprof --logdir={self.directory}, or tensorboard, opens it"
            console.say(f"profile   {self.directory} has updates {self.asked}{local}")

    def __exit__(self, *_: object) -> None:
        """A run that ends within the range keeps what was traced until then."""
        self._end()
