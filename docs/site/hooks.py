"""What the site has beside docs/: the README as its first page, names of pages as links, pictures and fields from the code."""

import re
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import fields  # noqa: E402
import pictures  # noqa: E402

SPAN = re.compile(r"`docs/(\w+\.md)`")


def on_files(files, config):
    """Adds what is made here; a page that shows a picture that isn't drawn is a warning, and so an error."""
    readme = (ROOT / "README.md").read_text()
    files.append(File.generated(config, "index.md", content=readme))
    files.append(File.generated(config, "fields.md", content=fields.page()))
    for name, draw in pictures.PICTURES.items():
        files.append(File.generated(config, f"drawn/{name}.svg", content=draw()))
    return files


def on_page_markdown(markdown, page, config, files):
    """`docs/data.md` between backticks, which is how the pages name each other, is a link here. Not so in a block of code."""
    lines = markdown.splitlines()
    linked = [line if line.startswith("    ") else SPAN.sub(r"[`docs/\1`](\1)", line) for line in lines]
    return "\n".join(linked) + "\n"
