"""What a stage begins with: the parameters that its parents, pretrained weights or the seed give it."""

import contextlib
import functools
import hashlib
import json

import jax
import jax.numpy as jnp

from vlax.errors import VlaxError
from vlax.model import exports
from vlax.models import quantised
from vlax.models.build import DTYPES, fresh_part
from vlax.params import groups, sharding
from vlax.storage import seal
from vlax.text.tokenizer import Tokenizer
from vlax.training import checkpoints, optimizer, origins, parts
from vlax.training.programs import train_state_shardings
from vlax.training.session import Session
from vlax.training.stages import FORKED, GIVEN, StagePlan
from vlax.training.steps import State


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """Short digest of the vocabulary and its special tokens."""
    content = [sorted(tokenizer.get_vocab().items()), tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    content.append(tokenizer.chat_template or "")
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def compare_ahead(plan: StagePlan) -> None:
    """Begins to compare what a stage will read with its seals: its checkpoints, and what its parts come from. For gigabytes
    that takes seconds, in which the stage is built."""
    checkpoints.ahead(plan.directory)
    with contextlib.suppress(VlaxError):  # of a config that is wrong, which the build says
        for where in {origin.where for origin in origins.find(plan).values() if origin.where}:
            seal.ahead(where)


def initial_state(session: Session) -> tuple[State, groups.Params]:
    """(train state, frozen parameters) at the stage's first step: what learns in float32, the rest in the compute dtype."""
    trainable, frozen = groups.split(initial_params(session), session.assigned)
    dtype = DTYPES[session.plan.run.dtype]
    trainable = {path: value.astype(jnp.float32) for path, value in trainable.items()}
    frozen = quantised.quantise(frozen, session.plan.stage.quantise, dtype)
    frozen = {path: value.astype(dtype) for path, value in frozen.items()}
    out = train_state_shardings(session.abstract, session.assigned, session.tx, session.mesh, session.plan.run.zero1)
    opt_state = jax.jit(functools.partial(optimizer.init, session.tx), out_shardings=out["opt_state"])(trainable)
    step = jax.device_put(jnp.zeros((), jnp.int32), out["step"])
    return {"params": trainable, "opt_state": opt_state, "step": step}, frozen


def initial_params(session: Session) -> groups.Params:
    """All parameters of a stage at its start, in the dtype they are stored in, placed by the session's mesh."""
    params: groups.Params = {}
    shardings = sharding.parameter_shardings(session.abstract, session.mesh)
    for part, origin in session.origins.items():
        want = {path: value for path, value in session.abstract.items() if path.split("/")[0] == part}
        # An export has no adapters, since it is merged: those of the decoder start fresh.
        new = [path for path in want if origin.kind == "fresh" or "/lora_" in path]
        placed: groups.Params = {}
        if origin.kind != "fresh":
            _check_parent(session, part, origin)
            placed = parts.load_part(origin, part, session.config, shardings, say=True)
        if new:
            fresh = fresh_part(part, session.config, session.plan.run.seed)
            placed |= {path: jax.device_put(fresh[path], shardings[path]) for path in new}
        groups.check_same_structure(placed, want, f"{part} of {origin.where}")
        params.update(placed)
    return params


def _check_parent(session: Session, part: str, origin: origins.Origin) -> None:
    """VlaxError when an origin is another stage's export, or was trained with another tokenizer or other prompts."""
    if not origin.export:
        return
    manifest, encoder, name = exports.read_manifest(origin.export), session.encoder, session.plan.stage.init[part]
    if name not in (*GIVEN, FORKED) and manifest["stage"] != name:
        raise VlaxError(
            f"stage {session.plan.name}: {origin.export} holds the export of {manifest['stage']}, not of {name}; copy that of "
            f"{name} there, or train it again"
        )
    here = {"tokenizer": tokenizer_hash(encoder.tokenizer), "templates": encoder.digest}
    named = manifest["template_name"]
    way_out = {"tokenizer": "", "templates": f"; pass --config.run.templates={named}" * (named != encoder.templates)}
    for name, value in here.items():
        if manifest[name] != value:
            raise VlaxError(
                f"stage {session.plan.name}: its parent {origin.export} was trained with other {name} ({manifest[name]}, here "
                f"{value}){way_out[name]}"
            )
