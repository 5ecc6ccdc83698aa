"""Stage hand-over: where parameters come from, what an export says, and the proof that frozen parts are unchanged."""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import logging

import jax
import numpy as np
from etils import epath

from vlax.errors import VlaxError
from vlax.model import exports
from vlax.models import lora
from vlax.models.build import fresh_part
from vlax.models.vlm import VLMConfig
from vlax.params import distributed, groups, sharding
from vlax.pretrained.writing import adapter, writer
from vlax.storage.paths import remote
from vlax.text.prompts import Encoder, template_hash
from vlax.training import origins
from vlax.training.stages import StagePlan


def tokenizer_hash(tokenizer) -> str:
    """Short digest of the vocabulary and its special tokens."""
    content = [sorted(tokenizer.get_vocab().items()), tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    content.append(tokenizer.chat_template or "")
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def check_parent(plan: StagePlan, origin: epath.Path, encoder: Encoder) -> dict:
    """The manifest of a parent export; VlaxError when its tokenizer or prompts are others."""
    manifest = exports.read_manifest(origin)
    here = {"tokenizer": tokenizer_hash(encoder.tokenizer), "templates": template_hash(encoder.templates)}
    for name, value in here.items():
        if manifest[name] != value:
            raise VlaxError(
                f"stage {plan.name}: its parent {origin} was trained with other {name} ({manifest[name]}, here {value})"
            )
    return manifest


def initial_params(plan: StagePlan, config: VLMConfig, abstract, shardings, encoder: Encoder) -> groups.Params:
    """All parameters of a stage at its start, in the dtype they are stored in, placed by `shardings`."""
    params: groups.Params = {}
    for part in plan.stage.init:
        want = {path: value for path, value in abstract.items() if path.split("/")[0] == part}
        origin = origins.find(plan, part)
        if origin.kind == "fresh":
            part_params = fresh_part(part, config, plan.run.seed)
            placed = {path: jax.device_put(value, shardings[path]) for path, value in part_params.items()}
        else:
            if origin.kind != "hf" or part in plan.parents:
                check_parent(plan, plan.parents[part] / "export" if part in plan.parents else origin.where, encoder)
            placed = origins.load_part(origin, part, config, shardings, say=True)
            placed |= _adapters(part, config, want, plan.run.seed, shardings)
            groups.check_same_structure(placed, want, f"{part} of {origin.where}")
        params.update(placed)
    return params


def _adapters(part: str, config: VLMConfig, want, seed: int, shardings) -> groups.Params:
    """Fresh low-rank adapters of the decoder: no origin has them, since exports are merged."""
    if part != "decoder" or config.decoder.lora is None:
        return {}
    fresh = fresh_part(part, config, seed)
    return {path: jax.device_put(fresh[path], shardings[path]) for path in want if "/lora_" in path}


def export(s, trainable: groups.Params, directory: epath.Path, best: tuple[int, float] | None) -> None:
    """Writes the export of a stage: what learned in float32, the rest with the very bytes that its parents store.

    s: the stage's Session; best: (step, validation loss) where the state is the best one and not the last.
    VlaxError when a frozen parameter, read back from disk, differs from its parent's.
    """
    plan = s.plan
    stored = dict(trainable)
    shardings = sharding.parameter_shardings(s.abstract, s.mesh)
    found = {part: origins.find(plan, part) for part, name in plan.stage.init.items() if name != "fresh"}
    for part, origin in found.items():
        loaded = origins.load_part(origin, part, s.config, shardings)
        stored.update({path: value for path, value in loaded.items() if path not in s.assigned})
    stored.update(fresh_frozen(s, stored))
    config, frozen = s.config, [path for path in s.abstract if path not in s.assigned]
    if config.decoder.lora is not None:
        adapters = {path: distributed.gather(value) for path, value in stored.items() if "/lora_" in path}
        if distributed.is_main() and not remote(plan.directory):
            adapter.write(directory.parent / "adapter", config.decoder, adapters)
        frozen = [path for path in frozen if path.rsplit("/", 1)[0] + "/lora_a" not in s.abstract]
        stored = lora.merge(stored, config.decoder.lora)
        config = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, lora=None))
    mixture = s.batches.collate.mixture
    manifest = {
        "stage": plan.name,
        "parents": {part: {"stage": plan.stage.init[part], "path": origin.where} for part, origin in found.items()},
        "trained": {name: plan.stage.trainable[name] for name in plan.stage.trainable},
        "tokenizer": tokenizer_hash(s.encoder.tokenizer),
        "templates": template_hash(s.encoder.templates),
        "template_name": s.encoder.templates,
        "data": {"plan": s.batches.plan.hash, "sources": {x.name: x.fingerprint for x in mixture.sources}},
        "micro_steps": s.micro_steps if best is None else best[0],
        "validation_loss": None if best is None else best[1],
        "config": plan.identity,
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint", "transformers")
        },
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    _write_backbone(s, stored)
    exports.export(directory, {path: stored[path] for path in sorted(stored)}, config, s.encoder.tokenizer, manifest)
    prove_frozen(s, directory, found, frozen)


def _write_backbone(s, stored: groups.Params) -> None:
    """WORKDIR/STAGE/hf/PART: the part that this stage is there for, in Hugging Face layout, which the next stage imports.

    Buckets keep the native export alone: safetensors are written to a local directory.
    """
    part, directory = s.plan.stage.backbone, s.plan.directory / "hf"
    if not part or remote(directory):
        return
    host = {path: distributed.gather(value) for path, value in stored.items() if path.split("/")[0] == part}
    if distributed.is_main():
        if part == "vision":
            writer.write_vision(directory / part, s.config.vision, host, preprocess=s.config.preprocess)
        else:
            writer.write_decoder(directory / part, s.config.decoder, host, s.encoder.tokenizer)


def fresh_frozen(s, stored) -> groups.Params:
    """Parameters that no parent has and nothing trains: unusual, but they are part of the model."""
    missing = s.abstract.keys() - stored.keys()
    parts = {path.split("/")[0] for path in missing}
    fresh = {k: v for part in parts for k, v in fresh_part(part, s.config, s.plan.run.seed).items()}
    return {path: fresh[path] for path in missing}


def prove_frozen(s, directory: epath.Path, found: dict[str, origins.Origin], paths: list[str]) -> None:
    """Compares checksums of the frozen `paths` of this export and of its parents', both read back from disk."""
    mine = exports.load_params(directory)
    for part, origin in found.items():
        frozen = [path for path in paths if path.split("/")[0] == part]
        if not frozen:
            continue
        theirs = origins.load_part(origin, part, s.config)
        if groups.checksum({p: mine[p] for p in frozen}) != groups.checksum({p: theirs[p] for p in frozen}):
            changed = [p for p in frozen if not np.array_equal(mine[p], theirs[p])]
            raise VlaxError(
                f"{directory}: frozen parameters differ from {origin.where}: {', '.join(changed[:3])}. Don't use this export"
            )
        logging.info("%s: %s frozen and bit-equal to %s", s.plan.name, part, origin.where)
