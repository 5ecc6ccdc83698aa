"""Stage hand-over: what a stage exports, and the proof that frozen parts are unchanged."""

import contextlib
import dataclasses
import datetime
import importlib.metadata
import logging
from collections.abc import Sequence

import numpy as np
from etils import epath

from vlax.data.readers.left import Leaving
from vlax.errors import VlaxError
from vlax.model import exports
from vlax.models import lora
from vlax.models.build import fresh_part
from vlax.params import distributed, groups, sharding
from vlax.pretrained.writing import adapter, writer
from vlax.rows import RowFault, Source
from vlax.storage.paths import remote
from vlax.training import origins, parts
from vlax.training.session import Session
from vlax.training.start import tokenizer_hash

LOOKS = 16  # rows of a source


def export(session: Session, trainable: groups.Params, directory: epath.Path, best: tuple[int, float] | None) -> None:
    """Writes the export of a stage: what learned in float32, the rest with the very bytes that its parents store.

    best: (step, validation loss) where the state is the best one and not the last.
    VlaxError when a frozen parameter, read back from disk, differs from its parent's.
    """
    plan = session.plan
    stored = dict(trainable)
    shardings = sharding.parameter_shardings(session.abstract, session.mesh)
    found = {part: origin for part, origin in session.origins.items() if origin.kind != "fresh"}
    for part, origin in found.items():
        loaded = parts.load_part(origin, part, session.config, shardings)
        stored.update({path: value for path, value in loaded.items() if path not in session.assigned})
    stored.update(fresh_frozen(session, stored))
    config, frozen = session.config, [path for path in session.abstract if path not in session.assigned]
    if config.decoder.lora is not None:
        adapters = {path: distributed.gather(value) for path, value in stored.items() if "/lora_" in path}
        if distributed.is_main() and not remote(plan.directory):
            adapter.write(directory.parent / "adapter", config.decoder, adapters)
        frozen = [path for path in frozen if path.rsplit("/", 1)[0] + "/lora_a" not in session.abstract]
        stored = lora.merge(stored, config.decoder.lora)
        config = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, lora=None))
    mixture = session.batches.collate.mixture
    manifest = {
        "stage": plan.name,
        "parents": {part: {"stage": plan.stage.init[part], "path": origin.where} for part, origin in found.items()},
        "trained": {name: plan.stage.trainable[name] for name in plan.stage.trainable},
        "tokenizer": tokenizer_hash(session.encoder.tokenizer),
        "templates": session.encoder.digest,
        "template_name": session.encoder.templates,
        "text": session.encoder.settings.to_dict(),
        "tasks": tasks(mixture.sources),
        "data": {
            "plan": session.batches.plan.hash,
            "order": mixture.version,
            "sources": {x.name: x.fingerprint for x in mixture.sources},
            "dropped": {x.name: x.dropped_by for x in mixture.sources if isinstance(x, Leaving)},
        },
        "micro_steps": session.micro_steps if best is None else best[0],
        "validation_loss": None if best is None else best[1],
        **({"extended": list(plan.extended)} if plan.extended else {}),
        "config": plan.identity,
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint", "transformers")
        },
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    _write_backbone(session, stored)
    exports.export(directory, {path: stored[path] for path in sorted(stored)}, config, session.encoder.tokenizer, manifest)
    prove_frozen(session, found, directory, frozen)


def tasks(sources: Sequence[Source]) -> list[str]:
    """The tasks of rows spread over every source: those whose prompts the model knows."""
    found = set[str]()
    for source in sources:
        for index in range(0, len(source), max(1, len(source) // LOOKS)):
            with contextlib.suppress(RowFault):  # training has counted it
                row = source[index]
                found.update(turn.task or row.task for turn in row.turns)
    return sorted(found)


def _write_backbone(session: Session, stored: groups.Params) -> None:
    """WORKDIR/STAGE/hf/PART: the part that this stage is there for, in Hugging Face layout, which the next stage imports.

    Buckets keep the native export alone: safetensors are written to a local directory.
    """
    part, directory = session.plan.stage.backbone, session.plan.directory / "hf"
    if not part or remote(directory):
        return
    host = {path: distributed.gather(value) for path, value in stored.items() if path.split("/")[0] == part}
    if distributed.is_main():
        if part == "vision":
            writer.write_vision(directory / part, session.config.tower.vision, host, preprocess=session.config.preprocess)
        else:
            writer.write_decoder(directory / part, session.config.decoder, host, session.encoder.tokenizer)


def fresh_frozen(session: Session, stored: groups.Params) -> groups.Params:
    """Parameters that no parent has and nothing trains: unusual, but they are part of the model."""
    missing = session.abstract.keys() - stored.keys()
    parts = {path.split("/")[0] for path in missing}
    fresh = {k: v for part in parts for k, v in fresh_part(part, session.config, session.plan.run.seed).items()}
    return {path: fresh[path] for path in missing}


def prove_frozen(session: Session, found: origins.Origins, directory: epath.Path, paths: list[str]) -> None:
    """Compares checksums of the frozen `paths` of this export and of its parents', both read back from disk."""
    mine = exports.load_params(directory)
    for part, origin in found.items():
        frozen = [path for path in paths if path.split("/")[0] == part]
        if not frozen:
            continue
        theirs = parts.load_part(origin, part, session.config)
        if groups.checksum({p: mine[p] for p in frozen}) != groups.checksum({p: theirs[p] for p in frozen}):
            changed = [p for p in frozen if not np.array_equal(mine[p], theirs[p])]
            raise VlaxError(
                f"{directory}: frozen parameters differ from {origin.where}: {', '.join(changed[:3])}. Don't use this export"
            )
        logging.info("%s: %s frozen and bit-equal to %s", session.plan.name, part, origin.where)
