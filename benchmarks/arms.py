"""The arms of `benchmarks.training` that are vlax's."""

import importlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from benchmarks.timing import BATCHES, Taken, largest, timed
from configs import base
from vlax.commands import setup
from vlax.data.batches.pipeline import iterate
from vlax.masks import ANSWER
from vlax.params import groups
from vlax.pretrained.writing import whole
from vlax.training import counters, session, stages, start
from vlax.training.session import Session
from vlax.training.steps import State


def config_of(size: str, stage: str, batch: int, dtype: str, changes: dict[str, str]) -> ConfigDict:
    """The embedded stage's config for a model of that size with everything fresh. changes: fields of `run`."""
    config: ConfigDict = importlib.import_module(f"configs.{stage}").get_config()
    config.parents, config.stage.batch_size, config.stage.accumulate = {}, batch, 1
    config.stage.init = {part: "fresh" for part in ("vision", "projector", "decoder")}
    config.run.mask, config.run.dtype = "causal", dtype
    if size == "7m":
        config.run.shapes.vision.update({"image_size": 64, "width": 256, "mlp_dim": 1024})
        config.run.shapes.decoder.update({"width": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "mlp_dim": 1024})
    elif size == "0.9b":
        config.run.shapes = base.run("0.9b").shapes
    config.run.update(changes)
    return config


def leave(s: Session, params: groups.Params, batches: list[dict[str, np.ndarray]], products: int, folder: Path) -> None:
    """What the other side needs: the model in LLaVA's layout, the batches, how it is trained. products: FLOPs of a step."""
    whole.write_model(folder / "hf", s.config, params, s.encoder)
    for number, batch in enumerate(batches):
        arrays: dict[str, Any] = batch
        np.savez(folder / f"batch{number}.npz", **arrays)
    vision, stage = s.config.tower.vision, s.plan.stage
    about = {
        "parameters": sum(value.size for value in params.values()), "products": products, "text": batches[0]["tokens"].shape[1],
        "image_tokens": s.config.tokens_per_image, "mean": vision.mean[0], "std": vision.std[0], "clip": stage.clip,
        "beta2": stage.beta2, "answer": ANSWER, "rates": {name: float(rate) for name, rate in stage.learning_rate.items()},
    }  # fmt: skip
    (folder / "about.json").write_text(json.dumps(about))


def vlax_arm(config: ConfigDict, steps: int, folder: Path) -> Taken:
    """In this process: the stage's own step, from placing a batch to the loss on the host."""
    setup.settings(config)
    s = session.build(stages.chain(config, epath.Path(folder / "work"))[-1])
    with jax.set_mesh(s.mesh):
        state, frozen = start.initial_state(s)
        batches = [batch for batch, _ in zip(iterate(s.batches), range(BATCHES), strict=False)]
        if not (folder / "hf").exists():
            traced = jax.make_jaxpr(s.train_step)(state, frozen, s.place(batches[0]))
            leave(s, groups.join(state["params"], frozen), batches, counters.dot_flops(traced.jaxpr), folder)
        held: list[State] = [state]

        def step(number: int, names: tuple[str, ...] = ("loss_sum",)) -> dict[str, float]:
            held[0], values = s.train_step(held[0], frozen, s.place(batches[number % BATCHES]))
            return {name: float(values[name]) for name in names or values}

        begun, cpu, wall = timed(step, lambda number: step(number, ()), steps)
    norms = {name.partition("/")[2]: value for name, value in begun.items() if name.startswith("grad_norm/")}
    return Taken(begun["loss_sum"] / begun["tokens"], norms, cpu, wall, largest())
