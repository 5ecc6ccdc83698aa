"""The rooms of the house, and what each may import: the table below is the architecture.

A room is a folder of `vlax/` (or a file beside `__init__.py`). It may import itself and the rooms named after it. Imports are
read with `ast`, those within functions too.
"""

import ast
import graphlib
import pathlib
import re

import pytest

VLAX = pathlib.Path(__file__).resolve().parent.parent / "vlax"
GROUND = "errors masks images rows printing storage"

ALLOWED = {
    "errors": "",
    "masks": "errors",
    "images": "errors",
    "rows": "errors images",
    "storage": "errors",
    "printing": "",
    "process": "errors printing storage",
    "params": "errors printing",
    "models": "errors masks images params",
    "text": f"{GROUND} models",
    "data.readers": f"{GROUND}",
    "data.embedded": "errors rows",
    "data.recognise": f"{GROUND} data.readers",
    "data": f"{GROUND} data.readers data.embedded data.recognise",
    "data.batches": f"{GROUND} text data.readers",
    "decoding": f"{GROUND} params models text data.batches",
    "pretrained.families": "errors images models",
    "pretrained.reading": f"{GROUND} params models pretrained.families",
    "pretrained.writing": f"{GROUND} params models text pretrained.families pretrained.reading",
    "model": f"{GROUND} data.readers params models text decoding pretrained.reading",
    "scores": "errors storage",
    "suites": f"{GROUND} text decoding scores data",
    "training": f"{GROUND} process params models text data data.readers data.batches decoding pretrained.reading "
    "pretrained.writing model suites",
    "training.trackers": "errors params storage training",
    "training.inspect": f"{GROUND} params text training",
    "evaluation.report": "errors images masks printing params models text decoding model",
    "evaluation": f"{GROUND} process params models text data data.readers decoding model scores suites training "
    "training.trackers evaluation.report",
}
ALLOWED["evaluation.runs"] = f"{GROUND} process training evaluation.report"
ALLOWED["findings"] = f"{GROUND} process models model scores suites training evaluation evaluation.report"
ALLOWED["serve"] = f"{GROUND} process data.readers params models text decoding model evaluation.report"
ALLOWED["commands.data"] = f"{ALLOWED['training']} data.recognise"
ALLOWED["commands"] = " ".join(dict.fromkeys(" ".join([*ALLOWED.values(), *ALLOWED]).split()))
ALLOWED["interface"] = f"{ALLOWED['commands']} commands"
ALLOWED["__main__"] = "commands"


def modules() -> dict[str, pathlib.Path]:
    """{dotted name: file} of everything in `vlax/`; a package goes by its folder's name."""
    files = sorted(VLAX.rglob("*.py"))
    return {".".join(path.relative_to(VLAX.parent).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imported(path: pathlib.Path, known: dict[str, pathlib.Path]) -> set[str]:
    """The modules of vlax that a file imports, in any form."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "vlax"}
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(VLAX.parent).parent.parts
            base = [*package[: len(package) - node.level + 1], *filter(None, [node.module])] if node.level else [node.module]
            for alias in node.names if (base and base[0].split(".")[0] == "vlax") else ():
                name = ".".join([*base, alias.name])
                found.add(name if name in known else name.rpartition(".")[0])
    return found


def room(module: str, known: dict[str, pathlib.Path]) -> str:
    """`vlax.data.readers.coco -> data.readers`, `vlax.masks -> masks`; the public names in `vlax/__init__.py` are no room."""
    parts = module.split(".")[1:]
    is_folder = known[module].name == "__init__.py"
    return ".".join(parts if is_folder or len(parts) == 1 else parts[:-1])


def arrows() -> dict[str, dict[str, list[str]]]:
    """{room: {room that it imports: [which files do]}}"""
    known = modules()
    out: dict[str, dict[str, list[str]]] = {}
    for module, path in known.items():
        for name in imported(path, known):
            here, there = room(module, known), room(name, known)
            if here and here != there and there:
                out.setdefault(here, {}).setdefault(there, []).append(str(path.relative_to(VLAX)))
    return out


def test_rooms_import_what_the_table_allows():
    wrong = [
        f"{file} ({here}) imports {there}"
        for here, found in arrows().items()
        for there, files in found.items()
        for file in files
        if there not in ALLOWED.get(here, "").split()
    ]
    assert not wrong, "\n".join(wrong)


def at_once(module: str) -> set[str]:
    """What is imported with a module of vlax, other packages included: what stands in functions is not."""
    known, seen, left, found = modules(), set(), [module], set()
    while left:
        here = left.pop()
        if here in seen:
            continue
        seen.add(here)
        tree = ast.parse(known[here].read_text())
        for outer in tree.body:
            for node in ast.walk(outer) if isinstance(outer, ast.With | ast.Try) else (outer,):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add(str(node.module).split(".")[0])
                    names = {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
                    left += [name for name in names if name in known]
    return found


def test_what_takes_seconds_to_import_is_not_waited_for():
    """Drawing and event files come when there is something to draw; tensorboardX alone would bring torch with it."""
    slow = {"matplotlib", "tensorboardX", "torch", "tensorflow", "pandas", "ray"}
    commands = ("train", "eval", "ask")
    assert {name: at_once(f"vlax.commands.{name}") & slow for name in commands} == {name: set() for name in commands}
    assert not at_once("vlax.training.chain") & slow and not at_once("vlax.evaluation.runner") & slow
    assert "tensorboardX" in at_once("vlax.training.board") and "matplotlib" in at_once("vlax.training.plots")


def test_every_room_has_a_line_in_the_table_and_a_docstring():
    rooms = {room(module, modules()) for module in modules()} - {""}
    empty = {"pretrained"}  # a folder of rooms
    assert rooms - empty == set(ALLOWED)
    for path in VLAX.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_the_table_has_no_circle():
    order = list(graphlib.TopologicalSorter({name: found.split() for name, found in ALLOWED.items()}).static_order())
    assert order.index("masks") < order.index("models") < order.index("training") < order.index("evaluation")


def test_files_import_each_other_in_no_circle():
    known = modules()
    graph = {module: imported(path, known) - {module, "vlax"} for module, path in known.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # CycleError names the files


def test_few_files_lie_directly_in_the_house():
    assert len(list(VLAX.glob("*.py"))) <= 8


@pytest.mark.parametrize(
    "line",
    ("from vlax.training.session import Session", "import vlax.training.session", "from vlax.training import session",
     "def f():\n    from ..training import session"),
)  # fmt: skip
def test_an_import_is_seen_in_every_form(tmp_path, monkeypatch, line):
    """An upward import, however it is spelt, is an arrow that the table does not have."""
    folder = tmp_path / "vlax" / "models"
    folder.mkdir(parents=True)
    (folder / "sly.py").write_text(line)
    known = {"vlax.training": VLAX / "training/__init__.py", "vlax.training.session": VLAX / "training/session.py"}
    monkeypatch.setitem(test_an_import_is_seen_in_every_form.__globals__, "VLAX", tmp_path / "vlax")
    assert imported(folder / "sly.py", known) == {"vlax.training.session"}


def test_flags_are_for_commands_alone():
    """No room below `commands` knows of absl's or argparse's flags."""
    parsed = {path: ast.parse(path.read_text()) for path in VLAX.rglob("*.py") if "commands" not in path.parts}
    names = {
        (str(path.relative_to(VLAX)), alias.name)
        for path, tree in parsed.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in ([*node.names] if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
    }
    assert not {(file, name) for file, name in names if name.split(".")[0] in ("absl", "argparse")}


def test_hosts_are_asked_for_in_one_place():
    """A collective that one host alone reaches hangs all of them: `vlax/params/distributed.py` has the only ones."""
    ask = re.compile("process_index|process_count|multihost")
    assert {str(p.relative_to(VLAX)) for p in VLAX.rglob("*.py") if ask.search(p.read_text())} == {"params/distributed.py"}
