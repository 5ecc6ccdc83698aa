"""One thread that decodes: what is asked at about the same time becomes one physical batch, whose rows are strangers.

    engine.submit(job)      job.tell(News(ids=[...], done=False)) in the engine's thread, a chunk of tokens at a time
    engine.call(work)       runs work() in the engine's thread, between two chunks: one program at a time has the device

A batch holds jobs of one lane: the same compiled programs and shapes, so that a job's shapes, and with them its answer, are its
own whatever its company. Up to TOGETHER batches take turns, chunk by chunk: a short answer need not wait for a long one.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from vlax.decoding.live import Live
from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Predictor, Request
from vlax.decoding.seen import Seen
from vlax.errors import VlaxError
from vlax.model.api import Model
from vlax.serve.limits import Refusal

T = TypeVar("T")
CHUNK = 4  # tokens between two looks
LINGER = 0.01  # seconds that the first job of a batch waits for company
TOGETHER = 2


class Program:
    """The compiled decoding of one model, `batch_size` rows at once. seen: `seen.looking`."""

    def __init__(self, model: Model, decode: DecodeConfig, batch_size: int, seen: Seen | None):
        encoder = model.encoder
        self.model, self.beams = model, decode.num_beams
        self.predictor = Predictor(model.graphdef, model.config, encoder, decode, batch_size, model.mesh, seen=seen)
        # What is measured of one answer takes one row (`explain.py`).
        self.alone = Predictor(model.graphdef, model.config, encoder, decode, 1, model.mesh)
        self.live = Live(model.graphdef, model.config, decode, encoder.stops, encoder.tokenizer.pad_token_id)


class Lane(NamedTuple):
    """What the jobs of one batch share. length: slots of a prompt; slots: of pictures."""

    program: Program
    length: int
    slots: int


class News(NamedTuple):
    """What a job's row has said since the last time: n ids, and of each its log-probability, f32[n], and the most probable
    ones, int32[n,K], f32[n,K]; empty arrays with beams. The last ids may be one that ends answers."""

    ids: list[int]
    logp: np.ndarray
    top: np.ndarray
    top_logp: np.ndarray
    done: bool


@dataclasses.dataclass(eq=False)
class Job:
    """A prompt, how to answer it, and who is told. tell: News, and an Exception where there will be none; called in the
    engine's thread. left: nobody waits for it any more."""

    lane: Lane
    request: Request
    limit: int
    tell: Callable[[News | Exception], None]
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    explain: bool = False
    left: bool = False
    arrived: float = dataclasses.field(default_factory=time.monotonic)


class Engine:
    """The thread, and what waits for it. most: requests at once; each takes a ticket before its body is read."""

    def __init__(self, most: int):
        self._most, self.tickets = most, 0
        self._queue: collections.deque[Job] = collections.deque()
        self._calls: collections.deque[tuple[Callable[[], Any], concurrent.futures.Future[Any]]] = collections.deque()
        self._wake, self._closed = threading.Condition(), False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def ticket(self) -> Iterator[None]:
        """A place for one request, as long as it takes. Refusal where there is none, and where the server ends."""
        with self._wake:
            if self._closed:
                raise Refusal(503, "the server is ending")
            if self.tickets >= self._most:
                raise Refusal(429, f"{self.tickets} requests are waiting already; try again in a moment")
            self.tickets += 1
        try:
            yield
        finally:
            with self._wake:
                self.tickets -= 1

    def submit(self, job: Job) -> None:
        with self._wake:
            if self._closed:
                raise Refusal(503, "the server is ending")
            self._queue.append(job)
            self._wake.notify()

    def call(self, work: Callable[[], T]) -> "concurrent.futures.Future[T]":
        """The result of work(), once the engine came to it."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        with self._wake:
            if self._closed:
                raise Refusal(503, "the server is ending")
            self._calls.append((work, future))
            self._wake.notify()
        return future

    def close(self) -> None:
        """Nothing more is begun. Whoever waits is told."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join(1)

    def _run(self) -> None:
        running: list[_Running] = []
        while True:
            jobs, calls = self._next(bool(running), len(running) < TOGETHER)
            if self._closed:
                break
            for work, future in calls:
                try:
                    future.set_result(work())
                except Exception as error:
                    future.set_exception(error)
            if jobs and (begun := _begin(jobs)):
                running.append(begun)
            running = [one for one in running if one.step()]
        ending = Refusal(503, "the server is ending")
        for job in [*self._queue, *(job for one in running for job in one.jobs)]:
            job.tell(ending)
        for _, future in self._calls:
            future.set_exception(ending)

    def _next(self, busy: bool, room: bool) -> tuple[list[Job], list[tuple[Callable[[], Any], Any]]]:
        """(jobs of a new batch, work). Waits for something to do unless `busy`; room: whether a batch may be begun."""
        with self._wake:
            while not self._closed:
                self._queue = collections.deque(job for job in self._queue if not job.left)
                calls = [self._calls.popleft() for _ in range(len(self._calls))]
                lane = self._queue[0].lane if self._queue and room else None
                group = [job for job in self._queue if job.lane == lane]
                wait = self._queue[0].arrived + LINGER - time.monotonic() if group and lane else 0.0
                if lane and (wait <= 0 or len(group) >= lane.program.predictor.batch_size):
                    group = group[: lane.program.predictor.batch_size]
                    self._queue = collections.deque(job for job in self._queue if job not in group)
                    return group, calls
                if busy or calls:
                    return [], calls
                self._wake.wait(wait if lane else None)
            return [], []


class _Running:
    """A batch on the device."""

    def __init__(self, jobs: Sequence[Job]):
        self.jobs, (self.program, length, slots) = list(jobs), jobs[0].lane
        predictor, rows = self.program.predictor, self.program.predictor.batch_size
        requests, params, how = [job.request for job in jobs], self.program.model.params, {}
        for name, kind, rest in (
            ("temperature", np.float32, 0), ("top_p", np.float32, 1), ("seed", np.uint32, 0), ("limit", np.int32, 1),
            ("explain", np.bool_, 0),
        ):  # fmt: skip
            how[name] = np.full(rows, rest, kind)
            how[name][: len(jobs)] = [getattr(job, name) for job in jobs]
        with jax.set_mesh(predictor.mesh):
            batch = {**predictor.placed(params, requests, length, slots), **predictor.place(how)}
            self.view, self.state = self.program.live.start(params, batch)
        self.told, self.over = [0] * len(jobs), [False] * len(jobs)

    def step(self) -> bool:
        """Tells what is new and goes on; whether there is more to come."""
        try:
            self._tell()
            if all(over or job.left for over, job in zip(self.over, self.jobs, strict=True)):
                return False
            with jax.set_mesh(self.program.predictor.mesh):
                self.state = self.program.live.advance(self.program.model.params, self.view, self.state)
            return True
        except Exception as error:
            _failed([job for over, job in zip(self.over, self.jobs, strict=True) if not over], error)
            return False

    def _tell(self) -> None:
        beams, state = self.program.beams > 1, self.state
        if beams and not state["done"]:
            return
        finished, made = np.asarray(state["finished"]), int(state["t"])
        tokens = np.asarray(state["best_tokens" if beams else "tokens"])
        nothing = np.zeros((len(self.jobs), 0))
        kept = [nothing if beams else np.asarray(state[name]) for name in ("logp", "top", "top_logp")]
        for row, job in enumerate(self.jobs):
            if self.over[row]:
                continue
            ids = self._ended(tokens[row, : min(made, job.limit)].tolist())
            new = slice(self.told[row], len(ids))
            self.told[row], self.over[row] = len(ids), bool(finished[row])
            if ids[new] or self.over[row]:
                logp, top, top_logp = (each[row, new] for each in kept)
                job.tell(News(ids[new], logp, top, top_logp, self.over[row]))

    def _ended(self, ids: list[int]) -> list[int]:
        """Up to what ends the answer, that included."""
        stops = self.program.model.encoder.stops
        return ids[: next((at + 1 for at, token in enumerate(ids) if token in stops), len(ids))]


def _begin(jobs: Sequence[Job]) -> _Running | None:
    try:
        return _Running(jobs)
    except Exception as error:
        _failed(jobs, error)
        return None


def _failed(jobs: Sequence[Job], error: Exception) -> None:
    if not isinstance(error, VlaxError):
        logging.exception("a batch of %d answers failed", len(jobs))
        error = Refusal(500, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}")
    for job in jobs:
        job.tell(error)
