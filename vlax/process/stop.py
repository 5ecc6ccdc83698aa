"""Requests to stop, from outside the process: SIGTERM, SIGINT (Ctrl-C), SIGHUP, in whatever phase it is.

A phase that may be left (`activity.phase(..., leave=...)`) is left at once; training saves at the next step. Python's handlers
run between two bytecodes of the main thread, and so not while XLA compiles or a collective waits. A second thread hears the
signal too, by `signal.set_wakeup_fd`, and ends the process where the main thread doesn't come.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

from vlax.process.activity import NOW, Interrupted, below_bars, honour

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PATIENCE = 2.0  # seconds in which the main thread is expected to leave a phase that may be left
TWICE = "SIGINT twice during {}: left at once"


def now(code: int, text: str = "") -> None:
    """Ends the process from any thread. The text goes past Python's buffers, whose locks another thread may hold."""
    if held := sys.modules.get("vlax.process.lease"):
        held.release_all()
    flush = threading.Thread(target=lambda: (sys.stdout.flush(), sys.stderr.flush()), daemon=True)
    flush.start()
    flush.join(1)
    with contextlib.suppress(OSError):  # nobody reads it any more: a launcher that was killed
        os.write(2, f"{below_bars(text)}\n".encode(errors="backslashreplace") if text else b"")
    os._exit(code)


class Listener:
    """Hears the signals of this process, and answers for a main thread that can't."""

    def __init__(self) -> None:
        self._interrupts = 0
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._closed = threading.Event()

    def open(self) -> None:
        # A signal that is ignored stays so: nohup ignores SIGHUP, so that a run outlives its terminal.
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        self._previous = {number: signal.signal(number, self._handle) for number in heard}
        self._wakeup = signal.set_wakeup_fd(self._write)
        self._unraised, sys.unraisablehook = sys.unraisablehook, self._unraisable
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        signal.set_wakeup_fd(self._wakeup)
        sys.unraisablehook = self._unraised
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._write)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """In the main thread."""
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            print(TWICE.format(NOW.phase.name), file=sys.stderr)
            raise Interrupted(130)
        NOW.request(signal.Signals(number).name, 128 + number)
        honour()

    def _unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """What was raised in the middle of a finaliser or of garbage collection ends nothing: it is raised again after it."""
        if isinstance(unraisable.exc_value, Interrupted):
            again = threading.Timer(0.02, signal.pthread_kill, (threading.main_thread().ident, signal.SIGTERM))
            again.daemon = True
            again.start()
        else:
            self._unraised(unraisable)

    def _listen(self) -> None:
        interrupts = 0
        while numbers := os.read(self._read, 1):
            if numbers[0] not in SIGNALS:
                continue
            interrupts += numbers[0] == signal.SIGINT
            NOW.request(signal.Signals(numbers[0]).name, 128 + numbers[0])
            self.answer(at_once=interrupts > 1)
        os.close(self._read)

    def answer(self, at_once: bool = False) -> None:
        threading.Thread(target=self._answer, args=(at_once,), daemon=True).start()

    def _answer(self, at_once: bool) -> None:
        """Waits for the main thread, and leaves without it where it may be left or the grace is over."""
        begin = leavable = time.monotonic()
        while not self._closed.wait(0.05):
            clock, phase = time.monotonic(), NOW.phase
            if not (at_once or NOW.may_leave):
                leavable = clock
            if at_once and clock - begin > PATIENCE / 4:
                now(130, TWICE.format(phase.name))
            if clock - leavable > PATIENCE:
                now(NOW.code, f"{NOW.requested} during {phase.name}: {phase.leave}")
            if NOW.left < 0 and not NOW.saving:
                what = "what was saved before stays, and the same command goes on from there"
                now(NOW.code, f"{NOW.requested} during {phase.name}: not at a safe point after {NOW.grace:g} s; {what}")


_listener: Listener | None = None


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """SIGTERM, SIGINT and SIGHUP are requests within. Nothing changes where they are already, and in a thread that is not the
    main one, where Python can't change them."""
    global _listener
    if _listener is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    _listener = Listener()
    _listener.open()
    try:
        yield
    finally:
        _listener.close()
        _listener = None
        forget()


def forget() -> None:
    """What was asked for was done, and the process goes on: a run in a notebook that a callback has ended."""
    NOW.requested, NOW.code, NOW.told = "", 0, False


def code(name: str) -> int:
    """The exit code of a stop: 128 + the signal's number; 0 where it is no signal that asked."""
    return 128 + signal.Signals[name] if name in signal.Signals.__members__ else 0


def relay(name: str, code: int) -> None:
    """Another host was asked to stop, and so is this one."""
    if not NOW.requested:
        NOW.request(name, code)
        if _listener is not None:
            _listener.answer()
