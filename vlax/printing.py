"""Text for a terminal: of strangers, in colour, in columns."""

import os
import sys
from collections.abc import Sequence

GREEN, RED, BOLD, OFF = "\x1b[32m", "\x1b[31m", "\x1b[1;32m", "\x1b[0m"


def in_colour() -> bool:
    """Whether what is printed may have colours: on a terminal, unless NO_COLOR is set (no-color.org)."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def printable(text: str) -> str:
    """One line without what would move a terminal's cursor or what has no UTF-8: `"a\\nb\\x1b" -> r"a\\nb\\x1b"`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def columns(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """One line a row, two spaces between cells; the first `left` columns are flush left, the others flush right.

    columns([("group", "bytes"), ("vision", "8")])  ->  "group   bytes\nvision      8"
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.ljust] * left + [str.rjust] * (len(widths) - left)
    aligned = ([side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in aligned)
