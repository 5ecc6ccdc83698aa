"""Text of strangers on a terminal."""

GREEN, BOLD, OFF = "\x1b[32m", "\x1b[1;32m", "\x1b[0m"


def printable(text: str) -> str:
    """One line without what would move a terminal's cursor or what has no UTF-8: `"a\\nb\\x1b" -> r"a\\nb\\x1b"`."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
