"""--runner on a command line: who decodes the pictures (`runners.py`, `ray_runner.py`).

with started(args) as runner:
    for result in runner.map(work, items): ...
"""

import argparse
import contextlib
import importlib.util
import os
from collections.abc import Iterator

from vlax.commands.data.runners import Local, Runner
from vlax.errors import VlaxError


def add_runner_flags(parser: argparse.ArgumentParser, workers: int) -> None:
    """--runner, --ray-address and --workers. workers: that many threads unless it is given."""
    add = parser.add_argument
    add("--runner", choices=("local", "ray"), default="local", help="threads of this process, or a Ray cluster (docs/data.md)")
    about = "auto (one that runs on this machine), local (one of its own), HOST:PORT or ray://HOST:PORT"
    add("--ray-address", default="", metavar="ADDRESS", help=f"{about}; default: $RAY_ADDRESS, or else local")
    about = "pictures that are decoded at a time"
    add("--workers", type=int, default=None, help=f"{about} (default: {workers}; of --runner=ray: as many as it has CPUs)")
    parser.set_defaults(threads=workers)


@contextlib.contextmanager
def started(args: argparse.Namespace) -> Iterator[Runner]:
    """The runner that the flags ask for, until the block ends. VlaxError where Ray is not installed or cannot be reached."""
    if args.runner == "local":
        if args.ray_address:
            raise VlaxError(f"--ray-address={args.ray_address} is of --runner=ray; add it, or leave the address out")
        yield Local(args.threads if args.workers is None else args.workers)
        return
    if importlib.util.find_spec("ray") is None:
        raise VlaxError("--runner=ray needs Ray, which is not installed: pip install 'vlax[ray]'")
    from vlax.commands.data.ray_runner import RayRunner  # Ray takes seconds to import

    address = args.ray_address or os.environ.get("RAY_ADDRESS", "") or "local"
    with RayRunner(address, args.workers, outside=args.allow_outside) as runner:
        yield runner
