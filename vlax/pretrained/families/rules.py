"""Name maps: which tensors of a Hugging Face checkpoint make which vlax parameters, readable in both directions.

A family file lists `Rule`s; `loader.py` reads by them and the export writes by them. Conventions of the two sides:

    Linear       checkpoint [out,in]      vlax kernel [in,out]
    patch conv   checkpoint [D,3,p,p]     vlax kernel [p*p*3,D], rows in (row, column, channel) order
    GPT-2 Conv1D checkpoint [in,out]      vlax kernel [in,out]
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig

Arrays = list[np.ndarray]
C = TypeVar("C", VisionConfig, DecoderConfig)


@dataclasses.dataclass(frozen=True)
class Rule:
    """`read` turns the arrays of `tensors` into those of `paths`, in order; `write` is its inverse."""

    tensors: tuple[str, ...]
    paths: tuple[str, ...]
    read: Callable[[Arrays], Arrays] = list
    write: Callable[[Arrays], Arrays] = list


@dataclasses.dataclass(frozen=True)
class Family(Generic[C]):
    """What one family file says. Tensor names are canonical: without the prefix that precedes `anchor` in a checkpoint.

    anchor      a tensor that every checkpoint of the family has exactly once; what precedes it is the prefix
    config      completed config.json of the tower -> VisionConfig or DecoderConfig; VlaxError for what is not implemented
    rules       config -> the rules of all its parameters, paths without "vision/" or "decoder/"
    ignored     regular expressions of canonical names that carry no parameter of ours (buffers, pooling heads)
    outside     regular expressions of full names beside the tower (the text half of a contrastive model)
    to_hf       the inverse of `config`, for the export; what it cannot say shows when its result is read back
    stem        what precedes the tensor names when a tower is written alone
    filler      tensors that the stock class has and a config of ours has not: {name: (shape, value)}
    layer       vision: the hidden state whose features are used unless told otherwise; None is the last, post-normed
    resampling  vision: how the reference resamples position embeddings, one of `reading.positions.KINDS`
    mean, std   vision: normalisation where the checkpoint has no preprocessor config
    """

    model_types: tuple[str, ...]
    anchor: str
    config: Callable[[dict], C]
    rules: Callable[[C], list[Rule]]
    to_hf: Callable[[C], dict]
    stem: str = ""
    filler: Callable[[C], dict[str, tuple[tuple[int, ...], float]]] = lambda c: {}
    ignored: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    layer: int | None = None
    resampling: str = "bicubic"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


def same(path: str, tensor: str) -> Rule:
    return Rule((tensor,), (path,))


def transposed(path: str, tensor: str) -> Rule:
    return Rule((tensor,), (path,), lambda x: [x[0].T], lambda x: [x[0].T])


def reshaped(path: str, tensor: str, read: Sequence[int], write: Sequence[int]) -> Rule:
    """Another shape of the same elements; each shape may hold one -1."""
    return Rule((tensor,), (path,), lambda x: [x[0].reshape(read)], lambda x: [x[0].reshape(write)])


def patch_conv(path: str, tensor: str, patch: int) -> Rule:
    """Conv2d weight [D,3,p,p] <-> kernel [p*p*3,D]."""

    def read(x: Arrays) -> Arrays:
        return [x[0].transpose(2, 3, 1, 0).reshape(patch * patch * x[0].shape[1], -1)]

    def write(x: Arrays) -> Arrays:
        return [x[0].reshape(patch, patch, -1, x[0].shape[1]).transpose(3, 2, 0, 1)]

    return Rule((tensor,), (path,), read, write)


def fused(paths: Sequence[str], tensor: str, *, transpose: bool = False, widths: Sequence[int] = ()) -> Rule:
    """One tensor of several parameters, side by side along its output axis: [in,out], or [out,in] if `transpose`.

    widths: of each of them; () where they are equal.
    """

    def read(x: Arrays) -> Arrays:
        parts: Any = np.cumsum(widths)[:-1] if widths else len(paths)
        return np.split(x[0].T if transpose else x[0], parts, axis=-1)

    def write(x: Arrays) -> Arrays:
        whole = np.concatenate(x, axis=-1)
        return [whole.T if transpose else whole]

    return Rule((tensor,), tuple(paths), read, write)


def linear(path: str, name: str, bias: bool = True) -> list[Rule]:
    return [transposed(f"{path}/kernel", f"{name}.weight"), *([same(f"{path}/bias", f"{name}.bias")] if bias else [])]


def norm(path: str, name: str, bias: bool = True) -> list[Rule]:
    return [same(f"{path}/scale", f"{name}.weight"), *([same(f"{path}/bias", f"{name}.bias")] if bias else [])]


def identity_norm(name: str, width: int) -> dict[str, tuple[tuple[int, ...], float]]:
    """Filler for a LayerNorm that the stock class holds and never applies to our features."""
    return {f"{name}.weight": ((width,), 1.0), f"{name}.bias": ((width,), 0.0)}


@dataclasses.dataclass(frozen=True)
class Whole:
    """A checkpoint of tower, projector and decoder. config: (completed config.json, its towers) -> VLMConfig. picture: of those
    that were trained to see something around one, (completed config.json, id or token -> token) -> `Settings.picture`.

    For the export, of layouts that are written too: to_hf: VLMConfig -> what config.json says beside its towers; obstacles:
    (VLMConfig, model_type of the decoder's family) -> why the stock class would compute something else.
    """

    model_types: tuple[str, ...]
    anchor: str
    config: Callable[[dict, VisionConfig, DecoderConfig], VLMConfig]
    rules: Callable[[ProjectorConfig], list[Rule]]
    to_hf: Callable[[VLMConfig], dict] = lambda c: {}
    obstacles: Callable[[VLMConfig, str], list[str]] = lambda c, decoder: ["this layout is read and not written"]
    picture: Callable[[dict, Callable[[int | str], str]], dict[str, str]] | None = None


def hidden_state(c: VisionConfig, layer: int) -> VisionConfig:
    """The tower that ends at `hidden_states[layer]` of transformers: 0 the embeddings, -1 the last layer; never post-normed."""
    layers = layer if layer >= 0 else c.layers + 1 + layer
    if not 0 < layers <= c.layers:
        raise VlaxError(
            f"the vision tower has {c.layers} layers, no hidden state {layer}; give 1..{c.layers} or -{c.layers}..-1"
        )
    return dataclasses.replace(c, layers=layers, post_norm=False)
