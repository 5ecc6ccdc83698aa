"""Low-rank adaptation (Hu et al., arXiv 2106.09685): y = x W + (alpha / rank) (x A) B, with W frozen and B zero at first."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vlax.errors import VlaxError
from vlax.models.quantised import Linear
from vlax.params.groups import Params

TARGETS = ("q", "k", "v", "o", "up", "gate", "down")


@dataclasses.dataclass(frozen=True)
class LoRAConfig:
    """rank and alpha as in the paper; targets: the decoder's matrices that are adapted, of TARGETS."""

    rank: int
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q", "v")

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        unknown = [target for target in self.targets if target not in TARGETS]
        if unknown or not self.targets or self.rank < 1:
            valid = ", ".join(TARGETS)
            raise VlaxError(f"LoRA of rank {self.rank} for {self.targets}: the rank is at least 1, targets are of {valid}")

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


class LoRALinear(Linear):
    """A Linear with an adapter: lora_a [inputs, rank], lora_b [rank, outputs]."""

    def __init__(self, inputs: int, outputs: int, *, lora: LoRAConfig, rngs: nnx.Rngs, **options: Any):
        super().__init__(inputs, outputs, rngs=rngs, **options)
        normal = nnx.initializers.normal(inputs**-0.5)
        self.lora_a = nnx.Param(normal(rngs.params(), (inputs, lora.rank), jnp.float32))
        self.lora_b = nnx.Param(jnp.zeros((lora.rank, outputs), jnp.float32))
        self.lora_scale = lora.scale

    def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
        base = super().__call__(inputs, out_sharding)
        a, b = self.lora_a[...].astype(base.dtype), self.lora_b[...].astype(base.dtype)
        return base + (inputs.astype(base.dtype) @ a) @ b * self.lora_scale


def dense(name: str, inputs: int, outputs: int, *, lora: LoRAConfig | None, rngs: nnx.Rngs, **options: Any) -> Linear:
    """The matrix `name` of a block: a Linear, with an adapter where LoRA targets it."""
    if lora is not None and name in lora.targets:
        return LoRALinear(inputs, outputs, lora=lora, rngs=rngs, **options)
    return Linear(inputs, outputs, rngs=rngs, **options)


def merge(params: Params, lora: LoRAConfig) -> Params:
    """The parameters of the same model without adapters: each adapted kernel becomes W + scale A B, in float32."""
    merged = {path: value for path, value in params.items() if not path.endswith(("/lora_a", "/lora_b"))}
    for path in params:
        if path.endswith("/lora_a"):
            home = path.removesuffix("lora_a")
            kernel = params[home + "kernel"]
            delta = jnp.asarray(params[path], jnp.float32) @ jnp.asarray(params[home + "lora_b"], jnp.float32)
            merged[home + "kernel"] = jnp.asarray(kernel, jnp.float32) + lora.scale * delta
    return merged
