"""The data of one stage: sources without evaluation pictures and quarantined rows, mixed and arranged into batches."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vlax.data.batches import arrange, augment, mixture
from vlax.data.batches.budget import DropBudget, planned_rows
from vlax.data.batches.lengths import Lengths
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.pipeline import Collator, HostBatches, ImageCache
from vlax.data.batches.quarantine import read_quarantine
from vlax.data.batches.row_plan import Plan
from vlax.data.readers.faults import STRICT, Faults
from vlax.data.readers.files import FileSource
from vlax.data.readers.prepared import PreparedSource
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.models.vlm import VLMConfig
from vlax.params import distributed
from vlax.rows import Source
from vlax.text.prompts import Encoder
from vlax.training import checkpoints, exclusion
from vlax.training.stages import StagePlan


def build(plan: StagePlan, config: VLMConfig, encoder: Encoder) -> tuple[HostBatches, dict[str, HostBatches], int]:
    """(training batches, held-out batches by source, updates of the stage). Held-out batches have the plain layout."""
    run, stage = plan.run, plan.stage
    lengths, quarantine, views = Lengths(encoder), read_quarantine(run.quarantine), config.views
    arrange.check_slots(stage, views, config.tiles)
    collate = functools.partial(
        Collator,
        encoder=encoder,
        text_length=stage.text_length,
        preprocess=config.preprocess,
        cache=ImageCache(run.image_cache_mb << 20),
        overlong=stage.overlong,
        images=stage.images,
        tiles=config.tiles,
        quarantine=quarantine,
    )
    hosts = {"host": distributed.host(), "hosts": distributed.hosts()}
    micro_batches = stage.accumulate if stage.accumulation == "scan" else 1
    per_update = stage.accumulate // micro_batches
    faults = Faults(quarantine, collect=True)
    mixed = open_mixture(plan, lengths, faults)
    if config.vision is not None:
        _check_pictures(plan, mixed.sources)
    arranged, updates = arrange.make(
        stage, mixed, lengths, stage.batch_size // per_update, per_update, sum(plan.extended), views
    )
    planned = planned_rows(mixed, arranged.positions(updates * per_update))
    # Of the rows that readers refused, the part that a run of this length would have met; the same on every host.
    met = math.ceil(len(faults.found) * planned / sum(map(len, mixed.sources)))
    left_out = DropBudget(stage.drop_budget, planned, faults.found[:met])
    training = collate(mixed, augment=augment.check(stage.augment), left_out=left_out)
    batches = HostBatches(training, arranged, updates * per_update, **hosts, micro_batches=micro_batches)
    validation, rows = {}, stage.batch_size // stage.accumulate
    for name, spec in stage.validation.items():
        faults = Faults(quarantine, collect=True)
        held_out = Mixture([_open(spec, plan, faults, train=False)], [1.0], run.seed, shuffle=False)
        count = min(stage.eval_batches, math.ceil(held_out.epoch_size / rows))
        left_out = DropBudget(stage.drop_budget, held_out.epoch_size, faults.found)
        validation[name] = HostBatches(
            collate(held_out, left_out=left_out), Plan(held_out, rows, stage.text_length), count, **hosts
        )
    return batches, validation, updates


def open_mixture(plan: StagePlan, lengths: Lengths, faults: Faults = STRICT) -> Mixture:
    """The sources of stage.mixture, mixed as their specs say (`batches/mixture.py`), without the pictures of evaluation sets.

    A run that has started keeps the order of rows that it was started with (`batches/order.py`).

    lengths  measures the sources that say how many tokens they bring
    faults   decides about rows that a reader cannot take
    """
    specs, first = plan.stage.mixture, plan.stage.epoch_of
    listed = ", ".join(specs)
    if not specs:
        raise VlaxError(f"stage {plan.name} has no training data: stage.mixture is empty")
    if first and first not in specs:
        raise VlaxError(f"stage.epoch_of={first!r} is no source of the mixture ({listed})")
    shares = {name: mixture.share(name, spec) for name, spec in specs.items()}
    if len(specs) > 1 and not first and any(kind == "weight" for kind, _ in shares.values()):
        raise VlaxError(f"the mixture has {len(specs)} sources: say with stage.epoch_of whose pass is an epoch: {listed}")
    names = _names(plan)
    drawn = all(spec.get("kind") in exclusion.DRAWN for spec in specs.values())
    shown = [] if drawn else exclusion.evaluation_pictures(plan)
    drop = exclusion.names(shown)
    sources = [_open(specs[name], plan, faults, drop=drop) for name in names]
    exclusion.leave_out(plan, dict(zip(names, sources, strict=True)), shown)
    weights = [value if kind == "weight" else 1.0 for kind, value in map(shares.__getitem__, names)]
    mean = functools.partial(lengths.mean, limit=plan.stage.text_length, overlong=plan.stage.overlong)
    fixed = [mixture.fixed_rows(name, *shares[name], source, mean) for name, source in zip(names, sources, strict=True)]
    return Mixture(sources, weights, plan.run.seed, fixed=fixed, order=checkpoints.recorded_order(plan.directory))


def _names(plan: StagePlan) -> list[str]:
    """The sources of the mixture in the order of their global row ids: that of an epoch first."""
    return sorted(plan.stage.mixture, key=lambda name: (name != plan.stage.epoch_of, name))


def _check_pictures(plan: StagePlan, sources: Sequence[Source]) -> None:
    """VlaxError for a source without a single picture that doesn't say that this is meant: a picture that nobody reads would
    be trained on as text."""
    for name, source in zip(_names(plan), sources, strict=True):
        if not isinstance(source, FileSource | PreparedSource) or source.pictured:
            continue
        spec = source.manifest["source"]["spec"] if isinstance(source, PreparedSource) else plan.stage.mixture[name]
        if dict((spec or {}).get("columns") or {}).get("image") != "":
            raise VlaxError(
                f"{name}: no row of {source.name} has a picture, and the model has a vision tower. Say which column names the "
                'pictures, "columns": {"image": NAME}, or that the rows are meant to be text alone: {"image": ""}'
            )


def _open(
    spec: Mapping[str, Any], plan: StagePlan, faults: Faults, train: bool = True, drop: frozenset[str] = frozenset()
) -> Source:
    plain = {key: value for key, value in spec.items() if key not in mixture.SHARES}
    return open_source(plain, plan.run.data_root, train=train, drop_image_ids=drop, faults=faults)
