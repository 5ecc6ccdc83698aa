"""Whole models as an origin: a vlax export, layouts of others; their sizes may change, their settings come along."""

import json
import shutil

import jax
import numpy as np
import pytest
import whole_cases
from conftest import tiny
from PIL import Image

import vlax
from vlax.errors import VlaxError
from vlax.model import exports, opening
from vlax.pretrained.reading import loader
from vlax.text.tokenizer import load_tokenizer
from vlax.training import session, stages, start

pytest.importorskip("torch", reason="the checkpoints are written by transformers: pip install -r requirements-parity.txt")
ALL = {"vision": "model", "projector": "model", "decoder": "model"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """{"llava": directory, "paligemma": directory}"""
    base = tmp_path_factory.mktemp("whole")
    return {name: whole_cases.write(name, base / name) for name in ("llava", "paligemma", "smolvlm", "onevision", "internvl")}


def built(workdir, where, stage="stage3", **fields):
    config = tiny(stage, run__model=str(where), stage__init=ALL, **fields)
    return session.build(stages.chain(config, workdir)[-1])


def initial(made):
    with jax.set_mesh(made.mesh):
        trainable, frozen = start.initial_state(made)
    return trainable["params"] | frozen


OTHERS = ("smolvlm", "onevision", "internvl")
KINDS = (("llava", "causal"), ("paligemma", "prefix_lm"), *(pytest.param(n, "causal", marks=pytest.mark.slow) for n in OTHERS))


@pytest.mark.parametrize(("name", "mask"), KINDS)
def test_every_part_comes_from_the_checkpoint(whole, tmp_path, name, mask):
    made = built(tmp_path, whole[name])
    config, params, _ = loader.load_vlm(whole[name])
    assert made.config == config and config.mask == mask
    within = name in whole_cases.WITHIN
    assert (made.encoder.templates, len(made.encoder.tokenizer) > 300) == ("chat" if within else "plain", within)
    assert made.encoder.settings.picture == (whole_cases.WITHIN[name][2] if within else None)
    mine = initial(made)
    assert mine.keys() == params.keys() and {path.split("/")[0] for path in mine} == {"vision", "projector", "decoder"}
    for path, value in params.items():
        np.testing.assert_array_equal(mine[path], value, err_msg=path)


def test_every_part_comes_from_an_export(trained, tmp_path):
    export = trained[1] / "stage4" / "export"
    made, want = built(tmp_path, export), exports.load_params(export)
    assert made.config == exports.read_config(export) and made.config.mask == "image_bidirectional"
    for path, value in initial(made).items():
        np.testing.assert_array_equal(value, want[path], err_msg=path)


def test_the_config_may_name_another_mask_and_other_templates(whole, tmp_path):
    made = built(tmp_path, whole["llava"], run__mask="image_bidirectional", run__templates="instruct")
    assert (made.config.mask, made.encoder.templates) == ("image_bidirectional", "instruct")


def test_a_chat_template_holds_where_it_takes_texts_or_lists_of_them(tmp_path):
    where = whole_cases.write("llava", tmp_path / "llava", whole_cases.CHAT)
    assert vlax.load(str(where)).encoder.templates == built(tmp_path, where).encoder.templates == "chat"
    tokenizer = load_tokenizer(where, whole_cases.VOCAB)
    lists = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}"
    for end, name in (("<eos>{% endfor %}", "chat"), ("{% endfor %}", "plain")):
        tokenizer.chat_template = lists + end
        assert opening.templates_of(where, tokenizer) == name


@pytest.mark.parametrize("name", ("llava", "paligemma", *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)))
def test_load_takes_them_too(whole, name):
    model = vlax.load(str(whole[name]))
    same = vlax.from_pretrained(str(whole[name]), templates=model.encoder.templates)
    row = [Image.new("RGB", (20, 30), "red")], ["caption:"], ["a brown dog"]
    np.testing.assert_array_equal(model.logits(*row), same.logits(*row))


@pytest.mark.parametrize("kind", ("export", "llava"))
def test_sizes_may_change(trained, whole, tmp_path, kind):
    """Positions are resampled and rows added to the embedding, alike for both kinds of origin."""
    where = trained[1] / "stage4" / "export" if kind == "export" else whole["llava"]
    before = exports.load_params(where) if kind == "export" else loader.load_vlm(where)[1]
    made = built(tmp_path, where, run__image_size=32, run__vocab_size=480)
    assert (made.config.vision.image_size, made.config.preprocess.size, made.config.tokens_per_image) == (32, 32, 16)
    after, rows = initial(made), len(before["decoder/embedding"])
    np.testing.assert_array_equal(after["decoder/embedding"][:rows], before["decoder/embedding"])
    np.testing.assert_allclose(
        after["decoder/embedding"][rows:], [before["decoder/embedding"].mean(0)] * (480 - rows), atol=1e-6
    )
    assert before["vision/position"].shape == (4, 16)
    np.testing.assert_allclose(after["vision/position"].mean(0), before["vision/position"].mean(0), atol=1e-6)
    corners = after["vision/position"].reshape(4, 4, 16)[::3, ::3].reshape(4, 16)
    assert np.abs(corners - before["vision/position"]).max() < 0.6 * np.abs(before["vision/position"]).max()
    with pytest.raises(VlaxError, match="vocab_size=100 is smaller than the"):
        built(tmp_path, where, run__vocab_size=100)


def test_an_export_is_resampled_as_its_tower_in_hugging_face_layout(trained, tmp_path):
    stage0 = trained[1] / "stage0_vision"
    pair = {"vision": "pretrained", "projector": "fresh", "decoder": "fresh"}
    towers = []
    for where in (stage0 / "export", stage0 / "hf" / "vision"):
        config = tiny("stage1", stage__init=pair, run__vision=str(where), run__image_size=40)
        towers.append(initial(session.build(stages.chain(config, tmp_path)[-1])))
    np.testing.assert_array_equal(*(tower["vision/position"] for tower in towers))
    assert towers[0]["vision/position"].shape == (25, 16)


def test_what_is_no_whole_model_is_named(trained, whole, tmp_path):
    for where, text in (
        ("", r"stage3 starts from a whole model: pass --config\.run\.model=DIR, a vlax export"),
        (tmp_path / "nothing", "nothing is not a finished vlax export"),
        ("stage3/export", "stage3/export is not a finished vlax export"),
        (trained[1] / "stage0_decoder/hf/decoder", "model_type 'qwen2' is not supported here; supported are paligemma, llava"),
    ):
        with pytest.raises(VlaxError, match=text):
            built(tmp_path, where)
    with pytest.raises(VlaxError, match=r"no stage takes a part from it: pass --config\.stage\.init\.decoder=model"):
        stages.chain(tiny("stage1", run__model=str(whole["llava"])), tmp_path)
    init = ALL | {"projector": "pretrained"}
    with pytest.raises(
        VlaxError, match=r"a pretrained projector, which comes with a whole model alone: pass --config\.run\.model"
    ):
        session.build(stages.chain(tiny("stage3", stage__init=init, run__model=str(whole["llava"])), tmp_path)[-1])
    init = ALL | {"decoder": "fresh"}
    shapes = {"run__shapes__decoder__width": 24, "run__model": str(whole["llava"])}
    with pytest.raises(VlaxError, match=r"decoder of width 16, and these have 16 and 24; take all three from one model"):
        session.build(stages.chain(tiny("stage3", stage__init=init, **shapes), tmp_path)[-1])


def test_runs_from_when_shapes_were_called_model_go_on(trained, tmp_path):
    config = trained[0]
    shutil.copytree(trained[1] / "stage4", tmp_path / "stage4")
    file = tmp_path / "stage4" / "config.json"
    old = json.loads(file.read_text())
    assert old["run"]["mask"] == "image_bidirectional" and old["run"]["templates"] == "plain"
    old["run"]["model"] = old["run"].pop("shapes")
    file.write_text(json.dumps(old))
    plan = stages.chain(config, tmp_path)[-1]
    stages.check_identity(plan)
    old["run"]["model"]["decoder"]["width"] = 24
    file.write_text(json.dumps(old))
    with pytest.raises(VlaxError, match=r"another config \(run.shapes.decoder.width: 24 -> 16\)"):
        stages.check_identity(plan)
