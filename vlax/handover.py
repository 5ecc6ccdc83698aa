"""Stage hand-over: where parameters come from, what an export says, and the proof that frozen parts are unchanged."""

import datetime
import hashlib
import importlib.metadata
import json
import logging

import jax
import numpy as np
from etils import epath
from flax import nnx

from vlax import checkpoint, groups, sharding
from vlax.data.prompts import Encoder, template_hash
from vlax.errors import VlaxError
from vlax.models.decoder import Decoder
from vlax.models.projector import Projector
from vlax.models.vision import VisionTower
from vlax.models.vlm import VLMConfig
from vlax.stages import StagePlan


def tokenizer_hash(tokenizer) -> str:
    """Short digest of the vocabulary and its special tokens."""
    content = [sorted(tokenizer.get_vocab().items()), tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def fresh_part(part: str, config: VLMConfig, seed: int) -> groups.Params:
    """Newly initialised parameters of one part; the same for a seed whatever else is built or wherever it runs."""
    key = jax.random.fold_in(jax.random.key(seed), {"vision": 1, "projector": 2, "decoder": 3}[part])
    module = {"vision": VisionTower, "projector": Projector, "decoder": Decoder}[part]
    built = module(getattr(config, part), rngs=nnx.Rngs(key))
    return {f"{part}/{path}": value for path, value in groups.flatten(built)[1].items()}


def check_parent(plan: StagePlan, origin: epath.Path, encoder: Encoder) -> dict:
    """The manifest of a parent export; VlaxError when its tokenizer or prompts are others."""
    manifest = checkpoint.read_manifest(origin)
    here = {"tokenizer": tokenizer_hash(encoder.tokenizer), "templates": template_hash(encoder.templates)}
    for name, value in here.items():
        if manifest[name] != value:
            raise VlaxError(
                f"stage {plan.name}: its parent {origin} was trained with other {name} ({manifest[name]}, here {value})"
            )
    return manifest


def pretrained_directory(plan: StagePlan, part: str) -> epath.Path:
    directory = plan.run.get(part, "")
    if not directory:
        raise VlaxError(f"stage {plan.name} wants a pretrained {part}: pass --config.run.{part}=DIR")
    return epath.Path(directory)


def initial_params(plan: StagePlan, config: VLMConfig, abstract, shardings, encoder: Encoder) -> groups.Params:
    """All parameters of a stage at its start, in the dtype they are stored in, placed by `shardings`."""
    params: groups.Params = {}
    for part, origin in plan.stage.init.items():
        want = {path: value for path, value in abstract.items() if path.split("/")[0] == part}
        if origin == "fresh":
            part_params = fresh_part(part, config, plan.run.seed)
            placed = {path: jax.device_put(value, shardings[path]) for path, value in part_params.items()}
        else:
            source = _origin(plan, part)
            check_parent(plan, source, encoder)
            placed = checkpoint.load_params(source, shardings, (part,))
            groups.check_same_structure(placed, want, f"{part} of {source}")
        params.update(placed)
    return params


def export(s, trainable: groups.Params, directory: epath.Path, best: tuple[int, float] | None) -> None:
    """Writes the export of a stage: what learned in float32, the rest with the very bytes that its parents store.

    s: the stage's Session; best: (step, validation loss) where the state is the best one and not the last.
    VlaxError when a frozen parameter, read back from disk, differs from its parent's.
    """
    plan = s.plan
    stored = dict(trainable)
    shardings = sharding.parameter_shardings(s.abstract, s.mesh)
    origins = {part: _origin(plan, part) for part, origin in plan.stage.init.items() if origin != "fresh"}
    for part, origin in origins.items():
        loaded = checkpoint.load_params(origin, shardings, (part,))
        stored.update({path: value for path, value in loaded.items() if path not in s.assigned})
    stored.update(fresh_frozen(s, stored))
    mixture = s.batches.collate.mixture
    manifest = {
        "stage": plan.name,
        "parents": {part: {"stage": plan.stage.init[part], "path": str(origin)} for part, origin in origins.items()},
        "trained": {name: plan.stage.trainable[name] for name in plan.stage.trainable},
        "tokenizer": tokenizer_hash(s.encoder.tokenizer),
        "templates": template_hash(s.encoder.templates),
        "template_name": s.encoder.templates,
        "data": {"plan": mixture.plan_hash, "sources": {x.name: x.fingerprint for x in mixture.sources}},
        "micro_steps": s.micro_steps if best is None else best[0],
        "validation_loss": None if best is None else best[1],
        "config": plan.identity,
        "versions": {
            name: importlib.metadata.version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint", "transformers")
        },
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    checkpoint.export(directory, {path: stored[path] for path in sorted(stored)}, s.config, s.encoder.tokenizer, manifest)
    prove_frozen(s, directory, origins)


def fresh_frozen(s, stored) -> groups.Params:
    """Parameters that no parent has and nothing trains: unusual, but they are part of the model."""
    missing = s.abstract.keys() - stored.keys()
    parts = {path.split("/")[0] for path in missing}
    fresh = {k: v for part in parts for k, v in fresh_part(part, s.config, s.plan.run.seed).items()}
    return {path: fresh[path] for path in missing}


def prove_frozen(s, directory: epath.Path, origins) -> None:
    """Compares checksums of the frozen parameters of this export and of its parents', both read back from disk."""
    mine = checkpoint.load_params(directory)
    for part, origin in origins.items():
        frozen = [path for path in s.abstract if path.split("/")[0] == part and path not in s.assigned]
        if not frozen:
            continue
        theirs = checkpoint.load_params(origin, parts=(part,))
        if groups.checksum({p: mine[p] for p in frozen}) != groups.checksum({p: theirs[p] for p in frozen}):
            changed = [p for p in frozen if not np.array_equal(mine[p], theirs[p])]
            raise VlaxError(
                f"{directory}: frozen parameters differ from {origin}: {', '.join(changed[:3])}. Don't use this export"
            )
        logging.info("%s: %s frozen and bit-equal to %s", s.plan.name, part, origin)


def _origin(plan: StagePlan, part: str) -> epath.Path:
    """The export that a part of the model comes from."""
    return pretrained_directory(plan, part) if plan.stage.init[part] == "pretrained" else plan.parents[part] / "export"
