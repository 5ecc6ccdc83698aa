"""configs/finetune.py: own data from any whole model; what is left open is guessed once, held-out pictures stay held out."""

import importlib
import json
import re
import shutil

import numpy as np
import pytest
import whole_cases
from conftest import tiny, train
from PIL import Image

from vlax.commands import config_flag
from vlax.data import parts
from vlax.data.readers import leaks
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.evaluation import evaluate
from vlax.evaluation.options import Options
from vlax.model import exports
from vlax.training import estimate, guess, lineage, optimizer, stages

pytest.importorskip("torch", reason="the checkpoints are written by transformers: pip install -r requirements-parity.txt")
COLOURS = ("red", "green", "blue", "white", "black", "grey")
PICTURES = 24


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """captions.json of 24 pictures with two captions each, images/, and a tiny LLaVA."""
    folder = tmp_path_factory.mktemp("finetune")
    (folder / "images").mkdir()
    images, annotations = [], []
    for number in range(PICTURES):
        colour = COLOURS[number % 6]
        Image.new("RGB", (20, 24), colour).save(folder / "images" / f"p{number}.png")
        images.append({"id": number, "file_name": f"p{number}.png"})
        texts = (f"a {colour} square", f"nothing but {colour}, and that all over")
        annotations += [{"id": 2 * number + n, "image_id": number, "caption": text} for n, text in enumerate(texts)]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    whole_cases.write("llava", folder / "llava")
    return folder


def config(base, **fields):
    made = importlib.import_module("configs.finetune").get_config()
    made.run.update({"model": str(base / "llava"), "compilation_cache": "", "tensorboard": False})
    made.stage.update({"data": str(base / "captions.json"), "generate_samples": 0} | fields)
    return made


def test_what_is_held_out():
    assert [parts.count(n) for n in (7, 8, 25, 50, 1000, 100_000)] == [0, 4, 5, 10, 50, 200]
    rows = [leaks.Called(f"/d/{n}.jpg", (f"{n}.jpg", str(n))) for n in range(20) for _ in range(3)] + [
        leaks.Called("", ("", ""))
    ]
    train_, validation, test = (parts.left_out(rows, part, "it") for part in parts.PARTS)
    held = {key for key in train_ if key.isdigit()}
    assert len(held) == 4 and {f"/d/{n}.jpg" for n in held} < train_  # whatever else calls the same file
    chosen, scored = ({str(n) for n in range(20)} - left for left in (validation, test))
    assert chosen | scored == held and not chosen & scored and len(chosen) == len(scored) == 2
    assert "" in validation and "" not in train_  # rows of text are trained on
    assert parts.left_out(reversed(rows), "train", "it") == train_
    with pytest.raises(VlaxError, match="part='dev' is not one of train, validation, test"):
        parts.left_out(rows, "dev", "it")


def test_the_three_parts_share_no_picture(base):
    found = {}
    for part in parts.PARTS:
        source = open_source({"path": str(base / "captions.json"), "part": part}, train=part == "train")
        found[part] = {source[i].image_id for i in range(len(source))}
    assert [len(found[part]) for part in parts.PARTS] == [20, 2, 2] and len(set().union(*found.values())) == PICTURES


def test_guesses_are_printed_with_their_flags(base, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "memory", lambda: 1 << 34)
    made = guess.settled(config(base), tmp_path)
    printed = capsys.readouterr().out
    s = made.stage
    assert (s.text_length, s.batch_size, s.epochs, s.accumulate, s.eval_every) == (40, 4, 3.0, 1, 8)
    assert (made.run.dtype, made.run.remat, s.tune, s.lora.rank) == ("float32", "", "full", 0)
    assert s.trainable.to_dict() == {"projector": "^projector/", "decoder": "^decoder/"}
    assert s.learning_rate.to_dict() == {"projector": 1e-3, "decoder": 1e-3}
    assert s.suites.own.task == "caption" and s.suites.own.data.test.part == "test" and s.validation.own.part == "validation"
    assert "coco-captions: 40 rows to train on; looked at: 40 caption" in printed
    for flag in ("text_length", "batch_size", "epochs", "tune=lora", "learning_rate.decoder", "eval_every", "data_is.task"):
        assert f"--config.stage.{flag}" in printed
    for line in re.findall(r"--config\.[\w.]+", printed):  # each is a flag that there is
        *path, last = line.removeprefix("--config.").split(".")
        at = made
        for name in path:
            at = at[name]
        assert last in at, line


def test_little_memory_asks_for_lora_and_micro_batches(base, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "memory", lambda: 720_000)
    s = guess.settled(config(base), tmp_path).stage
    assert s.tune == "full" and s.accumulate == 2
    monkeypatch.setattr(estimate, "memory", lambda: 200_000)
    made = guess.settled(config(base), tmp_path)
    assert (made.stage.tune, made.stage.lora.rank, made.stage.trainable.decoder) == ("lora", 16, "/lora_[ab]$")
    assert made.run.remat == "full" and made.stage.accumulate == made.stage.batch_size == 4
    chosen = config(base)
    chosen.run.remat = "auto"  # as other configs have it: it stays so, and a row is taken for what it will be
    made = guess.settled(chosen, tmp_path)
    assert made.run.remat == "auto" and made.stage.accumulate == 4
    assert [estimate.micro_batches(*args) for args in ((32, 1, 10.5), (32, 1, 32), (12, 2, 2.0), (4, 4, 0.1))] == [4, 1, 3, 1]


def test_what_is_said_is_not_guessed(base, tmp_path, capsys):
    fields = {"text_length": 24, "batch_size": 6, "epochs": 1.0, "tune": "lora", "steps": 8}
    s = guess.settled(config(base, **fields), tmp_path).stage
    assert {name: s[name] for name in fields} == fields and (s.eval_every, s.lora.rank) == (2, 16)
    printed = capsys.readouterr().out
    assert "stage.text_length" not in printed and "stage.batch_size" not in printed and "stage.lora.rank" in printed


def test_what_is_missing_is_named(base, tmp_path):
    for fields, text in (
        ({"data": ""}, r"stage finetune trains on your own data: pass --config\.stage\.data=PATH"),
        ({"tune": "half"}, "stage.tune='half' is not one of full, lora"),
        ({"data": str(base / "nothing.json")}, "there is no file or folder .*nothing.json"),
        ({"mixture": {"a": {"path": "a.json"}}}, "stands in place of stage.mixture, which names a; leave one out"),
    ):
        with pytest.raises(VlaxError, match=text):
            guess.settled(config(base, **fields), tmp_path)
    moved = shutil.copy(base / "captions.json", tmp_path)
    with pytest.raises(VlaxError, match=r"the picture is missing.*in another folder: --config\.stage\.data_is\.images=DIR"):
        guess.settled(config(base, data=str(moved)), tmp_path)
    made = config(base, data=str(moved))
    made.stage.data_is.images = str(base / "images")
    assert guess.settled(made, tmp_path).stage.validation.own.images == str(base / "images")
    made = config(base)
    made.run.model = ""
    with pytest.raises(VlaxError, match=r"stage finetune starts from a whole model: pass --config\.run\.model=DIR"):
        guess.settled(made, tmp_path)


def test_flags_alone_are_enough(base, monkeypatch, tmp_path):
    monkeypatch.chdir(base)  # a relative path is the shell's
    flags = ["--config=finetune", "--config.run.model=llava", "--config.stage.data=captions.json"]
    made = guess.settled(config_flag.parse(flags, True)[0], tmp_path)
    assert made.stage.mixture.own.path == str(base / "captions.json")


@pytest.fixture(scope="module")
def tuned(base, tmp_path_factory):
    """(workdir, what training printed, scores before training) of a run of 6 updates."""
    workdir = tmp_path_factory.mktemp("tuned")
    options = Options(checkpoint=str(base / "llava"), report_samples=0)
    before = evaluate.run(config(base, steps=6), str(workdir), options)
    return workdir, train(config(base, steps=6), workdir), before


def test_training_and_scores_before_and_after(base, tuned):
    workdir, printed, before = tuned
    manifest = exports.read_manifest(workdir / "finetune" / "export")
    assert manifest["parents"]["projector"] == {"stage": "model", "path": str(base / "llava")}
    assert manifest["config"]["stage"]["text_length"] == 40 and manifest["template_name"] == "plain"
    assert manifest["tasks"] == ["caption"]  # by which `vlax serve` asks
    assert "8 dropped as evaluation pictures" in printed
    again = config(base, steps=6)
    again.stage.data, again.run.model = "", ""  # what was guessed and what was given is known
    after = evaluate.run(again, str(workdir), Options(report_samples=0))
    assert before["CIDEr"] == 0.0 and before["protocol"]["hash"] == after["protocol"]["hash"]  # nothing but the weights differ
    assert before["model"]["checksums"] != after["model"]["checksums"]
    folders = {path.name for path in (workdir / "finetune" / "eval").iterdir()}
    assert "predictions.jsonl" in folders and any(name.startswith("checkpoint=") for name in folders)


def test_a_run_that_has_started_guesses_nothing_anew(base, tuned, monkeypatch):
    workdir = tuned[0]
    monkeypatch.setattr(estimate, "memory", lambda: 1000)  # as if the machine were another one
    plan = stages.chain(guess.settled(config(base, steps=6), workdir), workdir)[-1]
    assert plan.finished and (plan.stage.tune, plan.stage.batch_size) == ("full", 4)
    stages.check_identity(plan)
    plan = stages.chain(guess.settled(config(base, steps=6, batch_size=8), workdir), workdir)[-1]
    with pytest.raises(VlaxError, match=r"another config \(stage.batch_size: 4 -> 8\)"):
        stages.check_identity(plan)


def test_the_export_is_a_model_to_tune_again(tuned, base, tmp_path):
    made = config(base)
    made.run.model = str(tuned[0] / "finetune" / "export")
    s = guess.settled(made, tmp_path).stage
    assert (s.text_length, s.batch_size) == (40, 4)


@pytest.mark.slow
def test_a_finished_stage_is_extended(base, tuned, tmp_path):
    """Rows, moments and state go on; the learning rate starts anew; the other road is named by the error."""
    shutil.copytree(tuned[0], tmp_path, dirs_exist_ok=True)
    directory, fields = tmp_path / "finetune", {"steps": 6, "eval_every": 2}
    with pytest.raises(VlaxError, match=r"\(stage.steps: 6 -> 8\).*add --fork=NEW_WORKDIR to this command.*and --extend=2$"):
        train(config(base, steps=8), tmp_path)
    before, first = exports.read_manifest(directory / "export"), (directory / "first_losses.json").read_text()
    printed = train(config(base, **fields), tmp_path, extend=2)
    assert "finetune goes on for 2 updates" in printed and "resuming  at micro-step 6 of 8" in printed
    after = exports.read_manifest(directory / "export")
    assert after["extended"] == [2] and "extended" not in before and after["config"] == before["config"]
    assert after["data"]["plan"] == before["data"]["plan"] and after["checksums"] != before["checksums"]
    assert json.loads((directory / "extended.json").read_text()) == [2]
    assert json.loads((directory / "first_losses.json").read_text())[:6] == json.loads(first)
    assert "is finished" in train(config(base, **fields), tmp_path)  # the plain command knows of it
    train(config(base, **fields), tmp_path, extend=1)
    assert exports.read_manifest(directory / "export")["extended"] == [2, 1]
    shutil.rmtree(directory / "checkpoints")
    with pytest.raises(
        VlaxError, match="its checkpoints are gone; begin another run from its export instead: --fork=NEW_WORKDIR"
    ):
        train(config(base, **fields), tmp_path, extend=1)


@pytest.mark.slow
def test_an_extension_that_was_cut_off_goes_on(base, tuned, tmp_path):
    shutil.copytree(tuned[0], tmp_path, dirs_exist_ok=True)
    (tmp_path / "finetune" / "extended.json").write_text("[2]")
    plan = stages.chain(guess.settled(config(base, steps=6), tmp_path), tmp_path)[-1]
    assert not plan.finished and plan.extended == (2,)
    with pytest.raises(
        VlaxError, match=r"its extension by 2 updates is not finished\. The same command without --extend goes on"
    ):
        lineage.extend(plan, 3)
    train(config(base, steps=6), tmp_path)
    assert plan.finished and exports.read_manifest(plan.export)["extended"] == [2]


def test_the_learning_rate_of_an_extension():
    shares = optimizer.schedule(optimizer.OptimizerConfig(18, extended=(6, 2), warmup=0.3))
    parts_ = [optimizer.schedule(optimizer.OptimizerConfig(n, warmup=0.3)) for n in (10, 6, 2)]
    want = [float(part(np.int32(at))) for part, n in zip(parts_, (10, 6, 2), strict=True) for at in range(n)]
    assert [float(shares(np.int32(at))) for at in range(18)] == want
    assert want[2] == want[11] == 1.0 and want[9] == want[15] == 0.0


def test_a_stage_that_others_began_from_is_not_extended(trained):
    plan = next(plan for plan in stages.chain(*trained) if plan.name == "stage2")
    with pytest.raises(VlaxError, match="stage3 began from its export, which would change; begin another run from its export"):
        lineage.extend(plan, 2)
    assert plan.finished and not plan.extended


def test_a_fork_begins_from_the_export_with_its_own_settings(base, tuned, tmp_path):
    new = tmp_path / "new"
    fields = {"steps": 2, "batch_size": 6, "data": ""}  # data, model and what else was guessed are those of the first run
    made = config(base, **fields)
    made.run.model = ""
    printed = train(made, tuned[0], fork=str(new))
    assert "from    decoder: forked" in printed and "2 updates of 6 rows" in printed
    manifest, origin = exports.read_manifest(new / "finetune/export"), exports.read_manifest(tuned[0] / "finetune/export")
    assert manifest["parents"]["vision"] == {"stage": "forked", "path": str(new / "finetune/forked")}
    assert exports.read_manifest(new / "finetune/forked") == origin
    assert manifest["checksums"]["vision"] == origin["checksums"]["vision"]  # frozen
    assert (
        manifest["config"]["stage"]["text_length"] == 40 and manifest["checksums"]["decoder"] != origin["checksums"]["decoder"]
    )
    assert "is finished" in train(config(base, steps=2, batch_size=6), new)  # without --fork, too
    with pytest.raises(VlaxError, match=r"tuned.*finetune holds a run already; name a new directory"):
        train(made, new, fork=str(tuned[0]))
    with pytest.raises(VlaxError, match=r"there is nothing to fork: .*empty/finetune has neither checkpoints nor an export"):
        train(config(base), tmp_path / "empty", fork=str(tmp_path / "other"))


@pytest.mark.slow
def test_a_fork_of_a_stage_that_is_not_finished(trained, tmp_path):
    """Its newest checkpoint; of a chain no earlier stage is trained again."""
    old = tmp_path / "old"
    shutil.copytree(trained[1], old)
    want = exports.load_params(old / "stage4/export")
    shutil.rmtree(old / "stage4/export")
    made = tiny("stage4", stage__steps=2, stage__batch_size=4)
    with pytest.raises(VlaxError, match="another config"):
        train(made, old)
    train(made, old, fork=str(tmp_path / "new"))
    assert {path.name for path in (tmp_path / "new").iterdir() if path.is_dir()} == {"stage4"}
    forked = exports.load_params(tmp_path / "new/stage4/forked")
    for path, value in want.items():
        np.testing.assert_array_equal(forked[path], value, err_msg=path)
    assert exports.read_manifest(tmp_path / "new/stage4/export")["micro_steps"] == 2
