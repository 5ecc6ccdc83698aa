"""How the processes of a run find one another, and what is said when they don't."""

import argparse
import os
import socket
import subprocess
import sys

import jax
import pytest
from conftest import REPO, tiny

from vlax.errors import VlaxError
from vlax.process import initialise


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in [name for names in initialise.VARIABLES.values() for name in names] + ["LOCAL_RANK", "MASTER_PORT"]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def joined(monkeypatch):
    """What `jax.distributed.initialize` is called with."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: calls.append(given))
    return calls


def hosts(**fields) -> argparse.Namespace:
    return argparse.Namespace(**{"coordinator": "", "count": 0, "index": -1, "timeout": 30.0} | fields)


def test_the_config_has_what_is_read_here():
    run = tiny("stage3").run
    assert not initialise.wanted(run) and set(run.hosts) == set(vars(hosts()))
    assert initialise.settings(run.hosts) == {}


@pytest.mark.parametrize(
    ("environment", "local"),
    (
        ({"COORDINATOR_ADDRESS": "a:12", "NUM_PROCESSES": "3", "PROCESS_ID": "0"}, None),
        ({"JAX_COORDINATOR_ADDRESS": "a:12", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "0"}, None),
        ({"COORDINATOR_ADDRESS": "a:12", "NUM_PROCESSES": "3", "JOB_COMPLETION_INDEX": "0"}, None),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "12", "WORLD_SIZE": "3", "RANK": "0", "LOCAL_RANK": "1"}, 1),
    ),
)
def test_from_the_environment(monkeypatch, joined, environment, local):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    initialise.join(hosts())
    ((given),) = joined
    assert (given["coordinator_address"], given["num_processes"], given["process_id"]) == ("a:12", 3, 0)
    assert given.get("local_device_ids") == local and given["cluster_detection_method"] == "deactivate"
    assert given["initialization_timeout"] > 30 and given["heartbeat_timeout_seconds"] == 300
    assert not jax.config.jax_enable_preemption_service  # it would take SIGTERM from us


def test_what_is_given_counts_before_the_environment(monkeypatch, joined):
    monkeypatch.setenv("PROCESS_ID", "7")
    initialise.join(hosts(coordinator="b:1", count=2, index=0))
    assert joined[0]["coordinator_address"] == "b:1" and joined[0]["process_id"] == 0


def test_where_nothing_is_set_jax_looks_for_itself(joined):
    initialise.join(hosts())
    assert "coordinator_address" not in joined[0] and "cluster_detection_method" not in joined[0]


@pytest.mark.parametrize(
    ("given", "environment", "text"),
    (
        ({"coordinator": "a:12", "count": 2}, {}, "run.hosts.index: missing beside --config.run.hosts.coordinator, "),
        ({"index": 0}, {}, "run.hosts.coordinator, --config.run.hosts.count: missing beside --config.run.hosts.index;"),
        ({"coordinator": "a:12", "count": 2, "index": 2}, {}, "index=2: the hosts of --config.run.hosts.count=2 are 0 to 1; "),
        ({"coordinator": "a", "count": 2, "index": 0}, {}, "coordinator=a is not HOST:PORT of the first host"),
        ({}, {"MASTER_ADDR": "a", "WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR=a: is not HOST:PORT"),
        ({}, {"COORDINATOR_ADDRESS": "a:1", "NUM_PROCESSES": "two", "PROCESS_ID": "0"}, "NUM_PROCESSES=two is not a number"),
        ({}, {"COORDINATOR_ADDRESS": "a:1", "NUM_PROCESSES": "2"}, r"set COORDINATOR_ADDRESS, NUM_PROCESSES, PROCESS_ID \(of"),
        ({}, {}, "could not be joined .* give --config.run.hosts.coordinator=HOST:PORT"),
    ),
)  # fmt: skip
def test_mistakes_are_named(monkeypatch, given, environment, text):
    """Without a stand-in for jax: none of these reaches a network."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(VlaxError, match=text) as caught:
        initialise.join(hosts(**given))
    assert "\n" not in str(caught.value)


def test_a_first_host_that_does_not_listen_is_named_and_said_while_it_is_waited_for(monkeypatch, joined, capsys):
    monkeypatch.setattr(initialise, "SAY", 0.1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(VlaxError, match=f"host 0 was not reached at {address} within 0.7 s .*refused.* Is it started"):
            initialise.join(hosts(coordinator=address, count=2, index=1, timeout=0.7))
    assert f"waiting for host 0 at {address}" in capsys.readouterr().out
    assert not joined


WAITS = """
import argparse, jax, sys, time
sys.path.insert(0, sys.argv[1])
from vlax.process import initialise
initialise.SAY = 0.1
jax.distributed.initialize = lambda **given: time.sleep(60)  # in C++, which no exception of ours ends
initialise.join(argparse.Namespace(coordinator="127.0.0.1:9", count=2, index=0, timeout=1.0))
"""


def test_hosts_that_do_not_come_are_not_waited_for_in_cpp_for_ever():
    done = subprocess.run([sys.executable, "-c", WAITS, str(REPO)], capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == 2 and "waiting for the other hosts at 127.0.0.1:9 (this is host 0 of 2)" in done.stdout
    assert done.stderr.startswith("vlax: error: not all hosts came to 127.0.0.1:9") and done.stderr.count("\n") == 1
