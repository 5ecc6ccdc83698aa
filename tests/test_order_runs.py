"""A run keeps the order of rows that it was started with; row ids of any size reach whoever reads them."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from conftest import train
from ml_collections import ConfigDict
from test_resume import interrupt_at, window, workdir  # noqa: F401

from vlax.data.batches import order
from vlax.data.batches.mixture import Mixture
from vlax.errors import VlaxError
from vlax.model import exports
from vlax.params import sharding
from vlax.process.activity import Interrupted
from vlax.storage import seal
from vlax.training import checkpoints, inputs, session, stages
from vlax.training.replay import replay_stage


def data_of(stage):
    """{checkpoint: what it says of its data}"""
    return {path.name: json.loads((path / "data" / "metadata").read_text()) for path in (stage / "checkpoints").iterdir()}


def without_order(stage) -> None:
    """Makes of a stage's checkpoints and export what was written before there was a second order."""
    for step, values in data_of(stage).items():
        del values["order"]
        (stage / "checkpoints" / step / "data" / "metadata").write_text(json.dumps(values))
        seal.write(stage / "checkpoints" / step, stage / "seals" / f"{step}.json")


def interrupted(folder, monkeypatch):
    """Stage 1, stopped after three of its eight micro-steps; undoes what was patched."""
    interrupt_at(monkeypatch, 3)
    with pytest.raises(Interrupted):
        train(window(), folder)
    monkeypatch.undo()
    return folder / "stage1"


def replayed(folder) -> str:
    return replay_stage(session.build(stages.chain(window(), folder)[-1]))


def test_a_run_without_a_recorded_order_goes_on_in_order_1(workdir, monkeypatch):  # noqa: F811
    """Although its epoch would count as large today; all its losses are those that order 1 gives."""
    stage = interrupted(workdir, monkeypatch)
    assert data_of(stage)["3"]["order"] == 1
    without_order(stage)
    monkeypatch.setattr(order, "LARGE", 1)
    assert checkpoints.recorded_order(stage) == 1
    assert "resuming  at micro-step 3 of 8" in train(window(), workdir)
    assert data_of(stage)["8"]["order"] == exports.read_manifest(stage / "export")["data"]["order"] == 1
    assert replayed(workdir) == "stage1: the first 8 losses are bit-equal to the record"


@pytest.mark.slow
def test_a_run_of_order_2_goes_on_and_is_replayed_and_inspected_in_it(workdir, monkeypatch):  # noqa: F811
    """Although its epoch counts as small by then."""
    monkeypatch.setattr(order, "LARGE", 1)
    stage = interrupted(workdir, monkeypatch)
    assert order.LARGE == 2**20 and data_of(stage)["3"]["order"] == 2
    assert "resuming  at micro-step 3 of 8" in train(window(), workdir)
    assert exports.read_manifest(stage / "export")["data"]["order"] == 2
    assert replayed(workdir) == "stage1: the first 8 losses are bit-equal to the record"
    shutil.rmtree(stage / "checkpoints")  # the export alone says it too; inspection builds the same session
    built = session.build(stages.resolved(stages.chain(window(), workdir))[0])
    ids = Mixture(built.batches.collate.mixture.sources, [1.0], 0, order=2).ids(0, 4)
    assert built.batches[0]["row"].ravel().tolist() == ids.tolist()


def test_a_damaged_checkpoint_says_nothing_of_the_order(tmp_path):
    kept = checkpoints.Checkpoints(tmp_path / "checkpoints", last=2)
    for step, values in ((1, {"step": 1, "order": 2}), (2, {"step": 2, "order": 2})):
        kept.save(step, {"a": np.zeros(3, np.float32)}, values)
    kept.close()
    assert checkpoints.recorded_order(tmp_path) == 2
    (tmp_path / "checkpoints" / "2" / "data" / "metadata").write_text('{"step": 2, "order": 1}')
    assert checkpoints.recorded_order(tmp_path) == 2  # by its seal it is another file than was written
    (tmp_path / "checkpoints" / "1" / "data" / "metadata").unlink()
    assert checkpoints.recorded_order(tmp_path) is None and checkpoints.recorded_order(tmp_path / "none") is None


class Wide:
    """Ten thousand million rows, which are those of another source again and again."""

    name, fingerprint = "wide", "f"

    def __init__(self, source):
        self.source = source

    def __len__(self) -> int:
        return 10_000_000_000

    def __getitem__(self, index: int):
        row = self.source[index % len(self.source)]
        return type(row)(**{**vars(row), "id": f"row-{index}"})


@pytest.mark.parametrize(
    "wrong, says",
    [
        ("frozen", r"stopped at step 2: loss nan, gradient norms: projector nan; rows: (.*)\. there is no checkpoint"),
        ("segment", r"step 2: the batch has no answer token to learn from \(rows (.*)\)\. Are"),
    ],
)
def test_row_ids_beyond_32_bits_are_named_as_they_are(workdir, monkeypatch, wrong, says):  # noqa: F811
    real, opened, built = session.build, inputs.open_mixture, []

    def wide(*given):
        mixture = opened(*given)
        return Mixture([Wide(mixture.sources[0])], [1.0], mixture.seed)

    def build(plan):
        built.append(real(plan))
        step, calls = built[-1].train_step, []

        def poisoned(state, frozen, batch):
            calls.append(1)
            if len(calls) == 3:
                if wrong == "frozen":
                    frozen = {path: value * np.float32("nan") for path, value in frozen.items()}
                else:
                    batch = {**batch, "segment": batch["segment"] * 0}
            return step(state, frozen, batch)

        built[-1].train_step = poisoned
        return built[-1]

    monkeypatch.setattr(inputs, "open_mixture", wide)
    monkeypatch.setattr(session, "build", build)
    with pytest.raises(VlaxError) as error:
        train(window(), workdir)
    ids = built[-1].batches.plan.batch(2).ids.ravel()
    assert ids.max() > 2**32 and built[-1].batches[2]["row"].ravel().tolist() == ids.tolist()
    assert re.search(says, str(error.value))[1] == ", ".join(f"wide:row-{i}" for i in ids), error.value


def test_no_step_is_given_64_bits(trained):
    config, where = trained
    built = session.build(stages.chain(config, where)[-1])
    batch = built.batches[0]
    assert batch["row"].dtype == np.int64
    # A picture a row, before its text, goes without saying: attention knows when it compiles.
    assert set(built.place(batch)) == set(batch) - {"row", "owner", "before"}
    stage = dataclasses.replace(built.plan, stage=ConfigDict({**built.plan.stage, "packing": 2}))
    assert set(dataclasses.replace(built, plan=stage).place(batch)) == set(batch) - {"row"}
    with pytest.raises(ValueError, match="row of a batch are 64 bits wide: leave them on the host, or make them int32"):
        sharding.put_batch(batch, built.mesh)
