"""Eight CPU devices in one process, and two processes of four: each in a subprocess that prints JSON."""

import json
import os
import socket
import subprocess
import sys
import textwrap

import pytest
from conftest import FAST_COMPILE, REPO

HEAD = f"""
import hashlib, json, sys
import jax
sys.path[:0] = [{str(REPO)!r}, {str(REPO / "tests")!r}]
import conftest
import numpy as np
from conftest import tiny
from vlax.evaluation import sampling
from vlax.model import exports
from vlax.params import distributed, groups, sharding
from vlax.training import chain, loop, session, stages, start
from vlax.training.checkpoints import Checkpoints
from vlax.errors import VlaxError


def build(workdir, **fields):
    config = tiny("stage0", stage__accumulate=2, stage__batch_size=16, stage__text_length=24, **fields)
    return session.build(stages.chain(config, workdir)[-1])


def run(s, steps):
    with jax.set_mesh(s.mesh):
        state, frozen = start.initial_state(s)
        metrics = []
        for micro in range(steps):
            state, values = s.train_step(state, frozen, s.place(s.batches[micro]))
            metrics.append({{k: float(v) for k, v in values.items()}})
    return state, metrics


def digest(state):
    whole = jax.tree.map(distributed.gather, state)
    flat = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(whole)]
    return hashlib.sha256(b"".join(name.encode() + leaf.tobytes() for name, leaf in flat)).hexdigest()


def next_rows(s, begin):
    return np.concatenate([s.batches.plan.batch(micro).ids.ravel() for micro in range(begin, begin + 13)])[:100].tolist()


def restored(s, saved):
    with jax.set_mesh(s.mesh):
        checkpoints = Checkpoints(saved)
        state = checkpoints.restore(3, start.initial_state(s)[0])
        out = {{"digest": digest(state), "next": next_rows(s, checkpoints.data(3)["step"])}}
        checkpoints.close()
    return out
"""

ONE_PROCESS = """
out, saved = {"meshes": {}}, sys.argv[1]
for mesh in ((1, 1, 1), (8, 1, 1), (1, 8, 1), (2, 2, 2), (8, 1, 1, "zero1")):
    fields = dict(zip(("run__mesh__data", "run__mesh__fsdp", "run__mesh__tp"), mesh), run__zero1="zero1" in mesh)
    if mesh == (1, 1, 1):
        make, sharding.make_mesh = sharding.make_mesh, lambda shape: make(shape, jax.devices()[:1])
    s = build("/nowhere", **fields)
    if mesh == (1, 1, 1):
        sharding.make_mesh = make
    state, metrics = run(s, 3)
    if mesh == (8, 1, 1):  # in the middle of a window
        checkpoints = Checkpoints(saved)
        checkpoints.save(3, state, {"step": 3})
        checkpoints.close()
        out["saved"], kept = {"digest": digest(state), "next": next_rows(s, 3)}, jax.tree.map(distributed.gather, state)
    kernel = "decoder/layers/0/mlp/up/kernel"
    moments = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(state["opt_state"])
               if kernel in jax.tree_util.keystr(path)]
    whole = sum(leaf.size for leaf in jax.tree.leaves(state["opt_state"]))
    local = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(state["opt_state"]))
    if mesh == (8, 1, 1, "zero1"):  # in the middle of a window
        out["restored with zero1"] = restored(s, saved)
        apart = jax.tree.map(lambda a, b: float(np.abs(1.0 * distributed.gather(a) - b).max()), state, kept)
        out["apart"] = {name: max(jax.tree.leaves(apart[name])) for name in ("params", "opt_state")}
    out["meshes"][str(mesh)] = {
        "first": metrics[0], "compilations": s.train_step._cache_size(), "kernel": state["params"][kernel].size,
        "shards": {name: leaf.addressable_shards[0].data.size for name, leaf in moments}, "share": local / whole,
    }
for fsdp, tp in ((4, 2), (2, 2)):
    out[f"restored with fsdp {fsdp}, tp {tp}"] = restored(build("/nowhere", run__mesh__fsdp=fsdp, run__mesh__tp=tp), saved)
mesh = sharding.make_mesh((1, 8, 1))
logged = []
import logging
logging.getLogger().addHandler(type("H", (logging.Handler,), {"emit": lambda self, r: logged.append(r.getMessage())})())
logging.getLogger().setLevel(logging.INFO)
shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, np.float32)
got = sharding.parameter_shardings({"decoder/layers/0/mlp/up/kernel": shape(12, 16), "decoder/embedding": shape(30, 16)}, mesh)
out["specs"] = {path: list(value.spec) for path, value in got.items()}
out["logged"] = logged
for name, call in {
    "no rule": lambda: sharding.parameter_shardings({"decoder/quantum/kernel": shape(4, 4)}, mesh),
    "mesh": lambda: sharding.make_mesh((3, 1, 1)),
    "rest": lambda: sharding.make_mesh((-1, -1, 1)),
    "batch": lambda: sharding.check_batch(12, mesh),
}.items():
    try:
        call()
    except VlaxError as error:
        out[name] = str(error)
out["rest of (-1, 2, 2)"] = dict(sharding.make_mesh((-1, 2, 2)).shape)
print("JSON" + json.dumps(out))
"""

TWO_PROCESSES = """
host, port, workdir, saved = int(sys.argv[1]), *sys.argv[2:]
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, host)
s = build(workdir, run__mesh__data=-1, run__mesh__fsdp=2)
rows = s.batches[0]["row"].ravel().tolist()
before = restored(s, saved)
loop.train(s)
export = exports.load_params(s.plan.export)
with jax.set_mesh(s.mesh):
    state, _ = start.initial_state(s)
    checkpoints = Checkpoints(s.plan.directory / "checkpoints")
    latest = checkpoints.latest()
    restored = checkpoints.restore(latest, state)["params"]
    equal = all(
        (np.asarray(shard.data) == export[path][shard.index]).all()
        for path, value in restored.items() for shard in value.addressable_shards
    )
    data = checkpoints.data(latest)
    checkpoints.close()
print("JSON" + json.dumps({"rows": rows, "devices": [jax.local_device_count(), jax.device_count()], "latest": latest,
                           "equal": bool(equal), "losses": data["first_losses"], "mesh": dict(s.mesh.shape),
                           "restored": before}))
"""


def start(body: str, *args: str, devices: int) -> subprocess.Popen:
    environment = {**os.environ, "XLA_FLAGS": f"{FAST_COMPILE} --xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen([sys.executable, "-c", HEAD + textwrap.dedent(body), *args], cwd=REPO, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def result(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out[out.index("JSON") + 4 :].splitlines()[0])


@pytest.fixture(scope="module")
def eight(saved):
    return result(start(ONE_PROCESS, saved, devices=8))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Where the (8, 1, 1) mesh saves its state after three micro-steps."""
    return str(tmp_path_factory.mktemp("saved") / "checkpoints")


MESHES = ("(1, 1, 1)", "(8, 1, 1)", "(1, 8, 1)", "(2, 2, 2)", "(8, 1, 1, 'zero1')")


@pytest.mark.parametrize("mesh", MESHES[1:])
def test_the_first_step_is_the_same_on_every_mesh(eight, mesh):
    want, got = eight["meshes"][MESHES[0]]["first"], eight["meshes"][mesh]["first"]
    assert set(want) == set(got) and "grad_norm/all" in got
    for name, value in want.items():
        assert got[name] == pytest.approx(value, rel=1e-5), name
    assert want["tokens"] > 0 and want["finite"] == 1


@pytest.mark.parametrize("mesh", MESHES)
def test_three_steps_compile_once(eight, mesh):
    assert eight["meshes"][mesh]["compilations"] == 1


def test_the_optimizer_state_is_really_sharded(eight):
    """Moments and accumulators lie as their parameters do: a device holds an eighth (fsdp 8) or a quarter (fsdp 2, tp 2); or
    an eighth where parameters are whole (ZeRO-1)."""
    for mesh, parts in zip(MESHES, (1, 1, 8, 4, 8), strict=True):
        found = eight["meshes"][mesh]
        assert len(found["shards"]) == 3 and any("acc_grads" in name for name in found["shards"])
        assert set(found["shards"].values()) == {found["kernel"] // parts}
        assert found["share"] < 1.35 / parts  # norms and biases are replicated


def test_dimensions_that_do_not_divide_are_replicated_and_logged(eight):
    assert eight["specs"] == {"decoder/layers/0/mlp/up/kernel": [None, "tp"], "decoder/embedding": ["tp", "fsdp"]}
    assert "decoder/layers/0/mlp/up/kernel: dimension 0 (12) is not divided by fsdp=8: replicated" in eight["logged"]


def test_errors(eight):
    missing = "no sharding rule matches parameter 'decoder/quantum/kernel'; add one to vlax/params/sharding.py RULES"
    assert eight["no rule"] == missing
    assert "mesh (data, fsdp, tp) = (3, 1, 1) needs 3 devices; there are 8" in eight["mesh"]
    assert "at most one is -1" in eight["rest"]
    assert "a micro-batch of 12 rows does not divide over data x fsdp = 8 devices" in eight["batch"]
    assert eight["rest of (-1, 2, 2)"] == {"data": 2, "fsdp": 2, "tp": 2}


def test_a_checkpoint_is_restored_on_another_mesh(eight):
    """Parameters, optimizer state and the rows to come, saved by 8 x 1 x 1: bit for bit."""
    assert len(eight["saved"]["next"]) == 100
    assert eight["restored with fsdp 4, tp 2"] == eight["restored with fsdp 2, tp 2"] == eight["saved"]
    assert eight["restored with zero1"] == eight["saved"]
    assert eight["apart"]["params"] < 1e-7 and eight["apart"]["opt_state"] < 1e-4  # which learns the same, too


@pytest.mark.slow  # test_launch.py has two processes that train, are killed and go on, every time
def test_two_processes_train_together(eight, saved, tmp_path):
    """The same losses as one process has; each host builds its own half of a batch; both restore what both saved, and what
    one process had saved on another mesh."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = port, str(tmp_path), saved
    processes = [start(TWO_PROCESSES, str(host), *arguments, devices=4) for host in (0, 1)]
    one, two = map(result, processes)
    assert one["devices"] == [4, 8] and one["mesh"] == {"data": 4, "fsdp": 2, "tp": 1}
    assert len(one["rows"]) == len(two["rows"]) == 4 and not set(one["rows"]) & set(two["rows"])
    assert one["restored"] == two["restored"] == eight["saved"]
    assert one["losses"] == two["losses"] and len(one["losses"]) == 8
    assert one["losses"][0] == pytest.approx(eight["meshes"][MESHES[0]]["first"]["loss_sum"], rel=1e-5)
    assert one["latest"] == two["latest"] == 8 and one["equal"] and two["equal"]
    lines = (tmp_path / "stage0_vision" / "metrics.jsonl").read_text().splitlines()
    assert [(r["step"], r["kind"]) for r in map(json.loads, lines)] == [(2, "train"), (4, "train"), (4, "validation")]
