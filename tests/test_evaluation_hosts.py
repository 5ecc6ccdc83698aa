"""The answers of an evaluation do not depend on the number of devices or hosts: one device, four, and two processes of two."""

import os
import socket
import subprocess
import sys
import textwrap

import pytest
from conftest import FAST_COMPILE, REPO

BODY = textwrap.dedent(f"""
    import dataclasses, sys
    import jax
    sys.path[:0] = [{str(REPO)!r}, {str(REPO / "tests")!r}]
    export, path, host, port = sys.argv[1:]
    if port:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize("127.0.0.1:" + port, 2, int(host))
    import conftest
    from etils import epath
    from vlax import api
    from vlax.evaluation import protocol, runner

    scenes = {{"kind": "scenes", "split": "test", "style": "questions", "size": 4}}
    content = {{"task": "question", "metrics": ["vqav2@official"], "data": {{"test": scenes}}, "physical_batch": 3,
               "decoding": {{"max_new_tokens": 5}}}}
    test = runner.open_sets([protocol.from_dict("questions", content)], "")[0]
    model = api.load(export)
    lines = runner.predict(model, test, epath.Path(path), "r")
    assert (len(lines) == len(test.rows)) == (jax.process_index() == 0), len(lines)
""")


def start(export, path, devices: int, host: int = 0, port: str = "") -> subprocess.Popen:
    environment = {**os.environ, "XLA_FLAGS": f"{FAST_COMPILE} --xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-c", BODY, str(export), str(path), str(host), port]
    return subprocess.Popen(command, cwd=REPO, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> None:
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err[-3000:]


@pytest.fixture(scope="module")
def export(trained):
    return trained[1] / "stage4" / "export"


@pytest.fixture(scope="module")
def one_device(export, tmp_path_factory):
    path = tmp_path_factory.mktemp("one") / "predictions.jsonl"
    finish(start(export, path, 1))
    return path.read_bytes()


def test_four_devices_answer_as_one_does(export, one_device, tmp_path):
    """Each decodes three rows at a time, so that the numbers are the same to the last bit; the file is, too."""
    finish(start(export, tmp_path / "predictions.jsonl", 4))
    assert (tmp_path / "predictions.jsonl").read_bytes() == one_device and one_device.count(b"\n") > 8


def test_two_processes_answer_as_one_does_and_go_on_by_id(export, one_device, tmp_path):
    """The first process writes, once; both agree on what a run that was cut off left to do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(one_device[: len(one_device) // 3])
    for process in [start(export, path, 2, host, port) for host in (0, 1)]:
        finish(process)
    assert path.read_bytes() == one_device
