"""Every state file of a workdir, damaged in every way: the programs that read it go on, or say in a line what is wrong."""

import os
import shutil

import pytest
from conftest import train
from etils import epath

from vlax.commands import export
from vlax.errors import VlaxError
from vlax.evaluation import compare, predictions
from vlax.model import api
from vlax.training import plots

LINE = b'{"run": "a", "id": "1", "set": "captions", "prediction": "red"}\n'
EVALUATION = {"predictions.jsonl": 3 * LINE, "scores.json": b'{"title": "stage4", "sets": {}, "protocols": {}, "runs": {}}'}


def unfinished(config, workdir) -> None:
    """Training that had not come to its export."""
    shutil.rmtree(workdir / "stage4" / "export")
    train(config, workdir)


def evaluation(config, workdir) -> None:
    directory = epath.Path(workdir) / "stage4" / "eval"
    predictions.read(directory / "predictions.jsonl")
    compare.load(directory)


PROGRAMS = {
    "train": train,
    "resume": unfinished,
    "plots": lambda config, workdir: plots.draw(config, epath.Path(workdir)),
    "ask": lambda config, workdir: api.load(workdir / "stage4" / "export"),
    "export": lambda config, workdir: export.export(str(workdir / "stage4" / "export"), str(workdir / "hf"), check=False),
    "eval": evaluation,
}
READERS = {  # file of a stage: the programs that read it
    "config.json": ("train",),
    "metrics.jsonl": ("plots", "resume"),
    "first_losses.json": ("resume",),
    "validation.json": ("resume",),
    "seals/4.json": ("resume",),
    "checkpoints/4/data/metadata": ("resume",),
    "export/manifest.json": ("train", "ask", "export"),
    "export/config.json": ("train", "ask", "export"),
    "export/seal.json": ("train", "ask", "export"),
    "export/tokenizer/tokenizer.json": ("train", "ask", "export"),
    "export/params/_METADATA": ("ask",),
    "eval/predictions.jsonl": ("eval",),
    "eval/scores.json": ("eval",),
}
DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "binary": lambda content: bytes(range(256)),
    "a directory": lambda content: None,
}
SLOW = ("half", "a directory")  # of a resumption, which restores and exports


def damaged(workdir, copy, name: str, how: str, sealed: bool) -> None:
    """A copy (by hard links) of the workdir with one file damaged; not sealed: as before seals were."""
    ignore = shutil.ignore_patterns("eval*", *(() if sealed else ("seal.json", "seals")))
    shutil.copytree(workdir, copy, copy_function=os.link, ignore=ignore)
    for kind, content in EVALUATION.items():
        (copy / "stage4" / "eval").mkdir(exist_ok=True)
        (copy / "stage4" / "eval" / kind).write_bytes(content)
    file = copy / "stage4" / name
    left = DAMAGES[how](file.read_bytes())
    file.unlink()
    file.mkdir() if left is None else file.write_bytes(left)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_a_line_or_no_matter(trained, tmp_path, name):
    config, workdir = trained
    said = []
    for how in DAMAGES:
        for program in READERS[name]:
            if program == "resume" and how not in SLOW:
                continue
            for sealed in (True, False) if name.startswith("export/") and name != "export/seal.json" else (True,):
                copy = tmp_path / "-".join((how, program, str(sealed)))
                damaged(workdir, copy, name, how, sealed)
                try:
                    PROGRAMS[program](config, copy)
                except VlaxError as error:
                    said.append(str(error))
                    assert "\n" not in str(error) and str(copy) in str(error), (how, program, error)
                shutil.rmtree(copy)
    if not name.startswith(("metrics", "first_losses", "validation", "seals", "checkpoints")):
        assert said, "no damage was noticed"
