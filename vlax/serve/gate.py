"""Who may come in: a page of another site must not ask this server by way of its visitor's browser, and what the server shows
may load nothing from anywhere else."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlax.serve.limits import Refusal, as_json

LOCAL = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::", "")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Gate:
    """hosts: names by which the server may be called; () for any. A name that a foreign page made lead here is none of them
    (DNS rebinding), and a foreign page says where it comes from (Origin)."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str]):
        self.app, self.hosts = app, tuple(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        known = not self.hosts or _name(f"//{host}") in self.hosts
        if not known or (origin is not None and urlsplit(origin).netloc != host):
            stranger = origin if known else host
            status, content = as_json(Refusal(403, f"{stranger!r} is not this server; open it by the address that it printed"))
            await JSONResponse(content, status)(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, sending)


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:  # brackets that are none of IPv6
        return ""


def allowed(host: str) -> tuple[str, ...]:
    """The names of a server that listens at `host`."""
    return () if host in EVERYWHERE else tuple(dict.fromkeys((*LOCAL, host.lower())))
