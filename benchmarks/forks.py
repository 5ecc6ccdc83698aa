"""Commands of vlax in processes of their own, forked from one that has paid for the imports."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from vlax.process import activity

LIMIT = 180.0  # seconds that a command may take


@dataclasses.dataclass
class Run:
    """A command in a process of its own."""

    pid: int
    notes: Path  # its output and what it is doing
    begun: float
    code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, limit: float = LIMIT) -> int:
        """Its exit code; -99 where it hung and had to be killed."""
        end = time.monotonic() + limit
        while self.poll() is None:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                self.code = -99
            time.sleep(0.02)
        assert self.code is not None
        return self.code

    @property
    def text(self) -> str:
        return (self.notes / "out").read_text(errors="replace") + (self.notes / "err").read_text(errors="replace")

    @property
    def doing(self) -> dict:
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.notes / "activity").read_text())
        return {"phase": "starting", "step": 0}


def start(argv: list[str], notes: Path, patch: Callable[[], object] | None = None) -> Run:
    """Forks: the imports are paid for once."""
    shutil.rmtree(notes, ignore_errors=True)
    notes.mkdir(parents=True)
    sys.stdout.flush()
    child = os.fork()
    if child:
        return Run(child, notes, time.monotonic())
    try:
        for number in (signal.SIGHUP, signal.SIGINT):  # nohup, and a shell that starts jobs in the background, ignore them
            signal.signal(number, signal.SIG_DFL)
        for name, target in (("out", 1), ("err", 2)):
            os.dup2(os.open(notes / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), target)
        os.environ["VLAX_ACTIVITY"] = str(notes / "activity")
        progress = activity.progress

        def progressing(step: int, of: int) -> None:  # every step is told, since faults are drawn by the moment
            progress(step, of)
            activity.publish()

        activity.progress = progressing
        if patch:
            patch()
        from vlax.commands import front

        code = front.main(argv)
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
