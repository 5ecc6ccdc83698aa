"""examples/quickstart.ipynb: what is stored in it is small and whole, what it names exists, and it runs (slow)."""

import ast
import inspect
import json
import os
import re
import sys

import pytest
from conftest import REPO

import vlax
from vlax.evaluation.options import Options

NOTEBOOK = REPO / "examples" / "quickstart.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
SOURCES = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
# What makes of its quarter of an hour a minute; each is there once.
SHORT = {
    r"^STEPS = \{.*\}": 'STEPS = dict.fromkeys(("stage0_vision", "stage0_decoder", "stage1", "stage4"), 2)',
    r"^LIMIT = \d+": "LIMIT = 8",
    r"report_samples=\d+": "report_samples=2",
    r"steps=\d+, batch_size=8": "steps=2, batch_size=8",
}


def tree(source: str) -> ast.Module:
    return ast.parse(re.sub(r"^(\s*)%.*$", r"\1pass", source, flags=re.M))


def test_what_its_cells_name_exists():
    nodes = [node for source in SOURCES for node in ast.walk(tree(source))]
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "vlax"}
    assert {"config", "train", "finetune", "evaluate", "inspect", "attention"} <= named <= set(dir(vlax))
    asked = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("model", "tuned")}
    assert {"caption", "answer"} <= asked and all(hasattr(vlax.Model, name) for name in asked)
    calls = {ast.unparse(node.func): node for node in nodes if isinstance(node, ast.Call)}
    known = {*inspect.signature(vlax.evaluate).parameters, *Options.__dataclass_fields__}
    assert {word.arg for word in calls["vlax.evaluate"].keywords} <= known
    vlax.config("finetune", **{word.arg: ast.literal_eval(word.value) for word in calls["vlax.finetune"].keywords})
    steps = next(node for node in nodes if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "STEPS")
    config = vlax.config("stage4")
    assert ast.literal_eval(steps.value).keys() <= {stage.name for stage in (config.stage, *config.parents.values())}


def test_what_is_stored_is_one_whole_run_and_small():
    cells = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert "error" not in kinds and kinds.count("display_data") + kinds.count("execute_result") >= 5
    assert NOTEBOOK.stat().st_size < 200_000
    stored = json.dumps([cell["outputs"] for cell in cells])
    assert not re.search(r"/(tmp|home|root|Users)/|Traceback", stored)


@pytest.mark.slow
def test_it_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("JUPYTER_PATH", os.path.join(sys.prefix, "share", "jupyter"))
    notebook = nbformat.read(NOTEBOOK, 4)
    text = "\0".join(cell.source for cell in notebook.cells)
    for long, short in SHORT.items():
        text, count = re.subn(long, short, text, flags=re.M)
        assert count == 1, long
    for cell, source in zip(notebook.cells, text.split("\0"), strict=True):
        cell.source = source
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    runs = tmp_path / "quickstart-runs"
    assert (runs / "tuned" / "finetune" / "export" / "manifest.json").exists()
    assert json.loads((runs / "scores" / "eval" / "scores.json").read_text())["sets"]["embedded_questions"]["rows"] == 8
    said = [output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"]
    assert any("questions accuracy" in text and "blind twin" in text for text in said)
