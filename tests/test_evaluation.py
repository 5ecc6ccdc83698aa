"""Predictions on disk, the blind twin's pictures, and the whole evaluation on the shared chain."""

import dataclasses
import functools
import json

import pytest
from PIL import Image

from vlax import api
from vlax.data.rows import Row, Turn
from vlax.decoding import DecodeConfig
from vlax.errors import VlaxError
from vlax.evaluation import runner, scoring, suite

DECODE = DecodeConfig(max_new_tokens=4)


def row(number: int, image_id: str) -> Row:
    image = functools.partial(Image.new, "RGB", (4, 4), (number, 0, 0)) if image_id else None
    return Row(str(number), image_id, "caption", (Turn("", "x"),), image, f"file-{image_id}")


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_no_picture_stays_in_place(seed):
    rows = [row(i, "abcde"[i // 2 % 5]) for i in range(12)] + [row(12, "")]
    twins = runner.derange(rows, seed)
    assert [(t.id, t.image_id, t.turns) for t in twins] == [(r.id, r.image_id, r.turns) for r in rows]
    by_id: dict = {}
    for original, twin in zip(rows[:-1], twins[:-1], strict=True):
        assert twin.image_name != original.image_name
        by_id.setdefault(original.image_id, set()).add(twin.image_name)
    assert all(len(names) == 1 for names in by_id.values())  # one wrong picture for all rows about a picture
    assert {name for names in by_id.values() for name in names} == {f"file-{c}" for c in "abcde"}  # each used once
    assert twins[-1].open_image is None
    assert [t.image_name for t in runner.derange(rows, seed)] == [t.image_name for t in twins]


def test_the_seed_chooses_the_pictures():
    rows = [row(i, str(i)) for i in range(12)]
    assert len({tuple(t.image_name for t in runner.derange(rows, seed)) for seed in range(4)}) == 4


def test_a_twin_needs_two_pictures():
    with pytest.raises(VlaxError, match="a blind twin needs at least two pictures"):
        runner.derange([row(0, "a"), row(1, "a")], 0)


@pytest.fixture(scope="module")
def model(trained):
    return api.load(trained[1] / "stage4" / "export")


@pytest.fixture(scope="module")
def sets(trained):
    return runner.open_sets(trained[0].stage.test, "", limit=20)  # more than a physical batch of 32 in all


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(runner, "BATCH", 4)


def protocol(model, sets, decode=DECODE, blind=None):
    return runner.protocol(model, sets, decode, blind)


def test_predictions_go_on_by_id(model, sets, tmp_path, small_batches, monkeypatch):
    directory = api_path(tmp_path)
    proto = protocol(model, sets)
    lines = runner.predict(model, sets, DECODE, directory, proto)
    path = tmp_path / "predictions.jsonl"
    whole = path.read_text()
    assert [(line["set"], line["id"]) for line in lines] == [(s.name, r.id) for s in sets for r in s.rows]
    assert json.loads(whole.splitlines()[0]) == {"protocol": proto["hash"], "model": proto["model"]}
    assert [json.loads(line) for line in whole.splitlines()[1:]] == lines

    asked = []
    real = runner.requests
    monkeypatch.setattr(runner, "requests", lambda model, rows: asked.extend(r.id for r in rows) or real(model, rows))
    for keep in (len(whole), len(whole) // 2, whole.index("\n") + 1):  # whole; half of a line at its end; the head alone
        path.write_text(whole[:keep])
        done = whole[:keep].count("\n") - 1
        asked.clear()
        assert runner.predict(model, sets, DECODE, directory, proto) == lines
        assert len(asked) == len(lines) - done
        assert path.read_text() == whole


def api_path(path):
    from etils import epath

    return epath.Path(path)


def test_another_protocol_or_model_starts_afresh(model, sets, tmp_path, small_batches):
    directory, path = api_path(tmp_path), tmp_path / "predictions.jsonl"
    runner.predict(model, sets, DECODE, directory, protocol(model, sets))
    longer = dataclasses.replace(DECODE, max_new_tokens=5)
    other = protocol(model, sets, longer)
    assert other["hash"] != protocol(model, sets)["hash"]
    runner.predict(model, sets, longer, directory, other)
    lines = path.read_text().splitlines()
    assert json.loads(lines[0])["protocol"] == other["hash"] and len(lines) == 1 + sum(len(s.rows) for s in sets)
    retrained = {**other, "model": {"stage": "stage4", "checksums": {"decoder": "other"}}}
    runner.predict(model, sets, longer, directory, retrained)
    assert json.loads(path.read_text().splitlines()[0])["model"] == retrained["model"]


def test_the_protocol_covers_what_a_score_depends_on(model, sets):
    base = protocol(model, sets)["hash"]
    fewer = [dataclasses.replace(s, rows=s.rows[:3]) for s in sets]
    others = [protocol(model, fewer), protocol(model, sets, blind=0), protocol(model, sets, blind=1),
              protocol(model, sets, dataclasses.replace(DECODE, num_beams=2)), protocol(model, sets[:1])]  # fmt: skip
    assert len({base, *(p["hash"] for p in others)}) == 6 and protocol(model, sets)["hash"] == base


@pytest.fixture(scope="module")
def evaluated(trained):
    """(what suite.run returned for the twin and for the model, what it printed)"""
    import contextlib
    import io

    config, workdir = trained
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        # METEOR takes five seconds a start, and five starts; test_captions.py has it.
        patch.setattr(scoring.by_row, "__defaults__", (("Bleu", "ROUGE_L", "CIDEr"),))
        twin = suite.run(config, str(workdir), blind=True, limit=8)
        before = (workdir / "stage4" / "eval-blind" / "predictions.jsonl").stat().st_mtime_ns
        full = suite.run(config, str(workdir), limit=8)
    assert (workdir / "stage4" / "eval-blind" / "predictions.jsonl").stat().st_mtime_ns == before  # read, not made again
    return twin, full, out.getvalue()


def test_scores_json(evaluated, trained):
    twin, full, _ = evaluated
    directory = trained[1] / "stage4"
    assert json.loads((directory / "eval" / "scores.json").read_text()) == json.loads(json.dumps(full))
    assert json.loads((directory / "eval-blind" / "scores.json").read_text()) == json.loads(json.dumps(twin))
    assert {"CIDEr", "Bleu_4", "ROUGE_L", "accuracy"} <= set(full) and len(full["protocol"]["hash"]) == 16
    assert full["protocol"]["blind"] is None and twin["protocol"]["blind"]["images"] == "deranged by image id"
    captions, questions = full["sets"]["captions"], full["sets"]["questions"]
    assert captions["rows"] == questions["rows"] == 8
    for metric in (captions["CIDEr"], questions["accuracy"]):
        assert {"score", "twin", "prior", "interval", "over_twin", "over_prior"} <= set(metric)
        assert None not in metric.values()
    assert captions["CIDEr"]["twin"] == twin["sets"]["captions"]["CIDEr"]["score"]
    assert twin["sets"]["captions"]["CIDEr"]["twin"] is None


def test_table_and_sheet(evaluated, trained):
    _, full, printed = evaluated
    directory = trained[1] / "stage4"
    assert f"stage4: captions (8 rows), questions (8 rows); protocol {full['protocol']['hash']}" in printed
    assert "stage4 blind twin: " in printed and "score - twin" in printed and "captions CIDEr" in printed
    assert f"{full['CIDEr']:.3f}" in printed and "questions accuracy" in printed
    for folder in ("eval", "eval-blind"):
        with Image.open(directory / folder / "samples.png") as sheet:
            assert sheet.format == "PNG" and min(sheet.size) > 200


def test_which_export_is_scored(trained, tmp_path):
    config, workdir = trained
    from vlax import stages

    plan = stages.chain(config, workdir)[-1]
    assert suite.export_directory(plan, "") == suite.export_directory(plan, "last") == plan.export
    assert suite.export_directory(plan, "best") == plan.export  # the last state was the best: there is one export
    assert str(suite.export_directory(plan, "/some/where")) == "/some/where"
    with pytest.raises(VlaxError, match=r"stage4 has no finished export in .*train it first: python train.py"):
        suite.export_directory(stages.chain(config, tmp_path)[-1], "")
