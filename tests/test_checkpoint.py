"""Checkpoints and exports on disk. Twelve layers, since from ten on their names sort in another order than they run."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from test_containers import bucket  # noqa: F401  (a fixture)
from tiny import config, prompts, weights

from vlax.errors import VlaxError
from vlax.model import exports
from vlax.params import groups
from vlax.text.bpe import train_bpe
from vlax.training.checkpoints import Checkpoints

LAYERS = 12


@pytest.fixture(scope="module")
def model():
    """(config, graphdef, {path: array}) of twelve layers, one of them in bf16."""
    made = config(layers=LAYERS)
    graphdef, params = weights(made)
    params = {path: jnp.asarray(value) for path, value in params.items()}
    params["decoder/layers/10/mlp/up/kernel"] = params["decoder/layers/10/mlp/up/kernel"].astype(jnp.bfloat16)
    return made, graphdef, params


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / "export"
    tokenizer = train_bpe(["a dog"], 300)
    return directory, exports.export(directory, model[2], model[0], tokenizer, {"stage": "test"})


def same(a, b):
    assert a.keys() == b.keys()
    for path in a:
        x, y = np.asarray(a[path]), np.asarray(b[path])
        assert x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes(), path


def test_twelve_layers_keep_their_order(model, tmp_path):
    """With a target and without: read back as nested dicts, list indices come as strings, '10' before '2'."""
    _, graphdef, params = model
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(3, {"params": params}, {"step": 3})
    checkpoints.wait()
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), {"params": params})
    same(checkpoints.restore(3, abstract)["params"], params)
    checkpoints.close()

    raw = ocp.StandardCheckpointer().restore(tmp_path / "checkpoints" / "3" / "state")
    flat = {"/".join(str(getattr(k, "key", k)) for k in path): x for path, x in jax.tree.leaves_with_path(raw["params"])}
    same(flat, params)
    shuffled = dict(sorted(flat.items(), key=lambda item: hash(item[0])))
    logits = [jax.jit(lambda p, b: groups.rebuild(graphdef, p)(b))(p, prompts(rows=2)) for p in (params, shuffled)]
    np.testing.assert_array_equal(*logits)


def test_rebuild_puts_layer_ten_after_layer_nine(model):
    _, graphdef, params = model
    numbered = {
        path: jnp.full(value.shape, int((re.findall(r"layers/(\d+)", path) or [0])[0])) for path, value in params.items()
    }
    rebuilt = groups.rebuild(graphdef, dict(sorted(numbered.items())))
    got = [int(layer.mlp.up.kernel[...][0, 0]) for layer in rebuilt.decoder.layers]
    assert got == list(range(LAYERS))
    same(groups.flatten(rebuilt)[1], numbered)


def flip(file, at: float = 0.5) -> None:
    """One bit of a file, at a share of its length."""
    content = bytearray(file.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    file.write_bytes(bytes(content))


def test_the_latest_two_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.latest() is None and checkpoints.best() is None
    for step, loss in ((1, 3.0), (2, 1.5), (3, 2.0), (4, None), (5, 1.7), (6, None)):
        checkpoints.save(step, {"x": jnp.full(2, step)}, {"step": step})
        checkpoints.record(step, loss)
    checkpoints.wait()
    assert sorted(int(p.name) for p in (tmp_path / "c").iterdir()) == [2, 5, 6]
    assert json.loads((tmp_path / "validation.json").read_text()).items() >= {"2": 1.5, "5": 1.7, "6": None}.items()
    assert sorted(int(p.stem) for p in (tmp_path / "seals").iterdir()) == [2, 5, 6]
    assert checkpoints.latest() == 6 and checkpoints.best() == (2, 1.5)
    assert checkpoints.data(6) == {"step": 6}
    checkpoints.close()
    again = Checkpoints(tmp_path / "c")  # another process finds the same
    assert again.latest() == 6 and again.best() == (2, 1.5)
    np.testing.assert_array_equal(again.restore(2, {"x": jax.ShapeDtypeStruct((2,), jnp.int32)})["x"], [2, 2])
    again.close()


def test_a_damaged_checkpoint_is_said_and_set_aside(tmp_path, caplog):
    """Whichever of its files has the flipped bit, orbax's own ones too."""
    checkpoints = Checkpoints(tmp_path / "c")
    for step in (1, 2):
        checkpoints.save(step, {"x": jnp.full(2, step)}, {"step": step})
        checkpoints.record(step, 3.0 - step)
    checkpoints.close()
    files = sorted(path for path in (tmp_path / "c/2").rglob("*") if path.is_file() and path.stat().st_size)
    assert len(files) > 5
    whole = shutil.copytree(tmp_path, tmp_path / "whole")
    for number, file in enumerate(files):
        stage = shutil.copytree(whole, tmp_path / f"stage{number}")
        flip(damaged := stage / file.relative_to(tmp_path))
        caplog.clear()
        again = Checkpoints(stage / "c")
        assert again.latest() == 1 and again.best() == (1, 2.0)
        assert f"the checkpoint at step 2 is damaged: {damaged} is damaged" in caplog.text
        assert "going on from step 1: 1 steps are trained again" in caplog.text
        assert [path.name for path in (stage / "damaged").iterdir()] == ["2"]
        again.close()
    for step in (1, 2):
        flip(next(path for path in (tmp_path / f"c/{step}").rglob("*") if path.is_file() and path.stat().st_size))
    again = Checkpoints(tmp_path / "c")
    with pytest.raises(VlaxError, match=r"no checkpoint is whole \(steps 1, 2, now in .*damaged\)\. Copy one back"):
        again.latest()
    again.close()


def test_checkpoints_of_earlier_versions_have_no_seals(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, {"x": jnp.ones(2)}, {"step": 1})
    checkpoints.close()
    (tmp_path / "seals/1.json").unlink()
    again = Checkpoints(tmp_path / "c")
    assert again.latest() == 1
    again.close()


def test_every_damaged_file_of_an_export_is_named(exported, tmp_path):
    """A flipped bit, a cut or a missing file: whoever reads it learns which file, and nothing is computed from it."""
    directory = tmp_path / "export"
    shutil.copytree(exported[0], directory)
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)

    def read():
        exports.read_manifest(directory), exports.read_config(directory)
        exports.read_tokenizer(directory), exports.load_params(directory)

    read()
    for file in files:
        flip(file, 0.3)
        with pytest.raises(VlaxError, match=rf"{re.escape(str(file))}|seal\.json"):
            read()
        flip(file, 0.3)
    read()
    files[-1].unlink()
    with pytest.raises(VlaxError, match=r"is missing or cannot be read"):
        read()
    seal_file = directory / "seal.json"
    seal_file.unlink()
    with pytest.raises(VlaxError, match=r"has no seal\.json; copy the export again"):
        exports.read_config(directory)


@pytest.mark.parametrize("target", ({"x": jnp.zeros(3)}, {"x": jnp.zeros(2), "y": jnp.zeros(1)}, {"y": jnp.zeros(2)}))
def test_another_shape_or_tree_is_an_error(tmp_path, target):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(1, {"x": jnp.ones(2)}, {})
    checkpoints.wait()
    with pytest.raises(VlaxError, match=r"checkpoint .*/1 does not fit this run .*another --workdir"):
        checkpoints.restore(1, target)
    checkpoints.close()


def test_an_export_comes_back_bit_equal(model, exported):
    made, _, params = model
    directory, manifest = exported
    loaded = exports.load_params(directory)
    same(loaded, params)
    assert all(isinstance(value, np.ndarray) for value in loaded.values())
    assert exports.read_manifest(directory) == manifest
    assert manifest["parameters"] == groups.count(params) and manifest["mask"] == made.mask and manifest["stage"] == "test"
    assert manifest["checksums"] == exports.module_checksums({k: np.asarray(v) for k, v in params.items()})
    assert set(manifest["checksums"]) == {"vision", "projector", "decoder"}
    assert exports.read_config(directory) == made
    assert (directory / "tokenizer" / "tokenizer.json").exists()


def test_parts_of_an_export(model, exported):
    params = model[2]
    vision = exports.load_params(exported[0], parts=("vision",))
    same(vision, {path: value for path, value in params.items() if path.startswith("vision/")})
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    placed = exports.load_params(exported[0], dict.fromkeys(params, sharding), ("projector", "vision"))
    assert {path.split("/")[0] for path in placed} == {"projector", "vision"}
    assert all(isinstance(value, jax.Array) and value.sharding == sharding for value in placed.values())


def test_an_export_without_manifest_is_unfinished(exported, tmp_path):
    import shutil

    shutil.copytree(exported[0], tmp_path / "half")
    (tmp_path / "half" / "manifest.json").unlink()
    for directory in (tmp_path / "half", tmp_path / "nothing"):
        with pytest.raises(VlaxError, match=r"is not a finished vlax export: it has no manifest.json"):
            exports.read_manifest(directory)


def test_an_export_may_be_written_again(model, exported, tmp_path, monkeypatch):
    """And is read back once: what TensorStore tells of an array, when it is asked for its shape, it never frees."""
    made, _, params = model
    tokenizer = train_bpe(["a dog"], 300)
    metadata = ocp.PyTreeCheckpointer.metadata
    monkeypatch.setattr(ocp.PyTreeCheckpointer, "metadata", lambda *_: pytest.fail("asked for shapes"))
    for factor in (1, 2):
        new = {path: value * factor for path, value in params.items()}
        manifest = exports.export(tmp_path / "export", new, made, tokenizer, {})
    monkeypatch.setattr(ocp.PyTreeCheckpointer, "metadata", metadata)
    same(exports.load_params(tmp_path / "export"), new)
    assert manifest["checksums"] != exported[1]["checksums"]


def test_relative_directories(tmp_path, monkeypatch):
    """`--workdir=runs/a` and `vlax.load("runs/a/stage1/export")` are what people type."""
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints("runs/a/checkpoints")
    checkpoints.save(1, {"params": {"a": jnp.ones(3)}}, {"step": 1})
    checkpoints.close()
    assert (tmp_path / "runs/a/checkpoints/1").exists()
    again = Checkpoints("runs/a/checkpoints")
    np.testing.assert_array_equal(again.restore(1, {"params": {"a": jnp.zeros(3)}})["params"]["a"], np.ones(3))
    again.close()


def test_a_tokenizer_goes_to_an_object_store_and_back(bucket, tmp_path, monkeypatch):  # noqa: F811
    """transformers would make a folder called "gs:" here."""
    monkeypatch.chdir(tmp_path)
    tokenizer = train_bpe(["a dog runs"], 300)
    exports.write_tokenizer(tokenizer, epath.Path(f"{bucket}/export/tokenizer"))
    back = exports.read_tokenizer(f"{bucket}/export")
    assert back("a dog")["input_ids"] == tokenizer("a dog")["input_ids"] and back.eos_token_id == tokenizer.eos_token_id
    assert list(tmp_path.glob("gs*")) == []
