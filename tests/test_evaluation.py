"""Predictions on disk, the blind twin's pictures, and the whole evaluation on the shared chain."""

import contextlib
import dataclasses
import functools
import io
import json
import types

import pytest
from etils import epath
from PIL import Image
from test_containers import bucket  # noqa: F401  (a fixture)

import vlax
from benchmarks import reference_curves
from vlax.decoding.options import DecodeConfig
from vlax.errors import VlaxError
from vlax.evaluation import compare, evaluate, predictions, runner, scoring, terminal
from vlax.evaluation.options import Options, export_directory
from vlax.evaluation.runs import survey
from vlax.model import api, exports
from vlax.rows import Picture, Row, Turn
from vlax.scores import captions
from vlax.storage import jsonl
from vlax.suites import files, protocol
from vlax.training import estimate


def row(number: int, image_id: str) -> Row:
    opener = functools.partial(Image.new, "RGB", (4, 4), (number, 0, 0))
    return Row(str(number), image_id, "caption", (Turn("", "x"),), Picture(f"file-{image_id}", opener) if image_id else None)


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
    assert twins[-1].picture is None
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


def suites_of(config) -> list[protocol.Suite]:
    return protocol.suites({name: content.to_dict() for name, content in config.stage.suites.items()})


@pytest.fixture(scope="module")
def tests_of_stage4(trained):
    """Captions and questions; together more than four physical batches of 4."""
    small = [dataclasses.replace(suite, physical_batch=4) for suite in suites_of(trained[0])]
    return runner.open_sets(small, "", limit=20)


def test_an_evaluation_scores_its_twin_once_and_opens_one_scorer_a_set(monkeypatch):
    """Alone for its own directory, and beside the model: METEOR takes seconds to start, and the same again for each set."""
    said = []

    class Counted(captions.CaptionScorer):
        def __init__(self, *args):
            said.append("opened")
            super().__init__(*args)

        def __call__(self, predictions):
            said.append(predictions["1"])
            return super().__call__(predictions)

    monkeypatch.setattr(scoring, "CaptionScorer", Counted)
    suite = protocol.suites({"cats": {"task": "caption", "metrics": ["Bleu"], "data": {"test": {"kind": "scenes"}}}})[0]
    asked = [{"id": str(n), "image_id": str(n), "references": ["a cat sits"], "answer_type": ""} for n in range(3)]
    lines = {name: [{**line, "prediction": f"a {name}"} for line in asked] for name in ("dog", "cat")}
    test = types.SimpleNamespace(suite=suite, name="cats")
    twin, mine = (types.SimpleNamespace(sets=[test], lines={"cats": lines[name]}) for name in ("dog", "cat"))
    alone, beside = evaluate._scored([(twin, None), (mine, twin)], {"cats": None})
    assert said == ["opened", "a dog", "a cat"]
    assert beside[0]["cats"]["Bleu_1"]["twin"] == alone[0]["cats"]["Bleu_1"]["score"] < beside[0]["cats"]["Bleu_1"]["score"]


def predicted(model, test, path, run="r", **options):
    return runner.predict(model, test, epath.Path(path), run, **options)


def test_predictions_go_on_by_id(model, tests_of_stage4, tmp_path, monkeypatch, capsys):
    path = tmp_path / "predictions.jsonl"
    lines = [line for test in tests_of_stage4 for line in predicted(model, test, path)]
    whole = path.read_text()
    assert [(line["set"], line["id"]) for line in lines] == [(t.name, r.id) for t in tests_of_stage4 for r in t.rows]
    assert [json.loads(line) for line in whole.splitlines()] == lines

    asked = []
    real = runner.requests
    monkeypatch.setattr(runner, "requests", lambda m, t, rows, pool: asked.extend(r.id for r in rows) or real(m, t, rows, pool))
    for keep in (len(whole), len(whole) // 2, 0):  # whole; half of a line at its end; nothing
        path.write_text(whole[:keep])
        done = whole[:keep].count("\n")
        asked.clear()
        assert [line for test in tests_of_stage4 for line in predicted(model, test, path)] == lines
        assert len(asked) == len(lines) - done
        assert path.read_text() == whole
    assert "questions: " in capsys.readouterr().out


def test_no_prediction_is_ever_thrown_away(model, tests_of_stage4, tmp_path):
    """Another protocol or other weights add lines; the old ones stay, and are there again when asked for."""
    path, test = tmp_path / "predictions.jsonl", tests_of_stage4[0]
    first = predicted(model, test, path, "a")
    before = path.read_text()
    shorter = dataclasses.replace(test, suite=dataclasses.replace(test.suite, decoding=DecodeConfig(max_new_tokens=2)))
    predicted(model, shorter, path, "b")
    after = path.read_text()
    assert after.startswith(before) and len(after) > len(before)
    assert predicted(model, test, path, "a") == first and path.read_text() == after


def test_rows_asked_for_at_once_do_not_change_answers(model, tests_of_stage4, tmp_path):
    """1, 3 and 4 rows at a time, padded to one physical batch: the same answers, as the same bytes."""
    test, files = tests_of_stage4[1], []
    for size in (1, 3, 4):
        predicted(model, test, tmp_path / str(size) / "predictions.jsonl", at_once=size)
        files.append((tmp_path / str(size) / "predictions.jsonl").read_bytes())
    assert files[0] == files[1] == files[2] and files[0].count(b"\n") == len(test.rows)


def test_the_protocol_covers_what_a_score_depends_on(model, tests_of_stage4):
    test = tests_of_stage4[1]

    def settings(blind=None, rows=None, **changes):
        other = dataclasses.replace(test, suite=dataclasses.replace(test.suite, **changes), rows=rows or test.rows)
        return runner.settings(model, other, blind)

    decoded = [settings(blind=0), settings(blind=1), settings(rows=test.rows[:3]), settings(decoding=DecodeConfig(num_beams=2)),
               settings(prompt="{question}?"), settings(answers=("yes", "no")), settings(physical_batch=8),
               settings(answers=("yes", "no"), answers_by="likelihood")]  # fmt: skip
    scored = [settings(metrics=("gqa",)), settings(post_processing=("first_line",))]
    assert len({p["hash"] for p in (settings(), *decoded, *scored)}) == 1 + len(decoded) + len(scored)
    # Other metrics need no other predictions: they are filed under what was decoded.
    assert len({runner.run_key(model, p) for p in (settings(), *decoded)}) == 1 + len(decoded)
    assert {runner.run_key(model, p) for p in scored} == {runner.run_key(model, settings())}
    # A suite's name and what only makes decoding faster are no part of it.
    chunked = dataclasses.replace(test.suite.decoding, chunk=3, seed=5)
    assert settings(name="other", decoding=chunked)["hash"] == settings()["hash"]
    # An option that came later is in none of the protocols that don't use it, or they would be others than they were.
    assert set(settings()["decoding"]) == {"max_new_tokens", "num_beams", "temperature", "top_p", "length_penalty"}
    assert settings(decoding=dataclasses.replace(test.suite.decoding, kv_cache="int8"))["hash"] != settings()["hash"]
    retrained = dataclasses.replace(model, manifest={**model.manifest, "checksums": {"decoder": "other"}})
    assert runner.run_key(retrained, settings()) != runner.run_key(model, settings())
    few = dataclasses.replace(model, held="int8")
    assert runner.dtype(few) == "float32, int8" and runner.run_key(few, settings()) != runner.run_key(model, settings())


def test_any_text_can_be_kept_and_read_back(tmp_path):
    """Line separators of Unicode, half a surrogate pair, and a line that was cut inside a character."""
    path = epath.Path(tmp_path / "predictions.jsonl")
    texts = ["a\u2028b", "c\x85d", "e\u2029", "\ud83d", "plain"]
    lines = [{"run": "r", "set": "s", "id": str(i), "prediction": text} for i, text in enumerate(texts)]
    jsonl.append(path, lines)
    assert list(predictions.read(path, ["r"]).values()) == lines
    whole = (tmp_path / "predictions.jsonl").read_bytes()
    (tmp_path / "predictions.jsonl").write_bytes(whole + '{"run": "r", "prediction": "\u00e9'.encode()[:-1])
    assert list(predictions.read(path, ["r"]).values()) == lines  # passed over by one who only reads
    jsonl.mend(path)
    assert (tmp_path / "predictions.jsonl").read_bytes() == whole


def test_predictions_in_an_object_store_are_numbered_files(bucket):  # noqa: F811
    path = epath.Path(f"{bucket}/eval/predictions.jsonl")
    lines = [{"run": "r", "set": "s", "id": str(i), "prediction": "x"} for i in range(5)]
    jsonl.append(path, lines[:2])
    jsonl.append(path, lines[2:3])
    jsonl._chunks.clear()  # another process goes on, after somebody removed the first file
    epath.Path(f"{bucket}/eval/predictions-000000.jsonl").unlink()
    jsonl.append(path, lines[3:])
    assert sorted(part.name for part in path.parent.iterdir()) == ["predictions-000001.jsonl", "predictions-000002.jsonl"]
    assert list(predictions.read(path, ["r"]).values()) == lines[2:]


@pytest.mark.parametrize(
    ("flags", "text"),
    (
        ({"data": "x.json"}, "--data, --images and --like belong to --suite=custom"),
        ({"answers_by": "likelihood"}, "--answers_by says how --answers binds; there are none"),
        ({"predictions": "p", "answers": ("yes",)}, "--predictions is scored as it is"),
        ({"predictions": "p", "blind": True}, "--predictions has no blind twin"),
        ({"different_protocols": True}, "--different_protocols belongs to --against or --compare"),
        ({"blind": True, "twin": False}, "--blind scores the twin that --notwin leaves out"),
    ),
)
def test_a_flag_without_effect_is_refused(flags, text):
    with pytest.raises(VlaxError, match=text):
        Options(**flags)


def test_small_models_are_decoded_whole_on_every_device(trained, monkeypatch):
    config, workdir = trained
    run, export = config.run.copy_and_resolve_references(), str(workdir / "stage4" / "export")
    assert runner.decoding_mesh(run, export) == (-1, 1, 1)  # as run.mesh says
    run.mesh.data, run.mesh.fsdp, run.mesh.tp = 1, -1, 2
    size = 4 * exports.read_manifest(export)["parameters"]
    monkeypatch.setattr(estimate, "memory", lambda: 4 * size)
    assert runner.decoding_mesh(run, export) == (-1, 1, 2)
    monkeypatch.setattr(estimate, "memory", lambda: 4 * size - 1)
    assert runner.decoding_mesh(run, export) == (1, -1, 2)


def test_every_choice_that_changes_results_has_its_own_folder():
    some = [Options(), Options(limit=3), Options(checkpoint="best"), Options(answers=("yes",)), Options(answers=("no",)),
            Options(suites=("gqa_testdev",)), Options(suites=("custom",), data="a.json"), Options(checkpoint="runs/a/export"),
            Options(suites=("custom",), data="b/a.json"), Options(quantise="int8"), Options(quantise="nf4")]  # fmt: skip
    assert len({options.folder() for options in some}) == len(some) and Options().folder() == ""


@pytest.mark.parametrize(
    ("change", "text"),
    (
        ({"metrics": ["vqa"]}, r"metrics=\['vqa'\]; a question has vqav2@official"),
        ({"metrics": "gqa"}, r"metrics is a list: write metrics = \['gqa'\]"),
        ({"task": "chat"}, "task='chat' is not one of caption, describe, question"),
        ({"prompt": "what?"}, "leaves the question out; write {question} where it belongs"),
        ({"decoding": {"max_new_tokens": "8"}}, "decoding.max_new_tokens='8' should be of type int"),
        ({"decoding": {"beams": 8}}, "decoding has max_new_tokens, .*, not beams"),
        ({"answers": ["yes"], "decoding": {"num_beams": 3}}, "answers are chosen greedily"),
        ({"post_processing": ["lower"]}, r"post_processing has no step \['lower'\]; there are first_line, lowercase"),
        ({"data": {"train": {}}}, "it names no data.test"),
        ({"physical_batch": 1.5}, "physical_batch=1.5 must be a whole number"),
        ({"metric": 1}, "there is no field 'metric'; a suite has"),
        ({"metrics": ["gqa", 1]}, "metrics is a list of texts, in quotes"),
        ({"prompt": 5}, "prompt is a text, in quotes"),
        ({"data": ["test"], "decoding": [1]}, "does not hold what it should .*; write it as those that come with vlax"),
    ),
)
def test_a_protocol_is_checked(change, text):
    content = {"task": "question", "metrics": ["gqa"], "data": {"test": {"kind": "cells", "split": "test"}}}
    with pytest.raises(VlaxError, match=f"suite mine.*{text}"):
        protocol.from_dict("mine", content | change)


@pytest.mark.parametrize("content", (b"task = '\xe1'", b"a = " + b"[" * 5_000, b"task ="))
def test_a_file_of_a_suite_that_is_no_toml(tmp_path, content):
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(VlaxError, match=r"mine\.toml is not TOML \(.*\); .*protocols has suites to start from"):
        files.read(str(tmp_path / "mine.toml"))
    with pytest.raises(VlaxError, match=r"x\.toml cannot be read \(.*Is a directory"):
        (tmp_path / "x.toml").mkdir()
        files.read(str(tmp_path / "x.toml"))


def test_a_prompt_and_post_processing_of_the_suite(model, tests_of_stage4):
    suite = dataclasses.replace(
        tests_of_stage4[1].suite, prompt="asked: {question}", post_processing=("first_line", "lowercase")
    )
    assert suite.prompt_text(" how many? ", model.encoder) == "asked: how many?"
    assert model.encoder.decode(suite.prompt_ids("how many?", model.encoder)) == "asked: how many?"
    assert suite.finish(" Two\nthree ") == "two"


@pytest.fixture(scope="module")
def evaluated(trained):
    """(what evaluate.run returned for the twin and for the model, what it printed)"""
    config, workdir = trained
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        twin = evaluate.run(config, str(workdir), Options(blind=True, limit=8))
        kept = workdir / "stage4" / "eval-blind" / "limit=8" / "predictions.jsonl"
        before = kept.stat().st_mtime_ns
        full = evaluate.run(config, str(workdir), Options(limit=8))
    assert (
        workdir / "stage4" / "eval-blind" / "limit=8" / "predictions.jsonl"
    ).stat().st_mtime_ns == before  # read, not made again
    return twin, full, out.getvalue()


def test_scores_json(evaluated, trained):
    twin, full, _ = evaluated
    directory = trained[1] / "stage4"
    assert json.loads((directory / "eval" / "limit=8" / "scores.json").read_text()) == json.loads(json.dumps(full))
    assert json.loads((directory / "eval-blind" / "limit=8" / "scores.json").read_text()) == json.loads(json.dumps(twin))
    assert {"CIDEr", "Bleu_4", "ROUGE_L", "accuracy"} <= set(full) and len(full["protocol"]["hash"]) == 16
    protocols = full["protocol"]["sets"]
    assert protocols["captions"]["blind"] is None and protocols["questions"]["metrics"] == ["vqav2@official", "exact_match"]
    assert twin["protocol"]["sets"]["captions"]["blind"]["images"] == "deranged by image id"
    captions, questions = full["sets"]["captions"], full["sets"]["questions"]
    assert captions["rows"] == questions["rows"] == 8
    for metric in (*(captions[m] for m in ("CIDEr", "Bleu_1", "Bleu_4")), questions["accuracy"]):
        assert {"score", "twin", "prior", "interval", "over_twin", "over_prior"} <= set(metric)
        assert None not in metric.values()
        assert metric["interval"].mean == pytest.approx(metric["score"], abs=1e-9)
        assert metric["interval"].low - 1e-9 <= metric["score"] <= metric["interval"].high + 1e-9
    assert captions["CIDEr"]["twin"] == twin["sets"]["captions"]["CIDEr"]["score"]
    assert twin["sets"]["captions"]["CIDEr"]["twin"] is None
    assert questions["accuracy"]["score"] == questions["exact_match: accuracy"]["score"]  # one answer repeated ten times
    assert "min(matches" in full["formulas"]["questions"]["accuracy"] and "CIDEr" in full["formulas"]["captions"]


def test_table_sheet_and_report(evaluated, trained):
    _, full, printed = evaluated
    directory = trained[1] / "stage4"
    told = [f"{name} (8 rows, protocol {full['protocol']['sets'][name]['hash']})" for name in ("captions", "questions")]
    assert f"stage4: {', '.join(told)}" in printed
    assert "stage4 blind twin: " in printed and "score - twin" in printed and "captions CIDEr" in printed
    assert f"{full['CIDEr']:.3f}" in printed and "questions accuracy" in printed
    for folder in ("eval", "eval-blind"):
        with Image.open(directory / folder / "limit=8" / "samples.png") as sheet:
            assert sheet.format == "PNG" and min(sheet.size) > 200
    page = (directory / "eval" / "limit=8" / "report.html").read_text()
    hashes = [full["protocol"]["sets"][name]["hash"] for name in ("captions", "questions")]
    assert page.count("<script") >= 2 and all(mark in page for mark in hashes) and "is there" in page
    assert f'"hash":"{full["protocol"]["hash"]}"' not in page, "protocol is the name of a set's, as on the terminal"
    about = json.loads((directory / "eval" / "limit=8" / "made.json").read_text())
    assert about["model"] == str(directory / "export") and about["stage"] == "stage4" and about["mask"] == "image_bidirectional"
    assert about["picture size"] == "16 x 16 pixels" and about["checkpoint"].startswith("step 4, exported 20")
    assert about["data"].count("8 rows") == 2 and about["versions"].startswith(f"vlax {vlax.__version__}, jax 0.")
    assert json.dumps(about["command"])[1:-1] in page
    [found] = [run for run in survey.find(trained[1]) if run.directory == trained[1]]
    assert f"captions CIDEr {full['CIDEr']:.3f} [" in survey.text([found]) and found.stages[-1].progress == "4 of 4 updates"


def test_predictions_of_another_system(evaluated, trained, tmp_path, capsys):
    """Our own predictions, brought back as if they were another's, get the same score without a model."""
    _, full, _ = evaluated
    config, workdir = trained
    lines = [
        json.loads(line) for line in (workdir / "stage4" / "eval" / "limit=8" / "predictions.jsonl").read_text().splitlines()
    ]
    answers = [{"question_id": line["id"], "answer": line["prediction"]} for line in lines if line["set"] == "questions"]
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(answers))
    options = Options(predictions=str(path), suites=("questions",), limit=8)
    scores = evaluate.run(config, str(workdir), options)
    assert scores["sets"]["questions"]["accuracy"]["score"] == full["sets"]["questions"]["accuracy"]["score"]
    assert scores["sets"]["questions"]["accuracy"]["twin"] is None and list(
        workdir.glob("external/theirs-questions-*/report.html")
    )
    assert f"are in {workdir}/external/theirs-questions-" in capsys.readouterr().out
    path.write_text("\n".join(json.dumps(answer) for answer in answers[1:]))
    with pytest.raises(VlaxError, match=r"theirs.json: 1 ids of questions are missing \(.*\); every row of the suite needs"):
        evaluate.run(config, str(workdir), options)
    path.write_text(json.dumps([*answers, answers[0]]))
    with pytest.raises(VlaxError, match="occurs twice; give one prediction a row"):
        evaluate.run(config, str(workdir), options)
    with pytest.raises(VlaxError, match="--predictions is scored on one suite, not on 2: name it with --suite=NAME"):
        evaluate.run(config, str(workdir), dataclasses.replace(options, suites=()))


def test_comparisons_refuse_different_protocols(evaluated, trained, capsys):
    config, workdir = trained
    mine = compare.load(workdir / "stage4" / "eval" / "limit=8")
    pairs = compare.paired(mine, mine)
    assert {name: set(pair.differences) for name, pair in pairs.items()} == {
        name: set(metrics) - {"rows"} for name, metrics in mine.scores["sets"].items()
    }
    assert all(d == (0.0, 0.0, 0.0) for d in pairs["captions"].differences.values())
    same = pairs["questions"].differences["accuracy"]
    assert same.mean == 0 and same.low < 0 < same.high  # eight rows alike say little of those that were not drawn
    blind = compare.load(workdir / "stage4" / "eval-blind" / "limit=8")
    with pytest.raises(
        VlaxError, match=r"captions was evaluated under two protocols \(.*which differ in blind: null and .*--diff"
    ):
        compare.paired(mine, blind)
    scored = compare.paired(mine, blind, different_protocols=True)["captions"].differences["CIDEr"]
    assert scored == mine.scores["sets"]["captions"]["CIDEr"]["over_twin"] or list(scored) == pytest.approx(
        mine.scores["sets"]["captions"]["CIDEr"]["over_twin"]
    )
    evaluate.run(config, str(workdir), Options(limit=8, against="stage4"))
    printed = capsys.readouterr().out
    assert "stage4 - stage4, paired over rows" in printed and "questions accuracy" in printed
    assert "captions: 0 of 8 predictions differ" in printed
    old, new = (workdir / "stage4" / folder / "limit=8" for folder in ("eval-blind", "eval"))
    terminal.compare([str(old), str(new)], True, 4)
    printed = capsys.readouterr().out
    assert printed.startswith("stage4 - stage4 blind twin, paired over rows, 95 % intervals:") and f"is in {new}" in printed
    row = mine.scores["sets"]["captions"]["CIDEr"]
    (line,) = (line for line in printed.splitlines() if line.startswith("CIDEr"))
    twin, own, difference = (f"{row['twin']:.3f}", "{:.3f} [{:.3f}, {:.3f}]".format(row["score"], *row["interval"]), scored)
    assert line.split()[1] == twin and own in line and f"{difference.mean:+.3f} [{difference.low:+.3f}" in line
    assert "blind twin" in (new / "compare.html").read_text() and not (old / "compare.html").exists()
    with pytest.raises(VlaxError, match=r"stage3 was not evaluated: there is no .*Run eval.py with its config first"):
        compare.find(workdir, "stage3")
    with pytest.raises(VlaxError, match=r"nowhere holds no evaluation: there is no scores.json"):
        compare.load("/nowhere")


def test_two_runs_of_one_stage_are_told_apart_by_their_folders():
    kept = [compare.Kept("stage3", epath.Path(folder), {}, {}) for folder in ("runs/a/stage3/eval", "runs/b/stage3/eval")]
    assert compare.names(*kept) == ("stage3 of a/stage3/eval", "stage3 of b/stage3/eval")
    assert compare.names(kept[0], kept[0]) == ("stage3", "stage3")
    assert compare.names(kept[0], dataclasses.replace(kept[1], title="stage3 (best)")) == ("stage3", "stage3 (best)")


def test_suites_that_decode_alike_share_their_predictions(trained, tmp_path, capsys):
    """Metrics or a name of its own need no other predictions: they are decoded once, and each suite finds them."""
    config, workdir = trained
    text = (files.FOLDER / "embedded_cells.toml").read_text()
    strict = tmp_path / "strict.toml"
    strict.write_text(text.replace('metrics = ["vqav2@official", "exact_match"]', 'metrics = ["exact_match"]'))
    options = Options(suites=("embedded_cells", str(strict)), limit=8, twin=False, report_samples=0)
    scores = evaluate.run(config, str(workdir), options)
    protocols, runs = scores["protocol"]["sets"], scores["runs"]
    assert protocols["strict"]["hash"] != protocols["embedded_cells"]["hash"] and runs["strict"] == runs["embedded_cells"]
    directory = workdir / "stage4" / "eval" / options.folder()
    assert len((directory / "predictions.jsonl").read_text().splitlines()) == 8
    kept = compare.load(directory)
    assert {name: [line["id"] for line in lines] for name, lines in kept.lines.items()} == {
        name: [line["id"] for line in kept.lines["strict"]] for name in ("embedded_cells", "strict")
    }
    terminal.compare([str(directory)] * 2, False, 4)
    assert "strict: 0 of 8 predictions differ" in capsys.readouterr().out
    evaluate.run(config, str(workdir), dataclasses.replace(options, against=str(directory)))
    assert "embedded_cells: 0 of 8 predictions differ" in capsys.readouterr().out
    # ... and as the predictions of another system, under the name that they were not written for
    theirs = Options(predictions=str(directory / "predictions.jsonl"), suites=(str(strict),), limit=8, report_samples=0)
    again = evaluate.run(config, str(workdir), theirs)["sets"]["strict"]
    assert {m: row["score"] for m, row in again.items() if m != "rows"} == {
        m: row["score"] for m, row in scores["sets"]["strict"].items() if m != "rows"
    }


def test_closed_questions(trained, tmp_path):
    config, workdir = trained
    options = Options(suites=("embedded_cells",), answers=("yes", "no"), limit=6, twin=False, report_samples=0)
    scores = evaluate.run(config, str(workdir), options)
    path = workdir / "stage4" / "eval" / options.folder() / "predictions.jsonl"
    assert {json.loads(line)["prediction"] for line in path.read_text().splitlines()} <= {"yes", "no"}
    assert scores["protocol"]["sets"]["embedded_cells"]["answers"] == ["yes", "no"]
    with pytest.raises(VlaxError, match="--answers is for questions; none of the suites asks any"):
        evaluate.run(config, str(workdir), dataclasses.replace(options, suites=("captions",)))


def test_which_export_is_scored(trained, tmp_path):
    config, workdir = trained
    from vlax.training import stages

    plan = stages.chain(config, workdir)[-1]
    assert export_directory(plan, "") == export_directory(plan, "last") == plan.export
    assert export_directory(plan, "best") == plan.export  # the last state was the best: there is one export
    assert str(export_directory(plan, "/some/where")) == "/some/where"
    with pytest.raises(VlaxError, match=r"stage4 has no finished export in .*train it first: python train.py"):
        export_directory(stages.chain(config, tmp_path)[-1], "")


def test_the_reference_curves_that_ship_are_made_of_a_run(trained, tmp_path, capsys):
    _, workdir = trained
    reference_curves.main(str(workdir), str(tmp_path / "curves.json"))
    curves = json.loads((tmp_path / "curves.json").read_text())
    assert {"stage1", "stage3"} <= curves["training loss"].keys() and "training loss" in capsys.readouterr().out
