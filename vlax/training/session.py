"""Everything that one stage runs with, built from its plan and checked before anything compiles:
tokenizer -> shapes -> data -> mesh -> parameters (parent stage > pretrained > fresh) -> optimizer -> jitted steps."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from ml_collections import ConfigDict

from vlax.data.batches import arrange
from vlax.data.batches.pipeline import HostBatches
from vlax.errors import VlaxError
from vlax.models import quantised, remat
from vlax.models.build import DTYPES, abstract_model
from vlax.models.vlm import VLM, Batch, VLMConfig
from vlax.params import groups, sharding
from vlax.text.prompts import Encoder
from vlax.text.tokenizer import size as tokenizer_size
from vlax.training import inputs, kernels, optimizer, origins, ranges, steps, windows, wording
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
    """Whether each row of a batch has one slot, whose picture comes before the text."""
    return stage.images == config.views == 1 and stage.packing <= 1 and not encoder.settings.interleaved


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
    ranges.updates(run.profile)
    ranges.check("run", run)
    ranges.check("stage", stage)
    check_stage(stage)


def optimizer_config(stage: ConfigDict, updates: int, extended: tuple[int, ...] = ()) -> optimizer.OptimizerConfig:
    return optimizer.OptimizerConfig(
        updates=updates, extended=extended,
        accumulate=stage.accumulate, multisteps=stage.accumulation == "multisteps", warmup=stage.warmup,
        final=stage.final_learning_rate, clip=stage.clip, weight_decay=stage.weight_decay, b2=stage.beta2,
    )  # fmt: skip


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

    settings = optimizer_config(stage, updates, plan.extended)
    tx, train, evaluate = programs(graphdef, abstract, assigned, settings, run, stage, mesh)
    attention = f"{' and '.join(dict.fromkeys(chosen))} ({why})"
    return Session(plan, found, config, mesh, encoder, batches, validation, updates, graphdef, abstract, assigned, tx, train,
                   evaluate, attention)  # fmt: skip


def programs(
    graphdef: nnx.GraphDef[VLM], abstract: groups.Shapes, assigned: Mapping[str, str], settings: optimizer.OptimizerConfig,
    run: ConfigDict, stage: ConfigDict, mesh: jax.sharding.Mesh,
) -> tuple[optax.GradientTransformation, Any, Any]:  # fmt: skip
    """(optimizer, train step, evaluation step), the steps jitted."""
    scan = stage.accumulation == "scan"
    config = steps.StepConfig(run.layers, remat.named(run.remat), stage.accumulate if scan else 1)
    window = stage.accumulate if stage.accumulate > 1 and not scan else 0
    shapes, trained, rates = (tuple(each.items()) for each in (abstract, assigned, stage.learning_rate))
    return _jitted(graphdef, shapes, trained, rates, settings, config, window, mesh)


@functools.lru_cache(maxsize=1)
def _jitted(
    graphdef: nnx.GraphDef[VLM], shapes: tuple[tuple[str, jax.ShapeDtypeStruct], ...], trained: tuple[tuple[str, str], ...],
    rates: tuple[tuple[str, float], ...], settings: optimizer.OptimizerConfig, config: steps.StepConfig, window: int,
    mesh: jax.sharding.Mesh,
) -> tuple[optax.GradientTransformation, Any, Any]:  # fmt: skip
    """The same stage anew in one process (another seed, other rows, a resumed run) traces and compiles nothing. One is kept:
    the programs of a stage that is done would lie in a device's memory."""
    assigned = dict(trained)
    tx, inner = (
        optimizer.make(each, assigned, dict(rates)) for each in (settings, dataclasses.replace(settings, accumulate=1))
    )
    options: dict[str, Any] = {"graphdef": graphdef, "assigned": assigned, "config": config}
    # Pinned output shardings: without them the second call meets other shardings than the first and compiles again.
    out = train_state_shardings(dict(shapes), assigned, tx, mesh), sharding.replicated(mesh)
    evaluate = jax.jit(functools.partial(steps.eval_step, graphdef=graphdef, config=config))
    if window:
        return tx, windows.windowed(options, inner, window, out), evaluate
    return tx, jax.jit(functools.partial(steps.train_step, tx=tx, **options), donate_argnums=0, out_shardings=out), evaluate


def slots(stage: ConfigDict, config: VLMConfig) -> int:
    """N: pictures for which a row of a batch has room."""
    return int(stage.packing if stage.packing > 1 else stage.images * config.views)


def load(run: ConfigDict, stage: ConfigDict, config: VLMConfig, mesh: jax.sharding.Mesh, first: bool) -> kernels.Load:
    """What a stage asks of attention. first: as `in_front` says."""
    rows = stage.batch_size // stage.accumulate // (mesh.shape["data"] * mesh.shape["fsdp"])
    texts = tuple(stage.buckets) or (stage.text_length,)
    return kernels.Load(mesh.devices.flat[0].platform, run.dtype, rows, mesh.shape["tp"], texts, slots(stage, config), first)


def train_state_shardings(
    abstract: groups.Shapes, assigned: Mapping[str, str], tx: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> State:
    """Shardings of {params, opt_state, step} for the trainable part."""
    trainable = {path: value for path, value in abstract.items() if path in assigned}
    params = sharding.parameter_shardings(trainable, mesh)
    opt_state = jax.eval_shape(lambda p: optimizer.init(tx, p), trainable)
    with_tokens = {**params, optimizer.TOKENS: sharding.replicated(mesh)}
    return {
        "params": params,
        "opt_state": sharding.state_shardings(tx, opt_state, with_tokens, mesh),
        "step": sharding.replicated(mesh),
    }
