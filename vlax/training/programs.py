"""A stage's compiled programs: its optimizer, train step and evaluation step, and how their state lies on a mesh."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import optax
from flax import nnx
from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.models.vlm import VLM, VLMConfig
from vlax.params import groups, sharding
from vlax.training import optimizer, steps, windows
from vlax.training.stages import closest
from vlax.training.steps import State

LAYERS = ("auto", "unroll", "scan")


def optimizer_config(stage: ConfigDict, updates: int, extended: tuple[int, ...] = ()) -> optimizer.OptimizerConfig:
    return optimizer.OptimizerConfig(
        updates=updates, extended=extended,
        accumulate=stage.accumulate, multisteps=stage.accumulation == "multisteps", warmup=stage.warmup,
        final=stage.final_learning_rate, clip=stage.clip, weight_decay=stage.weight_decay, b2=stage.beta2,
        bf16_momentum=stage.bf16_momentum,
    )  # fmt: skip


def loop(word: str, platform: str) -> str:
    """How `run.layers` goes through layers on a platform ("cpu", "gpu", "tpu"): "unroll" or "scan". `auto` scans on TPUs alone,
    whose compiler takes many times as long for layers one by one. VlaxError for another word."""
    if word not in LAYERS:
        raise VlaxError(f"run.layers={word!r} is not one of {', '.join(LAYERS)}{closest(word, LAYERS)}")
    return word if word != "auto" else "scan" if platform == "tpu" else "unroll"


def programs(
    graphdef: nnx.GraphDef[VLM], abstract: groups.Shapes, assigned: Mapping[str, str], settings: optimizer.OptimizerConfig,
    run: ConfigDict, stage: ConfigDict, remat: str, mesh: jax.sharding.Mesh,
) -> tuple[optax.GradientTransformation, Any, Any]:  # fmt: skip
    """(optimizer, train step, evaluation step), the steps jitted. remat: what `run.remat` comes to, of `models/remat.py`."""
    scan = stage.accumulation == "scan"
    layers = loop(run.layers, mesh.devices.flat[0].platform)
    config = steps.StepConfig(layers, remat, stage.accumulate if scan else 1)
    window = stage.accumulate if stage.accumulate > 1 and not scan else 0
    shapes, trained, rates = (tuple(each.items()) for each in (abstract, assigned, stage.learning_rate))
    return _jitted(graphdef, shapes, trained, rates, settings, config, window, mesh, run.zero1)


@functools.lru_cache(maxsize=1)
def _jitted(
    graphdef: nnx.GraphDef[VLM], shapes: tuple[tuple[str, jax.ShapeDtypeStruct], ...], trained: tuple[tuple[str, str], ...],
    rates: tuple[tuple[str, float], ...], settings: optimizer.OptimizerConfig, config: steps.StepConfig, window: int,
    mesh: jax.sharding.Mesh, zero1: bool,
) -> tuple[optax.GradientTransformation, Any, Any]:  # fmt: skip
    """The same stage anew in one process (another seed, other rows, a resumed run) traces and compiles nothing. One is kept:
    the programs of a stage that is done would lie in a device's memory."""
    assigned = dict(trained)
    tx, inner = (
        optimizer.make(each, assigned, dict(rates)) for each in (settings, dataclasses.replace(settings, accumulate=1))
    )
    options: dict[str, Any] = {"graphdef": graphdef, "assigned": assigned, "config": config}
    # Pinned output shardings: without them the second call meets other shardings than the first and compiles again.
    out = train_state_shardings(dict(shapes), assigned, tx, mesh, zero1), sharding.replicated(mesh)
    evaluate = jax.jit(functools.partial(steps.eval_step, graphdef=graphdef, config=config))
    if window:
        return tx, windows.windowed(options, inner, window, out), evaluate
    return tx, jax.jit(functools.partial(steps.train_step, tx=tx, **options), donate_argnums=0, out_shardings=out), evaluate


def slots(stage: ConfigDict, config: VLMConfig) -> int:
    """N: pictures for which a row of a batch has room."""
    return int(stage.packing if stage.packing > 1 else stage.images * config.views)


def train_state_shardings(
    abstract: groups.Shapes, assigned: Mapping[str, str], tx: optax.GradientTransformation, mesh: jax.sharding.Mesh, zero1: bool
) -> State:
    """Shardings of {params, opt_state, step} for the trainable part. zero1: of `sharding.state_shardings`."""
    trainable = {path: value for path, value in abstract.items() if path in assigned}
    params = sharding.parameter_shardings(trainable, mesh)
    opt_state = jax.eval_shape(lambda p: optimizer.init(tx, p), trainable)
    with_tokens = {**params, optimizer.TOKENS: sharding.replicated(mesh)}
    return {
        "params": params,
        "opt_state": sharding.state_shardings(tx, opt_state, with_tokens, mesh, zero1),
        "step": sharding.replicated(mesh),
    }
