"""Everything that one stage runs with, built from its plan and checked before anything compiles:
tokenizer -> shapes -> data -> mesh -> parameters (parent stage > pretrained > fresh) -> optimizer -> jitted steps."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from vlax.data.batches import arrange
from vlax.data.batches.pipeline import HostBatches
from vlax.errors import VlaxError
from vlax.models import quantised
from vlax.models.build import DTYPES, abstract_model
from vlax.models.vlm import VLM, Batch, VLMConfig
from vlax.params import groups, sharding
from vlax.text.prompts import Encoder
from vlax.text.tokenizer import size as tokenizer_size
from vlax.training import backward, inputs, kernels, origins, programs, ranges, wording
from vlax.training.origins import Origins
from vlax.training.stages import StagePlan, closest
from vlax.training.steps import State


@dataclasses.dataclass
class Session:
    """One stage, ready to run."""

    plan: StagePlan
    origins: Origins
    config: VLMConfig
    mesh: jax.sharding.Mesh
    encoder: Encoder
    batches: HostBatches  # training, by micro-step (by update with accumulation="scan")
    validation: dict[str, HostBatches]
    updates: int
    graphdef: nnx.GraphDef[VLM]
    abstract: groups.Shapes  # all parameters, as initialised
    assigned: dict[str, str]  # trainable path -> group
    tx: optax.GradientTransformation
    train_step: Callable[[State, groups.Params, Batch], tuple[State, dict[str, jax.Array]]]
    eval_step: Callable[[groups.Params, groups.Params, Batch], dict[str, jax.Array]]
    attention: str  # how it is computed, and why so
    remat: str  # what the backward pass computes again, and why so

    @property
    def micro_steps(self) -> int:
        """Calls of train_step in the whole stage."""
        return len(self.batches)

    @property
    def per_update(self) -> int:
        """Calls of train_step an update."""
        return 1 if self.plan.stage.accumulation == "scan" else self.plan.stage.accumulate

    def place(self, batch: dict[str, np.ndarray], validation: bool = False) -> dict[str, jax.Array]:
        """A batch on the mesh, without its row ids; with accumulation="scan" a training batch has micro-batches in front.

        Where each row has one slot, before its text, the batch doesn't say so row by row: then attention knows when it compiles
        that image tokens see each other and nothing else.
        """
        scan = self.plan.stage.accumulation == "scan" and self.plan.stage.accumulate > 1 and not validation
        left = ("row", "owner", "before") if in_front(self.plan.stage, self.config, self.encoder) else ("row",)
        on_device = {key: value for key, value in batch.items() if key not in left}  # row: 64 bits, and no step reads them
        return sharding.put_batch(on_device, self.mesh, leading=int(scan))


def in_front(stage: ConfigDict, config: VLMConfig, encoder: Encoder) -> bool:
    """Whether each row of a batch has one slot, whose picture fills it and comes before the text."""
    filled = config.anyres is None and stage.images == config.views == 1
    return filled and stage.packing <= 1 and not encoder.settings.interleaved


def check_stage(stage: ConfigDict) -> None:
    """Settings that contradict each other, in one line each."""
    unknown = [part for part in stage.init if part not in ("vision", "projector", "decoder")]
    if unknown or "decoder" not in stage.init:
        odd = ", ".join(unknown) or "nothing"
        raise VlaxError(f"stage {stage.name}: init is about vision, projector and decoder, not {odd}")
    if set(stage.learning_rate) != set(stage.trainable):
        odd = sorted(set(stage.learning_rate) ^ set(stage.trainable))[0]
        raise VlaxError(f"stage {stage.name}: group {odd!r} has a pattern or a learning rate, but not both")
    for field, choices in (("accumulation", ("multisteps", "scan")), ("select", ("last", "best"))):
        if stage[field] not in choices:
            raise VlaxError(
                f"stage.{field}={stage[field]!r} is not one of {', '.join(choices)}{closest(stage[field], choices)}"
            )
    if stage.batch_size % stage.accumulate:
        raise VlaxError(f"stage.batch_size={stage.batch_size} is not a multiple of stage.accumulate={stage.accumulate}")
    quantised.check(stage.quantise, "stage.quantise")
    arrange.check(stage)


def check_settings(run: ConfigDict, stage: ConfigDict) -> None:
    """VlaxError for what is wrong with a config whatever its data and weights."""
    if run.dtype not in DTYPES:
        raise VlaxError(f"run.dtype={run.dtype!r} is not one of {', '.join(DTYPES)}")
    programs.loop(run.layers, "cpu")
    backward.check(run.remat)
    ranges.updates(run.profile)
    ranges.check("run", run)
    ranges.check("stage", stage)
    check_stage(stage)


def build(plan: StagePlan) -> Session:
    """A Session; every mistake of the config is a VlaxError from here."""
    run, stage = plan.run, plan.stage
    check_settings(run, stage)
    mesh = sharding.make_mesh((run.mesh.data, run.mesh.fsdp, run.mesh.tp))
    sharding.check_batch(stage.batch_size // stage.accumulate, mesh)
    found = origins.find(plan)
    tokenizer = origins.load_tokenizer(plan, found["decoder"])
    encoder = wording.encoder(
        plan, tokenizer, origins.templates(plan, found["decoder"], tokenizer), origins.leading(plan, found)
    )
    config = origins.model_config(plan, found, tokenizer_size(encoder.tokenizer))
    try:
        chosen, why = kernels.choose(run.attention, config, load(run, stage, config, mesh, in_front(stage, config, encoder)))
        graphdef, abstract = abstract_model(config, DTYPES[run.dtype], chosen)
    except (ValueError, KeyError) as error:
        raise VlaxError(f"run.shapes: {error}") from None
    assigned = groups.assign(abstract, stage.trainable)
    if stage.quantise and not quantised.chosen(abstract, assigned):
        raise VlaxError(
            f"stage.quantise={stage.quantise}: stage {stage.name} has no frozen matrix; train adapters (stage.lora)"
        )
    arrange.check_positions(stage, config)
    batches, validation, updates = inputs.build(plan, config, encoder)

    kind, because = backward.choose(run, stage, config, mesh)
    settings = programs.optimizer_config(stage, updates, plan.extended)
    tx, train, evaluate = programs.programs(graphdef, abstract, assigned, settings, run, stage, kind, mesh)
    attention = f"{' and '.join(dict.fromkeys(chosen))} ({why})"
    return Session(plan, found, config, mesh, encoder, batches, validation, updates, graphdef, abstract, assigned, tx, train,
                   evaluate, attention, f"{kind} ({because})")  # fmt: skip


def load(run: ConfigDict, stage: ConfigDict, config: VLMConfig, mesh: jax.sharding.Mesh, first: bool) -> kernels.Load:
    """What a stage asks of attention. first: as `in_front` says."""
    rows = stage.batch_size // stage.accumulate // (mesh.shape["data"] * mesh.shape["fsdp"])
    texts = tuple(stage.buckets) or (stage.text_length,)
    slots = programs.slots(stage, config)
    return kernels.Load(mesh.devices.flat[0].platform, run.dtype, rows, mesh.shape["tp"], texts, slots, first)
