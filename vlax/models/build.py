"""Structure and fresh values of a model, from its config."""

from collections.abc import Callable

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


def abstract_model(config: VLMConfig, dtype: DTypeLike, kernels: Kernels = PLAIN) -> tuple[nnx.GraphDef[VLM], groups.Shapes]:
    """(structure, {path: shape and dtype}) without allocating anything."""
    graphdef, params = groups.flatten(nnx.eval_shape(lambda: VLM(config, dtype=dtype, rngs=nnx.Rngs(0), kernels=kernels)))
    return graphdef, {path: jax.ShapeDtypeStruct(value.shape, value.dtype) for path, value in params.items()}


def fresh_part(part: str, config: VLMConfig, seed: int) -> groups.Params:
    """Newly initialised parameters of one part; the same for a seed whatever else is built or wherever it runs."""
    key = jax.random.fold_in(jax.random.key(seed), 1 + list(PARTS).index(part))
    built = PARTS[part](getattr(config, part), rngs=nnx.Rngs(key))
    return {f"{part}/{path}": value for path, value in groups.flatten(built)[1].items()}
