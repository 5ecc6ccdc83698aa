"""The workers of a Ray cluster: `--runner=ray` of `vlax data prepare` and `vlax data doctor`.

Plain tasks of Ray Core. Ray Data (`from_items(...).map_batches(...).iter_rows()`) would do as well: with `preserve_order` it
gives the same results in the same order. But it needs pandas, makes an Arrow table of each block, wraps what a worker raises,
and reads its limits from a context that all of a process shares; the one thing wanted of it here, a bounded number of tasks
whose results come in order, is `runners.in_order`.

The work, with the source in it, is pickled once; each worker opens it once. Workers read the source's files, and only this
process writes, so that OUT, its lease and its seal are what they are without Ray.
"""

import importlib.metadata
import itertools
import logging
import os
import platform
import signal
import sys
import threading
import uuid
import warnings
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from typing import Any, NamedTuple

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read where ray is imported: nothing is reported to anybody

import ray
import ray.exceptions

import vlax
from vlax.commands.data.runners import Result, Work, in_order
from vlax.data.readers import pictures
from vlax.errors import VlaxError

AT_A_TIME = 16  # pictures of a task: a task costs about a millisecond, and a picture five to ten
AHEAD = 2  # tasks by CPU that are begun before the first of them is asked for
AGAIN = "mend that and give the same command again"


class Setting(NamedTuple):
    """What a worker has to be like, so that it reads the same files and makes the same bytes of them."""

    folder: str
    outside: bool
    versions: dict[str, str]


class Done(NamedTuple):
    """The results of a task, as far as they go, and what was raised then."""

    results: list[Any]
    host: str
    error: Exception | None = None


class RayRunner:
    """Within, a connection to a cluster.

    address  "local": a cluster of this machine, that ends with the block; "auto", "HOST:PORT" or "ray://HOST:PORT": one that is
             there. A connection that this process has already is used, whatever the address, and stays
    workers  tasks at a time; None: as many as the cluster has CPUs
    outside  whether pictures may lie outside of their source's folders
    memory   bytes of the object store of a local cluster; None: Ray's own choice
    """

    def __init__(self, address: str, workers: int | None = None, *, outside: bool = False, memory: int | None = None):
        if workers is not None and workers < 1:
            raise VlaxError(f"--workers={workers}: at least one of them has to work; mend the flag")
        self.address, self.workers, self._memory = address, workers, memory
        self._setting = Setting(os.getcwd(), outside, versions())
        self._connected = False

    def __enter__(self) -> "RayRunner":
        if not ray.is_initialized():
            connect(self.address, self.workers, self._memory)
            self._connected = True
        return self

    def __exit__(self, *raised: object) -> None:
        if self._connected:
            ray.shutdown()

    def map(self, work: Work[Result], items: Iterable[int]) -> Generator[Result, None, None]:
        """As `runners.Runner`. VlaxError where a worker dies again and again, or is not as this process is."""
        cpus = self.workers or int(ray.cluster_resources().get("CPU", 1)) or 1
        task = ray.remote(_do)
        held = [ray.put((work, self._setting))]  # in a list: Ray would unpickle a bare one for every task
        token, all_items = uuid.uuid4().hex, iter(items)

        def begin(chunk: list[int]) -> tuple[list[int], Any, Future]:
            ref = task.remote(token, held, chunk)
            return chunk, ref, ref.future()  # signals are heard while a future is waited for; ray.get swallows what they raise

        def end(begun: tuple[list[int], Any, Future]) -> tuple[list[int], Done]:
            try:
                return begun[0], begun[2].result()
            except ray.exceptions.RayError as error:
                raise failed(error) from error

        def cancel(begun: tuple[list[int], Any, Future]) -> None:
            ray.cancel(begun[1])

        chunks = iter(lambda: list(itertools.islice(all_items, AT_A_TIME)), [])
        for chunk, done in in_order(chunks, begin, end, cancel, cpus * AHEAD):
            for item, result in zip(chunk, done.results, strict=False):
                _check(work, item, result, done.host)
                yield result
            if done.error is not None:
                raise failed(done.error) if isinstance(done.error, ray.exceptions.RayError) else done.error


def connect(address: str, workers: int | None, memory: int | None) -> None:
    """Starts or finds a cluster. VlaxError where there is none at the address."""
    own = address == "local"
    given: dict[str, Any] = {"num_cpus": workers or os.cpu_count(), "object_store_memory": memory} if own else {}
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **given)
    except (ConnectionError, ValueError, RuntimeError, ImportError, ray.exceptions.RayError) as error:
        said = " ".join(str(error).split())[:300]
        token = (
            "; one that wants a token gets it with RAY_AUTH_MODE=token" if not own and "RAY_AUTH_MODE" not in os.environ else ""
        )
        raise VlaxError(f"no Ray cluster answers at {address} ({said}); give --ray-address of one, or local{token}") from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)  # Ray sets its own, and a stop is asked for by this process's
    nodes = sum(node["Alive"] for node in ray.nodes())
    cpus = ray.cluster_resources().get("CPU", 0)
    print(f"ray: {cpus:g} CPUs, {nodes} {'node' if nodes == 1 else 'nodes'} ({address})", file=sys.stderr)


def versions() -> dict[str, str]:
    """Of all that the bytes of a picture depend on."""
    return {"vlax": vlax.__version__} | {name: importlib.metadata.version(name) for name in ("pillow", "numpy")}


def failed(error: Exception) -> VlaxError:
    """What Ray says of a task that did not end."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0]
    if "No module named 'vlax" in said:
        return VlaxError(
            "a node of the Ray cluster has no vlax: install this version on every node; then the same command again"
        )
    return VlaxError(f"Ray: {type(error).__name__}: {said.strip()[:300]}; {AGAIN}")


def _check(work: Work[Result], item: int, result: Result, host: str) -> None:
    """A picture that a worker could not read is tried once more here: a node that lacks a folder must not cost rows."""
    if (fault := work.fault(result)) and (here := work.fault(work(item))) != fault:
        text = f"node {host} says ({fault}), and here it is ({here or 'read well'})"
        raise VlaxError(f"{text}: all nodes must see the same files under the same paths; {AGAIN}")


_held: dict[str, Work] = {}  # in a worker: the work that it was given last


def _do(token: str, refs: list, items: list[int]) -> Done:
    """In a worker."""
    results: list[Any] = []
    host = platform.node()
    try:
        if token not in _held:
            work, setting = ray.get(refs[0])
            adapt(setting, host)
            _held.clear()
            _held[token] = work
        results.extend(map(_held[token], items))
    except Exception as error:
        return Done(results, host, error)
    return Done(results, host)


def adapt(setting: Setting, host: str) -> None:
    """Makes a worker like the process that it works for: relative paths mean the same. VlaxError where it cannot be."""
    if (mine := versions()) != setting.versions:
        text = f"node {host} has {_listed(mine)}, and the command was given with {_listed(setting.versions)}"
        raise VlaxError(f"{text}: the same bytes need the same versions; {AGAIN}")
    try:
        os.chdir(setting.folder)
    except OSError as error:
        text = f"node {host} has no folder {setting.folder} ({error.strerror}), in which the command was given"
        raise VlaxError(f"{text}; give it in one that all nodes have, as / with absolute paths") from error
    pictures.allow_outside(setting.outside)
    warnings.simplefilter("ignore")  # Pillow's, of odd pictures


def _listed(named: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in named.items())
