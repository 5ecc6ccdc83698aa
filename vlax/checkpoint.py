"""What is on disk: checkpoints {state, data} to resume from, and exports that hand a model over.

    workdir/stageN/checkpoints/STEP   trainable parameters, optimizer state, step (orbax, asynchronous); data position (JSON)
    workdir/stageN/export/            params/ (orbax), config.json (shapes, mask kind), tokenizer/, manifest.json

`manifest.json` is written last: an export without one is unfinished and is ignored.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as policies
from transformers import AutoTokenizer

from vlax import groups
from vlax.errors import VlaxError
from vlax.models.vlm import VLMConfig

FORMAT = 1


def _absolute(path) -> epath.Path:
    """Orbax refuses relative paths; users type them."""
    return epath.Path(path) if "://" in str(path) else epath.Path(os.path.abspath(os.path.expanduser(str(path))))


def _score(metrics: Mapping[str, float] | None) -> float:
    """Orbax keeps the highest; validation loss is better when lower."""
    return -metrics["loss"] if metrics and "loss" in metrics else float("-inf")


class Checkpoints:
    """The checkpoints of one stage: the latest one, and the best on validation, are kept."""

    def __init__(self, directory: str | epath.Path):
        self.directory = epath.Path(directory)
        keep = policies.AnyPreservationPolicy(
            [policies.LatestN(1), policies.BestN(get_metric_fn=_score, n=1, keep_checkpoints_without_metrics=False)]
        )
        options = ocp.CheckpointManagerOptions(preservation_policy=keep, best_fn=_score)
        self._manager = ocp.CheckpointManager(_absolute(self.directory), options=options)

    def save(self, step: int, state: Mapping, data: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> None:
        """Starts an asynchronous save. `metrics` {"loss": ...} enters it into the choice of the best."""
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(state=ocp.args.StandardSave(dict(state)), data=ocp.args.JsonSave(dict(data)))
        self._manager.save(step, args=items, metrics=dict(metrics) if metrics else None)

    def latest(self) -> int | None:
        return self._manager.latest_step()

    def best(self) -> tuple[int, float] | None:
        """(step, validation loss) of the best checkpoint that was validated."""
        scored = [(self._manager.metrics(s)["loss"], s) for s in self._manager.all_steps() if self._manager.metrics(s)]
        return (min(scored)[1], min(scored)[0]) if scored else None

    def data(self, step: int) -> dict:
        return self._manager.restore(step, args=ocp.args.Composite(data=ocp.args.JsonRestore())).data

    def restore(self, step: int, target) -> dict:
        """The state of a step, restored onto the shardings of `target` (abstract or concrete arrays).

        VlaxError when the stored tree is another one.
        """
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, target)
        try:
            return self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))).state
        except (ValueError, KeyError, TypeError) as error:
            first = str(error).strip().splitlines()[0][:200]
            raise VlaxError(
                f"checkpoint {self.directory / str(step)} does not fit this run ({first}). Use the config that wrote it, or "
                "another --workdir"
            ) from error

    def wait(self) -> None:
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def export(directory, params: Mapping[str, jax.Array], config: VLMConfig, tokenizer, manifest: Mapping[str, Any]) -> dict:
    """Writes an export; `params` are all parameters, as they are to be stored. Returns the manifest written.

    The manifest gains format, parameter count and a checksum by module, taken from what was read back from disk.
    """
    directory = epath.Path(directory)
    if (directory / "manifest.json").exists():
        (directory / "manifest.json").unlink()  # from here on unfinished
    with ocp.StandardCheckpointer() as writer:
        writer.save(_absolute(directory) / "params", dict(params), force=True)
    stored = load_params(directory)  # by every process: orbax synchronises them
    if jax.process_index() != 0:
        return dict(manifest)
    (directory / "config.json").write_text(json.dumps(config.to_dict(), indent=1, sort_keys=True))
    write_tokenizer(tokenizer, directory / "tokenizer")
    full = {
        **manifest,
        "format": FORMAT,
        "mask": config.mask,
        "parameters": groups.count(stored),
        "checksums": module_checksums(stored),
    }
    (directory / "manifest.json").write_text(json.dumps(full, indent=1, sort_keys=True))
    return full


def write_tokenizer(tokenizer, directory: epath.Path) -> None:
    """transformers writes local folders only; the files go on to wherever `directory` is."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as local:
        tokenizer.save_pretrained(local)
        for file in sorted(epath.Path(local).iterdir()):
            (directory / file.name).write_bytes(file.read_bytes())


def read_tokenizer(directory):
    """The tokenizer of an export, which may lie on an object store."""
    source = epath.Path(directory) / "tokenizer"
    if "://" not in str(directory):
        return AutoTokenizer.from_pretrained(str(source))
    with tempfile.TemporaryDirectory() as local:
        for file in source.iterdir():
            (epath.Path(local) / file.name).write_bytes(file.read_bytes())
        return AutoTokenizer.from_pretrained(local)


def module_checksums(params: Mapping[str, np.ndarray]) -> dict[str, str]:
    """{"vision": sha256, "projector": ..., "decoder": ...}"""
    tops = sorted({path.split("/")[0] for path in params})
    return {top: groups.checksum({p: v for p, v in params.items() if p.split("/")[0] == top}) for top in tops}


def read_manifest(directory) -> dict:
    """VlaxError when the directory is no finished export."""
    path = epath.Path(directory) / "manifest.json"
    if not path.exists():
        raise VlaxError(f"{directory} is not a finished vlax export: it has no manifest.json. Exports are WORKDIR/STAGE/export")
    return json.loads(path.read_text())


def read_config(directory) -> VLMConfig:
    return VLMConfig.from_dict(json.loads((epath.Path(directory) / "config.json").read_text()))


def load_params(directory, shardings: Mapping | None = None, parts: tuple[str, ...] = ()) -> dict[str, Any]:
    """{path: array} of an export in the stored dtype: numpy without `shardings`, else jax Arrays placed by them.

    `parts` restricts it to modules ("vision", "decoder"): nothing else is read.
    """
    path = _absolute(directory) / "params"
    checkpointer = ocp.PyTreeCheckpointer()
    stored = checkpointer.metadata(path).item_metadata.tree
    wanted = {k: v for k, v in stored.items() if not parts or k.split("/")[0] in parts}
    if shardings is None:
        args = {k: ocp.RestoreArgs(restore_type=np.ndarray) for k in wanted}
    else:
        args = {k: ocp.ArrayRestoreArgs(sharding=shardings[k]) for k in wanted}
    item = {k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in wanted.items()}
    return checkpointer.restore(path, args=ocp.args.PyTreeRestore(item=item, restore_args=args, partial_restore=True))
