"""Requests to stop, in every phase, at real processes: what is saved, what is said, the exit code; then the run goes on."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from conftest import FAST_COMPILE, REPO, tiny, train

from vlax.model import exports
from vlax.process import activity, stop
from vlax.process.activity import NOW, Interrupted
from vlax.training import metrics

# A process that sends itself a signal when a phase begins for the n-th time: at a known place, with no clock.
BODY = textwrap.dedent(f"""
    import os, signal, sys
    sys.path[:0] = [{str(REPO)!r}, {str(REPO / "tests")!r}]
    import conftest
    from vlax.commands import front
    from vlax.process import activity

    phase, name, *argv = sys.argv[1:]
    enter = activity.enter

    def entering(new):
        enter(new)
        if new.name.endswith(phase):
            os.kill(os.getpid(), getattr(signal, name))
            signal.sigtimedwait([signal.SIGUSR1], 0)

    activity.enter = entering
    sys.exit(front.main(argv))
""")
