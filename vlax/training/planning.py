"""`--plan`: what a chain's stages take of devices that need not be here, without data and weights, and what would fit.

Parameters, state, products and residuals are counted from shapes (`counters.py`), of one and two layers and carried on to all
of them: layers are alike. What the compiler makes of it is the compiler's own figure where that is installed (`topologies.py`);
elsewhere an estimate, whose constants are fitted to recorded compilations (tests/test_planning.py). Times are products divided
by a rate that nobody has measured: see `peaks.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.models import quantised
from vlax.models.build import DTYPES, abstract_model
from vlax.models.cores import Kernels
from vlax.models.remat import KINDS, named
from vlax.models.vlm import VLMConfig
from vlax.params import groups, sharding
from vlax.training import counters, origins, programs, stages, steps, topologies
from vlax.training.peaks import Target
from vlax.training.stages import StagePlan
from vlax.training.topologies import GIB

# Temporaries as compilers reported them (tests/test_planning.py): times what the backward pass keeps of rows (heads of 64 or 72
# fill half of a TPU's tiles), a share of gradients, what is there once. A scan stacks weights; a TPU cuts what rows share.
GPU, TPU, STACKED = (1.07, 0.25, 0.9 * GIB), (1.8, 1.0, 0.75 * GIB), 1.4
ROWS = 64  # counted, and twice as many: fewer have all their logits in one slice of the loss, which they keep
LAYERS = 1  # counted, and one more of each
_COUNTED: dict[tuple[Any, ...], float] = {}


@dataclasses.dataclass(frozen=True)
class Way:
    """How a stage would run: rows a device and micro-batch, micro-batches an update, remat, whether parameters are cut."""

    rows: int
    accumulate: int
    remat: str
    cut: bool

    def flags(self, stage: str) -> str:
        where = "fsdp=-1 --config.run.mesh.data=1" if self.cut else "data=-1 --config.run.mesh.fsdp=1"
        return f"--config.{stage}.accumulate={self.accumulate} --config.run.remat={self.remat} --config.run.mesh.{where}"


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of one device: bytes of state and of temporaries; FLOPs of a row, whatever is done twice included."""

    state: int
    temporaries: int
    flops: float

    @property
    def peak(self) -> int:
        return self.state + self.temporaries


@functools.cache
def _one() -> jax.sharding.Mesh:
    return sharding.make_mesh((1, 1, 1), jax.devices()[:1])


def shallow(config: VLMConfig, seeing: int, speaking: int) -> VLMConfig:
    """The same model with so many layers in tower and decoder."""
    made = dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, layers=speaking))
    return made if made.vision is None else dataclasses.replace(made, vision=dataclasses.replace(made.vision, layers=seeing))


def whole(config: VLMConfig, dtype: str) -> groups.Shapes:
    """The shapes of all parameters, from those of one layer: to initialise fifty, if only in the abstract, takes long."""
    _, one = abstract_model(shallow(config, 1, 1), DTYPES[dtype])
    out: groups.Shapes = {}
    for path, value in one.items():
        layers = config.tower.vision.layers if path.startswith("vision/") else config.decoder.layers
        places = range(layers) if "/layers/0/" in path else (0,)
        out.update({path.replace("/layers/0/", f"/layers/{place}/"): value for place in places})
    return out


class Counter:
    """What one stage costs, by text length and remat."""

    def __init__(self, run: ConfigDict, stage: ConfigDict, config: VLMConfig | None = None, platform: str = "gpu"):
        """config: of another model than run.shapes make. platform: what `run.layers=auto` goes by."""
        self.run, self.stage, self.tpu, self.layers = run, stage, platform == "tpu", programs.loop(run.layers, platform)
        self.config = config or topologies.model_config(run, stage)
        self.shapes = whole(self.config, run.dtype)
        self.assigned = groups.assign(self.shapes, stage.trainable)
        self.trainable = {path: value for path, value in self.shapes.items() if path in self.assigned}
        low = DTYPES[run.dtype]
        rest = {p: jax.ShapeDtypeStruct(v.shape, low) for p, v in self.shapes.items() if p not in self.assigned}
        self.frozen = groups.size_bytes(quantised.abstract(rest, stage.quantise, low))
        self.width = DTYPES[run.dtype].dtype.itemsize

    @functools.cached_property
    def learns(self) -> int:
        return groups.count(self.trainable)

    def state(self, accumulates: bool, cut: int = 1, chips: int = 1) -> float:
        """Bytes of a device: of what learns in float32, AdamW's moments and, between micro-batches, an accumulator; of the
        frozen. cut: devices that parameters are cut over; chips: all, over which run.zero1 cuts the rest."""
        moments = (12 if accumulates else 8) - (2 if self.stage.bf16_momentum else 0)
        return (4 * self.learns + self.frozen) / cut + moments * self.learns / (chips if self.run.zero1 else cut)

    def _pieces(self, text: int, rows: int, seeing: int, speaking: int) -> tuple[Any, ...]:
        """What one micro-batch of the model with so many layers in tower and decoder is computed from: shapes, structure."""
        made = shallow(self.config, seeing, speaking)
        stage = self.stage.copy_and_resolve_references()
        with stage.unlocked():
            stage.batch_size, stage.accumulate = rows, 1
        low = DTYPES[self.run.dtype]
        graphdef, shapes = abstract_model(made, low, Kernels("xla", "xla"))
        assigned = groups.assign(shapes, self.stage.trainable)
        trained = {path: value for path, value in shapes.items() if path in assigned}
        fixed = {p: jax.ShapeDtypeStruct(v.shape, low) for p, v in shapes.items() if p not in assigned}
        return trained, fixed, topologies.batch_shapes(stage, made, text, _one()), graphdef

    def _whole(self, count: Callable[[int, int], int]) -> float:
        """`count(layers of the tower, of the decoder)` of the whole model."""
        sees, v = self.config.vision is not None, self.config.vision.layers if self.config.vision is not None else LAYERS
        base = count(LAYERS, LAYERS)
        seeing = count(LAYERS + 1, LAYERS) if sees else base
        return (
            base + (v - LAYERS) * (seeing - base) + (self.config.decoder.layers - LAYERS) * (count(LAYERS, LAYERS + 1) - base)
        )

    def flops(self, text: int, remat: str) -> float:
        """Of a row, what is done twice included."""
        return self._known("flops", text, remat, ROWS) / ROWS

    def residuals(self, text: int, remat: str) -> tuple[float, float]:
        """(bytes a row, bytes whatever the rows) that the backward pass needs of the forward pass."""
        one, two = (self._known("residuals", text, remat, rows) for rows in (ROWS, 2 * ROWS))
        return (two - one) / ROWS, 2 * one - two

    def _known(self, what: str, text: int, remat: str, rows: int) -> float:
        """Counted once for all stages that compute alike: an unusual way to cache, since tracing takes seconds."""
        stage = self.stage
        alike = (repr(self.config), tuple(self.assigned), self.run.dtype, self.layers, stage.packing, stage.images)
        key = (what, text, remat, rows, *alike)
        if key not in _COUNTED:
            _COUNTED[key] = self._whole(functools.partial(self._count, what, text, remat, rows))
        return _COUNTED[key]

    def _count(self, what: str, text: int, remat: str, rows: int, seeing: int, speaking: int) -> int:
        trained, fixed, batch, graphdef = self._pieces(text, rows, seeing, speaking)
        how = steps.StepConfig(self.layers, remat)
        with jax.set_mesh(_one()):
            if what == "residuals":
                return counters.residual_bytes(trained, fixed, batch, graphdef, how)
            gradients = jax.value_and_grad(steps.loss_sum, has_aux=True)
            traced = jax.make_jaxpr(lambda trained, fixed, batch: gradients(trained, fixed, batch, graphdef, how))
            return counters.dot_flops(traced(trained, fixed, batch).jaxpr)

    def cost(self, way: Way, text: int, chips: int, cut: int = 0) -> Cost:
        """Of one of `chips` devices; cut: those that parameters are cut over, 0: as the way says, all or none. Fused attention
        keeps no weights, nor does XLA: they count as remat=attention has it."""
        per_row, always = self.residuals(text, "attention" if way.remat == "none" else way.remat)
        cut = cut or (chips if way.cut else 1)
        of_rows, of_gradients, once = TPU if self.tpu else GPU
        stacked = STACKED * self.width * groups.count(self.shapes) / cut if self.layers == "scan" else 0
        once += always / cut if self.tpu else of_rows * always + stacked
        kept = of_rows * per_row * way.rows + of_gradients * 4 * self.learns / cut + once
        state = round(self.state(way.accumulate > 1 and self.stage.accumulation == "multisteps", cut, chips))
        return Cost(state, round(kept), self.flops(text, way.remat))

    def ways(self, chips: int) -> Iterator[Way]:
        """Every way to run the stage on so many devices."""
        for accumulate in (k for k in range(1, self.stage.batch_size + 1) if self.stage.batch_size % (k * chips) == 0):
            for remat in KINDS:
                for cut in (False, True) if chips > 1 else (False,):
                    yield Way(self.stage.batch_size // accumulate // chips, accumulate, remat, cut)

    def cheapest(self, text: int, device: Target) -> tuple[Way, Cost] | None:
        """The way that fits and computes least; of equals that of fewest micro-batches, then of whole parameters."""
        found: tuple[Way, Cost] | None = None
        for way in sorted(self.ways(device.chips), key=lambda way: (KINDS.index(way.remat), way.accumulate, way.cut)):
            if found is not None and named(way.remat) != found[0].remat:
                break
            cost = self.cost(way, text, device.chips)
            if cost.peak <= device.limit:
                found = found or (way, cost)
        return found


# Rows of public files, as their publishers count them: without data at hand they say how long an epoch is.
EPOCHS = {
    "blip_laion_cc_sbu_558k.json": 558_128, "share-captioner_coco_lcs_sam_1246k_1107.json": 1_246_901,
    "llava_instruct_150k.json": 157_712, "captions_train2014.json": 414_113, "v2_mscoco_train2014_annotations.json": 443_757,
}  # fmt: skip


def model(plans: Sequence[StagePlan]) -> VLMConfig | None:
    """The shapes of the last stage's model where directories have them; None where run.shapes do: hub ids are not looked up."""
    run = plans[-1].run
    named = [where for where in (run.model, run.vision, run.decoder) if where]
    if not named or not all(Path(where).expanduser().is_dir() for where in named):
        return None
    plan, _ = stages.resolved(list(plans))
    return origins.model_config(plan, origins.find(plan), 0)


def shipped(stage: ConfigDict, run: ConfigDict, chips: int, remat: str = "") -> Way:
    """The way that the config says, or with another remat. VlaxError where the micro-batch doesn't divide over the devices."""
    cut = sharding.sizes((run.mesh.data, run.mesh.fsdp, run.mesh.tp), chips)[1] > 1
    rows, rest = divmod(stage.batch_size, stage.accumulate * chips)
    if rest:
        raise VlaxError(
            f"stage {stage.name}: {stage.batch_size} rows in {stage.accumulate} micro-batches don't divide over {chips} "
            f"devices; set --config.stage.batch_size to a multiple of {stage.accumulate * chips}"
        )
    return Way(rows, stage.accumulate, named(remat or run.remat), cut)


def rows(stage: ConfigDict) -> dict[int, float] | None:
    """{text tokens: rows of the whole stage at that length}; None where the config and EPOCHS leave it open.

    Captions and questions are counted at the shortest of stage.buckets, descriptions and dialogues at the longest.
    """
    short, long = (stage.buckets or (stage.text_length,))[0], stage.text_length
    sources = stage.mixture.to_dict()
    shares = {name: spec.get("weight", 1.0) for name, spec in sources.items()}
    text = {name: short if _short(spec) else long for name, spec in sources.items()}
    if stage.steps:
        whole: float = stage.steps * stage.batch_size
    else:
        first = stage.epoch_of or next(iter(sources))
        size = EPOCHS.get(str(sources[first].get("annotations", "")).rsplit("/", 1)[-1])
        if size is None or any(key in spec for spec in sources.values() for key in ("epochs", "tokens")):
            return None
        whole = stage.epochs * size * sum(shares.values()) / shares[first]
    out: dict[int, float] = {}
    for name, share in shares.items():
        out[text[name]] = out.get(text[name], 0.0) + whole * share / sum(shares.values())
    return out


def _short(spec: Mapping[str, Any]) -> bool:
    return spec.get("task") == "caption" or spec["kind"] in ("coco", "vqa")
