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
    add(
        "--columns",
        type=columns,
        default={},
        metavar="PART=NAME,...",
        help="what columns are called, e.g. image=photo,text=alt; of several pictures image=left+right",
    )
    about = "rows may name pictures outside the images folder and the data root"
    add("--allow-outside", action="store_true", help=about)


def columns(text: str) -> dict[str, str]:
    """`"image=photo,text=alt" -> {"image": "photo", "text": "alt"}`; "image=" for texts alone."""
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not all(middle and part.strip() for part, middle, _ in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not PART=NAME,PART=NAME, such as image=photo,text=alt")
    return {part.strip(): name.strip() for part, _, name in pairs}


def source_spec(
    text: str, images: str = "", *, base: str = "", kind: str = "", split: str = "", columns: dict[str, str] | None = None
) -> dict:
    """What `open_source` takes for a SOURCE; says what a path was recognised as. JSON has all of it in itself.

    VlaxError for what is no JSON, and where nothing is recognised.
    """
    if text.lstrip().startswith("{"):
        return load_json(f"SOURCE {text}", text, "give a path, or the JSON of a data source")
    found = recognise(text, images, base=base, kind=kind, columns=columns)
    print(f"{text}: {found.what}")
    return found.spec | ({"split": split} if split else {})
