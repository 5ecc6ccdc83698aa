"""Where activations lie on meshes of eight devices: what a step takes of each, by the compiler, and its collectives.

Each device's temporaries are at most 1.3 times its share of those of the step on one device, and the compiler nowhere says that
it copies all of something to all devices since it knows no better ("involuntary full rematerialization").
"""

import json
import os
import subprocess
import sys

import pytest
from conftest import FAST_COMPILE, REPO

SHARE = 1.3
# In float32 a scan keeps what products by column were given, gathered along `tp`, as autodiff has it.
EXCEPT = {"scan (1, 1, 8)": 1.65}
BODY = f"""
import json, sys
import jax
sys.path[:0] = [{str(REPO)!r}]
from configs import stage0, stage3
from vlax.params import sharding
from vlax.training import topologies

asked, out = json.loads(sys.argv[1]), {{}}
for layers, depth, meshes in asked:
    config = stage3.get_config() if depth > 1 else stage0.get_config("decoder")
    config.run.layers, config.run.remat = layers, "none"
    config.run.shapes.vision.update(image_size=32, patch_size=8, width=64, layers=depth, heads=8, mlp_dim=128)
    config.run.shapes.decoder.update(layers=depth, width=64, heads=8, kv_heads=8, head_dim=8, mlp_dim=128, vocab_size=512)
    config.stage.batch_size, config.stage.accumulate, config.stage.text_length = 128, 1, 40
    for mesh in ([1, 1, 1], *meshes):
        *mesh_of, config.run.zero1 = mesh if len(mesh) > 3 else (*mesh, False)
        devices = None if max(mesh_of) > 1 else jax.devices()[:1]
        made = topologies.compiled(config.run, config.stage, sharding.make_mesh(tuple(mesh_of), devices), 40)
        out[f"{{layers}} {{tuple(mesh)}}"] = [made.temporaries, made.collectives]
print("JSON" + json.dumps(out))
"""
"""What is asked for on the command line: how layers run, how many (of one, a language model alone), on which meshes, and after
three sizes whether run.zero1 is set."""


def compiled(*asked) -> tuple[dict, str]:
    """({"unroll (2, 2, 2)": [bytes of temporaries, collectives], ...}, what the compiler said)"""
    environment = {**os.environ, "XLA_FLAGS": f"{FAST_COMPILE} --xla_force_host_platform_device_count=8"}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # or warnings are not there to be seen
    command = [sys.executable, "-c", BODY, json.dumps(asked)]
    done = subprocess.run(command, cwd=REPO, env=environment, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout[done.stdout.index("JSON") + 4 :].splitlines()[0]), done.stderr


def check(found: dict, said: str, table: dict) -> None:
    """table: {layers and mesh: collectives by kind}, of which there may be fewer, and no other kind."""
    assert "Involuntary full rematerialization" not in said, said[-3000:]
    assert {name for name in found if "(1, 1, 1)" not in name} == table.keys()
    for name, most in table.items():
        temporaries, collectives = found[name]
        share = 8 * temporaries / found[f"{name.split()[0]} (1, 1, 1)"][0]
        assert share <= EXCEPT.get(name, SHARE), f"{name}: {share:.2f} times its share; {collectives}"
        assert collectives.keys() <= most.keys(), f"{name}: {collectives}"
        assert all(collectives[kind] <= most[kind] for kind in collectives), f"{name}: {collectives}, at most {most}"


def test_a_step_on_all_three_axes():
    """A language model of one layer; parameters, rows and heads all cut in two; with ZeRO-1, and where it matters most."""
    check(*compiled(["unroll", 1, [[2, 2, 2], [2, 2, 2, True], [8, 1, 1, True]]]), TABLE_OF_ONE_LAYER)


TABLE_OF_ONE_LAYER = {
    "unroll (2, 2, 2)": {"all-gather": 19, "all-reduce": 18, "all-to-all": 4, "collective-permute": 2},
    "unroll (2, 2, 2, True)": {"all-gather": 34, "all-reduce": 18, "all-to-all": 4, "collective-permute": 2},
    "unroll (8, 1, 1, True)": {"all-gather": 14, "all-reduce": 16},
}
# Two layers of each.
TABLE = {
    "unroll (8, 1, 1)": {"all-reduce": 2},
    "unroll (1, 8, 1)": {"all-gather": 34, "all-reduce": 19, "all-to-all": 2},
    "unroll (2, 4, 1)": {"all-gather": 33, "all-reduce": 6, "all-to-all": 4},
    "unroll (2, 2, 2)": {"all-gather": 52, "all-reduce": 28, "all-to-all": 4, "collective-permute": 2},
    "unroll (4, 1, 2)": {"all-gather": 17, "all-reduce": 18},
    "unroll (1, 4, 2)": {"all-gather": 52, "all-reduce": 28, "all-to-all": 2, "collective-permute": 1},
    "unroll (1, 1, 8)": {"all-gather": 16, "all-reduce": 17},
    "scan (8, 1, 1)": {"all-reduce": 3},
    "scan (1, 8, 1)": {"all-gather": 28, "all-reduce": 6, "all-to-all": 2},
    "scan (2, 4, 1)": {"all-gather": 27, "all-reduce": 9, "all-to-all": 4},
    "scan (2, 2, 2)": {"all-gather": 40, "all-reduce": 25, "all-to-all": 4, "collective-permute": 2},
    "scan (4, 1, 2)": {"all-gather": 11, "all-reduce": 15},
    "scan (1, 4, 2)": {"all-gather": 40, "all-reduce": 21, "all-to-all": 2, "collective-permute": 1},
    "scan (1, 1, 8)": {"all-gather": 10, "all-reduce": 12},
}


@pytest.mark.slow
def test_a_step_on_every_mesh_and_layer_mode():
    meshes = [[8, 1, 1], [1, 8, 1], [2, 4, 1], [2, 2, 2], [4, 1, 2], [1, 4, 2], [1, 1, 8]]
    check(*compiled(["unroll", 2, meshes], ["scan", 2, meshes]), TABLE)
