"""A decoder's weights as its steps read them: in the compute dtype, cast once and not again for each token.

What learns is stored in float32. Where a model computes in bf16, each product of the decoding loop would cast its matrix first,
which takes longer than the product, since a step reads every matrix for a handful of rows.
"""

import re

import jax
from flax import nnx
from jax.typing import DTypeLike

from vlax.models.vlm import VLM
from vlax.params import groups

# What modules cast to the compute dtype themselves before they use it: all but norms, which compute in float32.
CAST = re.compile(r"^decoder/(?!(.*/)?[a-z_]*norm\d?/).*(kernel|bias|embedding|head|position|lora_[ab])$")

_cast = jax.jit(lambda values, dtype: {path: value.astype(dtype) for path, value in values.items()}, static_argnums=1)


def compute_dtype(graphdef: nnx.GraphDef[VLM], params: groups.Params) -> DTypeLike:
    return groups.rebuild(graphdef, params).dtype


def held(params: groups.Params, dtype: DTypeLike) -> groups.Params:
    """`params` with the decoder's arrays of another float dtype in `dtype`, where they lie; nothing is copied that has it."""
    wide = {
        path: value
        for path, value in params.items()
        if CAST.search(path) and hasattr(value, "dtype") and value.dtype == "float32" and value.dtype != dtype
    }
    return {**params, **_cast(wide, dtype)} if wide else params
