"""Several processes on this machine that train or evaluate together, each with its share of the devices.

vlax launch --processes=2 -- train --config=configs/stage3.py
vlax launch --processes=2 --devices_per_process=4 -- eval --config=configs/stage3.py        # GPUs 0-3 and 4-7, or 4 CPU devices

On several machines no launcher is needed: the same train.py on each, with --config.run.distributed=true.
"""

import argparse
import os
import socket
import sys

from vlax.commands.flags import Parser, at_least
from vlax.errors import VlaxError
from vlax.process import supervise

TOGETHER = ("train", "eval")


def add_arguments(parser: Parser) -> None:
    """The flags of the command."""
    add = parser.add_argument
    add("--processes", type=at_least(1), required=True, help="how many")
    add("--devices_per_process", type=at_least(0), default=0, help="GPUs, or devices that a CPU shows; 0: all that there are")
    add("command", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help=f"{' or '.join(TOGETHER)} with its flags")


def main(args: argparse.Namespace) -> int:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command or command[0] not in TOGETHER:
        given = f"{command[0]!r} does not run in several processes" if command else "there is no command to run"
        raise VlaxError(f"{given}; write vlax launch --processes=2 -- train --config=... (or eval)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    environments = [
        environment(index, args.processes, coordinator, args.devices_per_process) for index in range(args.processes)
    ]
    return supervise.run([sys.executable, "-m", "vlax", *command, "--config.run.distributed=true"], environments)


def environment(index: int, count: int, coordinator: str, devices: int) -> dict[str, str]:
    """Of one process: where the others are, and which devices are its own."""
    joined = {"COORDINATOR_ADDRESS": coordinator, "NUM_PROCESSES": str(count), "PROCESS_ID": str(index)}
    if devices:
        joined["JAX_NUM_CPU_DEVICES"] = str(devices)
        joined["JAX_LOCAL_DEVICE_IDS"] = ",".join(str(index * devices + number) for number in range(devices))
    return {**os.environ, **joined}
