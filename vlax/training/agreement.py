"""What all hosts decide together before each step: to go on, or to save and leave.

A stop is asked of one host, a reader fails on one host, one host finds the bad row that is one too many: each would leave the
others in a collective that nobody joins. So all say what they know before they step, and come to the same conclusion.
"""

import json

from vlax.data.batches.budget import DropBudget
from vlax.errors import VlaxError
from vlax.params import distributed
from vlax.process import stop
from vlax.process.activity import NOW, Interrupted, Lost

MORE = 10.0  # seconds beyond this host's own patience: one that knows what hangs says so first
JOINED = 60.0  # seconds for a save that a host which failed may have joined before
SHOWN = 500  # characters of another host's error


def meet(left_out: DropBudget, trouble: Exception | None = None, limit: float | None = None) -> Exception | Interrupted | None:
    """None to go on; otherwise why all hosts leave here: the same on all of them but for whose trouble it is.

    Raises Lost where a host does not come within `limit` seconds (by default this host's patience).
    """
    limit = min(NOW.patience + MORE, 1e6) if limit is None else limit
    here = {"stop": NOW.requested, "fail": _line(trouble) if trouble else "", "bad": left_out.news()}
    try:
        words = [json.loads(word) for word in distributed.meet(json.dumps(here), limit)]
    except distributed.Missing as missing:
        doing = distributed.told("doing").get(missing.host, "nothing that it told")
        raise Lost(
            f"host {missing.host} of {distributed.hosts()} has not come to step {NOW.step} for {limit:.0f} s; it "
            f"was last at {doing}. It hangs or has died; what was saved is whole, and the same command goes on from it"
        ) from None
    if trouble is not None:
        return trouble
    for host, word in enumerate(words):
        if word["fail"]:
            return VlaxError(f"host {host} of {len(words)} stopped: {word['fail']}")
    try:
        if len(words) > 1:
            left_out.heard([row for word in words for row in word["bad"]])
    except VlaxError as error:
        return error
    names = [word["stop"] for word in words if word["stop"]]
    if names:
        NOW.request(names[0], stop.code(names[0]))
        return Interrupted(NOW.code)
    return None


def peers() -> str:
    """For the watchdog: tells the others what this host does, hears what they were asked for, and says which of them failed."""
    if distributed.hosts() == 1:
        return ""
    me = distributed.host()
    distributed.tell("doing", f"{NOW.phase.name}, after step {NOW.step}")
    if NOW.requested:
        distributed.tell("stop", NOW.requested)
    for host, name in distributed.told("stop").items():
        if host != me:
            stop.relay(name, stop.code(name))
    failed = {host: text for host, text in distributed.told("failed").items() if host != me}
    if failed and NOW.idle > (JOINED if NOW.saving else MORE):
        host, text = min(failed.items())
        return f"host {host} of {distributed.hosts()} ended: {text}"
    return ""


def tell_end(error: BaseException) -> None:
    """The others learn why this host leaves, and where they do too, all leave together: the first host's end is the end of the
    service by which they know of each other."""
    if distributed.hosts() > 1:
        if isinstance(error, Interrupted):
            distributed.tell("stop", NOW.requested or "SIGTERM")
        else:
            distributed.tell("failed", _line(error))
        distributed.leave_together(MORE)


def _line(error: BaseException) -> str:
    text = str(error) if isinstance(error, VlaxError) else f"{type(error).__name__}: {error}"
    return text[:SHOWN]
