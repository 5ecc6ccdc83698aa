"""vlax.config, train, finetune, evaluate: the commands from Python."""

import json
import shutil

import numpy as np
import pytest
from conftest import tiny
from format_cases import pixels
from PIL import Image

import vlax
from vlax.errors import VlaxError
from vlax.process.activity import NOW


@pytest.fixture(scope="module")
def half(trained, tmp_path_factory):
    """A workdir with everything but stage 3 and 4."""
    workdir = tmp_path_factory.mktemp("half") / "w"
    shutil.copytree(trained[1], workdir, ignore=shutil.ignore_patterns("stage3", "stage4"))
    return workdir


def test_configs_by_name():
    config = vlax.config("stage3", steps=7, seed=5)
    assert (config.stage.name, config.stage.steps, config.run.seed) == ("stage3", 7, 5)
    with pytest.raises(VlaxError, match="there is no field 'stepz'; did you mean 'steps'"):
        vlax.config("stage3", stepz=7)
    with pytest.raises(VlaxError, match=r"stage\.steps='many'"):
        vlax.config("stage3", steps="many")
    with pytest.raises(VlaxError, match=r"there is no config file stage9"):
        vlax.config("stage9")
    with pytest.raises(VlaxError, match="named by a text such as 'stage3', not by int"):
        vlax.config(3)


def test_a_callback_hears_stops_and_goes_on(half, trained, capsys):
    """The second call ends as the undisturbed run did."""
    config, heard = tiny("stage3", run__log_every=1), []

    def callback(progress):
        heard.append((progress.stage, progress.kind, progress.step, progress.of))
        assert progress.metrics["loss"] > 0
        if len(heard) == 2:
            progress.stop()

    assert vlax.train(config, half, callbacks=[callback]) is None
    assert heard == [("stage3", "train", 1, 4), ("stage3", "train", 2, 4)] and not NOW.requested
    assert "a callback: saved step 2 in" in "".join(capsys.readouterr())
    model = vlax.train(config, half, callbacks=[callback])
    assert [entry[1:3] for entry in heard[2:]] == [("train", 3), ("train", 4), ("validation", 4)]
    want = vlax.load(str(trained[1] / "stage3" / "export"))
    assert all(np.array_equal(model.params[path], want.params[path]) for path in want.params)
    assert model.where == str(half / "stage3" / "export")


def test_a_model_on_one_screen(trained):
    shown = repr(vlax.load(str(trained[1] / "stage3" / "export"))).splitlines()
    assert len(shown) == 6 and shown[0].startswith(f"vlax.Model of {trained[1]}/stage3/export: ")
    assert [line.split()[0] for line in shown[1:4]] == ["vision", "projector", "decoder"]
    assert "1 layers of width 16; 16 pixels in patches of 8" in shown[1] and "4 tokens a picture" in shown[2]
    assert shown[4] == "  mask image_bidirectional, templates plain, float32, 1 device"
    parts = [int(line.split()[1].replace(",", "")) for line in shown[1:4]]
    assert f"{sum(parts):,} parameters" in shown[0]


def test_scores(trained, tmp_path, monkeypatch, capsys):
    """Those of eval.py, kept where a directory is named and nowhere else."""
    monkeypatch.chdir(tmp_path)
    model = vlax.load(str(trained[1] / "stage4" / "export"))
    scores = vlax.evaluate(model, "embedded_questions", directory="kept", limit=16, report_samples=0)
    assert scores["accuracy"] == scores["embedded_questions", "accuracy"] == scores.raw["accuracy"]
    assert "embedded_questions accuracy" in repr(scores) and "blind twin" in repr(scores)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"] and scores.directory.name == "eval"
    assert (scores.directory / "scores.json").exists() and (tmp_path / "kept" / "eval-blind" / "scores.json").exists()
    assert "scores.json, samples.png are in kept/eval" in capsys.readouterr().out
    again = vlax.evaluate(model, "embedded_questions", limit=16, twin=False)
    assert "embedded_questions accuracy" in (out := capsys.readouterr().out) and " are in " not in out
    assert again["accuracy"] == scores["accuracy"] and again.directory is None and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(KeyError, match="there is no 'Accuracy'; there are"):
        scores["Accuracy"]
    with pytest.raises(VlaxError, match="there is no option 'limits'; did you mean 'limit'"):
        vlax.evaluate(model, "embedded_questions", limits=3)
    with pytest.raises(VlaxError, match="needs a suite"):
        vlax.evaluate(model)
    with pytest.raises(VlaxError, match=r"takes a Model or what vlax\.load takes, not int"):
        vlax.evaluate(3, "embedded_questions")


def test_batches_and_attention_are_looked_at(trained, tmp_path, capsys):
    picture = vlax.inspect(tiny("stage3"), str(tmp_path / "w"))
    assert picture.mode == "RGB" and picture.width > 300
    assert picture.tobytes() == Image.open(tmp_path / "w" / "stage3" / "inspect.png").convert("RGB").tobytes()
    assert "row 1  scenes-" in capsys.readouterr().out
    model, image = vlax.load(str(trained[1] / "stage4" / "export")), Image.fromarray(pixels(3))
    seen = vlax.attention(model, image, "how many?", "two")
    assert "".join(token for token, _ in seen) == "two<end>"
    assert all(where.shape == (2, 2) and abs(where.sum() - 1) < 1e-5 for _, where in seen)
    own = vlax.attention(model, image)
    assert "".join(token for token, _ in own).removesuffix("<end>").strip() == model.caption(image).strip()


def write_pairs(folder):
    (folder / "pictures").mkdir()
    for number in range(6):
        Image.fromarray(pixels(number)).save(folder / "pictures" / f"{number}.png")
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(6)]
    captions = [{"image_id": number, "caption": f"picture {number}"} for number in range(6)]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))


def test_finetune(trained, tmp_path, monkeypatch):
    """From an export on ten pictures: guesses what is left open, gives the tuned Model."""
    write_pairs(tmp_path)
    monkeypatch.setattr("vlax.interface.config_of", lambda *args, **fields: shrink_run(REAL(*args, **fields)))
    where = str(trained[1] / "stage3" / "export")
    model = vlax.finetune(vlax.load(where), str(tmp_path / "captions.json"), str(tmp_path / "run"), steps=1, batch_size=2)
    assert model.where == str(tmp_path / "run" / "finetune" / "export")
    with pytest.raises(VlaxError, match="begins from a model that lies somewhere"):
        vlax.finetune(3, "captions.json")


REAL = vlax.config


def shrink_run(config):
    config.run.compilation_cache, config.run.tensorboard = "", False
    return config


def test_wrong_types_are_a_line(tmp_path):
    with pytest.raises(VlaxError, match=r"config is a ConfigDict .* or a config's name, not dict"):
        vlax.train({}, tmp_path)
    with pytest.raises(VlaxError, match=r"callbacks are functions of a vlax\.Progress; 3 can't be called"):
        vlax.train(tiny("stage3"), tmp_path, callbacks=[3])


def test_public_names():
    assert {"config", "train", "finetune", "evaluate", "load", "Model", "Progress", "Scores"} <= set(dir(vlax))
    assert all(getattr(vlax, name).__doc__ for name in dir(vlax) if name != "__version__")
