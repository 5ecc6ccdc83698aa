"""Training on a damaged folder: it stops at its drop budget and names the first rows; with the doctor's list it ends."""

import argparse
import json
import re

import damage
import pytest
from conftest import tiny, train
from ml_collections import ConfigDict
from PIL import Image

from vlax.commands.data import doctor
from vlax.errors import VlaxError
from vlax.training import session, stages


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """(folder, the doctor's list)"""
    folder = tmp_path_factory.mktemp("damaged")
    damage.write_damaged(folder)
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    specs = [json.dumps(spec) for spec in mixture(folder).values()]
    assert doctor.main(parser.parse_args([*specs, f"--out={folder}/doctor", "--workers=2"])) == 1
    return folder, folder / "doctor" / "quarantine.jsonl"


def mixture(folder) -> dict:
    images = {"images": f"{folder}/images"}
    return {
        "captions": {"kind": "coco", "annotations": f"{folder}/captions.json", **images},
        "questions": {"kind": "vqa", "questions": f"{folder}/questions.json", "annotations": f"{folder}/annotations.json",
                      **images},
        "chat": {"kind": "llava", "annotations": f"{folder}/chat.json", **images},
    }  # fmt: skip


def config(folder, **fields):
    """The tiny captioner of stage 0 on the damaged sources; text_length keeps even the long text."""
    made = tiny("stage0", **fields)
    with made.unlocked():
        made.stage.mixture = ConfigDict({name: {**spec, "epochs": 1.0} for name, spec in mixture(folder).items()})
    made.stage.validation = {}
    made.stage.steps, made.stage.overlong = 6, "cut"
    return made


def test_without_a_list_the_run_stops_at_its_budget_and_names_the_first_rows(damaged, tmp_path):
    folder, _ = damaged
    with pytest.raises(VlaxError) as caught:
        train(config(folder), tmp_path)
    text = str(caught.value)
    assert re.match(r"\d+ bad rows, and the drop budget allows 1 \(stage.drop_budget=0.001 of \d+ rows\): coco-captions:", text)
    assert "--config.run.quarantine=DIR/quarantine.jsonl" in text and text.count("; ") >= 9
    assert not (tmp_path / "stage0_vision" / "export").exists()


def test_with_the_list_it_ends_and_says_how_many_rows_it_left_out(damaged, tmp_path):
    folder, listed = damaged
    printed = train(config(folder, run__quarantine=str(listed)), tmp_path)
    assert (tmp_path / "stage0_vision" / "export" / "manifest.json").exists()
    assert re.search(r"quarantine \d+ rows of coco-captions, \d+ rows of llava-chat, \d+ rows of vqa-questions", printed)
    assert re.search(r"quarantined \d+ rows: \d+ of coco-captions", printed) and "bad rows" not in printed
    lines = [json.loads(line) for line in (tmp_path / "stage0_vision" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "train"][-1]
    assert last["left_out/bad"] == 0 and last["left_out/quarantined"] > 10


def captions(folder, count: int, missing=(), empty=()) -> dict:
    """A COCO source of so many pictures with a caption each; some of the files are not there, some captions are empty."""
    (folder / "images").mkdir(parents=True)
    for i in set(range(count)) - set(missing):
        Image.new("RGB", (9, 9), (5 * i % 256, 0, 0)).save(folder / "images" / f"{i}.png")
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(count)]
    said = [{"image_id": i, "caption": "" if i in empty else "a dog"} for i in range(count)]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": said}))
    return {"kind": "coco", "annotations": f"{folder}/captions.json", "images": f"{folder}/images"}


def on(spec, **fields):
    made = tiny("stage0", run__threads=0, **fields)
    with made.unlocked():
        made.stage.mixture = ConfigDict({"captions": spec})
    made.stage.validation = {}
    return made


def test_a_run_that_stops_at_its_budget_goes_on_with_a_list_as_if_it_had_always_had_it(tmp_path):
    """The sixth bad picture is one too many of 24 x 0.2; what was learned until then is saved. Bad and quarantined rows become
    filler alike, so that the end is the same to the last bit."""
    missing = (3, 7, 8, 13, 18, 22)
    spec = captions(tmp_path / "data", 24, missing)
    fields = {"stage__drop_budget": 0.2, "stage__steps": 6}
    with pytest.raises(VlaxError, match=r"6 bad rows, and the drop budget allows 5 .*: the picture is missing"):
        train(on(spec, **fields), tmp_path / "w")
    saved = [int(path.name) for path in (tmp_path / "w" / "stage0_vision" / "checkpoints").iterdir() if path.name.isdigit()]
    assert saved and 0 < max(saved) < 6
    listed = tmp_path / "list.jsonl"
    listed.write_text("".join(
        json.dumps({"source": "coco-captions", "row": f"{i}#0", "image": "", "reason": "missing"}) + "\n" for i in missing
    ))  # fmt: skip
    printed = train(on(spec, run__quarantine=str(listed), **fields), tmp_path / "w")
    assert f"resuming  at micro-step {max(saved)} of 6" in printed
    train(on(spec, run__quarantine=str(listed), **fields), tmp_path / "always")
    exports = [tmp_path / workdir / "stage0_vision" / "export" for workdir in ("w", "always")]
    resumed, always = (json.loads((export / "manifest.json").read_text())["checksums"] for export in exports)
    assert resumed == always


def test_refused_rows_count_as_many_as_the_run_would_have_met(tmp_path):
    """3 of 300 captions are empty. A run over 8 rows would have met less than one of them; one over all rows meets three."""
    spec = captions(tmp_path / "data", 300, empty=(4, 50, 299))
    session.build(stages.chain(on(spec, stage__steps=1), tmp_path / "short")[-1])
    with pytest.raises(VlaxError, match=r"3 bad rows, and the drop budget allows 1 \(stage.drop_budget=0.001 of 297 rows\)"):
        session.build(stages.chain(on(spec, stage__steps=0, stage__epochs=1.0), tmp_path / "whole")[-1])


def test_where_every_row_is_refused_the_first_reason_is_told(tmp_path):
    spec = captions(tmp_path / "data", 3, empty=range(3))
    with pytest.raises(VlaxError, match=r"no rows are left .* The first row that was refused: .*annotations\[0\].*not a text"):
        session.build(stages.chain(on(spec), tmp_path)[-1])


def test_validation_pictures_are_kept_out_of_training(tmp_path):
    spec = captions(tmp_path / "data", 12)
    held_out = json.loads((tmp_path / "data" / "captions.json").read_text())
    held_out = {key: rows[:4] for key, rows in held_out.items()}
    (tmp_path / "data" / "held_out.json").write_text(json.dumps(held_out))
    made = on(spec)
    made.stage.validation = ConfigDict({"captions": {**spec, "annotations": f"{tmp_path}/data/held_out.json"}})
    built = session.build(stages.chain(made, tmp_path / "w")[-1])
    (source,) = built.batches.collate.mixture.sources
    assert source.dropped == 4 and len(source) == 8
