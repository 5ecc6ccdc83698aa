"""Where the parts of a model come from: stage 0's Hugging Face directories, pretrained pairs, parents; LoRA through a stage."""

import json

import jax
import numpy as np
import pytest
from conftest import tiny, train
from PIL import Image

import vlax
from configs import base, stage0, stage3
from vlax.errors import VlaxError
from vlax.model import exports
from vlax.training import origins, session, stages, start


@pytest.fixture(scope="module")
def backbones(trained):
    """(tower, decoder): directories that stage 0 wrote in Hugging Face layout."""
    return trained[1] / "stage0_vision/hf/vision", trained[1] / "stage0_decoder/hf/decoder"


def test_stage_1_imports_what_stage_0_wrote(trained, backbones):
    config, workdir = trained
    plan = next(plan for plan in stages.chain(config, workdir) if plan.name == "stage1")
    parents = [str(directory.parent.parent / "export") for directory in backbones]
    assert origins.find(plan) == {
        "vision": origins.Origin("hf", str(backbones[0]), parents[0]),
        "projector": origins.Origin("fresh"),
        "decoder": origins.Origin("hf", str(backbones[1]), parents[1]),
    }
    kinds = [json.loads((directory / "config.json").read_text())["model_type"] for directory in backbones]
    assert kinds == ["siglip_vision_model", "qwen2"]
    child = exports.load_params(workdir / "stage1/export")
    for part, parent in (("vision", "stage0_vision"), ("decoder", "stage0_decoder")):
        for path, value in exports.load_params(workdir / parent / "export", parts=(part,)).items():
            np.testing.assert_array_equal(child[path], value, err_msg=path)


def test_a_pretrained_pair_starts_a_stage(backbones, tmp_path):
    vision, decoder = map(str, backbones)
    init = {"vision": "pretrained", "projector": "fresh", "decoder": "pretrained"}
    config = tiny("stage1", stage__init=init, run__vision=vision, run__decoder=decoder, run__image_size=24)
    built = session.build(stages.chain(config, tmp_path)[-1])
    assert (built.config.vision.image_size, built.config.preprocess.size, built.config.tokens_per_image) == (24, 24, 9)
    assert len(built.encoder.tokenizer) == 400 and built.config.decoder.vocab_size == 416
    with jax.set_mesh(built.mesh):
        _, frozen = start.initial_state(built)
    _, params, _ = origins.loader.load_decoder(decoder)
    np.testing.assert_array_equal(frozen["decoder/embedding"], params["decoder/embedding"])


def test_a_pretrained_part_needs_a_directory(tmp_path):
    config = tiny("stage1", stage__init={"vision": "pretrained", "projector": "fresh", "decoder": "fresh"})
    with pytest.raises(VlaxError, match=r"stage stage1 wants a pretrained vision: pass --config\.run\.vision=DIR"):
        session.build(stages.chain(config, tmp_path)[-1])


def test_an_unfinished_parent_is_named(tmp_path):
    built = session.build(stages.chain(tiny("stage2"), tmp_path)[-1])  # shapes are known before the parent exists
    with pytest.raises(VlaxError, match=r"stage1.export is not a finished vlax export"), jax.set_mesh(built.mesh):
        start.initial_state(built)


def test_from_pretrained_pair(backbones):
    vision, decoder = map(str, backbones)
    model = vlax.from_pretrained(vision=vision, decoder=decoder, mask="prefix_lm", seed=3)
    again = vlax.from_pretrained(vision=vision, decoder=decoder, mask="prefix_lm", seed=3)
    assert model.config.mask == "prefix_lm" and model.manifest["pretrained"][0].startswith("loaded ")
    image = Image.new("RGB", (20, 30), "red")
    logits = model.logits([image], ["caption:"], ["a red square"])
    assert logits.shape[::2] == (1, 416) and np.isfinite(logits).all()
    np.testing.assert_array_equal(logits, again.logits([image], ["caption:"], ["a red square"]))
    with pytest.raises(VlaxError, match="either one whole checkpoint or vision=DIR and decoder=DIR"):
        vlax.from_pretrained(vision=vision)


def test_a_stage_with_lora(trained, tmp_path):
    """Adapters learn, the export is merged, what was not adapted is the parent's to the bit, the adapter lies beside it."""
    import shutil

    workdir = tmp_path / "run"
    shutil.copytree(trained[1], workdir, ignore=shutil.ignore_patterns("stage3*", "stage4*"))
    lora = {"rank": 2, "alpha": 4.0, "targets": ("q", "v")}
    config = tiny("stage3", stage__lora=lora)
    config.stage.trainable = {"decoder": "/lora_[ab]$", "projector": "^projector/"}
    printed = train(config, workdir)
    assert "decoder" in printed and "frozen" in printed
    parent, child = (exports.load_params(workdir / name / "export") for name in ("stage2", "stage3"))
    assert parent.keys() == child.keys() and exports.read_config(workdir / "stage3/export").decoder.lora is None
    changed = {path for path in parent if not np.array_equal(parent[path], child[path])}
    kernels = {f"decoder/layers/0/attention/{name}/kernel" for name in ("q", "v")}
    assert changed == kernels | {path for path in parent if path.startswith("projector/")}
    assert json.loads((workdir / "stage3/adapter/adapter_config.json").read_text())["target_modules"] == ["q_proj", "v_proj"]


def test_a_config_of_ones_own_gets_a_vocabulary_of_its_own_text(tmp_path):
    """Of the text of its first stage; vlax's own chains keep that of shapes, which published figures rest on."""
    rows = [{"image": f"{i}.png", "text": f"xylophone number {i} beside a gazebo"} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "other.jsonl").write_text(json.dumps({"image": "a.png", "text": "a quagmire quagmire"}) + "\n")

    def own(name, file, **init):
        stage = base.stage(name)
        stage.init.update(init)
        stage.mixture = {"mine": {"path": str(tmp_path / file), "images": str(tmp_path), "weight": 1.0}}
        return stage

    config = base.config("embedded", own("last", "other.jsonl", decoder="begin"), {"begin": own("begin", "rows.jsonl")})
    plans = stages.chain(config, tmp_path / "runs")
    assert [plan.name for plan in plans] == ["begin", "last"]
    for plan in plans:
        vocabulary = origins.load_tokenizer(plan, origins.Origin("fresh")).get_vocab()
        assert "Ġgazebo" in vocabulary and "xylophone" in "".join(vocabulary).replace("Ġ", "")
        assert not any("qua" in token for token in vocabulary)
    for asked in (stage0.get_config("decoder"), stage3.get_config()):
        tokenizer = origins.load_tokenizer(stages.chain(asked, tmp_path / "runs")[0], origins.Origin("fresh"))
        assert start.tokenizer_hash(tokenizer) == "ec2477abf71ac68f"
