"""Chat templates are programs of strangers: they run in a process of their own, which ends where they don't.

    render("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}", messages, {"eos_token": "</s>"}, generate=True)

transformers' sandbox keeps a template from attributes and code of ours, and not from loops in loops or `'x' * 10**9`, which
nothing within a process can stop. So it is given SECONDS of processor time and MEMORY, and its text OUTPUT characters. The
process starts with the first template (it has to import transformers), serves all of them and ends with ours.
"""

import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlax.errors import VlaxError
from vlax.storage.state import load_json

SECONDS, MEMORY, OUTPUT = 10, 2 << 30, 1 << 22  # for one rendering; MEMORY: of addresses, the interpreter's own included
WAY_OUT = "take another tokenizer, or --config.run.templates=instruct"

_lock = threading.Lock()
_started: dict[int, subprocess.Popen[bytes]] = {}  # by our process: a fork must not write into its parent's pipe


def render(
    template: str, messages: Sequence[Mapping[str, Any]], special: Mapping[str, Any], *, generate: bool, date: str = ""
) -> str:
    """What a template makes of messages. special: the tokens that it knows by name; date: "2026-01-31", what `strftime_now`
    takes for today (midnight), so that the same row has the same text at any time; "": today.

    VlaxError: it fails, writes more than OUTPUT characters, or takes longer than SECONDS or more than MEMORY.
    """
    asked = {"conversations": [messages], "chat_template": template, "add_generation_prompt": generate, **special}
    with _lock:
        process = _started.get(os.getpid())
        if process is None or process.poll() is not None:
            process = _started[os.getpid()] = _start()
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: what it says is nothing
            process.stdin.write(json.dumps([SECONDS, OUTPUT, date, asked]).encode() + b"\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            late = process.wait() == -signal.SIGPROF
            raise VlaxError(f"the chat template {'does not end' if late else 'takes too much memory'}: it was stopped at "
                            f"{f'{SECONDS} s of processor time' if late else f'{MEMORY >> 20:,} MB'}; {WAY_OUT}")  # fmt: skip
    reason, text = load_json("what the chat template wrote", answer, WAY_OUT)
    if reason:
        raise VlaxError(f"the chat template fails ({reason}); {WAY_OUT}")
    return str(text)


def _start() -> subprocess.Popen[bytes]:
    house = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (house, os.environ.get("PYTHONPATH"))))}
    command = [sys.executable, "-m", __name__]
    # A session of its own: Ctrl-C is for our process, which may go on asking.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True)


def serve() -> None:
    """The process: a line [seconds, characters, date, what is asked] in, a line [why it failed, text] out."""
    import resource

    from transformers.utils import chat_template_utils

    class Pinned(datetime.datetime):
        """In the place of `datetime` where transformers defines `strftime_now`."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Pinned":
            return cls.combine(datetime.date.fromisoformat(date) if date else datetime.date.today(), datetime.time(), tz)

    chat_template_utils.datetime = Pinned

    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints here is no answer
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in iter(sys.stdin.buffer.readline, b""):
        seconds, most, date, asked = load_json("what was asked", line)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process, in the middle of whatever it does
        try:
            text = chat_template_utils.render_jinja_template(**asked)[0][0]
            answer = ["", text] if len(text) <= most else [f"it writes {len(text):,} characters, limit {most:,}", ""]
        except Exception as error:
            answer = [f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", ""]
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write(json.dumps(answer).encode() + b"\n")
        out.flush()


if __name__ == "__main__":
    serve()
