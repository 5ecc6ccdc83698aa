"""How a run computes attention: `run.attention`, tried at the run's own shapes before anything is built on it."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from vlax.errors import VlaxError
from vlax.models import cores
from vlax.models.cores import Kernels
from vlax.models.vlm import VLMConfig
from vlax.params import distributed
from vlax.training.stages import closest

WORDS = ("auto", *cores.KERNELS)
TOLERANCE = 0.03  # of a bf16 result and its gradients, by the largest value, against the reference's
PATIENCE = 600.0  # seconds in which the other hosts have tried


@dataclasses.dataclass(frozen=True)
class Shapes:
    """One call of attention on one device. masked: some queries have a mask of their own."""

    rows: int
    heads: int
    groups: int
    queries: int
    keys: int
    width: int
    masked: bool

    def __str__(self) -> str:
        mask = ", masked" if self.masked else ""
        return f"{self.rows} rows, {self.heads}/{self.groups} heads of {self.width}, {self.queries} x {self.keys} tokens{mask}"


@dataclasses.dataclass(frozen=True)
class Load:
    """What a run asks of attention: rows a device, devices among which heads are cut, text lengths, slots for pictures; first:
    each row's one picture comes before its text."""

    platform: str
    dtype: str
    rows: int
    tp: int
    texts: tuple[int, ...]
    slots: int = 1
    first: bool = True


def calls(config: VLMConfig, load: Load) -> dict[str, list[Shapes]]:
    """The kinds of call that each part of a model makes: the tower's without a mask, the image tokens' among themselves, and
    the text's over everything."""
    found: dict[str, list[Shapes]] = {}
    if (v := config.vision) is not None:
        tokens, heads = v.tokens + int(v.class_token) + v.registers, v.heads // (load.tp if v.heads % load.tp == 0 else 1)
        squares = load.rows * load.slots * config.looks
        found["vision"] = [Shapes(squares, heads, heads, tokens, tokens, v.width // v.heads, False)]
    d, images = config.decoder, config.tokens_per_image * load.slots
    cut = load.tp if d.kv_heads % load.tp == 0 else 1
    one = functools.partial(Shapes, load.rows, d.heads // cut, d.kv_heads // cut, width=d.head_dim)
    split = images > 0 and load.first and d.window is None
    found["decoder"] = [one(images, images, masked=False)] if split and config.mask == "image_bidirectional" else []
    if split and config.mask != "image_bidirectional":
        found["decoder"] += [one(images, images + (text if config.mask != "causal" else 0), masked=True) for text in load.texts]
    found["decoder"] += [one(text if split else images + text, images + text, masked=True) for text in load.texts]
    return found


def _arrays(shapes: Shapes) -> Iterator[jax.Array]:
    rng = np.random.default_rng(0)
    for heads, length in ((shapes.heads, shapes.queries), *[(shapes.groups, shapes.keys)] * 2):
        yield jnp.asarray(rng.normal(size=(shapes.rows, heads, length, shapes.width)), jnp.bfloat16)


def attempt(kernel: str, shapes: Shapes) -> str:
    """Runs a kernel forward and backward: "" where it gives what the reference gives, else why not."""
    q, k, v = _arrays(shapes)
    mask = None
    if shapes.masked:  # the last queries see all, the first ones those before them
        mask = jnp.tri(shapes.queries, shapes.keys, shapes.keys - shapes.queries, dtype=bool)[None]

    def run(kernel: str, *args: jax.Array) -> list[jax.Array]:
        call = functools.partial(cores.core, mask=mask, scale=shapes.width**-0.5, kernel=kernel)
        out, pull = jax.vjp(call, *args)
        return [out, *pull(out)]

    try:
        got = jax.block_until_ready(jax.jit(functools.partial(run, kernel))(q, k, v))
        want = jax.jit(functools.partial(run, "xla"))(q, k, v)
    except Exception as error:  # whatever a library says: that it doesn't run is what was asked
        return f"{type(error).__name__}: {(str(error).strip() or 'no text').splitlines()[0][:200]}"
    for name, one, other in zip(("its result", "dq", "dk", "dv"), got, want, strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        if not np.abs(one - other).max() <= TOLERANCE * np.abs(other).max():
            return f"{name} differs from the reference's by {np.abs(one - other).max():.3g} of {np.abs(other).max():.3g}"
    return ""


def _unfit(config: VLMConfig, part: str, load: Load) -> str:
    """Why a kernel need not be tried, or ""."""
    if load.platform not in ("gpu", "cuda"):
        return f"the devices are of kind {load.platform}"
    if load.dtype != "bfloat16":
        return f"run.dtype is {load.dtype}, and kernels take bfloat16"
    if part == "decoder" and config.decoder.attention_softcap is not None:
        return "the decoder caps its logits"
    return ""


def choose(word: str, config: VLMConfig, load: Load) -> tuple[Kernels, str]:
    """(what `run.attention` says by part of the model, why). `auto` takes cudnn where it runs, forward and backward, and gives
    what the reference gives. Collective. VlaxError for another word, and for a kernel that doesn't run here."""
    if word not in WORDS:
        raise VlaxError(f"run.attention={word!r} is not one of {', '.join(WORDS)}{closest(word, WORDS)}")
    chosen = Kernels()
    if word == "xla":
        return chosen, "as run.attention says"
    reasons = {}
    for part, shapes in calls(config, load).items():
        reason = _unfit(config, part, load)
        tried = reason or next((f"{why} ({one})" for one in shapes if (why := attempt("cudnn", one))), "")
        reasons[part] = next(filter(None, distributed.meet(tried, PATIENCE)), "")  # all hosts run one program
        if not reasons[part]:
            chosen = chosen._replace(**{part: "cudnn"})
    failed = {part: why for part, why in reasons.items() if why}
    if word != "auto" and failed:
        part, why = next(iter(failed.items()))
        raise VlaxError(f"run.attention={word} doesn't run in the {part}: {why}; leave it out, or --config.run.attention=xla")
    said = {part: why or "tried at this run's shapes, forward and backward" for part, why in reasons.items()}
    alike = len(set(said.values())) == 1
    return chosen, "; ".join(dict.fromkeys(why if alike else f"{part}: {why}" for part, why in said.items()))
