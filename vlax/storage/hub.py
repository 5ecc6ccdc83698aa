"""From what a user typed (a directory or a hub id) to a local directory and its completed config.json."""

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from vlax.errors import VlaxError
from vlax.storage import paths, seal, state

SMALL = ("*.json", "*.txt", "*.model", "*.jinja")
LAYERS, MOST = 1_000, 1 << 24  # of any config: layers, and other sizes
_SIZE = re.compile(r"(?!mscale_)(?:.*_)?(layers|n_layer|n_head|n_embd|n_inner|size|dim|heads|channels|width)")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
INSTEAD = {  # model types of checkpoints with code of their own, or of a later kind: what to take in their place
    "intern_vit_6b": "OpenGVLab/InternVL3-1B-hf has the tower InternViT-300M in transformers' layout",
    "internvl_chat": "a repository of the same name with -hf at its end is in transformers' layout",
    "stablelm_epoch": "stabilityai/stablelm-2-1_6b is of model_type stablelm",
    "olmo3": "allenai/OLMo-2-0425-1B is an olmo2",
    "granitemoe": "ibm-granite/granite-3.3-2b-base is a granite",
    "granitemoehybrid": "ibm-granite/granite-3.3-2b-base is a granite",
}
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id")


def local_directory(name: str | Path, *, flag: str, weights: bool = True) -> Path:
    """`name` if it is a directory, else a snapshot of the hub repository ("org/name"), without weights if `weights` is False.

    flag: what the error tells the user to pass. VlaxError when there is neither such a directory nor a way to the hub.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        for file in path.iterdir():
            if file.exists() and not file.is_dir():  # links of a half download lead nowhere, perhaps to files not asked for
                paths.check_regular(file, "remove it, or name another directory")
        files = [file.name for file in path.iterdir() if weights or file.suffix != ".safetensors"]
        seal.check(path, *files, way_out=f"copy the folder again, or delete its {seal.NAME} to read it as it is")
        return path
    if not HUB_ID.fullmatch(str(name)):
        raise VlaxError(f"{name} is not a directory and not a hub id of the form org/name; pass {flag}")
    import huggingface_hub

    patterns = [*SMALL, "*.safetensors"] if weights else list(SMALL)
    try:
        return Path(huggingface_hub.snapshot_download(str(name), allow_patterns=patterns))
    except Exception as error:  # the hub raises many kinds, from its HTTP client too; all mean the same to the user
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise VlaxError(
            f"cannot get {name} from the Hugging Face hub ({reason}); without a network pass a local directory in "
            f"Hugging Face layout: {flag}"
        ) from None


read_json = functools.partial(state.read, way_out="download it again")


def read_config(directory: Path, supported: Iterable[str]) -> dict[str, Any]:
    """config.json with every default filled in (by transformers' config class of its model_type), nested configs included.

    supported: the model_types allowed here. VlaxError: no config.json, or a model_type that is not supported.
    """
    file = directory / "config.json"
    if not file.is_file():
        raise VlaxError(f"{directory} has no config.json; name a directory in Hugging Face layout")
    raw = read_json(file)
    kind = raw.pop("model_type", None)
    if kind not in supported:
        hint = f" ({INSTEAD[kind]})" if kind in INSTEAD else ""
        raise VlaxError(f"{file}: model_type {kind!r} is not supported here{hint}; supported are {', '.join(supported)}")
    check_sizes(file, raw)
    from transformers import AutoConfig

    try:
        full: dict[str, Any] = AutoConfig.for_model(kind, **_without_token_ids(raw)).to_dict()
    except Exception as error:  # transformers validates by a dozen exception types
        raise VlaxError(f"{file} is not a valid {kind} config: {' '.join(str(error).split())}; download it again") from None
    return full


def check_sizes(file: Path | epath.Path, values: Mapping[str, Any]) -> None:
    """VlaxError for a size in a config (nested ones included) that no model has: anything but natural numbers up to MOST, for
    layers up to LAYERS. Whoever builds a model by such a config would be busy with it for good."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            check_sizes(file, value)
        elif value is not None and (found := _SIZE.fullmatch(name)):
            most = LAYERS if found[1] in ("layers", "n_layer") else MOST
            for number in value if isinstance(value, list) else [value]:
                if type(number) is not int or not 0 <= number <= most:
                    raise VlaxError(f"{file}: {name} is {str(number)[:80]}, not a number up to {most:,}; download it again")


def _without_token_ids(values: dict[str, Any]) -> dict[str, Any]:
    """Special token ids belong to the tokenizer here; the config classes only print warnings about them."""
    return {k: _without_token_ids(v) if isinstance(v, dict) else v for k, v in values.items() if k not in TOKEN_IDS}
