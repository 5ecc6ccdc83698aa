"""The `:0.9b` configs on stand-ins of their data sets and backbones, in the layout of the real ones."""

import os

import pytest

from benchmarks import recipe, recipe_cases
from vlax.data.sources import open_source
from vlax.training.inspect import inspection

# Rows that a stage reads, by source.
SOURCES = {
    "stage1": {"llava-blip_laion_cc_sbu_558k": 24},
    "stage2": {"llava-share-captioner_coco_lcs_sam_1246k_1107": 24, "coco-captions_train2014": 48},
    "stage3": {"llava-share-captioner_coco_lcs_sam_1246k_1107": 24, "coco-captions_train2014": 48},
    "stage4": {"vqa-v2_OpenEnded_mscoco_train2014_questions": 24, "llava-llava_instruct_150k": 24,
               "coco-captions_train2014": 48},
    "pathvqa": {"hf-pathvqa-train": 24},
}  # fmt: skip


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """(folder with the data, directories of the backbones: one layer each, a small vocabulary)"""
    folder = tmp_path_factory.mktemp("recipe")
    recipe_cases.write_data(folder / "data")
    return folder, recipe_cases.write_backbones(folder, 1, recipe.VOCAB)


@pytest.mark.parametrize("name", recipe.STAGES)
def test_every_config_finds_and_reads_its_data(stand_ins, name, tmp_path, capsys):
    """The first batch of the stage, with the tower's and the decoder's own shapes, and a picture of each source; nothing is
    compiled."""
    folder, backbones = stand_ins
    config = recipe.config(name, folder, backbones, updates=2, rows=2, last=True)
    for spec in [*config.stage.mixture.values(), *config.stage.validation.values()]:
        fields = {key: value for key, value in spec.to_dict().items() if key != "weight"}
        assert open_source(fields, str(folder / "data"))[0].picture.open().size == (80, 60)
    inspection.run(config, str(tmp_path), 1)
    out = capsys.readouterr().out
    for source, rows in SOURCES[name].items():
        assert f"{source} ({rows} rows" in out, out
    assert "256 tokens an image" in out and "224 x 224 pixels" in out
    assert "ok         every picture is shown to the model" in out
    assert "FAULT" not in out.upper().replace("0 FAULTS", "")


@pytest.mark.slow
def test_a_step_at_full_depth(tmp_path):
    """A loss of about log 151,936: nothing is known yet, and nothing is lost on the way through 27 and 24 layers."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    if memory < 22:
        pytest.skip(f"this machine has {memory:.0f} GB of memory, and the step takes 19")
    (record,) = recipe.run(tmp_path, ["stage3"], layers=0, updates=1)
    assert record["first"] == pytest.approx(11.93, abs=0.1)


@pytest.mark.slow
def test_the_whole_recipe_trains(tmp_path):
    """Five stages, two updates each, two layers of each backbone: what `make recipe-check` does."""
    records = recipe.run(tmp_path)
    assert [record["stage"] for record in records] == list(recipe.STAGES)
    assert all(3 < record["first"] < 9 for record in records[:1])  # about log 512 of an untrained model
    assert all((tmp_path / "run" / record["stage"] / "export" / "manifest.json").exists() for record in records)
