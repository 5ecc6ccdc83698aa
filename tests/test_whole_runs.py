"""Whole models whose pictures stand within the text, by the commands: tuned, evaluated before and after, asked."""

import argparse
import importlib
import json

import numpy as np
import pytest
import whole_cases
from conftest import train
from PIL import Image

from vlax.commands import ask
from vlax.evaluation import evaluate
from vlax.evaluation.options import Options
from vlax.model import exports
from vlax.training import guess, session, stages
from vlax.training.inspect import inspection

pytest.importorskip("torch", reason="the checkpoints are written by transformers: pip install -r requirements-parity.txt")
SHAPES = ((16, 60), (60, 16), (30, 30), (70, 50), (8, 8), (40, 24))  # height, width


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """captions.json of 18 pictures of many shapes, one caption each."""
    folder = tmp_path_factory.mktemp("data")
    rng, images, annotations = np.random.default_rng(0), [], []
    for number in range(18):
        shape = SHAPES[number % len(SHAPES)]
        Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(folder / f"p{number}.png")
        images.append({"id": number, "file_name": f"p{number}.png"})
        annotations.append({"id": number, "image_id": number, "caption": f"a brown dog {number}"})
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


def config(where, data, **fields):
    made = importlib.import_module("configs.finetune").get_config()
    made.run.update({"model": str(where), "compilation_cache": "", "tensorboard": False})
    made.stage.update({"data": str(data / "captions.json"), "generate_samples": 0} | fields)
    return made


def asked(where, picture, capsys):
    parser = argparse.ArgumentParser()
    ask.add_arguments(parser)
    capsys.readouterr()
    ask.main(parser.parse_args([str(where), str(picture), "--question", "is it red?", "--max_new_tokens", "4"]))
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ("onevision", "gemma3", "internvl"))
def test_tuned_evaluated_and_asked(data, tmp_path, capsys, name):
    where, workdir = whole_cases.write(name, tmp_path / name), tmp_path / "run"
    options = Options(checkpoint=str(where), report_samples=4)
    before = evaluate.run(config(where, data, steps=3), str(workdir), options)
    assert (tmp_path / "run/finetune/eval").is_dir() and "CIDEr" in before
    assert asked(where, data / "p0.png", capsys).endswith("\n")
    printed = train(config(where, data, steps=3), workdir)
    assert "3 updates" in printed
    export = workdir / "finetune" / "export"
    manifest, made = exports.read_manifest(export), exports.read_config(export)
    assert manifest["parents"]["projector"] == {"stage": "model", "path": str(where)} and manifest["template_name"] == "chat"
    after = evaluate.run(config(where, data, steps=3), str(workdir), Options(report_samples=4))
    assert before["protocol"]["hash"] == after["protocol"]["hash"]
    assert before["model"]["checksums"] != after["model"]["checksums"]
    assert asked(export, data / "p1.png", capsys).endswith("\n")
    assert (made.anyres is not None) == (name == "onevision")
    if made.anyres is not None:
        _sewn(config(where, data, steps=3), where, made, tmp_path, capsys)


def _sewn(made_by, where, made, tmp_path, capsys):
    """What a batch of pictures in parts looks like to people, and how the parts are limited and left out."""
    assert (made.tiles, made.looks, made.tokens_per_image) == (9, 10, made.anyres.longest)
    settled = guess.settled(made_by, tmp_path / "look")
    inspection.run(settled, str(tmp_path / "look"), 1)
    told = capsys.readouterr().out
    assert "every picture is shown to the model" in told and "FAULT" not in told
    for tiles, grids in ((2, ((1, 1), (1, 2), (2, 1))), (-1, None)):
        settled.run.tiles = tiles
        built = session.build(stages.chain(settled, str(tmp_path / f"tiles{tiles}"))[-1])
        assert (built.config.anyres and built.config.anyres.grids) == grids
        batch = built.batches[0]
        assert batch["image"].shape[1:3] == (1, (1 if grids is None else 3) * 16 + (grids is not None))
