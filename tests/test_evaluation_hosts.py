"""The answers of an evaluation do not depend on the number of devices or hosts: one device, four, and two processes of two."""

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap

import pytest
from conftest import FAST_COMPILE, REPO

BODY = textwrap.dedent(f"""
    import sys
    import jax
    sys.path[:0] = [{str(REPO)!r}, {str(REPO / "tests")!r}]
    workdir, suite, host, port = sys.argv[1:]
    if port:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize("127.0.0.1:" + port, 2, int(host))
    from conftest import tiny
    from vlax.evaluation import evaluate
    from vlax.evaluation.options import Options

    scores = evaluate.run(tiny("stage4"), workdir, Options(suites=(suite,), twin=False, report_samples=2))
    assert bool(scores) == (jax.process_index() == 0)
""")
SUITE = """
task = "question"
metrics = ["vqav2@official"]
physical_batch = 3
[decoding]
max_new_tokens = 5
[data.test]
kind = "scenes"
split = "test"
style = "questions"
size = 4
"""


def start(workdir, devices: int, host: int = 0, port: str = "") -> subprocess.Popen:
    environment = {**os.environ, "XLA_FLAGS": f"{FAST_COMPILE} --xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-c", BODY, str(workdir), str(workdir / "hosts.toml"), str(host), port]
    return subprocess.Popen(command, cwd=REPO, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen) -> None:
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err[-3000:]


@pytest.fixture
def workdir(trained, tmp_path):
    """A copy of the finished chain to evaluate in, with a suite of a few questions."""
    shutil.copytree(trained[1], tmp_path / "w", ignore=shutil.ignore_patterns("checkpoints", "eval*"))
    (tmp_path / "w" / "hosts.toml").write_text(SUITE)
    return tmp_path / "w"


def results(workdir) -> tuple[bytes, dict]:
    """(predictions, scores without where they lie)"""
    folder = workdir / "stage4" / "eval" / "hosts"
    assert (folder / "report.html").exists()
    return (folder / "predictions.jsonl").read_bytes(), json.loads((folder / "scores.json").read_text())


@pytest.fixture(scope="module")
def one_device(trained, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("one") / "w"
    shutil.copytree(trained[1], workdir, ignore=shutil.ignore_patterns("checkpoints", "eval*"))
    (workdir / "hosts.toml").write_text(SUITE)
    finish(start(workdir, 1))
    return results(workdir)


def test_four_devices_answer_as_one_does(workdir, one_device):
    """Each decodes three rows at a time, so that the numbers are the same to the last bit; the files are, too."""
    finish(start(workdir, 4))
    assert results(workdir) == one_device and one_device[0].count(b"\n") > 8


@pytest.mark.slow  # hosts in make test: tests/test_multidevice.py, tests/faults/test_launch.py
def test_two_processes_answer_as_one_does_and_go_on_by_id(workdir, one_device):
    """The first process writes, once; both agree on what a run that was cut off left to do, and both come to an end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder = workdir / "stage4" / "eval" / "hosts"
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_bytes(one_device[0][: len(one_device[0]) // 3])
    for process in [start(workdir, 2, host, port) for host in (0, 1)]:
        finish(process)
    assert results(workdir) == one_device
