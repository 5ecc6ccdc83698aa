"""SOURCE on a command line: a path that is recognised, or the JSON of a data source as in a config."""

import argparse

from vlax.data.readers.kinds import KINDS
from vlax.data.recognise.recognise import recognise
from vlax.storage.state import load_json


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    """What says more about a SOURCE: --images, --kind, --split, --data-root."""
    add = parser.add_argument
    add("--images", default="", metavar="DIR", help="folder of the pictures (default: looked for nearby)")
    add("--kind", default="", choices=("", *KINDS), help="what it is (default: recognised by looking)")
    add("--split", default="", help="of a file or folder that holds several")
    add("--data-root", default=".", metavar="DIR", help="what relative paths are relative to (default: here)")
    about = "rows may name pictures outside the images folder and the data root"
    add("--allow-outside", action="store_true", help=about)


def source_spec(text: str, images: str = "", *, base: str = "", kind: str = "", split: str = "") -> dict:
    """What `open_source` takes for a SOURCE; says what a path was recognised as. JSON has all of it in itself.

    VlaxError for what is no JSON, and where nothing is recognised.
    """
    if text.lstrip().startswith("{"):
        return load_json(f"SOURCE {text}", text, "give a path, or the JSON of a data source")
    found = recognise(text, images, base=base, kind=kind)
    print(f"{text}: {found.what}")
    return found.spec | ({"split": split} if split else {})
