"""What runs in the workers of a Ray cluster for `ray_runner.py`: a bit of the work, or the writing of one shard."""

import importlib.metadata
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ray
from etils import epath

import vlax
from vlax.commands.data.runners import RunnerError, Work
from vlax.data.readers import pictures, shards
from vlax.storage.paths import remote

AGAIN = "mend that and give the same command again"


class Setting(NamedTuple):
    """What a worker has to be like, so that it reads the same files and makes the same bytes of them."""

    folder: str
    outside: bool
    versions: dict[str, str]


class Job(NamedTuple):
    """What all tasks of one `map` are given. refs: to (work, setting), in a list: Ray unpickles a bare one for each task."""

    token: str
    refs: list


class Done(NamedTuple):
    """The results of a task, as far as they go, and what was raised then."""

    results: list[Any]
    host: str
    error: Exception | None = None


_held: dict[str, Work] = {}  # the work that this worker was given last


def do(job: Job, items: list[int]) -> tuple[Done, list[bytes]]:
    """The results, and apart from them their contents, where the work says that they have some."""

    def results(work: Work) -> Iterator[Any]:
        for item in items:
            result = work(item)
            if work.keeps:
                contents.append(result.content)
                result = result._replace(content=b"")
            yield result

    contents: list[bytes] = []
    return _done(job, results), contents


def write(job: Job, path: epath.Path, options: str, picked: list[tuple[Any, list[int]]]) -> Done:
    """An ArrayRecord file of contents that `do` gave: picked are (which, the numbers in it)."""

    def contents() -> Iterator[bytes]:
        for ref, numbers in picked:  # one at a time: a shard need not fit into a node's memory
            there = ray.get(ref)
            yield from (there[number] for number in numbers)

    def facts(work: Work) -> Iterator[dict]:
        if not (remote(path) or path.parent.is_dir()):
            raise RunnerError(f"node {platform.node()} has no folder {path.parent}: all nodes must see OUT; {AGAIN}")
        yield shards.write(path, contents(), options)

    return _done(job, facts)


def _done(job: Job, results: Callable[[Work], Iterator[Any]]) -> Done:
    """All of the results, or those before the first error."""
    given: list[Any] = []
    host = platform.node()
    try:
        if job.token not in _held:
            work, setting = ray.get(job.refs[0])
            adapt(setting, host)
            _held.clear()
            _held[job.token] = work
        given.extend(results(_held[job.token]))
    except Exception as error:
        return Done(given, host, error)
    return Done(given, host)


def versions() -> dict[str, str]:
    """Of all that the bytes of a picture depend on."""
    return {"vlax": vlax.__version__} | {name: importlib.metadata.version(name) for name in ("pillow", "numpy", "array_record")}


def adapt(setting: Setting, host: str) -> None:
    """Makes a worker like the process that it works for: relative paths mean the same. RunnerError where it cannot be."""
    if (mine := versions()) != setting.versions:
        text = f"node {host} has {_listed(mine)}, and the command was given with {_listed(setting.versions)}"
        raise RunnerError(f"{text}: the same bytes need the same versions; {AGAIN}")
    try:
        os.chdir(setting.folder)
    except OSError as error:
        text = f"node {host} has no folder {setting.folder} ({error.strerror}), in which the command was given"
        raise RunnerError(f"{text}; give it in one that all nodes have, as / with absolute paths") from error
    pictures.allow_outside(setting.outside)
    warnings.simplefilter("ignore")  # Pillow's, of odd pictures


def _listed(named: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in named.items())
