"""Every format from its files to a training step: preview, doctor, prepare, and the same loss from prepared pictures."""

import ast
import dataclasses
import json
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import tiny
from format_cases import PICTURES, WRITERS, captions, question
from layout_cases import CAPTIONS, DIALOGUES, QUESTIONS
from ml_collections import ConfigDict

from vlax.commands import front
from vlax.data.readers.kinds import KINDS
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.training import inputs, session, stages, start

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
PIXELS = 16  # of the tiny config's vision tower
DRAWN = ("scenes", "cells")  # vlax draws them: no file to preview


@dataclasses.dataclass
class Trainer:
    """One compiled step, which every source's first batch goes through from the same parameters."""

    built: session.Session
    state: dict
    frozen: dict

    def step(self, spec: dict) -> dict[str, float]:
        """Metrics of the first step of a stage whose only source is `spec`."""
        stage = ConfigDict(self.built.plan.stage.to_dict() | {"mixture": {"data": spec}})
        plan = dataclasses.replace(self.built.plan, stage=stage)
        batches, _, _ = inputs.build(plan, self.built.config, self.built.encoder)
        placed = self.built.place(batches[0])
        _, metrics = self.built.train_step(jax.tree.map(np.copy, self.state), self.frozen, placed)
        return {name: float(value) for name, value in metrics.items()}


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    texts = [text for n in range(PICTURES) for text in (*captions(n), *question(n))]
    (folder / "words.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts * 4))
    config = tiny("flickr8k", stage__validation=ConfigDict(), stage__suites=ConfigDict())
    words = {"words": {"kind": "table", "path": str(folder / "words.jsonl"), "columns": {"image": ""}}}
    with config.unlocked():
        config.run.bpe_text, config.stage.mixture = ConfigDict(words), ConfigDict(words)
    (plan,) = stages.chain(config, folder / "run")
    built = session.build(plan)
    state, frozen = start.initial_state(built)
    return Trainer(built, jax.device_get(state), frozen)


def run(capsys, *args) -> str:
    """What a command prints; it ends well and complains of nothing."""
    code = front.main(["data", *map(str, args)])
    out, err = capsys.readouterr()
    assert code == 0, out + err
    assert "error" not in err
    return out


def previewed(capsys, path: str, kind: str) -> dict:
    """The spec that preview prints for a config."""
    out = run(capsys, "preview", path)
    assert f"(kind {kind})" in out.split("\n")[0] and f"\n  python -m vlax data doctor {shlex.quote(path)}\n" in out
    assert "pixels\n" in out and "missing" not in out and "broken" not in out and "refused" not in out
    return ast.literal_eval(out[out.index("\n{\n") : out.index("\n}\n") + 2].strip())


def prepare(capsys, path, out: Path, *flags) -> dict:
    """The spec of the prepared set."""
    codec = [f"--image-size={PIXELS}", "--workers=1", *flags]
    assert '"pictures_undecodable": 0' in run(capsys, "prepare", path, out, *codec)
    return {"kind": "prepared", "path": str(out)}


def texts(source) -> list[tuple]:
    rows = [source[at] for at in range(len(source))]
    return [(row.id, row.image_id, row.task, row.turns, row.references, row.answer_type) for row in rows]


@pytest.mark.parametrize("name", WRITERS)
def test_from_files_to_a_training_step(name, tmp_path, capsys, trainer, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest"])  # tfds and absl look there
    path, kind, rows = WRITERS[name](tmp_path)
    capsys.readouterr()
    spec = json.loads(path) if kind in DRAWN else previewed(capsys, path, kind)

    out = run(capsys, "doctor", path, "--out", tmp_path / "doctor", "--workers=1")
    assert f"quarantined 0 of {rows} rows" in out
    assert (tmp_path / "doctor" / "quarantine.jsonl").read_text() == ""
    (about,) = json.loads((tmp_path / "doctor" / "doctor.json").read_text())
    assert about["findings"] == []  # not even a warning

    again = prepare(capsys, path, tmp_path / "prepared", "--codec=raw")
    assert texts(open_source(again)) == texts(open_source(spec)) and len(open_source(spec)) == rows
    assert previewed(capsys, str(tmp_path / "prepared"), "prepared") == again

    if kind == "prepared":  # its pictures are those of the COCO files
        spec = {"kind": "coco", "annotations": str(tmp_path / "annotations.json"), "images": str(tmp_path / "images")}
    metrics = trainer.step(spec)
    assert metrics["finite"] == 1 and metrics["tokens"] > 0 and np.isfinite(metrics["loss_sum"])
    assert trainer.step(again) == metrics


LAYOUTS = [  # every third always, and all of them with the slow tests: what each is read as is test_layouts.py's
    pytest.param(write, id=write.__name__, marks=[pytest.mark.slow] if at % 3 else [])
    for at, write in enumerate((*QUESTIONS, *DIALOGUES, *CAPTIONS))
]


@pytest.mark.parametrize("write", LAYOUTS)
def test_layouts_to_a_training_step(write, tmp_path, capsys, trainer):
    """The commands, training on the files and training on the prepared set agree on layouts as people have them."""
    path = write(tmp_path)
    out = run(capsys, "preview", path)
    assert "missing" not in out and "broken" not in out and "refused" not in out
    spec = ast.literal_eval(out[out.index("\n{\n") : out.index("\n}\n") + 2].strip())
    again = prepare(capsys, path, tmp_path / "prepared", "--codec=raw")
    assert texts(open_source(again)) == texts(open_source(spec))
    metrics = trainer.step(spec)
    assert metrics["finite"] == 1 and metrics["tokens"] > 0 and trainer.step(again) == metrics


def test_a_source_without_pictures_says_that_it_is_meant(trainer, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a dog", "scan": "17"}\n')
    spec = {"kind": "table", "path": str(tmp_path / "rows.jsonl")}
    with pytest.raises(VlaxError, match=r'data: no row of table-rows has a picture.*"columns": \{"image": NAME\}, or that'):
        trainer.step(spec)
    assert trainer.step({**spec, "columns": {"image": ""}})["tokens"] > 0


def test_the_loss_follows_the_pictures(trainer, tmp_path, capsys):
    """Were pictures not seen, prepared ones would give the same loss whatever is stored."""
    path, _, _ = WRITERS["coco"](tmp_path)
    raw, jpeg = (prepare(capsys, path, tmp_path / codec, f"--codec={codec}") for codec in ("raw", "jpeg"))
    a, b = trainer.step(raw), trainer.step(jpeg)
    assert a["tokens"] == b["tokens"] and a["loss_sum"] != b["loss_sum"]
    assert a["loss_sum"] == pytest.approx(b["loss_sum"], rel=1e-2)


def test_no_kind_is_left_out():
    several = {"table": {"jsonl", "csv"}, "hf": {"parquet", "arrow"}}
    kinds = KINDS.keys() - {"pairs"}  # of two pictures a row: test_pictures.py
    assert set().union(*(several.get(kind, {kind}) for kind in kinds)) == set(WRITERS)


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"development data {name} is not here")
    return SHARED / name


REAL = {  # with pictures: all the way, a dozen rows
    "flickr8k_dev": {"kind": "coco", "annotations": "annotations/captions_val.json", "images": "images"},
    "easy_vqa": {"kind": "vqa", "questions": "annotations/questions_val.json",
                 "annotations": "annotations/annotations_val.json", "images": "images"},
    "daquar": {"kind": "vqa", "questions": "annotations/questions_val.json",
               "annotations": "annotations/annotations_val.json", "images": "images"},
    "formats/llava": {"kind": "llava", "annotations": "caption_dev_val_llava_DERIVED.json", "task": "caption",
                      "images": "../../flickr8k_dev/images"},
    "formats/sharegpt": {"kind": "sharegpt", "annotations": "mllm_demo.json", "images": ".", "strip": "data/"},
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_files_to_a_training_step(name, tmp_path, capsys, trainer):
    folder = shared(name)
    paths = {field: str(folder / value) for field, value in REAL[name].items() if field not in ("kind", "strip", "task")}
    spec = {**REAL[name], **paths, "limit": 12}
    run(capsys, "doctor", json.dumps(spec), "--out", tmp_path / "doctor", "--workers=1")
    metrics = trainer.step(spec)
    assert metrics["finite"] == 1 and metrics["tokens"] > 0
    assert trainer.step(prepare(capsys, json.dumps(spec), tmp_path / "prepared", "--codec=raw")) == metrics


@pytest.mark.parametrize(
    ("file", "flags", "lines"),
    [
        ("flickr8k_dev/annotations/captions_val.json", [],
         ["COCO captions (kind coco)", "  rows        1,500 (1,500 caption)", "  pictures    300"]),
        ("easy_vqa", [], ["VQAv2 questions and annotations (kind vqa)"]),
        ("formats/karpathy", ["--split=test"], ["  rows        5,000 (5,000 caption)", "  pictures    1,000"]),
        ("formats/coco_captions_val2017", [], ["  rows        25,014 (25,014 caption)", "  pictures    5,000"]),
        ("formats/llava", ["--images={}/flickr8k_dev/images"], ["LLaVA conversations (kind llava)", "pixels"]),
        ("formats/sharegpt", [], ["ShareGPT conversations (kind sharegpt)", "300 x "]),
        ("formats/vqav2_textvqa", [], ["VQAv2 questions and annotations (kind vqa)", ", missing"]),
        ("formats/pathvqa_lxmert/pvqa_val.json", [], ["  rows        6,279 (6,279 question)", ", missing"]),
    ],
)  # fmt: skip
def test_preview_of_real_files(file, flags, lines, capsys):
    out = run(capsys, "preview", shared(file), *(flag.format(SHARED) for flag in flags))
    for line in lines:
        assert line in out
