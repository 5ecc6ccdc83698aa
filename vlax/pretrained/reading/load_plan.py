"""The plan of a load: every tensor of the checkpoint gets its place, or an error, before a byte of weights is read."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from vlax.errors import VlaxError
from vlax.models.build import abstract_part
from vlax.pretrained.families.rules import Rule
from vlax.pretrained.reading.load_report import LoadReport
from vlax.pretrained.reading.tensors import Stored

Fit = Callable[[tuple[int, ...], tuple[int, ...]], bool]  # (stored shape, wanted shape) -> whether it can be made
HEAD = "lm_head.weight"  # beside the decoder's prefix in every layout


@dataclasses.dataclass(frozen=True)
class Part:
    """One module of the model: where its parameters go, its rules, and what of its tensors is left out.

    path      "vision/", "decoder/" or "projector/"
    anchor    the tensor whose position in the checkpoint tells the prefix
    kind      the nnx module's class
    config    what it is made of
    unused    rules of layers that do not run
    alone     whether everything beside this module is left out
    """

    path: str
    anchor: str
    kind: Callable[..., nnx.Module]
    config: Any
    rules: list[Rule]
    unused: list[Rule] = dataclasses.field(default_factory=list)
    ignored: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    alone: bool = False


@dataclasses.dataclass(frozen=True)
class Step:
    """Read `tensors`, apply the rule, give `paths` the shapes `shapes` (after a `fit` where the rule's output has another)."""

    rule: Rule
    tensors: tuple[str, ...]
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]


def fake_like(array: Any) -> np.ndarray:
    """An array of that shape and dtype, without memory: rules run on it tell shapes before any value is read."""
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def prefix(names: Iterable[str], anchor: str, source: str) -> str:
    """What precedes the family's tensor names in this checkpoint: "", "vision_model.", "model.language_model.", ..."""
    hits = [name for name in names if name == anchor or name.endswith("." + anchor)]
    if len(hits) != 1:
        raise VlaxError(
            f"{source} holds {len(hits)} tensors named {anchor}, one is expected; its config.json is of another model"
        )
    return hits[0].removesuffix(anchor)


def make(
    stored: Mapping[str, Stored], parts: list[Part], fits: Mapping[str, Fit], source: str, dtype: Callable[[str], Any]
) -> tuple[list[Step], LoadReport]:
    """The steps in file order, and the finished report.

    fits: {path: which shapes can be made of which}, of parameters that may change theirs; dtype: path -> wanted dtype or None
    (as stored).
    VlaxError: a tensor that is missing, unexpected or of the wrong shape.
    """
    report, steps = LoadReport(source), []
    ignored: list[str] = []
    for part in parts:
        start = prefix(stored, part.anchor, source)
        heads = [name for name in stored if name == HEAD or name.endswith("." + HEAD)]
        full = partial(_full, start=start, head=heads[0] if heads else HEAD)
        lacks = any(full(name) not in stored for rule in part.rules for name in rule.tensors)
        # Of a module that lacks tensors nobody asks the shapes, and a thousand layers take their time.
        shapes = {} if lacks else {part.path + path: leaf.shape for path, leaf in abstract_part(part.kind, part.config).items()}
        for rule in part.rules:
            tensors, paths = tuple(map(full, rule.tensors)), tuple(part.path + path for path in rule.paths)
            lacking = [name for name in tensors if name not in stored]
            report.missing += lacking
            if not lacking:
                steps.append(Step(rule, tensors, paths, tuple(shapes.get(path, ()) for path in paths)))
        ignored += [re.escape(full(name)) for rule in part.unused for name in rule.tensors]
        ignored += [re.escape(start) + pattern for pattern in part.ignored] + list(part.outside)
        if part.alone:
            ignored.append(rf"(?!{re.escape(start)}).*")
    steps.sort(key=lambda step: (stored[step.tensors[0]].file, stored[step.tensors[0]].offset))
    report.loaded = [name for step in steps for name in step.tensors]
    rest = sorted(stored.keys() - set(report.loaded))
    report.ignored = [name for name in rest if any(re.fullmatch(pattern, name) for pattern in ignored)]
    report.unexpected = sorted(set(rest) - set(report.ignored))
    _complain(report)
    _check(stored, steps, fits, dtype, report)
    return steps, report


def _full(name: str, *, start: str, head: str) -> str:
    return head if name == HEAD else start + name


def _complain(report: LoadReport) -> None:
    faults = [
        f"{len(names)} tensors {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for names, what in ((report.missing, "missing"), (report.unexpected, "unexpected"))
        if names
    ]
    if faults:
        raise VlaxError(
            f"{report.source} does not fit its config.json: {'; '.join(faults)}. Download it again, config and weights"
        )


def _check(
    stored: Mapping[str, Stored], steps: list[Step], fits: Mapping[str, Fit], dtype: Callable[[str], Any], report: LoadReport
) -> None:
    """Fills in `reshaped` and `cast`; shapes are known before bytes are read."""
    for step in steps:
        fakes = [fake_like(stored[name]) for name in step.tensors]
        try:
            outputs = step.rule.read(fakes)
        except ValueError:
            outputs = fakes
        for path, output, shape in zip(step.paths, outputs, step.shapes, strict=False):
            if output.shape != shape and (path not in fits or not fits[path](output.shape, shape)):
                raise VlaxError(
                    f"{report.source}: {step.tensors[0]} makes {path} of shape {output.shape} where its config.json says "
                    f"{shape}; download it again, config and weights"
                )
            if output.shape != shape:
                report.reshaped.append(f"{path} {output.shape} -> {shape}")
            wanted = dtype(path)
            if wanted is not None and output.dtype != jnp.dtype(wanted):
                report.cast.append(f"{path} {output.dtype} -> {jnp.dtype(wanted)}")
