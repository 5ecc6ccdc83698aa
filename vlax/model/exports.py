"""Exports, which hand a model over.

    workdir/stageN/export/            params/ (orbax), config.json (shapes, mask kind), tokenizer/, seal.json, manifest.json

`manifest.json` is written last: an export without one is unfinished and is ignored. The seal before it says what every file
holds (`storage/seal.py`), and each is compared before it is read; exports of format 1 have none.
"""

import functools
import tempfile
from collections.abc import Collection, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from vlax.errors import VlaxError
from vlax.models.vlm import VLMConfig
from vlax.params import distributed, groups
from vlax.pretrained.reading.tensors import Later
from vlax.storage import hub, paths, seal, state
from vlax.text import tokenizer as tokenizers
from vlax.text.tokenizer import Tokenizer

FORMAT = 2  # sealed; 1 was not
AGAIN = "copy the export again, or delete its manifest.json and train the stage again, which then writes it anew"


def export(
    directory, params: Mapping[str, jax.Array], config: VLMConfig, tokenizer: Tokenizer, manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes an export; `params` are all parameters, as they are to be stored. Returns the manifest written.

    The manifest gains format, parameter count and a checksum by module, taken from what was read back from disk.
    """
    directory = epath.Path(directory)
    for name in ("manifest.json", seal.NAME):
        (directory / name).unlink(missing_ok=True)  # from here on unfinished
    with ocp.StandardCheckpointer() as writer:
        writer.save(paths.absolute(directory) / "params", dict(params), force=True)
    # By every process: orbax synchronises them. Shapes are known: to ask for them opens each array once more, and what
    # TensorStore tells of an array it never frees.
    stored = _restore(directory, dict(params), None)
    if not distributed.is_main():
        return dict(manifest)
    state.write_json(directory / "config.json", config.to_dict(), indent=1, sort_keys=True)
    write_tokenizer(tokenizer, directory / "tokenizer")
    full = {
        **manifest,
        "format": FORMAT,
        "mask": config.mask,
        "parameters": groups.count(stored),
        "checksums": module_checksums(stored),
    }
    content = state.as_json(full, indent=1, sort_keys=True)
    seal.write(directory, coming={"manifest.json": content})
    state.write(directory / "manifest.json", content)
    return full


def _compare(directory: epath.PathLike, part: str) -> None:
    """VlaxError where a file that is about to be read is not what was written."""
    manifest = epath.Path(directory) / "manifest.json"
    unsealed = not seal.check(directory, part, way_out=AGAIN) and manifest.exists()
    if unsealed and state.read(manifest, AGAIN).get("format") != 1:
        raise VlaxError(f"{directory} has no {seal.NAME}; {AGAIN}")


def write_tokenizer(tokenizer: Tokenizer, directory: epath.Path) -> None:
    """transformers writes local folders only; the files go on to wherever `directory` is."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as local:
        tokenizers.save(tokenizer, local)
        for file in sorted(epath.Path(local).iterdir()):
            (directory / file.name).write_bytes(file.read_bytes())


def read_tokenizer(directory: epath.PathLike) -> Tokenizer:
    """The tokenizer of an export, which may lie on an object store."""
    _compare(directory, "tokenizer")
    with paths.local_folder(f"{directory}/tokenizer") as local:
        return tokenizers.read_saved(local)


def module_checksums(params: Mapping[str, np.ndarray]) -> dict[str, str]:
    """{"vision": sha256, "projector": ..., "decoder": ...}"""
    tops = sorted({path.split("/")[0] for path in params})
    return {top: groups.checksum({p: v for p, v in params.items() if p.split("/")[0] == top}) for top in tops}


def read_manifest(directory) -> dict[str, Any]:
    """VlaxError when the directory is no finished export."""
    path = epath.Path(directory) / "manifest.json"
    if not path.exists():
        raise VlaxError(f"{directory} is not a finished vlax export: it has no manifest.json. Exports are WORKDIR/STAGE/export")
    _compare(directory, "manifest.json")
    return state.read(path, AGAIN)


def read_config(directory) -> VLMConfig:
    _compare(directory, "config.json")
    file = epath.Path(directory) / "config.json"
    with state.understood(file, AGAIN):
        hub.check_sizes(file, values := state.read(file, AGAIN))
        return VLMConfig.from_dict(values)


def load_params(
    directory,
    shardings: Mapping[str, jax.sharding.Sharding] | None = None,
    parts: tuple[str, ...] = (),
    without: Collection[str] = (),
) -> dict[str, Any]:
    """{path: array} of an export in the stored dtype: numpy without `shardings`, else jax Arrays placed by them.

    `parts` restricts it to modules ("vision", "decoder"): nothing else is read, nor are the paths `without`.
    """
    _compare(directory, "params")
    wanted = {k: leaf for k, leaf in _stored(directory).items() if not parts or k.split("/")[0] in parts}
    return _restore(directory, {k: leaf for k, leaf in wanted.items() if k not in without}, shardings)


def lazy_params(directory) -> dict[str, Later]:
    """{path: array that is read from disk when its values are asked for}: the model never lies in memory whole."""
    _compare(directory, "params")
    stored = _stored(directory)

    def read(name: str) -> np.ndarray:
        return _restore(directory, {name: stored[name]}, None)[name]

    return {k: Later(tuple(leaf.shape), np.dtype(leaf.dtype), functools.partial(read, k)) for k, leaf in stored.items()}


def _stored(directory) -> dict[str, Any]:
    """{path: shape and dtype}"""
    return ocp.PyTreeCheckpointer().metadata(paths.absolute(directory) / "params").item_metadata.tree


def _restore(directory, leaves: Mapping[str, Any], shardings: Mapping | None) -> dict[str, Any]:
    """Arrays of these shapes and dtypes, placed by shardings or as numpy."""
    if shardings is None:
        args = {k: ocp.RestoreArgs(restore_type=np.ndarray) for k in leaves}
    else:
        args = {k: ocp.ArrayRestoreArgs(sharding=shardings[k]) for k in leaves}
    item = {k: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for k, leaf in leaves.items()}
    how = ocp.args.PyTreeRestore(item=item, restore_args=args, partial_restore=True)
    return ocp.PyTreeCheckpointer().restore(paths.absolute(directory) / "params", args=how)
