"""`vlax runs` and `vlax clean` on workdirs that the program's own writers made."""

import html.parser
import io
import re

import pytest
from conftest import tiny
from etils import epath

from vlax.commands import front
from vlax.evaluation import scoring
from vlax.evaluation.runs import charts, clean, page, survey
from vlax.process import lease
from vlax.scores.statistics import Interval
from vlax.storage import jsonl, state
from vlax.training import metrics, stages


def stage(workdir, name, steps, losses, *, length=8, exported=False, scores=None):
    """A stage of `length` micro-steps with checkpoints (of 1 kB each) at `steps`."""
    plan = next(plan for plan in stages.chain(tiny("stage1", stage__accumulate=2), workdir) if plan.name == name)
    stages.record_identity(plan)
    stages.record_length(plan, length, plan.stage.accumulate)
    for step in steps:
        (plan.directory / "checkpoints" / str(step)).mkdir(parents=True)
        (plan.directory / "checkpoints" / str(step) / "state").write_bytes(b"x" * 1000)
        (plan.directory / "seals").mkdir(exist_ok=True)
        (plan.directory / "seals" / f"{step}.json").write_text("{}")
    state.write_json(plan.directory / "validation.json", {str(step): loss for step, loss in losses.items()})
    writer = metrics.Writer(plan.directory, 0, tensorboard=False)
    for update in (1, 2, 3):
        writer.write(update, "train", {"loss": 4.0 / update})
    writer.write(3, "validation", {"loss": 1.5, "loss/captions": 1.5, "captions CIDEr": 0.25})
    if exported:
        (plan.directory / "export").mkdir()
        state.write_json(plan.directory / "export" / "manifest.json", {"micro_steps": length})
    if scores is not None:
        rows = {"CIDEr": {"score": scores, "interval": Interval(scores, scores - 0.5, scores + 0.5)}, "rows": 5}
        scoring.write_scores(plan.directory / "eval", {"captions": rows}, {"captions": {"hash": "0c"}}, {"title": name})
    return plan.directory


@pytest.fixture
def runs(tmp_path):
    """Two workdirs: a finished one that was scored, and one that was stopped, whose second stage lost its config.json."""
    folder = epath.Path(tmp_path) / "runs"
    stage(folder / "a", "stage0_vision", [4], {4: 2.0}, length=4, exported=True)
    stage(folder / "a", "stage1", [2, 4, 6, 8], {2: 0.5, 4: 0.9, 6: 1.0, 8: 1.0}, exported=True, scores=1.75)
    stage(folder / "b", "stage0_vision", [2], {2: None}, length=4)
    (stage(folder / "b", "stage1", [4], {}) / "config.json").unlink()
    return folder


def test_a_list_of_runs(runs, capsys):
    assert front.main(["runs", str(runs)]) == 0
    shown = [re.sub(r" +", " ", re.sub(r"[\d.]+ MiB", "N MiB", line)) for line in capsys.readouterr().out.splitlines()]
    assert shown == [
        f"{runs}/a N MiB",
        " stage0_vision 4 of 4 updates finished; can be trained longer N MiB",
        " stage1 4 of 4 updates finished; can be trained longer N MiB captions CIDEr 1.750 [1.250, 2.250]",
        f"{runs}/b N MiB",
        " stage0_vision 2 of 4 updates goes on at 2 N MiB",
        " stage1 2 of 4 updates goes on at 2, if the config is the same: config.json is missing N MiB",
    ]
    assert [run.directory for run in survey.find(runs / "a")] == [runs / "a"], "a workdir itself"
    assert front.main(["runs", str(runs / "nowhere")]) == 2 and "there is no folder" in capsys.readouterr().err


def test_a_page_of_runs(runs, tmp_path):
    """A column a run, a chart a curve, words escaped, nothing loaded."""
    (runs / "a").rename(runs / "<b>a")
    assert front.main(["runs", str(runs), f"--html={tmp_path}/new/runs.html"]) == 0
    text = (tmp_path / "new" / "runs.html").read_text()
    tags = []
    parser = html.parser.HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append((tag, dict(attrs)))
    parser.feed(text)
    names = [tag for tag, _ in tags]
    assert names.count("svg") == 6 and names.count("polyline") == 12, "three curves of two stages, two runs in each"
    assert "script" not in names and "&lt;b&gt;a" in text and "<b>a" not in text
    assert not [attrs for _, attrs in tags if {"style", "src"} & set(attrs)] and "<b>1.750</b>" in text


def test_ticks():
    assert charts._ticks(0, 1000) == [0, 250, 500, 750, 1000] and charts._ticks(0.0, 0.7) == [0.0, 0.2, 0.4, 0.6]
    assert charts._log_ticks(0.03, 3.0) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1, 2])
    assert "NaN" not in charts.chart({0: [(1, float("nan")), (2, 1.0)]}, ["a"], True)
    assert page.page("empty", [])


def test_what_nobody_needs_is_listed_and_goes(runs, capsys, monkeypatch):
    """The newest checkpoint and the best one stay; where nobody can be asked nothing goes."""
    for folder in ("export-best", "damaged/7"):
        (runs / "a" / "stage1" / folder).mkdir(parents=True)
    (runs / "b" / "stage1" / "export-best").mkdir()  # of a stage that is not finished
    (runs / "vlax-cache").mkdir()
    found = clean.find(survey.find(runs), 1)
    want = ["a/stage1/checkpoints/4", "a/stage1/checkpoints/6", "a/stage1/export-best", "a/stage1/damaged", "vlax-cache"]
    assert [str(waste.path) for waste in found] == [f"{runs}/{path}" for path in want]
    assert [str(waste.path)[-1] for waste in clean.find(survey.find(runs), 2)[:1]] == ["4"]
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert front.main(["clean", str(runs)]) == 2 and "add --yes" in capsys.readouterr().err
    assert all((runs / path).exists() for path in want)
    monkeypatch.setattr("vlax.commands.clean._asked", lambda: False)
    assert front.main(["clean", str(runs)]) == 1 and (runs / want[0]).exists()
    assert front.main(["clean", str(runs), "--yes"]) == 0
    assert not any((runs / path).exists() for path in want)
    assert survey.checkpoints(runs / "a" / "stage1") == [2, 8] and (runs / "a" / "stage1" / "export" / "manifest.json").exists()
    assert [path.name for path in sorted((runs / "a" / "stage1" / "seals").iterdir())] == ["2.json", "8.json"]
    assert front.main(["clean", str(runs), "--yes"]) == 0 and "nothing in" in capsys.readouterr().out


def test_nothing_goes_from_under_a_run(runs, monkeypatch):
    """Who writes there is named, before anything is deleted."""
    found = clean.find(survey.find(runs), 1)
    with lease.hold(runs / "a"), pytest.raises(Exception, match=r"(?s)runs/a"):
        clean.remove(found)
    assert (runs / "a" / "stage1" / "checkpoints" / "4").exists()


@pytest.mark.parametrize(
    ("name", "values", "lost"),
    [
        ("config.json", {"stage": []}, "stage1"),
        ("length.json", {"micro_steps": 8, "per_update": 0}, "stage1"),
        ("length.json", {"micro_steps": "8"}, "stage1"),
        ("export/manifest.json", {"micro_steps": 10**400}, "stage1"),
        ("eval/scores.json", {"sets": {"captions": {"CIDEr": 3}}}, "stage1/eval"),
        ("eval/scores.json", {"sets": {"captions": {"CIDEr": {"score": "x", "interval": 1}}}}, "stage1/eval"),
    ],
)
def test_a_file_that_holds_something_else_is_left_out_and_said(runs, caplog, name, values, lost):
    state.write_json(runs / "a" / "stage1" / name, values)
    found = survey.find(runs)
    assert f"{runs}/a/{lost} does not hold what it should" in caplog.text
    assert len(survey.text(found).splitlines()) == 6 and "polyline" in page.page("x", found)


def test_records_that_cannot_be_drawn_are_left_out(runs):
    """Numbers that JSON has and floats have not, words, and two losses that are one to a logarithm."""
    stage = survey.read(runs / "a" / "stage1")
    records = [{"step": 10**400, "kind": "train", "loss": 1.0}, {"step": 4, "kind": ["train"], "loss": 1.0}]
    records += [{"step": 5, "kind": "train", "loss": loss} for loss in ("low", 10**400, 5e-324, True, 2.5)]
    jsonl.append(stage.directory / "metrics.jsonl", records)
    drawn = page.curves(stage)["training loss"]
    assert drawn[-2:] == [(3, 4.0 / 3), (5, 2.5)] and len(drawn) == 4
    assert "circle" in charts.chart({0: [(1, 1e5), (2, 1.0000000000000002e5)]}, ["a"], True)
