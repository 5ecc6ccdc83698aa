"""What would run, field by field, with where each value comes from: `train.py --config=... --print_config`."""

import importlib
import textwrap
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from vlax.commands.config_flag import Given
from vlax.printing import columns, printable


def fields(values: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every leaf: ("mesh.data", -1)."""
    for name, value in values.items():
        if isinstance(value, ConfigDict) and value:
            yield from fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value.to_dict() if isinstance(value, ConfigDict) else value


def origin(path: str, value: Any, default: Any, given: Given, settled: bool) -> str:
    """Where the value of a field comes from: its flag, a guess, the default of every config, or the config file."""
    if any(path == flag or path.startswith(f"{flag}.") for flag in given.fields):
        return f"--config.{path}"
    if settled:
        return "guessed"
    return "configs/base.py" if value == default else given.file


def table(config: ConfigDict, guessed: ConfigDict, given: Given) -> str:
    """One line a field.

    config: as file and flags give it; guessed: with what `training/guess.py` fills in. Of parents only what differs from the
    defaults is listed.
    """
    base: Any = importlib.import_module("configs.base")
    variant = config.get("variant", "embedded")
    parts = {"run": (guessed.run, base.run(variant)), "stage": (guessed.stage, base.stage(guessed.stage.name))}
    parts |= {f"parents.{name}": (stage, base.stage(name)) for name, stage in guessed.parents.items()}
    asked = dict(fields(config))
    rows = []
    for part, (values, defaults) in parts.items():
        usual = dict(fields(defaults))
        for name, value in fields(values):
            path = f"{part}.{name}"
            where = origin(path, value, usual.get(name), given, path not in asked or asked[path] != value)
            if not part.startswith("parents.") or where != "configs/base.py":
                rows.append((path, textwrap.shorten(printable(repr(value)), 80, placeholder=" ..."), where))
    return columns(rows, left=3)
