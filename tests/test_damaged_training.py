"""Training on a damaged folder: it stops at its drop budget and names the first rows; with the doctor's list it ends."""

import argparse
import json
import re

import damage
import pytest
from conftest import tiny, train
from ml_collections import ConfigDict

from vlax.data import doctor
from vlax.errors import VlaxError


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
