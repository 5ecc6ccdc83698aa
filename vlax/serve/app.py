"""The two doors: a page for people, and an endpoint for OpenAI's clients.

GET  /                       the page; /page/NAME and /report/NAME what it is made of
GET  /api/models             what the page says of the models; /api/samples/MODEL pictures of its evaluation
GET  /v1/models              as OpenAI's clients list them
POST /v1/chat/completions    as OpenAI's clients ask; also num_beams, task, mask, templates, explain (`asking.py`)
GET  /health                 {"status": "ok"}
"""

import asyncio
import contextlib
import dataclasses
import functools
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from vlax.errors import VlaxError
from vlax.serve import asking, explain, page
from vlax.serve.answers import DONE, Answer, event
from vlax.serve.engine import Engine, News
from vlax.serve.gate import Gate, allowed
from vlax.serve.limits import Limits, Refusal, as_json
from vlax.serve.served import Served

T = TypeVar("T")
THREADS = 4  # that open pictures and make ids


@dataclasses.dataclass(frozen=True, eq=False)
class House:
    """What the doors lead to.

    length   tokens of an answer where a request does not say
    started  seconds since the epoch
    samples  of evaluations, by model (`samples.py`)
    """

    models: Mapping[str, Served]
    engine: Engine
    limits: Limits
    length: int
    started: int
    samples: Mapping[str, Sequence[Mapping[str, Any]]]

    @functools.cached_property
    def _threads(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(THREADS)

    async def _aside(self, work: Callable[..., T], *args: Any) -> T:
        """work(*args) in one of a few threads: to open pictures takes time, and other requests go on meanwhile."""
        return await anyio.to_thread.run_sync(functools.partial(work, *args), limiter=self._threads)

    def served(self, name: str) -> Served:
        """Refusal for a name that is no model's; "" is the first."""
        if name and name not in self.models:
            raise Refusal(404, f"there is no model {name[:80]!r}; there are {', '.join(self.models)}", "model")
        return self.models[name or next(iter(self.models))]

    async def completions(self, request: Request) -> Response:
        """POST /v1/chat/completions"""
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            raise Refusal(415, "the body is JSON: send content-type: application/json")
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.engine.ticket())
            ask = await self._aside(asking.read, await self._body(request), self.limits, self.length)
            served = self.served(ask.model)
            ask = dataclasses.replace(ask, model=served.name)
            arrived: asyncio.Queue[News | Exception] = asyncio.Queue()
            tell = functools.partial(_pass_on, asyncio.get_running_loop(), arrived)
            job, encoder = await self._aside(served.job, ask, tell)
            stack.callback(setattr, job, "left", True)
            answer = Answer(ask, job, encoder)
            self.engine.submit(job)
            if not ask.stream:
                return JSONResponse(await _unless_gone(request, self._whole(answer, arrived)))
            first = await _unless_gone(request, _news(arrived))  # what fails at once has a status of its own
            return _Stream(self._events(answer, first, arrived), stack.pop_all())

    async def _body(self, request: Request) -> bytes:
        limit, parts, size = self.limits.body, [], 0
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise Refusal(413, f"the body has more than {limit:,} bytes; send smaller pictures")
        return b"".join(parts)

    async def _whole(self, answer: Answer, arrived: "asyncio.Queue[News | Exception]") -> dict[str, Any]:
        while not answer.over:
            answer.add(await _news(arrived))
        return answer.whole(**await self._explained(answer))

    async def _events(self, answer: Answer, news: News, arrived: "asyncio.Queue[News | Exception]") -> AsyncIterator[bytes]:
        try:
            yield answer.chunk({"role": "assistant", "content": ""})
            while True:
                text, logprobs = answer.add(news)
                if text or logprobs:
                    yield answer.chunk({"content": text}, logprobs)
                if answer.over:
                    break
                news = await _news(arrived)
            yield answer.chunk({}, end=answer.ended, **await self._explained(answer))
            if answer.ask.usage:
                yield answer.last()
            yield DONE
        except VlaxError as error:  # the status is sent already
            yield event(as_json(error)[1])

    async def _explained(self, answer: Answer) -> dict[str, Any]:
        """{"vlax": where the model looked, ...} where it was asked for."""
        if not answer.ask.explain:
            return {}
        answer.job.left = True  # its row says nothing that is wanted any more
        work = functools.partial(explain.explained, answer.job, answer.encoder, tuple(answer.ids))
        return {"vlax": await asyncio.wrap_future(self.engine.call(work))}

    async def listed(self, request: Request) -> Response:
        """GET /v1/models"""
        return JSONResponse({"object": "list", "data": [self._model(name) for name in self.models]})

    async def one(self, request: Request) -> Response:
        """GET /v1/models/NAME"""
        return JSONResponse(self._model(self.served(request.path_params["name"]).name))

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.started, "owned_by": "vlax"}

    async def about(self, request: Request) -> Response:
        """GET /api/models"""
        models = [{**served.about(), "samples": len(self.samples.get(name, ()))} for name, served in self.models.items()]
        return JSONResponse({"models": models, "length": self.length})

    async def sampled(self, request: Request) -> Response:
        """GET /api/samples/NAME"""
        return JSONResponse({"samples": list(self.samples.get(self.served(request.path_params["name"]).name, ()))})


class _Stream(StreamingResponse):
    """Events, and what is to be given back however the response ends."""

    def __init__(self, events: AsyncIterator[bytes], held: contextlib.ExitStack):
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self.held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.held:
            await super().__call__(scope, receive, send)


def _pass_on(loop: asyncio.AbstractEventLoop, arrived: "asyncio.Queue[News | Exception]", news: News | Exception) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
        loop.call_soon_threadsafe(arrived.put_nowait, news)


async def _news(arrived: "asyncio.Queue[News | Exception]") -> News:
    news = await arrived.get()
    if isinstance(news, Exception):
        raise news
    return news


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which ends where the client leaves: ClientDisconnect."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        watch.cancel()


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _wrong(request: Request, error: Exception) -> Response:
    """Every error in the form that OpenAI's clients read."""
    if isinstance(error, HTTPException):
        error = Refusal(error.status_code, f"{request.method} {request.url.path}: {error.detail}")
    elif isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    elif not isinstance(error, VlaxError):
        logging.error("a request failed", exc_info=error)
        error = Refusal(500, f"{type(error).__name__}: nobody foresaw this; the server's log says where it happened")
    status, content = as_json(error)
    return JSONResponse(content, status, {"retry-after": "1"} if status in (429, 503) else None)


def make(house: House, host: str) -> Starlette:
    """The application of a server that listens at `host`."""
    routes = [
        *page.routes(),
        Route("/health", _health),
        Route("/api/models", house.about),
        Route("/api/samples/{name:path}", house.sampled),
        Route("/v1/models", house.listed),
        Route("/v1/models/{name:path}", house.one),
        Route("/v1/chat/completions", house.completions, methods=["POST"]),
    ]
    handlers: Any = {kind: _wrong for kind in (VlaxError, HTTPException, ClientDisconnect, Exception)}
    return Starlette(routes=routes, middleware=[Middleware(Gate, hosts=allowed(host))], exception_handlers=handlers)
