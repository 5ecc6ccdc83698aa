"""The workers of a Ray cluster: `--runner=ray` of `vlax data prepare` and `vlax data doctor`.

Plain tasks of Ray Core. Ray Data (`from_items(...).map_batches(...).iter_rows()`) would do for the doctor: with
`preserve_order` its results are the same, in the same order. But it needs pandas, and makes tables of what passes through it;
and which pictures a shard holds is known only when all before them are, here, while their bytes should stay with the workers.
What is wanted is a bounded number of tasks whose results come in order, and that is `runners.in_order`.

The work, with the source in it, is pickled once, and each worker opens it once. Encoded pictures stay in the cluster until a
worker writes their shard; this process gets digests, and so keeps up with many workers.
"""

import itertools
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read where ray is imported: nothing is reported to anybody

import ray
import ray.exceptions
from etils import epath

from vlax.commands.data import ray_worker
from vlax.commands.data.ray_worker import AGAIN, Done, Job, Setting
from vlax.commands.data.runners import Result, RunnerError, Work, in_order

FEWEST, MOST = 8, 128  # pictures of a task: a task costs this process some milliseconds, and each picture a worker as many
AHEAD = 2  # tasks by CPU that are begun before the first of them is asked for
WRITERS = 8  # CPUs that encode for each that writes
SEEN = 60  # seconds that a network disk may take to show a file that another node wrote


class Kept(NamedTuple):
    """A content that is in the cluster: a number in a list there."""

    ref: Any
    number: int


class Task(NamedTuple):
    """A task that was begun, and the items that it is about."""

    items: list[int]
    done: Any
    contents: Any
    future: Future


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
            raise RunnerError(f"--workers={workers}: at least one of them has to work; mend the flag")
        self.address, self.workers, self._memory = address, workers, memory
        self._setting = Setting(os.getcwd(), outside, ray_worker.versions())
        self._connected = False
        self._job: Job | None = None

    def __enter__(self) -> "RayRunner":
        if not ray.is_initialized():
            connect(self.address, self.workers, self._memory)
            self._connected = True
        return self

    def __exit__(self, *raised: object) -> None:
        if self._connected:
            ray.shutdown()

    @property
    def cpus(self) -> int:
        """Tasks that can run at a time."""
        return self.workers or int(ray.cluster_resources().get("CPU", 1)) or 1

    @property
    def writes(self) -> int:
        return max(1, self.cpus // WRITERS)

    def map(self, work: Work[Result], items: Iterable[int]) -> Generator[Result, None, None]:
        """As `runners.Runner`. RunnerError where a worker dies again and again, or is not as this process is."""
        task = ray.remote(num_returns=2)(ray_worker.do)
        self._job = job = Job(uuid.uuid4().hex, [ray.put((work, self._setting))])
        cpus = self.cpus
        ahead = (
            self.workers if self.workers and self.address != "local" else cpus * AHEAD
        )  # no more than asked for, of others' CPUs

        def begin(chunk: list[int]) -> Task:
            done, contents = task.remote(job, chunk)
            return Task(chunk, done, contents, done.future())

        def end(begun: Task) -> tuple[Task, Done]:
            return begun, ended(begun.future)

        chunks = chunked(items, cpus)
        for begun, done in in_order(chunks, begin, end, lambda begun: ray.cancel(begun.done), ahead):
            for number, (item, result) in enumerate(zip(begun.items, done.results, strict=False)):
                _check(work, item, result, done.host)
                yield result._replace(content=Kept(begun.contents, number)) if work.keeps else result
            raise_error(done)

    def write(self, path: epath.Path, contents: Sequence[Any], options: str) -> Callable[[], dict]:
        """As `runners.Runner`. RunnerError, where it is waited for, if the file is not to be seen from here."""
        runs = itertools.groupby(contents, key=lambda kept: kept.ref)
        picked = [(ref, [kept.number for kept in run]) for ref, run in runs]
        task = ray.remote(max_retries=0)(ray_worker.write)  # one that was thought lost may write still
        future = task.remote(self._job, path, options, picked).future()

        def facts() -> dict:
            done = ended(future)
            raise_error(done)
            _check_seen(path, done.results[0]["bytes"], done.host)
            return done.results[0]

        return facts


def connect(address: str, workers: int | None, memory: int | None) -> None:
    """Starts or finds a cluster. RunnerError where there is none at the address."""
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
        raise RunnerError(
            f"no Ray cluster answers at {address} ({said}); give --ray-address of one, or local{token}"
        ) from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)  # Ray sets its own, and a stop is asked for by this process's
    nodes = sum(node["Alive"] for node in ray.nodes())
    cpus = ray.cluster_resources().get("CPU", 0)
    print(f"ray: {cpus:g} CPUs, {nodes} {'node' if nodes == 1 else 'nodes'} ({address})", file=sys.stderr)


def chunked(items: Iterable[int], each: int) -> Generator[list[int], None, None]:
    """`each` lists of FEWEST items, as many of twice that, and so on up to MOST: few items too are shared among all workers."""
    left, size = iter(items), FEWEST
    while True:
        for _ in range(each):
            if not (chunk := list(itertools.islice(left, size))):
                return
            yield chunk
        size = min(2 * size, MOST)


def ended(future: Future) -> Done:
    """What a task gave. A future, since signals are heard while it is waited for; `ray.get` swallows what they raise."""
    try:
        done: Done = future.result()
        return done
    except ray.exceptions.RayError as error:
        raise failed(error) from error


def raise_error(done: Done) -> None:
    """What the task raised, if it did."""
    if done.error is not None:
        raise failed(done.error) if isinstance(done.error, ray.exceptions.RayError) else done.error


def failed(error: Exception) -> RunnerError:
    """What Ray says of a task that did not end."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0]
    if "No module named 'vlax" in said:
        return RunnerError(
            "a node of the Ray cluster has no vlax: install this version on every node; then the same command again"
        )
    return RunnerError(f"Ray: {type(error).__name__}: {said.strip()[:300]}; {AGAIN}")


def _check(work: Work[Result], item: int, result: Result, host: str) -> None:
    """A picture that a worker could not read is tried once more here: a node that lacks a folder must not cost rows."""
    if (fault := work.fault(result)) and (here := work.fault(work(item))) != fault:
        text = f"node {host} says ({fault}), and here it is ({here or 'read well'})"
        raise RunnerError(f"{text}: all nodes must see the same files under the same paths; {AGAIN}")


def _check_seen(path: epath.Path, size: int, host: str) -> None:
    """A folder of the same name on a node's own disk is not OUT."""
    until = time.monotonic() + SEEN
    while not (path.exists() and path.stat().length == size):
        if time.monotonic() > until:
            raise RunnerError(f"node {host} wrote {path}, which is not to be seen from here: all nodes must see OUT; {AGAIN}")
        time.sleep(0.5)
