"""One writer a folder: FOLDER/lease.json names the process that writes there, and goes when it ends.

    {"id": "9f..", "host": "tpu-vm-0", "pid": 4711, "command": "train.py --config=...", "since": "2026-11-27 13:50",
     "renewed": 1795787400.0}

On a disk the writer holds a lock (flock) on the file, which ends with its process, whatever ended it: pids come again. A lease
of another machine is judged by its renewals, since neither object stores nor every network disk know such locks: one that is
not renewed for `STALE` seconds was left by a kill. That is watched for, not only reckoned, as clocks differ and are set back.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from vlax.errors import VlaxError
from vlax.printing import printable
from vlax.storage import paths, state

NAME = "lease.json"
RENEW, STALE, LOOK = 30.0, 180.0, 5.0  # seconds
_held: dict[epath.Path, "_Lease"] = {}


@contextlib.contextmanager
def hold(*folders: epath.PathLike, on: bool = True) -> Iterator[None]:
    """The folders are this process's to write in. on: whether it is the one of several hosts that writes.

    VlaxError names the process that writes there already. Where nothing can be written (read-only, full) there is no lease:
    what is written later says so.
    """
    with contextlib.ExitStack() as stack:
        for folder in folders if on else ():
            stack.enter_context(_Lease(epath.Path(folder)))
        yield


def release_all() -> None:
    """For a thread that ends the process by `os._exit`, which runs no `finally`."""
    for lease in list(_held.values()):
        lease.__exit__()


class _Lease:
    def __init__(self, folder: epath.Path):
        self.path, self.ended, self.lock = folder / NAME, threading.Event(), -1
        self.content = {
            "id": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(), "command": shlex.join(sys.argv)[:200],
            "since": datetime.datetime.now().isoformat(" ", "minutes"),
        }  # fmt: skip

    def __enter__(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.lock = -1 if paths.remote(self.path) else locked(self.path)
            if (found := _read(self.path)) and not (self.lock >= 0 and found["host"] == self.content["host"]):
                self._watch(found)
            self._write()
        except BlockingIOError:
            raise self._refusal(_read(self.path)) from None
        except OSError as error:
            logging.debug("no lease of %s: %s", self.path.parent, error)
            return self._close()
        except BaseException:
            self._close()
            raise
        _held[self.path] = self
        threading.Thread(target=self._renew, name=f"lease of {self.path.parent}", daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        if _held.pop(self.path, None):
            with contextlib.suppress(OSError):  # a folder that is gone, or a bucket that cannot be reached
                self.path.unlink(missing_ok=True)
        self._close()

    def _close(self) -> None:
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1

    def _write(self) -> None:
        content = json.dumps({**self.content, "renewed": time.time()}, indent=1).encode()
        if self.lock < 0:
            self.path.write_bytes(content)
            return
        os.pwrite(self.lock, content, 0)
        os.ftruncate(self.lock, len(content))

    def _renew(self) -> None:
        while not self.ended.wait(RENEW):
            with contextlib.suppress(Exception):  # a bucket that cannot be reached now; clients raise many kinds
                found = _read(self.path)
                if found and found["id"] != self.content["id"]:
                    # This process was not running for minutes, or began in the same second: two writers would spoil it all.
                    print(f"vlax: error: {self._refusal(found)}", file=sys.stderr, flush=True)
                    os._exit(2)
                self._write()

    def _watch(self, found: dict[str, Any]) -> None:
        """Returns when a lease of another machine is not renewed any more; VlaxError when it is."""
        age = time.time() - found["renewed"]
        until = time.monotonic() + STALE - max(age, 0.0)
        if time.monotonic() < until:
            where = f"{self.path.parent} is written by {printable(found['host'])}, or was until {age:.0f} s ago"
            logging.info("%s: looking whether it still is, for up to %.0f s", where, until - time.monotonic())
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK))
            now = _read(self.path)
            if now is None:
                return
            if now != found:
                raise self._refusal(now)

    def _refusal(self, found: dict[str, Any] | None) -> VlaxError:
        folder = self.path.parent
        if found is None:
            return VlaxError(f"{folder}: another process is about to write there; wait for it, or name another folder")
        here = found["host"] == self.content["host"]
        kill = f"kill {found['pid']}" if here else f"ssh {printable(found['host'])} kill {found['pid']}"
        return VlaxError(
            f"{folder}: another process writes there, pid {found['pid']} on {printable(found['host'])} since {found['since']} "
            f"({printable(found['command'])}). Wait for it, stop it ({kill}), or name another folder"
        )


def locked(path: epath.Path) -> int:
    """A descriptor of the file with a lock on it, or -1 where the disk has no locks; BlockingIOError when another has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor  # and not a file that its holder was just removing
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                return -1
            raise
        os.close(descriptor)


def _read(path: epath.Path) -> dict[str, Any] | None:
    """A lease; None where there is none, or no whole one."""
    try:
        found = state.load_json(path, path.read_bytes())
        kinds = {"id": str, "host": str, "pid": int, "command": str, "since": str, "renewed": float}
        return {name: kind(found[name]) for name, kind in kinds.items()}
    except (OSError, VlaxError, ValueError, KeyError, TypeError):
        return None
