"""The page of the report: template, style, script and data as one HTML text that may load nothing.

The content security policy names the hashes of the one style and the one script and forbids the rest: should words of a model
ever reach the page as markup, they would neither run nor load anything.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path

_TEMPLATE = Path(__file__).parent / "template"
_STYLES = ("base.css", "report.css")
# One after the other in one function scope; the last one starts.
_SCRIPTS = ("base.js", "scores.js", "protocol.js", "attention.js", "cards.js", "samples.js", "report.js")


def page(title: str, subtitle: str, data: Mapping) -> str:
    """HTML text. `data` is a JSON tree, which the script reads from an element that browsers do not execute."""
    style = _style()
    script = '\n(() => {\n"use strict";\n' + "\n".join(map(_read, _SCRIPTS)) + "})();\n"
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        "title": escape(title),
        "subtitle": escape(subtitle),
        "style": style,
        "script": script,
        "data": embedded_json(data),
    }
    # One pass: a "{{data}}" inside of what is filled in stays as it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("report.html"))


def plain(title: str, extra: str, body: str) -> str:
    """A page in the report's look without a script. extra: CSS beside the report's; body: HTML whose texts are escaped."""
    style = _style() + extra
    policy = f"default-src 'none'; img-src data:; style-src {_hash(style)}; base-uri 'none'; form-action 'none'"
    head = (
        f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{style}</style>'
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n'


def embedded_json(data: Mapping) -> str:
    r"""JSON that may stand in a script element.

    {"a": "</script><!--"}  ->  {"a":"\u003c/script>\u003c!--"}

    Without "<" no end tag and no comment can begin. Only ASCII is written, so that half of a surrogate pair survives.
    Raises ValueError for NaN and infinity.
    """
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _style() -> str:
    return "".join(map(_read, _STYLES))


def _read(name: str) -> str:
    return (_TEMPLATE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def escape(text: str) -> str:
    """Text as HTML; half of a surrogate pair becomes a question mark."""
    return html.escape(text.encode("utf-8", "replace").decode())
