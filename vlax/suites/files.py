"""The files of suites, read as they are: importing this imports nothing but the standard library, so that configs load at once.

read("vqav2_val")      ->  {"task": "question", "metrics": ["vqav2@official", ...], ...}      `protocol.py` checks it
"""

import tomllib
from pathlib import Path
from typing import Any

from vlax.errors import VlaxError

FOLDER = Path(__file__).parent / "protocols"


def names() -> list[str]:
    """The suites that come with vlax."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read(name: str) -> dict[str, Any]:
    """The content of a suite by name, or of a file by path (it ends in .toml)."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise VlaxError(f"there is no suite {name!r}; there are {', '.join(names())}, custom, and any FILE.toml") from None
    except OSError as error:
        raise VlaxError(f"{path} cannot be read ({error}); {FOLDER} has suites to start from") from None
    except (ValueError, RecursionError) as error:  # of TOML, and of UTF-8
        raise VlaxError(f"{path} is not TOML ({error}); {FOLDER} has suites to start from") from None
