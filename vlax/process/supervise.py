"""The parent of the processes of a run. What ends them from C++ or from outside leaves their Python no word: this one has it.

The children's standard error passes through here on its way to the terminal: what glog writes of errors, and all that a dying
process writes after it, goes to a file alone, which the one sentence about its death names.
"""

import ctypes
import dataclasses
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from vlax.printing import printable
from vlax.process.activity import Lost

LAUNCHED = "VLAX_LAUNCHED"  # set for a child, which is not to start children of its own
EVERY, FROZEN = 0.2, 60.0  # seconds between two looks, and until a stopped process is given up
OWN_END, GRACE = 10.0, 40.0  # seconds for the others to end by themselves, and after SIGTERM
CAUSE = 1.0  # seconds that a traceback is held back: another process's death may be all that it is about
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SAID = (2, Lost.code, 129, 130, 143)  # exit codes of a process that has told its reason itself
AGAIN = "Give the same command again: it goes on from the last checkpoint"
REASONS = {  # what the coordination service means
    "different incarnation": "two processes joined as the same host: was one started twice, or do two have one index?",
    "eartbeat": "another host was not heard of any more",
}
_GLOG = re.compile(rb"([EF])\d{4} \d\d:\d\d:[\d.]+ +\d+ \S+:\d+\] ?")
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def run(command: Sequence[str], environments: Sequence[Mapping[str, str]]) -> int:
    """Runs `command` once for each environment, as hosts 0, 1, ..., until all have ended; returns the exit code.

    0 where all are; of one that told its reason its own code; 75 of one that died, after the rest has been ended.
    """
    folder = Path(tempfile.mkdtemp(prefix="vlax-"))
    children = [_Child(index, len(environments), folder) for index in range(len(environments))]
    previous = {number: signal.getsignal(number) for number in SIGNALS}
    unheard = signal.set_wakeup_fd(-1)  # `stop.py` would end this process, which has nothing to save, before its children
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        for child in children:
            child.send(number)

    try:
        for child, environment in zip(children, environments, strict=True):
            child.start(command, environment)
        for child in children:
            child.listen()
        for number in SIGNALS:
            if previous[number] != signal.SIG_IGN:  # nohup
                signal.signal(number, pass_on)
        code, named = _wait(children, asked)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(unheard)
        for child in children:
            child.end()
    if not named:
        shutil.rmtree(folder, ignore_errors=True)
    return code


def _wait(children: Sequence["_Child"], asked: Sequence[int]) -> tuple[int, bool]:
    """(exit code, whether the files of what was said were named)"""
    while not any(child.code() for child in children):
        if all(child.code() == 0 for child in children):
            return 0, False
        time.sleep(EVERY)
    for _ in range(2):  # of those that end together the one that was killed is the first
        first = min((child for child in children if child.code()), key=lambda child: (child.code() in SAID, child.code()))
        for child in children if first.code() not in SAID else ():
            if child is not first:
                child.screen.hidden.set()  # that the first is gone is all that they could tell
        time.sleep(EVERY)
    code = first.code() or 0
    if asked and -code in asked:  # it had not begun to listen
        code = 128 - code
    _end([child for child in children if child is not first], at_once=code not in SAID)
    if code in SAID:
        return code, False
    first.end()
    bar = any(child.screen.within_line for child in children)
    print("\n" * bar + f"vlax: error: {first.obituary()}", file=sys.stderr, flush=True)
    return Lost.code if code < 0 else code, True


def _end(children: Sequence["_Child"], at_once: bool) -> None:
    """Waits for their own end, asks for it, makes it."""
    for seconds, number in ((0.0 if at_once else OWN_END, signal.SIGTERM), (GRACE, signal.SIGKILL)):
        until = time.monotonic() + seconds
        while any(child.code() is None for child in children) and time.monotonic() < until:
            time.sleep(EVERY)
        for child in children:
            child.send(number)


class _Child:
    """One process, and what it says."""

    process: subprocess.Popen[bytes]

    def __init__(self, index: int, count: int, folder: Path):
        self.index, self.count, self.frozen = index, count, False
        self.activity, self.log = folder / f"host{index}.json", folder / f"host{index}.log"
        self.screen = _Screen(b"" if index == 0 else b"[%d] " % index, self.log)
        self._stopped, self._threads = 0.0, list[threading.Thread]()

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        # A terminal, so that the bar is drawn as one; a group of its own, which a terminal's Ctrl-C reaches by us alone.
        terminal = self.index == 0 and os.isatty(2)
        self._error, theirs = pty.openpty() if terminal else os.pipe()
        if terminal:
            termios.tcsetwinsize(theirs, termios.tcgetwinsize(2))
        self.process = subprocess.Popen(
            command, env={**environment, LAUNCHED: "1", "VLAX_ACTIVITY": str(self.activity)}, process_group=0, stderr=theirs,
            stdin=subprocess.DEVNULL, stdout=None if self.index == 0 else subprocess.PIPE, preexec_fn=_die_with_parent,
        )  # fmt: skip
        os.close(theirs)

    def listen(self) -> None:
        sources = {self._error: 2} | ({self.process.stdout.fileno(): 1} if self.process.stdout else {})
        self._threads = [threading.Thread(target=self.screen.copy, args=pair, daemon=True) for pair in sources.items()]
        for thread in self._threads:
            thread.start()

    def send(self, number: int) -> None:
        if self.code() is None:
            self.process.send_signal(number)

    def code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs. One that stays stopped is killed."""
        code = self.process.poll()
        if code is None and os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT):
            self._stopped = self._stopped or time.monotonic()
            if time.monotonic() - self._stopped > FROZEN:
                self.frozen = True
                self.process.kill()
        else:
            self._stopped = 0.0
        return code

    def end(self) -> None:
        """No process of a run outlives its parent; all that it said has been read."""
        if hasattr(self, "process"):
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join(1)

    def obituary(self) -> str:
        """`host 1 of 2 died (SIGKILL) at stage1: training, step 17 of 60; ...`"""
        name = f"host {self.index} of {self.count}" if self.count > 1 else "the process of this host"
        code = self.process.returncode
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        if -code == signal.SIGKILL:
            how = f"stopped for {FROZEN:.0f} s, so it was killed" if self.frozen else "SIGKILL: or was memory short?"
        others = "the others were ended; " if self.count > 1 else ""
        return f"{name} died ({how}) at {self._doing()}{self._reason()}; {others}what it wrote is in {self.log}. {AGAIN}"

    def _doing(self) -> str:
        try:
            doing = json.loads(self.activity.read_bytes())
            step = f", step {int(doing['step'])} of {int(doing['of'])}" if doing.get("of") else ""
            return printable(f"{doing['phase']}{step}")
        except (OSError, ValueError, KeyError, TypeError):
            return "its start"

    def _reason(self) -> str:
        text = self.log.read_bytes().decode(errors="replace") if self.log.exists() else ""
        return next((f": {meaning}" for word, meaning in REASONS.items() if word in text), "")


@dataclasses.dataclass
class _Screen:
    """From a child's pipes to a terminal, and to its log whatever does not belong there."""

    prefix: bytes
    log: Path
    hidden: threading.Event = dataclasses.field(default_factory=threading.Event)
    within_line: bool = False  # where the cursor was left: after a bar

    def copy(self, source: int, target: int) -> None:
        """Until the pipe ends. Whole lines, and a bar's line, which begins with a carriage return, as it comes."""
        rest = b""
        with self.log.open("ab", buffering=0) as log:
            while data := _read(source):
                log.write(data)
                *lines, rest = (rest + data).splitlines(keepends=True) or [b""]
                if rest.endswith((b"\n", b"\r")) or rest.startswith(b"\r"):
                    lines, rest = [*lines, rest], b""
                self.show(lines, target)
            self.show([rest] if rest else [], target)

    def show(self, lines: Sequence[bytes], target: int) -> None:
        shown = b""
        for line in lines:
            glog = _GLOG.match(line)
            if glog and glog[1] == b"F":
                self.hidden.set()
            if line.startswith(b"Traceback (most recent call last)"):
                self.hidden.wait(CAUSE)
            if not glog and not self.hidden.is_set():
                shown += self.prefix + line
        self.within_line = not shown.endswith(b"\n") if shown else self.within_line
        while shown:
            shown = shown[os.write(target, shown) :]


def _read(source: int) -> bytes:
    try:
        return os.read(source, 1 << 16)
    except OSError:  # the other end of a terminal is closed
        return b""


def _die_with_parent() -> None:
    """Between fork and exec: the kernel asks the child to end (it may save) when this process is gone, were it by SIGKILL."""
    if _prctl is not None:
        _prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
