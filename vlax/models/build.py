"""Structure and fresh values of a model, from its config."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from vlax.models.cores import PLAIN, Kernels
from vlax.models.decoder import Decoder
from vlax.models.projector import Projector
from vlax.models.vision import VisionTower
from vlax.models.vlm import VLM, VLMConfig
from vlax.params import groups

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
PARTS: dict[str, Callable[..., nnx.Module]] = {"vision": VisionTower, "projector": Projector, "decoder": Decoder}


class _Told:
    """A config as a key, equal where its text is: some hold dicts, which have no hash, and 1, 1.0 and True have one hash."""

    def __init__(self, config: Any) -> None:
        self.config, self.text = config, repr(config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Told) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


# A build asks several times for the same shapes, and a chain of stages for the same models; each trace of one is 0.1 to 1 s.
@functools.lru_cache(maxsize=32)
def _traced(kind: Callable[..., nnx.Module], told: _Told, **options: Any) -> tuple[nnx.GraphDef[Any], groups.Shapes]:
    graphdef, params = groups.flatten(nnx.eval_shape(lambda: kind(told.config, rngs=nnx.Rngs(0), **options)))
    return graphdef, {path: jax.ShapeDtypeStruct(value.shape, value.dtype) for path, value in params.items()}


def abstract_part(kind: Callable[..., nnx.Module], config: Any) -> groups.Shapes:
    """{path within the part: shape and dtype} of `kind(config)`, a module that is never built."""
    return dict(_traced(kind, _Told(config))[1])


def abstract_model(config: VLMConfig, dtype: DTypeLike, kernels: Kernels = PLAIN) -> tuple[nnx.GraphDef[VLM], groups.Shapes]:
    """(structure, {path: shape and dtype}) without allocating anything."""
    graphdef, shapes = _traced(VLM, _Told(config), dtype=jnp.dtype(dtype), kernels=kernels)
    return graphdef, dict(shapes)


def fresh_part(part: str, config: VLMConfig, seed: int) -> groups.Params:
    """Newly initialised parameters of one part; the same for a seed whatever else is built or wherever it runs."""
    key = jax.random.fold_in(jax.random.key(seed), 1 + list(PARTS).index(part))
    built = PARTS[part](getattr(config, part), rngs=nnx.Rngs(key))
    return {f"{part}/{path}": value for path, value in groups.flatten(built)[1].items()}
