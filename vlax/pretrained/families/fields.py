"""Config fields that vlax and a Hugging Face config both have, under two names: one table a family, readable both ways."""

from collections.abc import Callable, Mapping
from typing import Any

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.models.vision import VisionConfig

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def read(names: Mapping[str, str], hf: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a vlax config from config.json; names: {ours: theirs} of what both have, `write` is the inverse."""
    converted: dict[str, Callable[[Any], Any]] = {"activation": activation, "image_size": side, "patch_size": side}
    return {ours: converted[ours](hf[theirs]) if ours in converted else hf[theirs] for ours, theirs in names.items()}


def write(names: Mapping[str, str], c: VisionConfig | DecoderConfig, *activations: str) -> dict[str, Any]:
    """Fields of config.json from a vlax config; `activations` as in `activation_name`."""
    values = {ours: getattr(c, ours) for ours in names}
    values = {k: activation_name(v, *activations) if k == "activation" else v for k, v in values.items()}
    return {theirs: values[ours] for ours, theirs in names.items()}


def activation(name: str) -> str:
    """The vlax name of a Hugging Face `hidden_act`; VlaxError when there is none."""
    if name not in ACTIVATIONS:
        raise VlaxError(f"activation {name!r} is not implemented; those that are: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def activation_name(name: str, *known: str) -> str:
    """A Hugging Face `hidden_act` for a vlax activation: the first of `known` that means it, else the usual one."""
    usual = {"gelu_tanh": "gelu_pytorch_tanh"}.get(name, name)
    return next((other for other in known if ACTIVATIONS[other] == name), usual)


def side(value: int | list[int]) -> int:
    """Pixels a side of a square given as one number or as [height, width]; VlaxError for another shape."""
    sides = {value} if isinstance(value, int) else set(value)
    if len(sides) != 1:
        raise VlaxError(f"image or patch size {value} is not square, which is not implemented; choose another checkpoint")
    return sides.pop()


def require(config: dict, **fields) -> None:
    """Raises VlaxError where a config field has another value than the only one that is implemented."""
    for name, value in fields.items():
        if name in config and config[name] != value:
            raise VlaxError(
                f"{config.get('model_type')} config: {name}={config[name]!r} is not implemented, only {value!r}; "
                f"choose another checkpoint"
            )
