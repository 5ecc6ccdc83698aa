"""A stage's train step compiled by the real compiler for devices that need not be here: memory, collectives, seconds.

libtpu (the extra `tpu`) compiles for TPUs and the CUDA plugin (the extra `gpu`) for NVIDIA's GPUs, each on a machine without
either. Shapes suffice: no data, no weights. Only one process at a time may hold libtpu.
"""

import collections
import dataclasses
import functools
import importlib
import math
import os
import re
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.models import quantised
from vlax.models.build import DTYPES, abstract_model
from vlax.models.cores import PLAIN, Kernels
from vlax.models.decoder import DecoderConfig
from vlax.models.lora import LoRAConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.remat import named
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.params import groups, sharding
from vlax.training import optimizer, programs, steps
from vlax.training.windows import Windowed

GIB = 2**30
TARGETS = Path(__file__).parent / "targets"  # GpuTargetConfigProto of a card, as XLA writes it: NAME.txtpb
# Bytes a step may have of a device: of a TPU what its compiler gives out, of a GPU what JAX allocates of it at first.
PREALLOCATED = 0.75
TPU_GIB = {"v5e": 15.75, "v6e": 31.25, "v5p": 95.0, "v4": 31.75}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
UPDATES = 1000  # of a stage whose length nobody knows without its data: of no effect on what is compiled but constants


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Bytes a device, seconds of the compiler, and how often the program has each collective."""

    arguments: int
    temporaries: int
    outputs: int  # what does not take the place of arguments
    seconds: float
    collectives: dict[str, int]

    @property
    def peak(self) -> int:
        return self.arguments + self.temporaries + self.outputs


def gpus() -> list[str]:
    return sorted(path.stem for path in TARGETS.glob("*.txtpb"))


def devices(name: str) -> list[Any]:
    """Devices to compile for: "v5e:2x4" is a TPU slice by its topology, "h100" a GPU, "h100:8" eight of them.

    VlaxError where that compiler isn't installed or doesn't know them.
    """
    kind, _, layout = name.partition(":")
    if kind in gpus():
        _installed("jax_plugins.xla_cuda13", "gpu")
        target = (TARGETS / f"{kind}.txtpb").read_text()
        options: dict[str, Any] = {"platform": "cuda", "target_config": target, "topology": f"1x1x{layout or 1}"}
        topology = topologies.get_topology_desc(topology_name=kind, **options)
    elif kind in TPU_GIB and re.fullmatch(r"\d+(x\d+)+", layout):
        _installed("libtpu", "tpu")
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # or libtpu waits for a metadata server
        try:
            topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            raise VlaxError(f"{name}: {str(error).splitlines()[0]}; topologies read like v5e:2x4") from None
    else:
        known = ", ".join([*gpus(), *(f"{gpu}:8" for gpu in gpus()), *(f"{tpu}:2x4" for tpu in TPU_GIB)])
        raise VlaxError(f"{name!r} is no device to compile for; they read like {known}")
    return list(topology.devices)


def _installed(module: str, extra: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError:
        raise VlaxError(
            f"the compiler for this device comes with {module}, which isn't installed: pip install 'vlax[{extra}]'"
        ) from None


def limit(name: str) -> float:
    """Bytes of one device that a step may take."""
    kind = name.partition(":")[0]
    if kind in TPU_GIB:
        return TPU_GIB[kind] * GIB
    found = re.search(r"device_memory_size: (\d+)", (TARGETS / f"{kind}.txtpb").read_text())
    assert found is not None, "every target says how much memory it has"
    return PREALLOCATED * int(found[1])


def mesh(name: str, shape: tuple[int, int, int]) -> Mesh:
    """(data, fsdp, tp) over devices to compile for; one size may be -1."""
    there = devices(name)
    sizes = sharding.sizes(shape, len(there))
    return Mesh(np.array(there).reshape(sizes), sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def model_config(run: ConfigDict, stage: ConfigDict) -> VLMConfig:
    """The model of a stage by run.shapes, whatever its weights come from: those of `:0.9b` are its backbones'."""
    shapes = {**run.shapes.decoder, **(run.shapes.captioner if stage.captioner else {})}
    # An embedding that a vocabulary of one's own will size: what run.bpe_vocab allows, and one row to spare.
    shapes["vocab_size"] = shapes["vocab_size"] or math.ceil((run.bpe_vocab + 1) / 16) * 16
    decoder = DecoderConfig(**shapes, lora=LoRAConfig(**stage.lora) if stage.lora.rank else None)
    mask = stage.mask or run.mask or "image_bidirectional"
    if "vision" not in stage.init:
        return VLMConfig(decoder, mask=mask)
    vision = VisionConfig(**run.shapes.vision)
    projector = ProjectorConfig(vision_width=vision.width, width=decoder.width, **run.shapes.projector)
    return VLMConfig(decoder, vision, projector, mask, tiles=run.tiles)


def batch_shapes(stage: ConfigDict, config: VLMConfig, text: int, on: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """What one call of the train step is given: a micro-batch, or with accumulation="scan" all of an update."""
    scan = (stage.accumulate,) if stage.accumulation == "scan" and stage.accumulate > 1 else ()
    rows, slots = stage.batch_size // stage.accumulate, programs.slots(stage, config)
    shape = functools.partial(_shape, lead=(*scan, rows), sharded=sharding.batch_sharding(on, leading=len(scan)))
    height, width = (1, 1) if config.vision is None else (config.tower.preprocess.height, config.tower.preprocess.size)
    made = {name: shape((text,), jnp.int32) for name in ("tokens", "segment", "example")}
    made |= {"image": shape((slots, height, width, 3), jnp.uint8), "has_image": shape((slots,), jnp.bool_)}
    if slots > 1:
        made |= {name: shape((slots,), jnp.int32) for name in ("owner", "before")}
    if config.anyres is not None:
        made |= {name: shape((slots,), jnp.int32) for name in ("owner", "before", "shown")}
    return made


def _shape(shape: tuple[int, ...], dtype: Any, lead: tuple[int, ...], sharded: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*lead, *shape), dtype, sharding=sharded)


def _held(part: jax.ShapeDtypeStruct, whole: tuple[int, ...], at: NamedSharding) -> jax.ShapeDtypeStruct:
    """A frozen parameter, or of a quantised one its codes, which lie as it would, or their few scales."""
    where = at if part.shape == whole else NamedSharding(at.mesh, P())
    return jax.ShapeDtypeStruct(part.shape, part.dtype, sharding=where)


def program(
    run: ConfigDict, stage: ConfigDict, on: Mesh, text: int, kernels: Kernels = PLAIN, config: VLMConfig | None = None
) -> tuple[Any, tuple[steps.State, groups.Shapes, dict[str, jax.ShapeDtypeStruct]]]:
    """(the stage's jitted train step, shapes of its arguments as they lie on the mesh), for rows of so many text tokens.

    config: of another model than `model_config` makes. run.remat is one of `models/remat.py`, chosen already.
    """
    config = config or model_config(run, stage)
    sharding.check_batch(stage.batch_size // stage.accumulate, on)
    graphdef, abstract = abstract_model(config, DTYPES[run.dtype], kernels)
    assigned = groups.assign(abstract, stage.trainable)
    settings = programs.optimizer_config(stage, UPDATES)
    tx, step, _ = programs.programs(graphdef, abstract, assigned, settings, run, stage, named(run.remat), on)

    trainable = {path: value for path, value in abstract.items() if path in assigned}
    frozen = {path: value for path, value in abstract.items() if path not in assigned}
    where = programs.train_state_shardings(abstract, assigned, tx, on, run.zero1)
    fixed = sharding.parameter_shardings(frozen, on)
    opt_state = jax.eval_shape(lambda p: optimizer.init(tx, p), trainable)
    state = {"params": trainable, "opt_state": opt_state, "step": jax.ShapeDtypeStruct((), jnp.int32)}
    state = jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), state, where)
    low = {path: jax.ShapeDtypeStruct(x.shape, DTYPES[run.dtype]) for path, x in frozen.items()}
    held = {
        path: jax.tree.map(functools.partial(_held, whole=frozen[path].shape, at=fixed[path]), value)
        for path, value in quantised.abstract(low, stage.quantise, DTYPES[run.dtype]).items()
    }
    return step, (state, held, batch_shapes(stage, config, text, on))


def compiled(
    run: ConfigDict, stage: ConfigDict, on: Mesh, text: int, kernels: Kernels = PLAIN, config: VLMConfig | None = None
) -> Compiled:
    """The step's memory and collectives by the compiler of the mesh's devices; of two programs those of the larger one.

    JaxRuntimeError with RESOURCE_EXHAUSTED where a TPU's compiler finds that it doesn't fit.
    """
    step, args = program(run, stage, on, text, kernels, config)
    gpu = on.devices.flat[0].platform in ("cuda", "gpu")
    begun = time.monotonic()
    with jax.set_mesh(on):
        # There is nothing to tune kernels on.
        how = {"xla_gpu_autotune_level": 0} if gpu else None
        made = [each.compile(compiler_options=how) for each in lowered(step, args)]
    return max((_read(each, time.monotonic() - begun) for each in made), key=lambda each: each.peak)


def lowered(step: Any, args: tuple[Any, ...]) -> list[Any]:
    """The programs of a train step, lowered: one, or with a window's end two."""
    if not isinstance(step, Windowed):
        return [step.lower(*args)]
    return [step.micro.lower(*args), step.close.lower(args[0])]


def _read(made: Any, seconds: float) -> Compiled:
    memory = made.memory_analysis()
    given = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(memory.argument_size_in_bytes, memory.temp_size_in_bytes, given, seconds, collectives(made.as_text()))


def collectives(program: str) -> dict[str, int]:
    """How often a compiled program has each collective, asynchronous ones included."""
    found = collections.Counter(re.findall(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(", program))
    return {name: found[name] for name in COLLECTIVES if found[name]}
