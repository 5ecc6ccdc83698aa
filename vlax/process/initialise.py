"""Joins the processes ("hosts") of a run, before anything else asks jax for a device.

config.run.hosts             coordinator=HOST:PORT, count, index: all three or none
environment                  the first of each row of VARIABLES that is set: ours (vlax launch), Kubernetes', torchrun's
what jax finds by itself     Cloud TPU, SLURM, Open MPI, Kubernetes jobs (with its `kubernetes` package)
"""

import os
import re
import socket
import threading
import time
from typing import Any

from vlax.errors import VlaxError
from vlax.process import stop

VARIABLES = {
    "coordinator": ("COORDINATOR_ADDRESS", "JAX_COORDINATOR_ADDRESS", "MASTER_ADDR"),
    "count": ("NUM_PROCESSES", "JAX_NUM_PROCESSES", "WORLD_SIZE"),
    "index": ("PROCESS_ID", "JAX_PROCESS_ID", "JOB_COMPLETION_INDEX", "RANK"),
}
HEARTBEAT = 300  # seconds: then jax's C++ aborts without a word; hosts miss each other before (`training/agreement.py`)
SHUTDOWN = 120
SAY = 15.0  # seconds until it is said what is waited for


def wanted(run: Any) -> bool:
    """Whether a run (`config.run`) has several processes, or asks its environment for them."""
    return bool(run.distributed or run.hosts.coordinator or run.hosts.count)


def join(hosts: Any) -> None:
    """Waits for all hosts (`config.run.hosts`, for `hosts.timeout` seconds at most). VlaxError says what is wrong."""
    import jax

    # Its notifier would take SIGTERM from us (`stop.py`), and it warns of the proxy that we go round.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_check_proxy_envs", False)
    found = settings(hosts)
    begun = time.monotonic()
    where = "what the environment names"
    if found:
        where = f"{found['coordinator_address']} (this is host {found['process_id']} of {found['num_processes']})"
        if found["process_id"]:
            _reach(found["coordinator_address"], hosts.timeout)
    ended = threading.Event()
    threading.Thread(target=_limit, args=(ended, begun, hosts.timeout, where), daemon=True).start()
    try:
        # C++ ends the process when its own limit is over, so that ours comes first.
        jax.distributed.initialize(
            **found, initialization_timeout=int(hosts.timeout) + 60, heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=SHUTDOWN,
        )  # fmt: skip
    except (ValueError, RuntimeError, IndexError, OSError) as error:
        raise VlaxError(f"the processes could not be joined ({_line(error)}); {_way_out(hosts)}") from None
    finally:
        ended.set()


def settings(hosts: Any) -> dict[str, Any]:
    """The arguments of `jax.distributed.initialize` where they are given; {} where jax is to look for them itself."""
    given = {"coordinator": hosts.coordinator, "count": hosts.count or "", "index": "" if hosts.index < 0 else hosts.index}
    names = {part: f"--config.run.hosts.{part}" for part in given}
    if not any(value != "" for value in given.values()):
        names = {part: next((name for name in known if os.environ.get(name)), known[0]) for part, known in VARIABLES.items()}
        given = {part: os.environ.get(name, "") for part, name in names.items()}
        if names["coordinator"] == "MASTER_ADDR":
            given["coordinator"] += f":{os.environ.get('MASTER_PORT', '')}"
        if "" in given.values():
            return {}
    missing = [names[part] for part, value in given.items() if value == ""]
    if missing:
        raise VlaxError(
            f"{', '.join(missing)}: missing beside {', '.join(sorted(set(names.values()) - set(missing)))}; give all three"
        )
    for part in ("count", "index"):
        if not re.fullmatch(r"\d+", str(given[part])):
            raise VlaxError(f"{names[part]}={given[part]} is not a number of processes; mend it")
    count, index = int(given["count"]), int(given["index"])
    if not re.fullmatch(r".+:\d+", given["coordinator"]):
        raise VlaxError(f"{names['coordinator']}={given['coordinator']} is not HOST:PORT of the first host; e.g. 10.0.0.1:1234")
    if index >= count:
        raise VlaxError(
            f"{names['index']}={index}: the hosts of {names['count']}={count} are 0 to {count - 1}; mend one of them"
        )
    found = {"coordinator_address": given["coordinator"], "num_processes": count, "process_id": index}
    if names["index"] == "RANK" and "LOCAL_RANK" in os.environ:  # torchrun starts a process a device
        found["local_device_ids"] = int(os.environ["LOCAL_RANK"])
    return {**found, "cluster_detection_method": "deactivate"}


def _reach(address: str, timeout: float) -> None:
    """Until host 0 listens. jax would wait in C++, and could not say for what."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    direct = os.environ.get("no_grpc_proxy") or os.environ.get("no_proxy")  # noqa: SIM112  (gRPC reads these alone)
    os.environ["no_grpc_proxy"] = f"{direct},{host}" if direct else host  # noqa: SIM112
    begun, said = time.monotonic(), False
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
            return
        except (OSError, OverflowError) as error:
            why = _line(error)
        if time.monotonic() - begun > timeout:
            raise VlaxError(
                f"host 0 was not reached at {address} within {timeout:g} s ({why}). Is it started, is the address its own, and "
                "the port open between the machines? --config.run.hosts.timeout=SECONDS waits longer"
            )
        if not said and time.monotonic() - begun > SAY:
            said = True
            print(f"waiting for host 0 at {address} ({why}), for up to {timeout:g} s", flush=True)
        time.sleep(0.5)


def _limit(ended: threading.Event, begun: float, timeout: float, where: str) -> None:
    """Ends the process where `jax.distributed.initialize`, in C++, waits for longer than it may."""
    if ended.wait(SAY):
        return
    print(f"waiting for the other hosts at {where}, for up to {timeout:g} s", flush=True)
    if not ended.wait(max(begun + timeout - time.monotonic(), 0)):
        more = "Were all of them started, with the same count? --config.run.hosts.timeout=SECONDS waits longer"
        stop.now(2, f"vlax: error: not all hosts came to {where} within {timeout:g} s. {more}")


def _way_out(hosts: Any) -> str:
    set_ = [name for known in VARIABLES.values() for name in known if os.environ.get(name)]
    found = f" (of these {', '.join(set_)} is set)" if set_ else ""
    flags = " ".join(
        f"--config.run.hosts.{part}={value}" for part, value in (("coordinator", "HOST:PORT"), ("count", 2), ("index", 0))
    )
    return f"give {flags}, or set {', '.join(known[0] for known in VARIABLES.values())}{found}"


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
