"""Shares of a mixture, lengths, and plans: what a batch holds is a function of (seed, step) and of nothing else."""

import collections
import dataclasses
import itertools
import types

import numpy as np
import pytest
from conftest import tiny
from tiny import config as tiny_config
from varied import BUCKETS, KINDS, LIMIT, OVERHEAD, Varied, batches, encoder, error, make, mixture, words

from configs import base
from vlax.data.batches import arrange, lengths
from vlax.data.batches.lengths import Lengths
from vlax.data.batches.mixture import Mixture, fixed_rows, share
from vlax.data.batches.pipeline import iterate
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder
from vlax.training import console, inputs, origins, stages


@pytest.mark.parametrize(
    ("spec", "want"),
    (
        ({}, ("weight", 1.0)),
        ({"weight": 2}, ("weight", 2.0)),
        ({"epochs": 0.5}, ("epochs", 0.5)),
        ({"tokens": 900, "weight": None}, ("tokens", 900.0)),
    ),
)
def test_share(spec, want):
    assert share("ai", {"kind": "coco", **spec}) == want


def test_shares_that_are_none():
    assert error(lambda: share("ai", {"weight": 1, "tokens": 5})) == (
        "mixture source ai has weight and tokens; give one of weight, epochs, tokens"
    )
    for value in (0, -1.0, "2", True, float("nan"), float("inf")):
        assert error(lambda v=value: share("ai", {"epochs": v})).startswith(
            f"mixture source ai: epochs is {value!r}; it is a pos"
        )


def test_fixed_rows():
    source, mean = Varied("s", [1] * 40), lambda source: 6.0
    assert fixed_rows("s", "weight", 3.0, source, mean) == 0
    assert [fixed_rows("s", "epochs", passes, source, mean) for passes in (2.0, 0.25, 0.001)] == [80, 10, 1]
    assert [fixed_rows("s", "tokens", budget, source, mean) for budget in (600, 100, 1)] == [100, 17, 1]
    assert "mixture source s: no row fits in stage.text_length" in error(
        lambda: fixed_rows("s", "tokens", 9, source, lambda s: 0.0)
    )


def test_fixed_counts_and_weights_together():
    sources = [Varied(name, [1] * n) for name, n in (("a", 10), ("b", 7), ("c", 20))]
    plain = Mixture(sources, [2.0, 1.0, 0.5], 0)
    assert plain.counts.tolist() == [10, 5, 2]  # the first is passed once; the others in proportion
    mixed = Mixture(sources, [2.0, 1.0, 1.0], 0, fixed=[0, 0, 50])
    assert mixed.counts.tolist() == [10, 5, 50]
    first = Mixture(sources, [1.0, 0.5, 0.1], 0, fixed=[30, 0, 0])  # three passes over a: a weight of 1 means 30 rows
    assert first.counts.tolist() == [30, 15, 3]
    assert len({m.plan_hash for m in (plain, mixed, first, Mixture(sources, [1.0, 0.5, 0.1], 0))}) == 4
    for m in (mixed, first):
        per_source = collections.Counter(m.locate(i)[0].name for i in m.ids(m.epoch_size, 2 * m.epoch_size))
        assert [per_source[s.name] for s in sources] == m.counts.tolist()
    seen = collections.Counter(int(i) for i in first.ids(0, first.epoch_size) if i < 10)
    assert seen == dict.fromkeys(range(10), 3)


def test_a_token_budget_brings_about_so_many_tokens():
    source = Varied("t", words(600, 3))
    count = fixed_rows("t", "tokens", 3000, source, lambda s: Lengths(encoder()).mean(s, LIMIT, "drop"))
    m = Mixture([source], [1.0], 0, fixed=[count])
    assert 2850 < Lengths(encoder()).of(m, m.ids(0, m.epoch_size)).sum() < 3150


def test_lengths_are_the_encoders_and_measured_once():
    source = Varied("once", [4, 1, 9, 2], bad=(3,))
    m, ids = Mixture([Varied("before", [1] * 5), source], [1.0, 1.0], 0), np.array([5, 7, -1, 6, 5, 8])
    want = [len(encoder().encode(source[i])[0]) for i in (0, 2, 1)]
    source.asked.clear()
    assert Lengths(encoder()).of(m, ids).tolist() == [want[0], want[1], 0, want[2], want[0], 0]  # a bad row is 0 tokens long
    assert want == [4 + OVERHEAD, 9 + OVERHEAD, 1 + OVERHEAD] and sorted(source.asked) == [0, 1, 2, 3]
    again = Mixture([Varied("before", [1] * 5), Varied("once", [4, 1, 9, 2], bad=(3,))], [1.0, 1.0], 0)  # a second stage
    assert Lengths(encoder()).of(again, ids)[0] == want[0] and again.sources[1].asked == []


def test_the_key_tells_templates_apart():
    other = dataclasses.replace(encoder(), templates="instruct")
    assert Lengths(encoder()).key == Lengths(encoder()).key != Lengths(other).key


def test_mean_and_survey():
    source = Varied("mean", [2, 4, 30, 4])
    measure = Lengths(encoder())
    assert (
        measure.mean(source, LIMIT, "drop") == (6 + 8 + 0 + 8) / 4
        and measure.mean(source, LIMIT, "cut") == (6 + 8 + 16 + 8) / 4
    )
    found = lengths.survey(measure, Mixture([source], [1.0], 0), LIMIT)
    assert found == lengths.Survey(rows=4, median=8, most=34, longest=34, overlong=0.25)


def test_the_plain_plan_is_the_mixtures_order():
    m = mixture()
    plan = make("plain", m)
    assert plan.hash == m.plan_hash and (plan.batches(9), plan.positions(3), plan.describe()) == (3, 12, "")
    got = plan.batch(5)
    assert got.positions.tolist() == [[20], [21], [22], [23]] and got.length == LIMIT
    assert got.ids[:, 0].tolist() == m.ids(20, 24).tolist()


def test_bucket_batches_are_padded_to_the_smallest_bucket_that_holds_them():
    plan = make("buckets", mixture(), stop=96)
    used = set()
    for step in range(24):
        got = plan.batch(step)
        longest = Lengths(encoder()).of(plan.mixture, got.ids[:, 0]).max()
        assert got.length == min(b for b in BUCKETS if b >= longest)
        assert got.ids[:, 0].tolist() == [plan.mixture.ids(p, p + 1)[0] for p in got.positions[:, 0]]
        assert got.positions.min() // 12 == got.positions.max() // 12 == step // 3  # its own window's rows
        used.add(got.length)
    assert used == set(BUCKETS) == set(plan.lengths_used)
    with pytest.raises(IndexError, match="the plan has 24 batches, no batch 24"):
        plan.batch(24)
    assert plan.describe().startswith("buckets   8 tokens ")


@pytest.mark.parametrize("stop", (96, 100))  # 100: the last window has one batch of three
def test_buckets_hold_the_rows_of_the_plain_plan(stop):
    plan = make("buckets", mixture(most=LIMIT + 6), stop=stop)
    positions = np.concatenate([plan.batch(step).positions[:, 0] for step in range(stop // 4)])
    assert sorted(positions.tolist()) == list(range(stop))


def test_overlong_rows_spread_over_the_batches_of_a_window():
    """8 of 24 rows are too long: all six batches have rows to learn from, and the Collator counts what it drops."""
    source = Varied("spread", [1, 2, LIMIT] * 8)
    plan = make("buckets", Mixture([source], [1.0], 0), window=6, stop=24)
    made = batches(plan, 6)
    kept = [int((made[step]["row"] >= 0).sum()) for step in range(6)]
    assert sum(kept) == 16 and set(kept) <= {2, 3} and made.collate.left_out.counts == {"dropped": 8}
    assert plan.batch(0).length == 8
    cut = batches(make("buckets", plan.mixture, window=6, stop=24, overlong="cut"), 6)
    rows = [row for step in range(6) for row in cut[step]["row"].ravel().tolist()]
    assert sorted(rows) == list(range(24)) and cut.collate.left_out.counts == {"cut": 8}


@pytest.mark.parametrize("kind", ("buckets", "packed"))
def test_two_epochs_meet_every_row_twice(kind):
    m = mixture(rows=(37,))
    stop = 76 if kind == "buckets" else 74  # two passes over 37 rows; batches of four
    plan = make(kind, m, stop=stop)
    steps = 19 if kind == "buckets" else plan.batches(stop)
    planned = [plan.batch(step) for step in range(steps)]
    positions = np.concatenate([p.positions.ravel() for p in planned])
    ids = np.concatenate([p.ids.ravel() for p in planned])[(positions >= 0) & (positions < 74)]
    assert collections.Counter(ids.tolist()) == dict.fromkeys(range(37), 2)
    assert len(set(positions[positions >= 0].tolist())) == (positions >= 0).sum()  # no place twice, past the end either


@pytest.mark.parametrize("kind", ("buckets", "packed"))
def test_any_step_can_be_had_from_a_fresh_plan(kind):
    whole = make(kind, mixture(), stop=160)
    for step in (0, 17, 3, 24, 4):
        got, want = make(kind, mixture(), stop=160).batch(step), whole.batch(step)
        np.testing.assert_array_equal(got.positions, want.positions)
        np.testing.assert_array_equal(got.ids, want.ids)
        assert got.length == want.length


@pytest.mark.parametrize("kind", ("buckets", "packed"))
def test_the_hash_changes_with_everything_that_changes_batches(kind):
    def plan(mixed=None, **fields):
        return make(kind, mixed or mixture(), **{"stop": 96, **fields})

    others = [plan(mixture(seed=1)), plan(rows=2), plan(overlong="cut"), plan(window=4), plan(stop=48)]
    plain, hashes = make("plain", mixture()).hash, [p.hash for p in others]
    assert len({plan().hash, plain, *hashes}) == 2 + len(others) and plan().hash == plan().hash


def joined(parts):
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_the_same_for_any_hosts_and_threads(kind):
    want = [batches(make(kind, mixture(), stop=32), 8)[step] for step in range(8)]
    assert any((a["image"] != b["image"]).any() for a, b in itertools.pairwise(want))
    for hosts in (1, 2, 4):
        for threads in (0, 2, 8):
            made = [batches(make(kind, mixture(), stop=32), 8, host=h, hosts=hosts) for h in range(hosts)]
            readers = [iterate(b, threads=threads, prefetch=threads) for b in made]
            for step, parts in enumerate(zip(*readers, strict=True)):
                assert_equal(joined(parts), want[step])
            assert step == 7


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_augmented_by_their_place_whatever_the_layout(kind):
    """A row at a place of the order has the same pixels under the plain plan and under any other."""
    plain, other = (batches(make(k, mixture(), stop=64), 16) for k in ("plain", kind))
    pixels = {}
    for step in range(16):
        planned, batch = plain.plan.batch(step), plain[step]
        pixels.update(zip(planned.positions[:, 0].tolist(), batch["image"][:, 0], strict=True))
    compared = 0
    for step in range(8):
        planned, batch = other.plan.batch(step), other[step]
        for at in zip(*np.nonzero(batch["has_image"]), strict=True):
            if (place := int(planned.positions[at])) in pixels:
                np.testing.assert_array_equal(batch["image"][at], pixels[place])
                compared += 1
    assert compared > 16


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_on_fewer_hosts_sees_the_same_samples(kind):
    """4 hosts for five steps, 2 for six, 1 for the rest, each started afresh from the step alone."""
    steps, seen = 14, []
    for hosts, begin, end in ((4, 0, 5), (2, 5, 11), (1, 11, steps)):
        for host in range(hosts):
            made = batches(make(kind, mixture(), stop=4 * steps), steps, host=host, hosts=hosts)
            reader = iterate(made, begin, threads=2, prefetch=4)
            seen += [next(reader) for _ in range(begin, end)]
    whole = batches(make(kind, mixture(), stop=4 * steps), steps)

    def samples(parts):  # an example with all that is learnt from it: row, text and picture
        out = collections.Counter()
        for batch in parts:
            for i, n in zip(*np.nonzero(batch["row"] >= 0), strict=True):
                text = batch["tokens"][i][batch["example"][i] == n + 1].tobytes()
                out[int(batch["row"][i, n]), text, batch["image"][i, n].tobytes()] += 1
        return out

    want = samples(whole[step] for step in range(steps))
    assert samples(seen) == want and want.total() > 40


@pytest.mark.parametrize(
    ("fields", "text"),
    (
        (
            {"buckets": (32, 64), "packing": 2, "text_length": 64},
            "stage.buckets=(32, 64) and stage.packing=2: a packed row is ",
        ),
        ({"buckets": (64, 32)}, "stage.buckets=(64, 32): give text lengths of 2 or more that grow, such as (32, 64, 128)"),
        ({"buckets": (1, 40)}, "stage.buckets=(1, 40): give text lengths of 2 or more"),
        ({"buckets": (32, 64)}, "stage.buckets=(32, 64) ends at 64 and stage.text_length is 40: the last bucket is the limit"),
        ({"packing": -1}, "stage.packing=-1: give the rows that may share a batch row, or 0"),
        ({"plan_window": 0}, "stage.plan_window=0: a window has at least 1 batch"),
    ),
    ids=str,
)
def test_settings_that_contradict_each_other(fields, text):
    stage = base.stage("x")
    arrange.check(stage)
    stage.update(fields)
    assert error(lambda: arrange.check(stage)).startswith(text)


def test_a_table_of_positions_that_is_too_short():
    stage, learned = base.stage("x"), {"norm": "layer", "rope_theta": None}
    arrange.check_positions(stage, tiny_config())
    arrange.check_positions(stage, tiny_config(**learned, max_positions=44))
    assert error(lambda: arrange.check_positions(stage, tiny_config(**learned, max_positions=43))) == (
        "the decoder has a table of 43 positions; 4 image tokens and stage.text_length=40 need 44. Set "
        "--config.stage.text_length to 39 or less"
    )


def test_the_length_of_a_stage():
    """Epochs where no number of updates is given; packing needs fewer batches for the same rows."""
    stage, m = base.stage("x"), mixture(rows=(37,))
    stage.update({"text_length": LIMIT, "epochs": 2.0, "plan_window": 3})
    measure = Lengths(encoder())
    plan, updates = arrange.make(stage, m, measure, 4, 1)
    assert updates == 19 == -(-74 // 4) and plan.hash == m.plan_hash
    stage.buckets = (6, LIMIT)
    plan, updates = arrange.make(stage, m, measure, 2, 2)
    assert updates == 19 and plan.stop == 76 and plan.buckets == (6, LIMIT)
    stage.buckets, stage.packing = (), 3
    plan, updates = arrange.make(stage, m, measure, 2, 2)
    rows = plan.batches(74)
    assert updates == -(-rows // 2) < 15 and plan.slots == 3
    places = {int(p) for step in range(2 * updates) for p in plan.batch(step).positions.ravel()}
    assert places >= set(range(74))
    stage.steps = 5
    assert arrange.make(stage, m, measure, 2, 2)[1] == 5


def stage2(**shares):
    """The mixture of the tiny stage 2, whose sources (24 and 120 rows) say what `shares` says."""
    config = tiny("stage2", stage__epoch_of=shares.pop("epoch_of", ""))
    for name, source in config.stage.mixture.items():
        with source.unlocked():
            del source["weight"]
            source.update(shares.get(name, {}))
    plan = stages.chain(config, "/nowhere")[-1]
    made = inputs.open_mixture(plan, Lengths(encoder()))
    return dict(zip((s.name for s in made.sources), made.counts.tolist(), strict=True)), made


def test_shares_of_a_config():
    counts, _ = stage2(ai={"epochs": 2.0}, human={"epochs": 0.5})  # no weight, so nothing that epoch_of would be for
    assert counts == {"scenes-ai-train": 48, "scenes-human-train": 60}
    counts, _ = stage2(ai={"epochs": 2.0}, human={"weight": 0.25}, epoch_of="ai")
    assert counts == {"scenes-ai-train": 48, "scenes-human-train": 12}
    counts, _ = stage2(ai={"epochs": 2.0}, human={"weight": 0.25}, epoch_of="human")
    assert counts == {"scenes-ai-train": 48, "scenes-human-train": 120}
    counts, made = stage2(ai={"tokens": 5000}, human={"epochs": 1.0})
    tokens = np.minimum(Lengths(encoder()).of(made, made.ids(0, made.epoch_size)), 40)  # tiny stages cut at 40
    of_ai = np.array([made.locate(i)[0].name for i in made.ids(0, made.epoch_size)]) == "scenes-ai-train"
    assert counts["scenes-human-train"] == 120 and 4900 < tokens[of_ai].sum() < 5100
    assert error(lambda: stage2(ai={"epochs": 2.0})).startswith("the mixture has 2 sources: say with stage.epoch_of")
    assert error(lambda: stage2(ai={"epochs": 2.0, "tokens": 9}, epoch_of="ai")).startswith("mixture source ai has epochs and")


def test_the_header_warns_of_rows_that_do_not_fit(capsys, caplog):
    mixed = Mixture([Varied("header", [2] * 98 + [30, 40])], [1.0], 0)
    stage = base.stage("x")
    for stage.text_length in (40, 44):
        plan = types.SimpleNamespace(stage=stage, run=base.run(), parents={})
        s = types.SimpleNamespace(plan=plan, encoder=encoder(), batches=batches(make("plain", mixed), 1),
                                  origins={"decoder": origins.Origin("fresh")})  # fmt: skip
        with caplog.at_level("WARNING"):
            caplog.clear()
            console.print_lengths(s)
        assert len(caplog.records) == 0  # one row in a hundred
    assert capsys.readouterr().out.splitlines() == [
        "lengths   median 6, 99 % up to 34, longest 44 tokens of 100 rows; 1.0% over 40, which are dropped",
        "lengths   median 6, 99 % up to 34, longest 44 tokens of 100 rows; 0.0% over 44, which are dropped",
    ]
    stage.text_length, stage.overlong = 33, "cut"
    with caplog.at_level("WARNING"):
        console.print_lengths(s)
    [record] = caplog.records
    assert record.getMessage() == (
        "WARNING: 2.0 % of the rows are longer than stage.text_length=33 and are cut (stage.overlong); 99 % of all rows fit "
        "in --config.stage.text_length=34; or each row takes fewer tokens, with a larger vocabulary: "
        "--config.run.bpe_vocab=8000"
    )
    caplog.clear()
    plan.run.bpe_text = {"shapes": {"kind": "scenes"}}
    with caplog.at_level("WARNING"):
        console.print_lengths(s)
    assert "the config's run.bpe_text has that of shapes, and {} would be the training text" in caplog.text
    caplog.clear()
    s.origins = {"decoder": origins.Origin("hf", "somewhere")}  # its tokenizer comes with it
    with caplog.at_level("WARNING"):
        console.print_lengths(s)
    assert caplog.records[0].getMessage().endswith("--config.stage.text_length=34")


def test_the_key_of_lengths_outlives_the_first_encoding():
    """A tokenizer that comes with truncation has it switched off when it first encodes; a resumed run asks before that."""
    tokenizer = train_bpe(["caption: cat dog"] * 4, 300)
    plain = Lengths(Encoder(tokenizer, "plain")).key
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    assert Lengths(Encoder(tokenizer, "plain")).key == plain
    assert Lengths(Encoder(train_bpe(["bird"] * 4, 300), "plain")).key != plain
