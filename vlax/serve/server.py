"""A process that serves: a socket, models, the engine, uvicorn."""

import contextlib
import dataclasses
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvicorn
from PIL import Image

from vlax.errors import VlaxError
from vlax.model import exports, opening
from vlax.model.conversation import Conversation
from vlax.process.activity import NOW
from vlax.serve import app, explain, samples
from vlax.serve.app import House
from vlax.serve.asking import Ask
from vlax.serve.engine import Engine
from vlax.serve.limits import Limits
from vlax.serve.served import Served, named

GRACE = 1  # seconds in which answers that are under way may end


class Server(uvicorn.Server):
    """uvicorn that leaves signals to vlax (`process/stop.py`)."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        """Whether to end, ten times a second: what a signal raises within a callback of the loop may be caught there."""
        return bool(NOW.requested) or await super().on_tick(counter)


def bound(host: str, port: int) -> socket.socket:
    """A socket at this address, before anything slow is done. VlaxError where it is taken, or is none of this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except (OSError, OverflowError) as error:
        made.close()
        raise VlaxError(
            f"cannot listen at {host}:{port} ({error}); take another --port (0: any that is free) or --host"
        ) from None
    return made


def found(where: str) -> str:
    """The model that a directory stands for: itself, a stage's export, or the newest export of a workdir."""
    path = Path(where).expanduser()
    if not path.is_dir():
        raise VlaxError(
            f"{where} is no directory; give WORKDIR/STAGE/export, WORKDIR, or a LLaVA, PaliGemma, SmolVLM or Gemma 3 "
            "directory. vlax serve fetches nothing: download a model of a hub first (hf download ORG/NAME --local-dir DIR)"
        )
    for one in (path, path / "export"):
        if (one / "manifest.json").exists():
            return str(one)
    all_of = [one.parent for one in path.glob("*/export/manifest.json") if not one.parent.parent.name.startswith("stage0")]
    if not all_of and (path / "config.json").exists():
        return str(path)
    if not all_of:
        raise VlaxError(f"{where} has no model: no manifest.json, no config.json, no STAGE/export; train one first")
    return str(max(all_of, key=lambda one: (str(exports.read_manifest(one).get("created", "")), str(one))))


def house(wheres: Sequence[str], limits: Limits, batch_size: int, length: int, dtype: str) -> House:
    """Models, loaded, and an engine for them."""
    places = [found(where) for where in wheres]
    models = [(where, opening.load(where, dtype=dtype)) for where in places]
    served = named(models, batch_size, limits)
    shown = {one.name: samples.of(one.where, one.model.manifest) for one in served.values() if not one.model.config.tiles}
    return House(served, Engine(limits.requests), limits, length, int(time.time()), shown)


def serving(made: House, host: str) -> Server:
    """The server of a house; its `run` takes sockets."""
    config = uvicorn.Config(
        app.make(made, host), log_level="warning", access_log=False, lifespan="off", server_header=False,
        timeout_graceful_shutdown=GRACE, timeout_keep_alive=30,
        loop="asyncio",  # whatever is installed: uvloop takes the SystemExit of a signal for a connection's error
    )  # fmt: skip
    return Server(config)


def warm(engine: Engine, served: Served, length: int) -> None:
    """Compiles what the first request is likely to need, while nobody waits: a caption, and what explains it."""
    pictures = (Image.new("RGB", (8, 8)),) if served.model.config.vision else ()
    said = Conversation(None, (), "", pictures, ((0, 0),) * len(pictures))
    job, encoder = served.job(Ask(served.name, said, limit=length), lambda news: None)
    engine.submit(dataclasses.replace(job, limit=2))
    engine.call(lambda: explain.explained(job, encoder, encoder.stops[:1]))


def run(made: House, listening: socket.socket, host: str) -> None:
    """Serves until the process is asked to end."""
    for served in made.models.values():
        warm(made.engine, served, made.length)
    listening.listen()  # who asks from now on waits, and is not refused
    name, port = listening.getsockname()[:2]
    shown = f"[{name}]" if ":" in name else name
    print(f"serving   {', '.join(made.models)}")
    print(f"page      http://{shown}:{port}/")
    print(f"endpoint  http://{shown}:{port}/v1    (OpenAI's; Ctrl-C ends it)", flush=True)
    try:
        serving(made, host).run([listening])
    finally:
        made.engine.close()
