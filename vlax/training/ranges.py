"""The numbers that a config's fields may have, in one table: what lies outside is refused before anything is built."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vlax.errors import VlaxError

# What of batches belongs together (buckets, packing, images, plan_window) is checked by data/batches/arrange.py.
# field: (least, most, how an error says it); learning rates of groups stand under the name of their dict
POSITIVE, NATURAL = (1, math.inf, "1 or more"), (0, math.inf, "0 or more")
SHARE = (0.0, 1.0, "from 0 to 1")
RUN: dict[str, tuple[float, float, str]] = {
    "seed": NATURAL, "threads": NATURAL, "prefetch": NATURAL, "image_cache_mb": NATURAL, "grace_seconds": NATURAL,
    "watchdog_minutes": NATURAL, "log_every": POSITIVE, "bpe_vocab": POSITIVE, "image_size": NATURAL, "vocab_size": NATURAL,
    "tiles": (-1, math.inf, "-1 or more"), "peak_tflops": NATURAL,
}  # fmt: skip
STAGE: dict[str, tuple[float, float, str]] = {
    "learning_rate": (0.0, math.inf, "0 or more"), "epochs": NATURAL, "steps": NATURAL, "batch_size": POSITIVE,
    "accumulate": POSITIVE, "text_length": (2, math.inf, "2 or more"),
    "drop_budget": SHARE, "warmup": SHARE, "final_learning_rate": SHARE, "clip": NATURAL,
    "weight_decay": NATURAL, "beta2": (0.0, math.nextafter(1.0, 0.0), "from 0 to less than 1"), "eval_every": NATURAL,
    "eval_batches": POSITIVE, "generate_samples": NATURAL, "lora.rank": NATURAL,
}  # fmt: skip


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping) or hasattr(value, "items"):
            yield from _numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield prefix + name, value


def check(part: str, values: Mapping[str, Any]) -> None:
    """VlaxError for the first field of a config's part ("run" or "stage") whose number is outside its range, NaN included."""
    table = RUN if part == "run" else STAGE
    for field, value in _numbers(values):
        limits = table.get(field) or table.get(field.partition(".")[0])
        if limits and not limits[0] <= value <= limits[1]:
            raise VlaxError(f"{part}.{field}={value}: give {limits[2]}; it is set by --config.{part}.{field}=NUMBER")


def updates(text: str) -> range:
    """`"10:13" -> range(10, 13)`, the three updates after the tenth; `"" -> range(0)`. VlaxError for what is no range."""
    if not text:
        return range(0)
    found = re.fullmatch(r"(\d+):(\d+)", str(text))
    if found is None or int(found[1]) >= int(found[2]):
        raise VlaxError(
            f"run.profile={text!r} is no range of updates: give START:STOP, such as --config.run.profile=10:13 for the three "
            "updates after the tenth"
        )
    return range(int(found[1]), int(found[2]))
