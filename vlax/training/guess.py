"""Fills in what a stage on one's own data (stage.data) leaves open, by its model, its rows and the machine.

Guessed once: WORKDIR/STAGE/guessed.json keeps it, a run that has started goes by that, and a flag that says otherwise is
another config.

    field             guess
    text_length       tokens of the longest row, up to twice the length that 99 % of the rows have; a multiple of 8
    batch_size        32 rows; of few rows less, so that an epoch has some 16 updates
    accumulate, run.remat
                      so that a micro-batch fits into memory (`estimate.py`)
    epochs            3, from 20,000 rows on 1
    quantise          with lora: int8 where the frozen part takes half of the memory else, nf4 where int8 does so, too
    tune              full where what learns takes half of the memory or less, else lora
    learning_rate     2e-5 from 1 B decoder parameters on, else larger by the root of how many fewer there are, at most 1e-3:
                      LLaVA-1.5's rate (arXiv 2310.03744), carried to small models; LoRA takes ten times that, as there
    run.dtype         float32 on CPUs, else bfloat16
    eval_every        a quarter of the stage
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.models.build import DTYPES, PARTS, abstract_model
from vlax.models.remat import AUTO, named
from vlax.params import distributed, groups
from vlax.storage import state
from vlax.training import estimate, own_data, stages
from vlax.training.own_data import Data

EPOCHS, MANY, ROWS, UPDATES = 3.0, 20_000, 32, 16
RANK, ALPHA, TARGETS = 16, 32.0, ("q", "k", "v", "o")
LARGE, RATE, MOST, TIMES = 1e9, 2e-5, 1e-3, 10  # decoder parameters; learning rates; LoRA's, in those of full
PATTERN = {"full": "^decoder/", "lora": "/lora_[ab]$"}


@dataclasses.dataclass(frozen=True)
class Guess:
    """field: path in the config; why: in words, for the one who wonders; flag: what to type for another value."""

    field: str
    value: Any
    why: str
    flag: str = ""

    def line(self) -> str:
        name = self.field.removeprefix("stage.")
        shown = f"{self.value:g}" if isinstance(self.value, float) else str(self.value)
        return f"  {name:24}{shown:10} {self.why:60} {self.flag or f'--config.{self.field}=...'}"


def settled(config: ConfigDict, workdir: epath.PathLike, *, keep: bool = False, like: epath.Path | None = None) -> ConfigDict:
    """A copy with everything filled in; the config as it is where its stage has sources of its own.

    keep: the guesses are recorded, for the run that begins. like: directory of a stage whose guesses hold here, too.
    VlaxError where the model or the data is missing.
    """
    stage = config.stage
    if stage.data and stage.mixture:
        raise VlaxError(
            f"stage.data={stage.data} stands in place of stage.mixture, which names {', '.join(stage.mixture)}; leave one out"
        )
    if stage.mixture or not (stage.data or stage.init.get("decoder") == "model"):
        return config
    config = config.copy_and_resolve_references()
    path = epath.Path(workdir) / stage.name / "guessed.json"
    places = [place / path.name for place in (path.parent, like) if place is not None and stages.started(place)]
    kept: dict[str, Any] = next(
        (state.read(place, "delete it: then it is guessed again") for place in places if place.exists()), {}
    )
    with config.unlocked():
        if stage.data:
            config.stage.mixture = own_data.mixture(config)
            config.stage.data = ""
        elif not kept:
            raise VlaxError(
                f"stage {stage.name} trains on your own data: pass --config.stage.data=PATH, a file or folder of any known "
                "format; python -m vlax data preview PATH says what it is taken for"
            )
        values = kept or dict(_guessed(config))
        for field, value in values.items():
            if not _at(config, field):
                _set(config, field, value)
        config.stage.data = ""
    if keep and not stages.started(path.parent) and distributed.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        state.write_json(path, {field: _at(config, field) for field in values}, indent=1, sort_keys=True)
    return config


def _guessed(config: ConfigDict) -> Iterator[tuple[str, Any]]:
    """(field, value) of all that is guessed; what the config leaves open of it is printed with the flag that changes it."""
    data = own_data.read(config)
    lines = data.lines()
    for guess in _guesses(config, data):
        if not _at(config, guess.field):
            lines.append(guess.line())
        yield guess.field, guess.value
    yield from (("run.model", config.run.model), ("stage.mixture", _plain(config.stage.mixture)))
    yield from (("stage.validation", data.validation()), ("stage.suites", data.suites()))
    if distributed.is_main():
        print(f"\nguessed for {config.stage.name}, with the flag that changes it:\n" + "\n".join(lines), flush=True)


def _guesses(config: ConfigDict, data: Data) -> Iterator[Guess]:
    stage, devices = config.stage, jax.device_count()
    kind = jax.devices()[0].device_kind
    dtype = config.run.dtype or ("float32" if jax.devices()[0].platform == "cpu" else "bfloat16")
    yield Guess("run.dtype", dtype, f"this is a {kind}")
    text = stage.text_length or data.text_length
    if data.images > 1:
        yield Guess("stage.images", data.images, "pictures that a row has at most, of those looked at")
    yield Guess("stage.text_length", text, f"99 % of the rows have up to {data.most} tokens, the longest {data.longest}")

    shapes = abstract_model(data.model, DTYPES.get(dtype, DTYPES["float32"]))[1]  # another is refused later
    sizes = {part: groups.count({p: v for p, v in shapes.items() if p.split("/")[0] == part}) for part in PARTS}
    spread = max(1, config.run.mesh.fsdp) * max(1, config.run.mesh.tp)
    there = estimate.memory() * spread
    learns = [path for path in shapes if not path.startswith("vision/")]
    everything = estimate.state(shapes, learns, dtype)
    tune = stage.tune or ("lora" if stage.lora.rank or everything > there / 2 else "full")
    if tune not in PATTERN:
        raise VlaxError(f"stage.tune={tune!r} is not one of {', '.join(PATTERN)}")
    needs = f"the state of full training takes {everything / 2**30:.1f} GiB of {there / 2**30:.1f}"
    yield Guess("stage.tune", tune, needs, f"--config.stage.tune={'lora' if tune == 'full' else 'full'}")
    yield Guess("stage.trainable.decoder", PATTERN[tune], "as stage.tune says")
    if tune == "lora" and not stage.lora.rank:
        yield Guess(
            "stage.lora", {"rank": RANK, "alpha": ALPHA, "targets": TARGETS}, "attention", "--config.stage.lora.rank=..."
        )
    rate = max(RATE, min(MOST, _round(RATE * math.sqrt(LARGE / sizes["decoder"]))))
    why = f"by the decoder's {sizes['decoder']:,} parameters"
    yield Guess("stage.learning_rate.projector", rate, why)
    yield Guess("stage.learning_rate.decoder", min(MOST, rate * TIMES) if tune == "lora" else rate, why)

    epochs = stage.epochs or (EPOCHS if data.rows < MANY else 1.0)
    yield Guess("stage.epochs", epochs, f"{data.rows:,} rows to train on")
    batch = stage.batch_size or max(devices, min(ROWS, 2 ** round(math.log2(max(4, data.rows / UPDATES)))))
    yield Guess("stage.batch_size", batch, "rows an update")
    if tune == "lora":
        learns = [path for path in learns if path.startswith("projector/")]
    kind = stage.quantise
    plain = estimate.state(shapes, learns, dtype)
    if tune == "lora" and not kind and plain > there / 2:
        kind = "int8" if estimate.state(shapes, learns, dtype, "int8") <= there / 2 else "nf4"
        yield Guess("stage.quantise", kind, f"frozen in {dtype} it takes {plain / 2**30:.1f} GiB of {there / 2**30:.1f}")
    room = estimate.ROOM * there - estimate.state(shapes, learns, dtype, kind)
    pictures = max(stage.images, data.images)
    full = config.run.remat != AUTO and named(config.run.remat) == "full"
    remat = full or room < estimate.row(data.model, text, dtype, False, pictures)
    fits = max(room, 0) / estimate.row(data.model, text, dtype, remat, pictures)
    if not stage.batch_size and stage.accumulate == 1 and (parts := estimate.micro_batches(batch, devices, fits)) > 1:
        yield Guess("stage.accumulate", parts, f"{fits:.1f} rows fit into a device's memory")
    if remat:
        yield Guess("run.remat", "full", "a row's activations don't fit beside the state", "--config.run.remat=none")
    updates = stage.steps or math.ceil(epochs * data.rows / batch)
    yield Guess("stage.eval_every", max(1, math.ceil(updates / 4)), f"of {updates:,} updates")


def _round(value: float) -> float:
    """`0.00006324 -> 0.00006`: one digit, which is all that a guess has."""
    return float(f"{value:.0e}")


def _plain(value: Any) -> Any:
    return state.load_json("config", value.to_json()) if isinstance(value, ConfigDict) else value


def _at(config: ConfigDict, field: str) -> Any:
    """The value of a field as JSON has it; where nothing is said, it is false: "", 0, {}. LoRA says nothing at rank 0,
    accumulate and images nothing at 1."""
    *parts, last = field.split(".")
    for part in parts:
        config = config[part]
    value = _plain(config[last])
    if field == "stage.lora":
        return value if value["rank"] else {}
    return 0 if field in ("stage.accumulate", "stage.images") and value == 1 else value


def _set(config: ConfigDict, field: str, value: Any) -> None:
    *parts, last = field.split(".")
    for part in parts:
        config = config[part]
    if isinstance(value, dict):
        config[last] = ConfigDict({key: tuple(v) if isinstance(v, list) else v for key, v in value.items()})
    elif field == "run.remat":
        config[last] = named(value)  # it was True or False once
    else:
        config[last] = value
