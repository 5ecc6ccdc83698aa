"""Rough figures of what training takes of a device's memory, for guesses alone: what really happens is up to the compiler."""

import os
from collections.abc import Collection

import jax

from vlax.models import quantised
from vlax.models.build import DTYPES
from vlax.models.vlm import VLMConfig
from vlax.params import groups

ROOM = 0.9  # of the memory; the rest is what no estimate knows of


def memory() -> int:
    """Bytes of one device; of a CPU the host's, shared among its devices."""
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    return int(limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // jax.local_device_count())


def state(shapes: groups.Shapes, assigned: Collection[str], dtype: str, kind: str = "") -> int:
    """Bytes of parameters: float32 weights, gradients and AdamW's two moments of the paths of `assigned`, the rest in the
    compute dtype or, where `kind` says so, quantised."""
    trained = groups.count({path: value for path, value in shapes.items() if path in assigned})
    low = DTYPES.get(dtype, DTYPES["float32"])
    rest = {path: jax.ShapeDtypeStruct(value.shape, low) for path, value in shapes.items() if path not in assigned}
    return 16 * trained + groups.size_bytes(quantised.abstract(rest, kind, low))


def row(model: VLMConfig, text: int, dtype: str, remat: bool, pictures: int = 1) -> int:
    """Bytes that the forward pass keeps of one row: a dozen vectors a layer and token, the attention weights, the logits.

    pictures: that a row has room for (stage.images), each with all its tiles.
    """
    size, decoder = 4 if dtype == "float32" else 2, model.decoder
    slots = pictures * model.views
    length = slots * model.tokens_per_image + text
    layer = length * (14 * decoder.width + 4 * decoder.mlp_dim) * size + decoder.heads * length**2 * (4 + size)
    layers = decoder.layers * length * decoder.width * size + layer if remat else decoder.layers * layer
    seen = 0
    if (v := model.vision) is not None:
        seen = slots * model.looks * v.tokens * (14 * v.width + 4 * v.mlp_dim) * size
    return layers + seen + 12 * text * decoder.vocab_size


def micro_batches(batch: int, devices: int, fits: float) -> int:
    """`(32, 1, 10.5) -> 4`: the fewest micro-batches of a batch that hold `fits` rows a device at most, or as many as there can
    be."""
    ways = [k for k in range(1, batch + 1) if batch % k == 0 and batch // k % devices == 0]
    return next((k for k in ways if batch // k // devices <= fits), ways[-1])
