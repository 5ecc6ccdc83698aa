"""The documentation: every command that it shows is one that there is, every page has its place, and the site builds."""

import importlib
import re
import shlex
import subprocess
import sys

import pytest
import yaml
from conftest import REPO

from vlax.commands import front
from vlax.commands.flags import Parser

PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
# A config that the reader is told to write.
MINE = re.compile(r"configs/(mine|my_\w+)\.py")


def shown(text: str) -> list[list[str]]:
    """The arguments of every vlax command in a page's indented blocks: ["train", "--config=...", ...]. Lines that end in a
    backslash go on, and one that has "..." is only the shape of a command."""
    lines = [line[4:] for line in text.replace(" \\\n", " ").splitlines() if line.startswith("    ")]
    return [found for line in lines if "..." not in line for found in _of_line(line)]


def _of_line(line: str) -> list[list[str]]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError:  # prose, output or Python
        return []
    if words[:2] == ["train.py", "eval.py"]:  # the list of files in the README
        return []
    inner = [found for word in words if " " in word for found in _of_line(word)]
    for at, word in enumerate(words):
        before = words[at - 1] if at else ""
        if word in ("train.py", "eval.py") and (at == 0 or before.startswith("python") or before.startswith("--")):
            return [[word.removesuffix(".py"), *_to_the_end(words[at + 1 :])]]
        if word == "vlax" and (at == 0 or before == "-m") and words[at + 1 :]:
            return [_to_the_end(words[at + 1 :])]
    return inner


def _to_the_end(words: list[str]) -> list[str]:
    ends = [at for at, word in enumerate(words) if word in ("&&", "|", ";", ">", "&")]
    return words[: ends[0]] if ends else words


COMMANDS = sorted({(page.name, *command) for page in PAGES for command in shown(page.read_text())})


def test_a_command_is_found_wherever_it_stands():
    text = (
        "    python train.py --config=stage3 \\\n      --replay  # again\n    -m vlax ask DIR\nvlax runs\n    vlax runs && ls\n"
    )
    text += (
        '    ssh --command="cd x && python eval.py --limit=3"\n    torchrun --nnodes=2 train.py --plan\n    vlax serve ...\n'
    )
    assert shown(text) == [["train", "--config=stage3", "--replay"], ["ask", "DIR"], ["runs"], ["eval", "--limit=3"],
                           ["train", "--plan"]]  # fmt: skip
    assert len(COMMANDS) > 60


@pytest.mark.parametrize("command", COMMANDS, ids=[" ".join(command)[:90] for command in COMMANDS])
def test_every_command_of_the_docs_is_understood(command, monkeypatch):
    """Its name, its flags and every field of a config; tests/test_walkthrough.py runs those of the README."""
    monkeypatch.chdir(REPO)
    _, *argv = command
    _parse([MINE.sub("configs/stage1.py", word) for word in argv])


def _parse(argv: list[str]) -> None:
    depth = 2 if argv[0] == "data" else 1
    name, rest = " ".join(argv[:depth]), argv[depth:]
    assert name in front.COMMANDS
    if name == "launch":
        at = rest.index("--")
        return _parse(rest[at + 1 :])
    module = importlib.import_module(f"vlax.commands.{name.replace(' ', '.')}")
    parser = Parser(name, module.__doc__ or "")
    module.add_arguments(parser)
    parser.parse_args(rest)


def test_every_page_has_its_place():
    """In the navigation, and named by another page or the README: nobody finds it else."""
    nav = yaml.safe_load((REPO / "mkdocs.yml").read_text())["nav"]
    listed = set(re.findall(r"\w+\.md", str(nav)))
    assert listed == {page.name for page in (REPO / "docs").glob("*.md")} | {"index.md", "fields.md"}
    everything = {page: page.read_text() for page in PAGES}
    for page in (REPO / "docs").glob("*.md"):
        assert any(f"docs/{page.name}`" in text for other, text in everything.items() if other != page), page.name


def test_pages_that_are_named_exist():
    for page in PAGES:
        for name in re.findall(r"`((?:docs|vlax|tests|benchmarks|configs)/[a-z0-9_/]+\.(?:md|py))`", page.read_text()):
            assert (REPO / name).exists() or MINE.fullmatch(name), (page.name, name)


def test_the_site_builds_without_a_warning(tmp_path):
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={tmp_path}"], cwd=REPO,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    page = (tmp_path / "concepts" / "index.html").read_text()
    for name in ("masks", "masks_of_two_pictures", "stages", "schedule"):
        assert f"drawn/{name}.svg" in page and (tmp_path / "drawn" / f"{name}.svg").stat().st_size > 5_000
    fields = (tmp_path / "fields" / "index.html").read_text()
    assert "<code>grace_seconds</code>" in fields and "from SIGTERM on" in fields
    assert 'href="../plan/"><code>docs/plan.md</code>' in (tmp_path / "recipe" / "index.html").read_text()
    # A page asks nobody else for anything while it is read.
    text = "".join(path.read_text() for path in tmp_path.rglob("*.html"))
    assert not re.findall(r'(?:src|href)="(https?://[^"]+\.(?:js|css|woff2?))"', text)
