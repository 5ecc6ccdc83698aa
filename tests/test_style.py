"""The house rules that a machine can check."""

import ast
import pathlib
import re
import subprocess

REPO = pathlib.Path(__file__).resolve().parent.parent
LINES_PER_FILE, LINES_PER_FUNCTION = 250, 60


def tracked() -> list[pathlib.Path]:
    """Files that git tracks or would add, deleted ones left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    if listed.returncode:  # an unpacked archive
        found = [p.relative_to(REPO) for p in REPO.rglob("*") if p.is_file()]
        return [REPO / p for p in found if not any(part.startswith(".") or part in ("runs", "__pycache__") for part in p.parts)]
    return [REPO / name for name in sorted(set(listed.stdout.splitlines())) if (REPO / name).is_file()]


SOURCES = [p for p in tracked() if p.suffix == ".py" and "tests" not in p.relative_to(REPO).parts]
DEFINITIONS = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef


def parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def test_files_are_short():
    long = {str(p.relative_to(REPO)): n for p in SOURCES if (n := len(p.read_text().splitlines())) > LINES_PER_FILE}
    assert not long, f"over {LINES_PER_FILE} lines: {long}; a file that long holds two ideas"


def test_git_ignores_no_source():
    """A folder that .gitignore happens to name is there for the one who made it and for nobody else."""
    there = {p for room in ("vlax", "configs", "benchmarks", "tests") for p in (REPO / room).rglob("*.py")}
    missing = sorted(str(p.relative_to(REPO)) for p in there - set(tracked()))
    assert not missing, f"{missing}: anchor the line of .gitignore that matches them"


def test_no_page_has_a_path_of_one_machine():
    """Output that is pasted from a temporary folder or a home leads a reader nowhere: let the program print a relative path."""
    kinds = (".md", ".py", ".toml", ".yml", ".ipynb")
    pages = [file for file in tracked() if file.suffix in kinds and "tests" not in file.relative_to(REPO).parts]
    path = re.compile(r"(?<![\w.:/])/(?:tmp|home|root|work|Users|mnt)/\w+")
    found = [f"{page.relative_to(REPO)}: {met}" for page in pages for met in path.findall(page.read_text())]
    assert len(pages) > 300 and not found, found


def test_functions_are_short():
    long = {}
    for path in SOURCES:
        for node in ast.walk(parse(path)):
            if isinstance(node, DEFINITIONS[:2]) and (lines := node.end_lineno - node.lineno + 1) > LINES_PER_FUNCTION:
                long[f"{path.relative_to(REPO)}:{node.lineno} {node.name}"] = lines
    assert not long, f"over {LINES_PER_FUNCTION} lines: {long}"


def test_public_names_have_docstrings():
    """Classes and functions of twenty lines or more; shorter ones may speak for themselves, and so may `config`, the
    one function that every family of vlax/pretrained has."""
    bare = []
    for path in (p for p in SOURCES if p.is_relative_to(REPO / "vlax")):
        tree = parse(path)
        if tree.body and not ast.get_docstring(tree):
            bare.append(f"{path.relative_to(REPO)}: the module")
        for node in tree.body:
            if not isinstance(node, DEFINITIONS) or node.name.startswith("_") or node.name in ("main", "config"):
                continue
            short = node.end_lineno - node.lineno < 20
            if not ast.get_docstring(node) and not short and not _is_module(node):
                bare.append(f"{path.relative_to(REPO)}:{node.lineno} {node.name}")
    assert not bare, bare


def _is_module(node) -> bool:
    """A network part: its file's docstring and its config say what it is."""
    return isinstance(node, ast.ClassDef) and any(ast.unparse(base) == "nnx.Module" for base in node.bases)


def test_no_paths_of_one_machine():
    found = {}
    for path in tracked():
        if path.suffix in (".py", ".md", ".toml", ".txt", ".json", ".ipynb", ""):
            hits = re.findall(r"(?<![\w.])/(?:home|Users|root|work|mnt|private)/[\w.-]+", path.read_text(errors="ignore"))
            found.update({str(path): hits} if hits else {})
    assert not found
