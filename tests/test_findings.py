"""Experiments: statistics on figures checked by hand, what is refused, a run that goes on where it was killed."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import json
import math
import shutil
import threading

import numpy as np
import pytest
from conftest import tiny
from etils import epath
from scipy import stats

from configs import experiments
from vlax.commands import front
from vlax.errors import VlaxError
from vlax.findings import arms, estimate, experiment, outcomes, results, runner, shares, statistics, writing
from vlax.training import stages


def test_one_figure_a_seed_is_the_paired_t_test():
    ours, theirs = np.array([0.61, 0.58, 0.66, 0.60, 0.63]), np.array([0.55, 0.57, 0.58, 0.56, 0.60])
    got, want = statistics.compared(ours - theirs), stats.ttest_rel(ours, theirs)
    assert got.p == pytest.approx(want.pvalue) and got.freedom == 4
    assert got.mean / got.error == pytest.approx(0.044 / math.sqrt(0.00292 / 4 / 5))  # 3.64
    assert [got.low, got.high] == pytest.approx(list(want.confidence_interval(0.95)))
    assert got.mean == pytest.approx(0.044)


def test_seeds_and_pictures_both_count():
    """By hand: two seeds and two pictures of two rows each."""
    d = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    # mean 5/8; residuals by seed and picture: [[.75, -1.25], [.75, -.25]]; seeds -.5 and .5, pictures 1.5 and -1.5
    by_seed, by_picture, both = 2 * 0.5, 2 * 4.5, 4 / 3 * (0.5625 + 1.5625 + 0.5625 + 0.0625)
    got = statistics.compared(d, ["a", "a", "b", "b"])
    assert got.mean == 0.625 and got.freedom == 1
    assert got.error == pytest.approx(math.sqrt(max(by_picture, by_seed + by_picture - both)) / 8)
    assert got.high - got.mean == pytest.approx(12.7062047 * got.error)
    # where seeds agree, pictures alone make the interval; where pictures agree, seeds do
    same = statistics.compared(np.array([[1.0, 0.0, 0.0]] * 3), ["a", "b", "c"])
    assert same.error == pytest.approx(np.std([1, 0, 0], ddof=1) / math.sqrt(3))
    apart = statistics.compared(np.array([[0.1] * 3, [0.3] * 3, [0.5] * 3]), ["a", "b", "c"])
    assert apart.error == pytest.approx(0.2 / math.sqrt(3))
    # rows of one picture are not independent: five times the same says no more than once
    assert statistics.compared(np.repeat(d, 5, axis=1), list("aaaaabbbbbcccccddddd")).error == pytest.approx(
        statistics.compared(d, list("abcd")).error
    )


def test_what_says_nothing_is_no_difference():
    assert statistics.compared(np.array([0.7])).p == 1.0 and statistics.compared(np.array([0.7])).high == math.inf
    assert statistics.compared(np.zeros((3, 4)), list("abcd")).p == 1.0
    assert statistics.compared(np.full(3, 0.5)).p == 0.0
    with pytest.raises(VlaxError, match="finite numbers by seed and row"):
        statistics.compared(np.array([0.5, math.inf]))
    with pytest.raises(VlaxError, match="one picture a row"):
        statistics.compared(np.zeros((2, 3)), ["a", "b"])


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.04, 0.001, 0.5, 0.02]) == pytest.approx([0.08, 0.004, 0.5, 0.06])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0] and statistics.holm([]) == []


def test_what_could_have_been_seen():
    assert statistics.detectable(0.5, 4, 0.05) == pytest.approx(0.5 * (2.7764451 + 0.9409646))
    assert statistics.detectable(0.5, 0, 0.05) == math.inf
    # of 20,000 experiments with that very difference, four in five find it (the formula is near that for few seeds)
    rng, error = np.random.default_rng(0), 1 / math.sqrt(12)
    drawn = rng.normal(statistics.detectable(error, 11, 0.05), 1.0, (20_000, 12))
    found = (stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05).mean()
    assert 0.78 < found < 0.82


def test_a_curve_reaches_a_level_between_two_points():
    points = [[0.25, 5.0], [0.5, 4.0], [1.0, 2.0]]
    assert results.reach(points, 3.0) == 0.75 and results.reach(points, 6.0) == 0.25 and results.reach(points, 2.0) == 1.0
    assert results.reach(points, 1.0) == math.inf


def small(**more):
    """An experiment of two arms over stage 4, from scratch."""
    asked = experiments.experiment(
        "Is it better to see?", "seeing beats not seeing", ("stage4", "questions"), swept=("stage4",), sweep=("seeing",),
        arms={"seeing": (), "causal": (("stage4.mask", "causal"),)},
        outcomes={"accuracy": experiments.suite("stage4", "questions", "accuracy"),
                  "loss": {"of": "loss", "stage": "stage4", "source": "questions"}},
        compare=(("accuracy", "seeing", "causal"), ("loss", "seeing", "causal")),
    )  # fmt: skip
    config = tiny("findings")
    config.stage.init = dict.fromkeys(config.stage.init, "fresh")
    config.findings.update(experiments.settings(small={**asked, **more}))
    config.findings.seeds, config.findings.factors = (1, 2), (1.0,)
    return config


@pytest.mark.parametrize(
    ("more", "names", "said"),
    [
        ({}, ["smal"], "there is no experiment 'smal'; did you mean 'small'\\?; there are small"),
        ({"sweep": ("saeing",)}, [], "no arm 'saeing'; did you mean 'seeing'\\?; there are seeing, causal"),
        ({"rates": ("stage5", "questions")}, [], "no stage 'stage5'"),
        ({"rates": ("stage4", "text")}, [], "no held-out source of stage4 'text'; there are captions, questions"),
        ({"compare": (("acuracy", "seeing", "causal"),)}, [], "no outcome 'acuracy'"),
        ({"outcomes": {"accuracy": experiments.suite("stage4", "cells", "accuracy")}}, [], "no suite of stage4 'cells'"),
        ({"outcomes": {"accuracy": {"of": "sweet", "stage": "stage4"}}}, [], "no kind of outcome 'sweet'"),
        ({"deciding": 3}, [], "3 of 2 comparisons decide"),
    ],
)
def test_what_there_is_not_is_listed(more, names, said):
    with pytest.raises(VlaxError, match=said):
        experiment.read(small(**more), names)


def test_seeds_are_not_the_sweeps():
    config = small()
    config.findings.seeds = (0, 1)
    with pytest.raises(VlaxError, match="none is the sweep's"):
        experiment.read(config)


def test_an_arm_that_changes_no_field_is_refused(tmp_path):
    config = small(arms={"seeing": (), "causal": (("stage4.maks", "causal"),)})
    with pytest.raises(VlaxError, match=r"changes stage4\.maks, and there is no such field; did you mean 'mask'"):
        runner.run(config, experiment.read(config), epath.Path(tmp_path))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"kind": "scenes", "split": "train", "style": "ai", "weight": 1.0, "tokens": 500}, "source own has weight and tokens"),
        ({"kind": "coco", "annotations": "none.json", "images": "."}, "no file .*none.json"),
    ],
)
def test_data_of_the_last_arm_are_opened_before_the_first_trains(source, said, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "trained", lambda *_: pytest.fail("it trains"))
    config = small(arms={"seeing": (), "causal": (("stage4.mixture", {"own": source}), ("stage4.epoch_of", ""))})
    config.run.data_root = str(tmp_path)
    with pytest.raises(VlaxError, match=said):
        runner.run(config, experiment.read(config), epath.Path(tmp_path))


def test_arms_share_what_is_the_same():
    """Stage 1 and what comes before it know nothing of a mask of stage 4, and its rates reach no other stage."""
    config = tiny("findings")
    names = {}
    for mask, factor in itertools.product(("causal", "prefix_lm"), (1.0, 2.0)):
        made = arms.changed(config, (("stage4.mask", mask), ("run.shapes.decoder.layers", 2)), ("stage4",), factor)
        chain = arms.chain(made, "stage4", 7, epath.Path("/nowhere"))
        assert [plan.name.rsplit("-", 1)[0] for plan in chain] == [
            "stage0_decoder", "stage0_vision", "stage1", "stage2", "stage3", "stage4",
        ]  # fmt: skip
        assert chain[-1].run.seed == 7 and chain[-1].run.shapes.decoder.layers == 2
        assert chain[-1].stage.learning_rate.decoder == 3e-3 * factor
        names[mask, factor] = [plan.name for plan in chain]
    first = names["causal", 1.0]
    assert all(other[:-1] == first[:-1] for other in names.values()) and len({other[-1] for other in names.values()}) == 4
    assert config.run.shapes.decoder.layers == 1  # the base stays
    assert arms.chain(config, "stage1", 7, epath.Path("/nowhere"))[-1].name not in first  # another decoder


def test_new_fields_rename_nothing():
    """Hundreds of trained stages lie under names that are made of these. A field that comes into being goes into arms.SINCE."""
    plan = stages.chain(tiny("findings"), epath.Path("/nowhere"))[-1]
    assert set(plan.identity["run"]) - set(arms.SINCE) == {
        "bpe_text", "bpe_vocab", "decoder", "dtype", "exclude", "image_size", "interleaved", "keep_near_duplicates", "mask",
        "model", "seed", "shapes", "system", "templates", "tiles", "tokenizer", "vision", "vocab_size",
    }  # fmt: skip
    assert set(plan.identity["stage"]) - set(arms.SINCE) == {
        "accumulate", "accumulation", "augment", "backbone", "batch_size", "beta2", "buckets", "captioner", "clip", "epoch_of",
        "epochs", "final_learning_rate", "init", "learning_rate", "lora", "mask", "mixture", "name", "overlong", "packing",
        "quantise", "select", "steps", "text_length", "trainable", "warmup", "weight_decay",
    }  # fmt: skip
    named = arms._digest(plan)
    plan.stage.bf16_momentum = True
    assert arms._digest(plan) != named
    with plan.stage.unlocked():
        del plan.stage.bf16_momentum
    assert arms._digest(plan) == named


def figures(gain, seeds=5, rows=40):
    """{arm: {seed: figures}} whose first arm is better by about `gain`."""
    rng = np.random.default_rng(0)
    ids = [f"{row // 2}?{row % 2}" for row in range(rows)]
    out = {"seeing": {}, "causal": {}}
    for seed in range(1, seeds + 1):
        for arm, more in (("seeing", gain), ("causal", 0.0)):
            values = dict(zip(ids, (0.4 + more + 0.05 * rng.normal(size=rows)).tolist(), strict=True))
            pictures = {row: row.split("?")[0] for row in ids}
            score = {"score": float(np.mean(list(values.values()))), "twin": 0.25, "values": values, "pictures": pictures}
            curve = [[0.5, 3.0], [1.0, 2.0 - more + 0.01 * seed]]
            out[arm][seed] = {"accuracy": {**score, "mask": "causal"}, "loss": {"score": curve[-1][1], "curve": curve}}
    return out


@pytest.mark.parametrize(
    ("gain", "want", "says"),
    [(0.2, "holds", "supports it"), (-0.2, "the opposite", "contradicts it"), (0.0, "can't be told at this scale", "open")],
)
def test_the_page_says_what_came_of_the_question(tmp_path, gain, want, says):
    config = small()
    config.findings.seeds = (1, 2, 3, 4, 5)
    plan = experiment.read(config)
    measured = figures(gain)
    result = results.of(plan.experiments[0], plan, {"factor": 1.0, "losses": {}}, measured)
    assert result["verdict"] == want and result["comparisons"][0]["says"] == says
    assert result["comparisons"][0]["advantage"] == pytest.approx(gain, abs=0.02)
    assert result["comparisons"][1]["advantage"] == pytest.approx(gain)  # a loss is better where it is lower
    low, high = result["comparisons"][0]["pictures"]
    assert low <= result["comparisons"][0]["advantage"] <= high
    writing.write(result, measured, epath.Path(tmp_path))
    assert json.loads((tmp_path / "findings.json").read_text())["verdict"] == want
    page, table, text = (tmp_path / "page.html").read_text(), (tmp_path / "table.md").read_text(), results.text(result)
    for shown in (page.replace("&#x27;", "'"), table, text):
        assert "Is it better to see?" in shown and want in shown and "seeing over causal" in shown and says in shown
    assert all((tmp_path / name).read_bytes()[:4] == b"\x89PNG" for name in ("advantages.png", "curves.png"))
    assert page.count("data:image/png;base64,") == 2 and "<script" not in page


def test_what_a_doubling_gives(tmp_path):
    """Two arms at 4 and 8: the line of a seed is the difference of its two means."""
    config = small(line={"outcome": "accuracy", "over": "heads", "x": {"causal": 4, "seeing": 8}})
    plan, measured = experiment.read(config), figures(0.1, seeds=3)
    result = results.of(plan.experiments[0], plan, {"factor": 1.0, "losses": {}}, measured)
    slopes = [
        measured["seeing"][seed]["accuracy"]["score"] - measured["causal"][seed]["accuracy"]["score"] for seed in (1, 2, 3)
    ]
    line, want = result["line"], stats.ttest_1samp(slopes, 0.0)
    assert line["doubling"] == pytest.approx(np.mean(slopes)) and line["p"] == pytest.approx(want.pvalue)
    assert [line["low"], line["high"]] == pytest.approx(list(want.confidence_interval(0.95)))
    writing.write(result, measured, epath.Path(tmp_path))
    assert "A doubling of heads adds +0.1" in (tmp_path / "page.html").read_text() and (tmp_path / "line.png").exists()


def test_a_level_that_was_there_before_the_first_look_decides_nothing():
    """Of two arms that are both below it when they are first looked at nobody knows which came first; of one the other says."""
    config = small(
        outcomes={"reach": {"of": "reach", "stage": "stage4", "source": "questions"}}, compare=(("reach", "seeing", "causal"),)
    )
    plan = experiment.read(config)

    def result(causal):
        curves = {"seeing": [[0.25, 2.0], [1.0, 3.0]], "causal": causal}
        measured = {arm: {seed: {"reach": {"score": 1.0, "curve": curve}} for seed in (1, 2)} for arm, curve in curves.items()}
        return results.of(plan.experiments[0], plan, {"factor": 1.0, "losses": {}}, measured)

    early = result([[0.5, 1.0], [1.0, 0.5]])
    assert early["comparisons"][0]["says"] == "open" and early["comparisons"][0]["advantage"] is None
    assert "≤: there when it was first looked at" in results.summary(early)
    assert results.arm_rows(early) == [("seeing", "≤ 0.250 ± 0.000"), ("causal", "≤ 0.500 ± 0.000")]
    late = result([[0.5, 3.0], [1.0, 1.0]])
    assert late["comparisons"][0]["advantage"] == 0.5 and late["comparisons"][0]["says"] == "supports it"
    assert results.arm_rows(late) == [("seeing", "≤ 0.250 ± 0.000"), ("causal", "0.750 ± 0.000")]


def test_rows_that_differ_are_not_compared():
    config = small()
    plan, measured = experiment.read(config), figures(0.1, seeds=2)
    del measured["causal"][2]["accuracy"]["values"]["0?0"]
    with pytest.raises(VlaxError, match="Both must have the same ids"):
        results.of(plan.experiments[0], plan, {"factor": 1.0, "losses": {}}, measured)


def test_a_run_that_was_killed_goes_on(tmp_path, monkeypatch):
    """The order of stages and seeds, what is read back, and that what was measured of other fields is measured again; without
    training."""
    trained, measured, known = [], [], figures(0.1, seeds=2)

    def train(plan, out, say):
        trained.append(f"{plan.directory.parent.name} {plan.stage.mask or 'seeing'}")

    def measure(bench, outcome, plan):
        if len(measured) == stop:
            raise KeyboardInterrupt
        measured.append((outcome.name, plan.run.seed))
        return known["causal" if plan.stage.mask else "seeing"][plan.run.seed][outcome.name]

    monkeypatch.setattr(runner, "trained", train)
    monkeypatch.setattr(outcomes, "measure", measure)
    monkeypatch.setattr(writing, "_png", lambda figure: b"")  # drawing takes a second
    config, out = small(), epath.Path(tmp_path)
    plan, stop = experiment.read(config), 7
    with pytest.raises(KeyboardInterrupt):
        runner.run(config, plan, out, lambda line: None)
    assert trained == ["seed-1 seeing", "seed-2 seeing", "seed-1 causal", "seed-2 causal"]
    trained.clear(), measured.clear()
    stop = -1
    found = runner.run(config, plan, out, lambda line: None)["small"]
    assert trained == ["seed-2 causal"] and measured == [("accuracy", 2), ("loss", 2)]
    assert found["comparisons"][0]["advantage"] == pytest.approx(0.1, abs=0.02) and found["finished"] == 2
    assert estimate.left(config, plan, out)["small"].stages == 0
    sweeping = dataclasses.replace(plan, factors=(1.0, 2.0))
    for factor, suites in ((1.0, 0), (2.0, 4)):  # with the rates that a sweep has chosen
        (tmp_path / "small" / "sweep.json").write_text(json.dumps({"factor": factor}))
        assert estimate.left(config, sweeping, out)["small"].scored == suites
    (tmp_path / "small" / "sweep.json").unlink()
    measured.clear()
    config.stage.suites.questions.decoding.max_new_tokens = 5
    runner.run(config, experiment.read(config), out, lambda line: None)
    assert len(measured) == 8
    shutil.rmtree(tmp_path / "small" / "causal")
    runner.report_all(config, experiment.read(config), out, lambda line: None)
    assert "So far: of 2 seeds, every arm has 0" in (tmp_path / "small" / "table.md").read_text()


def test_processes_share_the_work(tmp_path, monkeypatch):
    """Two at the same list: each item is done once, behind what it needs, and whoever has nothing to do waits for the other. A
    file's lock belongs to whoever opened it, so that threads meet it as processes do."""
    monkeypatch.setenv(shares.VARIABLE, "0/2")
    monkeypatch.setattr(shares, "EVERY", 0.01)
    monkeypatch.setattr(shares.activity, "phase", lambda *_: contextlib.nullcontext())
    done, names, together = [], ["a", "b", "ab", "c", "abc"], threading.Barrier(2, timeout=20)
    needs = {"ab": ["a", "b"], "abc": ["ab", "c"]}

    def items():
        def do(name):
            assert (tmp_path / f"{name}.lock").exists() and all(need in done for need in needs.get(name, []))
            if name in ("a", "b"):
                together.wait()  # both are at work
            done.append(name)

        return [
            shares.Item(epath.Path(tmp_path / name), [epath.Path(tmp_path / need) for need in needs.get(name, [])],
                        functools.partial(lambda name: name in done, name), functools.partial(do, name))
            for name in names
        ]  # fmt: skip

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(shares.work, items()) for _ in range(2)]:
            each.result()
    assert sorted(done) == sorted(names) and list(tmp_path.iterdir()) == []


def test_processes_need_cores_and_a_disk(tmp_path, monkeypatch):
    with pytest.raises(VlaxError, match=r"--jobs=2: several processes need a local --workdir, and gs://bucket/run is none"):
        shares.environments(2, epath.Path("gs://bucket/run"))
    assert [each[shares.VARIABLE] for each in shares.environments(2, epath.Path(tmp_path))] == ["0/2", "1/2"]
    monkeypatch.setattr(shares.memory, "cpu_alone", lambda: False)
    with pytest.raises(VlaxError, match=r"--jobs=2: one process has the accelerators; leave it out"):
        shares.environments(2, epath.Path(tmp_path))


def test_the_plan_counts_what_is_shared(capsys):
    """Stage 0 is one for all arms and seeds of ... its seed; a sweep has a seed of its own."""
    assert front.main(["findings", "mask", "--plan", "--config=configs/findings.py", "--config.findings.seeds=(1,2)"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("mask"))
    # two seeds: both of stage 0, and two stages of four arms; the sweep: stage 0 once, three factors of two arms
    assert line.split()[:4] == ["mask", "4", "2", f"{2 * (2 + 4 * 2) + 2 + 3 * 2 * 2}"]


def test_an_unknown_experiment_is_an_error_that_lists_what_there_is(capsys):
    assert front.main(["findings", "masks", "--plan"]) == 2
    assert "did you mean 'mask'?; there are mask, data, alignment, transfer, stages" in capsys.readouterr().err


@pytest.mark.slow
def test_a_tiny_run(tmp_path, capsys):
    """Two arms, two seeds, a sweep: stopped after the first arm it goes on, and a second run of an arm has the same figures."""
    accuracy = experiments.suite("stage4", "questions", "accuracy")
    followed = {of: {"of": of, "stage": "stage4", "source": "questions"} for of in ("loss", "reach")}
    perplexity = {"of": "perplexity", "stage": "text", "source": "text"}
    asked = {"accuracy": accuracy, "wrong": {**accuracy, "mask": "other"}, **followed, "perplexity": perplexity}
    config = small(outcomes=asked)
    config.findings.factors, config.stage.eval_every, config.parents.text.init.decoder = (1.0, 2.0), 2, "stage4"
    plan, out = experiment.read(config), epath.Path(tmp_path / "a")
    first = runner.run(config, plan, out)["small"]
    assert first["sweep"]["factor"] in (1.0, 2.0) and len(first["sweep"]["losses"]) == 2
    assert set(first["arms"]["causal"]["loss"]["by_seed"]) == {"1", "2"}
    kept = (out / "small" / "causal" / "seed-2.json").read_bytes()
    shutil.rmtree(tmp_path / "a" / "small" / "causal")
    [stage] = [
        path for path in (tmp_path / "a" / "stages" / "seed-2").iterdir() if "causal" in (path / "config.json").read_text()
    ]
    shutil.rmtree(stage)
    capsys.readouterr()
    assert runner.run(config, plan, out)["small"] == first
    assert "training stages/seed-2/stage4" in capsys.readouterr().out
    assert (out / "small" / "causal" / "seed-2.json").read_bytes() == kept
    found = json.loads(kept)["figures"]
    assert len(found["accuracy"]["values"]) == 40 and 0 <= found["accuracy"]["twin"] <= 1
    assert (found["accuracy"]["mask"], found["wrong"]["mask"]) == ("causal", "image_bidirectional")
    assert first["arms"]["seeing"]["wrong"]["mask"] == "causal"
    assert [at for at, _ in found["reach"]["curve"]] == [0.5, 1.0] and found["loss"]["score"] == found["loss"]["curve"][1][1]
    assert 0.5 <= first["arms"]["causal"]["reach"]["mean"] <= 1.0
    # 4 updates on other words: between that of one who knows all and of one who knows nothing
    assert 1.0 < found["perplexity"]["score"] < 2 * 400
