"""The order of a chain, what counts as another config, and the table and patterns of trainable groups."""

import json
import re

import numpy as np
import pytest
from conftest import tiny

from vlax.errors import VlaxError
from vlax.params import groups
from vlax.training import stages

PARAMS = {
    "vision/patch/kernel": np.zeros((10, 100), np.float16),
    "projector/fc1/kernel": np.zeros((20, 30), np.float32),
    "projector/fc1/bias": np.zeros(30, np.float32),
    "decoder/embedding": np.zeros((500, 1000), np.float32),
}


def test_parents_come_first(tmp_path):
    plans = stages.chain(tiny("stage4"), tmp_path)
    assert [plan.name for plan in plans] == ["stage0_decoder", "stage0_vision", "stage1", "stage2", "stage3", "stage4"]
    stage1 = plans[2]
    assert stage1.parents == {"vision": tmp_path / "stage0_vision", "decoder": tmp_path / "stage0_decoder"}
    assert plans[-1].export == tmp_path / "stage4" / "export" and not plans[-1].finished


def test_a_circle_is_an_error(tmp_path):
    config = tiny("stage2", parents__stage1__init__vision="stage2")
    with pytest.raises(VlaxError, match=r"in a circle: stage2 -> stage1 -> stage2"):
        stages.chain(config, tmp_path)


def test_an_unknown_parent_names_the_stages_there_are(tmp_path):
    config = tiny("stage2", stage__init__vision="stage7")
    with pytest.raises(VlaxError, match=r"stage2: init names 'stage7'.*fresh, pretrained or one of: stage0_decoder, .*stage2"):
        stages.chain(config, tmp_path)


def test_differences():
    have = {"run": {"seed": 0, "old": 1}, "stage": {"steps": 4, "init": {"a": "x"}}}
    want = {"run": {"seed": 1}, "stage": {"steps": 4, "init": {"a": "x", "b": "y"}}}
    assert stages.differences(have, want) == ["run.old: 1 -> null", "run.seed: 0 -> 1", 'stage.init.b: null -> "y"']
    assert stages.differences(have, have) == []


def test_another_config_is_refused_with_the_list_of_differences(tmp_path):
    (plan,) = stages.chain(tiny("stage0"), tmp_path)
    stages.record_identity(plan)
    stages.check_identity(plan)
    free = tiny("stage0", run__log_every=7, run__mesh__data=4, run__threads=1, stage__eval_every=3, stage__generate_samples=9)
    stages.check_identity(stages.chain(free, tmp_path)[0])
    other = stages.chain(tiny("stage0", run__seed=3, stage__batch_size=16), tmp_path)[0]
    stages.check_identity(other)  # nothing was kept yet
    (plan.directory / "checkpoints" / "4").mkdir(parents=True)
    stages.check_identity(stages.chain(free, tmp_path)[0])
    with pytest.raises(VlaxError) as error:
        stages.check_identity(other)
    assert str(error.value) == (
        f"{plan.directory} was made with another config (run.seed: 0 -> 3; stage.batch_size: 8 -> 16). "
        "Use the old values, another --workdir, or delete that directory. Or begin another run from its state, with the new "
        "values: add --fork=NEW_WORKDIR to this command; or train it longer when it is finished: the old values and "
        "--extend=STEPS"
    )


def test_a_field_that_is_newer_than_the_run_counts_when_it_is_used(tmp_path):
    """A run of an older vlax goes on; with the new feature switched on it is another run."""
    plan = stages.chain(tiny("stage1"), tmp_path)[0]
    stages.record_identity(plan)
    path = plan.directory / "config.json"
    recorded = json.loads(path.read_text())
    del recorded["stage"]["buckets"], recorded["stage"]["lora"]["rank"]
    path.write_text(json.dumps(recorded))
    (plan.directory / "checkpoints" / "4").mkdir(parents=True)
    stages.check_identity(plan)
    config = tiny("stage1")
    for stage in (config.stage, *config.parents.values()):
        stage.buckets = (20, 40)
    with pytest.raises(VlaxError, match=r"made with another config \(stage.buckets: null -> \[20, 40\]; stage.plan_window"):
        stages.check_identity(stages.chain(config, tmp_path)[0])


def test_a_checkpoint_beyond_the_end_is_of_another_config(tmp_path):
    """Without config.json nothing else says so: the run would go on "at micro-step 596 of 500" and train nothing."""
    plan = stages.chain(tiny("stage0"), tmp_path)[-1]
    for step in ("500", "596"):
        (plan.directory / "checkpoints" / step).mkdir(parents=True)
    stages.check_end(plan, 596)
    with pytest.raises(VlaxError, match=r"micro-step 596, where this config ends at 500, and no config.json that says which"):
        stages.check_end(plan, 500)
    stages.record_identity(plan)
    with pytest.raises(VlaxError, match=r"config ends at 500\. Pass the values that it was trained with"):
        stages.check_end(plan, 500)


def test_identity_survives_json():
    (plan,) = stages.chain(tiny("stage0"), "/nowhere")
    assert json.loads(json.dumps(plan.identity)) == plan.identity


def test_what_is_left_to_do(tmp_path, caplog):
    caplog.set_level("INFO")
    plans = stages.chain(tiny("stage1"), tmp_path)
    plans[0].export.mkdir(parents=True)
    (plans[0].export / "manifest.json").write_text("{}")
    assert [plan.name for plan in stages.todo(plans)] == ["stage0_vision", "stage1"]
    assert "finished already: stage0_decoder" in caplog.text
    assert "stage1 needs stage0_vision first: running them in this order" in caplog.text


def test_patterns_assign_paths_to_the_first_group_that_matches():
    assigned = groups.assign(PARAMS, {"projector": "^projector/", "rest": "decoder|fc1"})
    assert assigned == {
        "projector/fc1/kernel": "projector", "projector/fc1/bias": "projector", "decoder/embedding": "rest",
    }  # fmt: skip
    trainable, frozen = groups.split(PARAMS, assigned)
    assert list(frozen) == ["vision/patch/kernel"] and trainable.keys() == assigned.keys()
    assert groups.join(trainable, frozen).keys() == PARAMS.keys()


@pytest.mark.parametrize(
    ("patterns", "text"),
    (
        ({"projector": "^projektor/"}, "trainable pattern projector='^projektor/' matches no parameter. Parameters start with: "
         "decoder/embedding, projector/fc1, vision/patch. Set --config.stage.trainable.projector=REGEX"),
        ({"projector": "^(projector"}, "projector='^(projector' is not a regular expression"),
        ({"all": ".", "projector": "^projector/"}, "pattern 'projector' only matches parameters that an earlier pattern took"),
    ),
)  # fmt: skip
def test_patterns_that_cannot_be_meant(patterns, text):
    with pytest.raises(VlaxError, match=re.escape(text)):
        groups.assign(PARAMS, patterns)


def test_the_table():
    assigned = groups.assign(PARAMS, {"projector": "^projector/"})
    assert groups.table(PARAMS, assigned, {"projector": 3e-3}).splitlines() == [
        "group      state    parameters   bytes  learning rate",
        "projector  trained         630  2.5 KB          0.003",
        "decoder    frozen      500,000  2.0 MB              -",
        "vision     frozen        1,000  2.0 KB              -",
        "total                  501,630  2.0 MB",
    ]


def test_structures_that_differ_are_named():
    have = {"a": np.zeros(3), "b": np.zeros((2, 2)), "x": np.zeros(1)}
    want = {"a": np.zeros(3), "b": np.zeros((2, 3)), "c": np.zeros(1)}
    with pytest.raises(VlaxError, match=re.escape("E does not fit this model: 1 missing (c), 1 unexpected (x), 1 of another "
                                                  "shape (b (2, 2) for (2, 3))")):  # fmt: skip
        groups.check_same_structure(have, want, "E")
    groups.check_same_structure(want, want, "E")


def test_checksums_see_every_bit():
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    one = groups.checksum({"a": value, "b": value})
    flipped = value.copy()
    flipped.view(np.uint32)[1, 2] ^= 1
    others = ({"a": value, "b": flipped}, {"a": value, "c": value}, {"a": value, "b": value.reshape(3, 2)},
              {"a": value, "b": value.view(np.int32)})  # fmt: skip
    assert len({one, *map(groups.checksum, others)}) == 5
    assert groups.checksum({"b": value.T.copy().T, "a": value}) == one  # order and memory layout say nothing
