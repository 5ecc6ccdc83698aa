"""Packing: rows that share a batch row train as if each had its own, and a packed stage runs, stops and goes on."""

import itertools

import jax
import numpy as np
import pytest
from conftest import tiny, train
from test_resume import interrupt_at
from tiny import build
from varied import LIMIT, PIXELS, Varied, batches, encoder, error, make, mixture, words

from vlax import masks
from vlax.data.batches.lengths import Lengths
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.packing import pack
from vlax.data.batches.pipeline import Collator, ImageCache
from vlax.errors import VlaxError
from vlax.evaluation import sampling
from vlax.images import Preprocess
from vlax.params import groups
from vlax.process.activity import Interrupted
from vlax.training import chain, metrics, session, stages, steps
from vlax.training.replay import replay_stage


def test_the_documented_rows():
    assert "pack([5, 3, 9, 2, 1], 10, 3)  ->  [[2, 4], [0, 1, 3]]" in pack.__doc__
    assert pack([5, 3, 9, 2, 1], 10, 3) == [[2, 4], [0, 1, 3]]
    assert pack([], 10, 3) == [] and pack([0, 0, 10], 10, 2) == [[2, 0], [1]]
    assert error(lambda: pack([11], 10, 2)) == "11 tokens do not fit into a packed row of 10"


@pytest.mark.parametrize(("capacity", "slots"), [(16, 2), (40, 3), (64, 8), (16, 50)])
def test_packed_rows_hold_what_they_can(capacity, slots):
    lengths = np.random.default_rng(capacity).integers(1, 17, 500)
    rows = pack(lengths, capacity, slots)
    assert sorted(itertools.chain(*rows)) == list(range(500))
    assert max(map(len, rows)) <= slots and max(lengths[row].sum() for row in rows) <= capacity
    least = max(-(-lengths.sum() // capacity), -(-500 // slots))
    assert len(rows) <= 11 / 9 * least + 4
    open_rows = sorted((capacity - lengths[row].sum() for row in rows if len(row) < slots), reverse=True)
    assert sum(room >= lengths.min() for room in open_rows[:-1]) <= 1 + len(rows) // 4  # little is left over


def test_batches_of_a_packed_plan():
    """Places and slots by the contract: ids of what is placed, examples in slot order, at most N and T a row."""
    plan = make("packed", mixture(), slots=3)
    for step in range(30):
        got = plan.batch(step)
        assert got.ids.shape == got.positions.shape == (4, 3) and got.length == LIMIT
        assert ((got.ids < 0) == (got.positions < 0)).all() and (got.ids[:, 0] >= 0).all()
        assert Lengths(encoder()).of(plan.mixture, got.ids.ravel()).reshape(4, 3).sum(1).max() <= LIMIT
        for place, row in zip(got.positions[got.positions >= 0], got.ids[got.ids >= 0], strict=True):
            assert plan.mixture.ids(int(place), int(place) + 1)[0] == row
    assert plan.positions(30) == pytest.approx(sum((plan.batch(s).ids >= 0).sum() for s in range(30)), rel=0.1)
    ending = make("packed", mixture(), slots=3, stop=100)
    assert ending.positions(ending.batches(100)) == 100 and 100 < ending.positions(ending.batches(100) + 2) < 116
    assert plan.describe().startswith("packing   1.") and "rows in 3 slots, 89% of" in plan.describe()


def test_micro_batches_of_packed_rows():
    plan = make("packed", mixture(), slots=3)
    whole = batches(plan, 4)[2]
    for host in range(2):
        part = batches(plan, 4, host=host, hosts=2, micro_batches=2)[2]
        assert part["image"].shape == (2, 1, 3, PIXELS, PIXELS, 3) and part["row"].shape == (2, 1, 3)
        for key, value in whole.items():
            np.testing.assert_array_equal(part[key], value.reshape(2, 2, *value.shape[1:])[:, host : host + 1], err_msg=key)


def test_a_packed_batch_by_the_contract():
    source = Varied("contract", [2, 1, 3, 4, 30, 1], bad=())
    collate = Collator(Mixture([source], [1.0], 0), encoder(), 24, Preprocess(PIXELS), ImageCache(0))
    batch = collate(np.array([[0, 3, 2], [4, 5, -1]]), 24)
    spans = [encoder().encode(source[i]) for i in (0, 3, 2)]
    assert batch["tokens"][0].tolist() == [*(t for span in spans for t in span[0]), 0, 0, 0]
    assert batch["segment"][0].tolist() == [*(t for span in spans for t in span[1]), 0, 0, 0]
    assert batch["example"][0].tolist() == [1] * 6 + [2] * 8 + [3] * 7 + [0] * 3
    assert batch["has_image"].tolist() == [[True, False, True], [False, True, False]]  # row 3 is text only
    assert batch["row"].tolist() == [[0, 3, 2], [-1, 5, -1]]  # row 4 is too long: its slot stays, and so does its number
    assert batch["example"][1].tolist() == [2] * 5 + [0] * 19
    for at, i in (((0, 0), 0), ((0, 2), 2), ((1, 1), 5)):
        np.testing.assert_array_equal(batch["image"][at], np.asarray(source[i].picture.open()))
    assert not batch["image"][0, 1].any() and collate.left_out.counts == {"dropped": 1}


def test_rows_that_are_too_long_are_told_or_cut():
    source = Varied("long", [1, 2, 20, 3])
    m = Mixture([source], [1.0], 0)
    plan = make("packed", m, stop=4)
    planned = plan.batch(0)
    assert set(planned.ids.ravel().tolist()) >= {0, 1, 3} and 2 not in planned.ids and set(planned.dropped) == {(2, 24)}
    made = batches(plan, 1)
    assert 2 not in made[0]["row"] and made.collate.left_out.counts == {"dropped": 1}
    cut = make("packed", m, stop=4, overlong="cut")
    made = batches(cut, 1)
    assert 2 in made[0]["row"] and made.collate.left_out.counts == {"cut": 1} and not cut.batch(0).dropped
    plan = make("packed", Mixture([Varied("all", [20] * 5)], [1.0], 0))
    assert error(lambda: plan.batch(0)) == (
        "no row of the mixture fits in 16 tokens; raise --config.stage.text_length, or set --config.stage.overlong=cut"
    )


def test_a_file_that_changed_while_it_is_read():
    m = Mixture([Varied("changing", [1, 2])], [1.0], 0)
    collate = Collator(m, encoder(), LIMIT, None, ImageCache(0))
    assert "changing:r1 has other tokens or pictures than when it was measured" in error(lambda: collate(np.array([[0, 1]]), 8))


# Float32 sums of other shapes are rounded otherwise, by how much depends on the processor: 3.4e-5 was seen.
ROUNDING = 1e-4

# Twelve rows with and without pictures, one, two and three to a batch row; -1 leaves a slot free. The packed ones have one
# shape, so that they share a compiled program.
LAYOUTS = {
    1: [[i] for i in range(12)],
    2: [[0, 3, -1], [7, -1, 1], [2, -1, -1], [4, 5, -1], [8, 6, -1], [-1, 9, 11], [10, -1, -1]],
    3: [[0, 3, 1], [7, 2, -1], [4, 5, 6], [11, 9, 8], [10, -1, -1], [-1, -1, -1], [-1, -1, -1]],
}


@pytest.fixture(scope="module")
def packed_batches():
    """{rows a batch row: the batch}"""
    source = Varied("packed", words(12, 5))
    collate = Collator(Mixture([source], [1.0], 0), encoder(), LIMIT, Preprocess(PIXELS), ImageCache(0))
    return {n: collate(np.array(ids), LIMIT * (1 if n == 1 else 3)) for n, ids in LAYOUTS.items()}


def by_row(batch, values) -> dict:
    """{row id: the values at its text}"""
    return {
        int(batch["row"][i, n]): values[i][batch["example"][i] == n + 1]
        for i, n in zip(*np.nonzero(batch["row"] >= 0), strict=True)
    }


@pytest.mark.parametrize("kind", masks.KINDS)
def test_packed_logits_are_those_of_rows_by_themselves(packed_batches, kind):
    _, graphdef, params = build(mask=kind, vocab_size=len(encoder().tokenizer))
    model = jax.jit(lambda batch: groups.rebuild(graphdef, params)(batch))
    alone, *packed = (by_row(batch, np.asarray(model(batch))) for batch in packed_batches.values())
    assert sorted(alone) == list(range(12))
    for logits in packed:
        assert logits.keys() == alone.keys()
        for row, want in alone.items():
            np.testing.assert_allclose(logits[row], want, rtol=ROUNDING, atol=ROUNDING)


def test_a_leak_between_packed_rows_is_a_thousand_times_what_rounding_is(packed_batches):
    """What the tests beside this one would see: rows two and three of a batch row given out as parts of the first one."""
    _, graphdef, params = build(mask="causal", vocab_size=len(encoder().tokenizer))
    model = jax.jit(lambda batch: groups.rebuild(graphdef, params)(batch))
    batch = packed_batches[3]
    leaky = {**batch, "example": np.minimum(batch["example"], 1)}
    text = batch["example"] > 1
    assert np.abs(np.asarray(model(batch)) - np.asarray(model(leaky)))[text].max() > 1000 * ROUNDING


def test_packed_loss_and_gradients_are_those_of_rows_by_themselves(packed_batches):
    _, graphdef, params = build(mask="prefix_lm", vocab_size=len(encoder().tokenizer))

    @jax.jit
    def step(params, batch):
        loss = lambda p: steps.loss_sum(p, {}, batch, graphdef, steps.StepConfig())  # noqa: E731
        return jax.value_and_grad(loss, has_aux=True)(params)

    (want, (tokens, correct)), grads = step(params, packed_batches[1])
    size = {path: float(np.abs(grad).max()) for path, grad in grads.items()}
    assert tokens > 60 and all(size[path] > 0.01 for path in size if not path.endswith("k/bias"))  # softmax undoes those
    for n in (2, 3):
        (loss, aux), other = step(params, packed_batches[n])
        assert float(loss) == pytest.approx(float(want), rel=1e-5) and aux == (tokens, correct)
        for path, grad in grads.items():
            np.testing.assert_allclose(other[path], grad, rtol=ROUNDING, atol=ROUNDING * max(size[path], 0.1), err_msg=path)


@pytest.mark.slow
def test_a_packed_stage_trains_stops_and_goes_on(tmp_path, monkeypatch):
    """The captioner of stage 0, up to two scenes a batch row, two micro-batches an update; stopped between them."""
    fields = {"packing": 2, "text_length": 64, "accumulate": 2, "plan_window": 2, "steps": 3}
    config = tiny("stage0", **{f"stage__{name}": value for name, value in fields.items()})
    interrupt_at(monkeypatch, 3)
    with pytest.raises(Interrupted):
        chain.run(config, str(tmp_path), sampling.sampler)
    monkeypatch.undo()
    shown = train(config, tmp_path)
    assert "packing   " in shown and " rows in 2 slots" in shown and "resuming  at micro-step 3 of 6" in shown
    s = session.build(stages.chain(config, tmp_path)[-1])
    assert s.batches[0]["image"].shape[:2] == (4, 2) and (s.batches[0]["row"] >= 0).all(1).any()
    [held_out] = s.validation.values()
    assert held_out[0]["image"].shape[1] == 1  # validation stays plain
    [validated] = [r for r in metrics.read(s.plan.directory) if r["kind"] == "validation"]
    assert np.isfinite(validated["loss"])
    assert replay_stage(s).endswith("the first 6 losses are bit-equal to the record")  # in one go, what two runs recorded
    with pytest.raises(VlaxError, match=r"\(stage.packing: 2 -> 0"):
        train(tiny("stage0", **{f"stage__{name}": value for name, value in (fields | {"packing": 0}).items()}), tmp_path)


def test_a_bucketed_stage_compiles_one_program_a_bucket(tmp_path):
    config = tiny("stage0", stage__buckets=(24, 40), stage__plan_window=2)
    shown = train(config, tmp_path)
    assert "buckets   24 tokens " in shown
    s = session.build(stages.chain(config, tmp_path)[-1])
    lengths = {s.batches[step]["tokens"].shape[1] for step in range(len(s.batches))}
    assert f"programs  {len(lengths)} of the train step, for 2 text lengths" in shown and lengths == {24, 40}
