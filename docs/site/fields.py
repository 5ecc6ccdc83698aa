"""Every field of a config, as a page: read from configs/base.py, where each has its line of explanation."""

import ast
import io
import tokenize
from pathlib import Path

BASE = Path(__file__).resolve().parent.parent.parent / "configs" / "base.py"
PARTS = {
    "run": "What all stages of a chain share: `--config.run.NAME`",
    "stage": "What belongs to one stage: `--config.stage.NAME`, and of an earlier one `--config.parents.STAGE.NAME`",
}


def page() -> str:
    """Markdown: a table a part."""
    lines = [
        "# Every field of a config",
        "",
        "Defaults are those of the embedded variant; a stage's file says what differs there.",
        "Of a field in braces each entry is one of its own: `--config.run.mesh.fsdp=8`.",
        "",
    ]
    for part, title in PARTS.items():
        lines += [f"## `{part}`", "", f"{title}.", "", "| field | default | what it is |", "|---|---|---|"]
        lines += [f"| `{name}` | `{default}` | {_cell(said)} |" for name, default, said in rows(part)]
        lines.append("")
    return "\n".join(lines)


def rows(part: str) -> list[tuple[str, str, str]]:
    """[(field, default as it is written, its comment)] of the function of that name in configs/base.py."""
    source = BASE.read_text()
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    made = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == part)
    found: dict[str, tuple[str, str]] = {}
    for node in made.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Attribute):
            continue
        written = node.value
        if isinstance(written, ast.Call) and ast.unparse(written.func) == "ConfigDict":
            written = written.args[0] if written.args else ast.Dict([], [])
        name, value = node.targets[0].attr, " ".join(ast.unparse(written).split())
        above, at = [], node.lineno - 1
        while at in comments and source.splitlines()[at - 1].lstrip().startswith("#"):
            above.insert(0, comments[at])
            at -= 1
        beside = [comments[line] for line in range(node.lineno, node.end_lineno + 1) if line in comments]
        found.setdefault(name, (value, " ".join(above + beside)))
    return [(name, *rest) for name, rest in found.items()]


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")
