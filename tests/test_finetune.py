"""configs/finetune.py: own data from any whole model; what is left open is guessed once, held-out pictures stay held out."""

import importlib
import json
import re

import pytest
import whole_cases
from conftest import train
from PIL import Image

from vlax.commands import config_flag
from vlax.data import parts
from vlax.data.readers import leaks
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.evaluation import evaluate
from vlax.evaluation.options import Options
from vlax.model import exports
from vlax.training import estimate, guess, stages

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
    assert [parts.count(n) for n in (4, 9, 10, 50, 1000, 100_000)] == [0, 0, 2, 10, 50, 200]
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
    assert (made.run.dtype, made.run.remat, s.tune, s.lora.rank) == ("float32", False, "full", 0)
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
    assert made.run.remat and made.stage.accumulate == made.stage.batch_size == 4
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
