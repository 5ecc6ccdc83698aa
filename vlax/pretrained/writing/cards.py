"""The model card of an export, made from what the stages left on disk: manifests, scores, configs. Its text is card.md.

Nothing is asked and nothing is claimed that is not in those files; what they lack, the card says is not known.
"""

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from vlax.models.vlm import VLMConfig
from vlax.pretrained.writing.trial import Recipe
from vlax.pretrained.writing.whole import Written
from vlax.pretrained.writing.wording import Wording
from vlax.storage import state
from vlax.storage.hub import HUB_ID
from vlax.text.prompts import Encoder

TAGS = {"decoder": "text-generation", "vision": "image-feature-extraction"}


@dataclasses.dataclass(frozen=True)
class Known:
    """What the files of a run don't say of a model, and the one who exports it does. license: an identifier as the hub has it;
    datasets: ids of the hub."""

    license: str = ""
    datasets: tuple[str, ...] = ()


NOTHING = Known()


def history(directory: epath.PathLike) -> list[dict[str, Any]]:
    """The stages that made an export as `stage` describes them, parents first; what is no longer on disk is left out."""
    found: dict[str, dict[str, Any]] = {}

    def visit(where: epath.Path) -> None:
        if not (where / "manifest.json").exists():
            return
        manifest = state.read(where / "manifest.json", "mend or delete it")
        for parent in manifest.get("parents", {}).values():
            # A work directory may have been moved since, and a backbone is recorded where it lies in Hugging Face layout.
            beside = where.parent.parent / parent["stage"] / "export"
            visit(beside if (beside / "manifest.json").exists() else epath.Path(parent["path"]))
        found.setdefault(manifest.get("stage", str(where)), stage(manifest) | {"scores": scores(where, manifest)})

    visit(epath.Path(directory))
    return list(found.values())


def stage(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of its stage, in the card's words; exports that no training wrote lack most of it."""
    config = manifest.get("config", {}).get("stage", {})
    per_update = config.get("accumulate", 1) if config.get("accumulation") == "multisteps" else 1
    steps = manifest.get("micro_steps")
    return {
        "name": manifest.get("stage", "unnamed"),
        "learned": ", ".join(f"{name} (`{pattern}`)" for name, pattern in manifest.get("trained", {}).items()),
        "origin": ", ".join(f"{part}: {start}" for part, start in config.get("init", {}).items()),
        "parents": set(config.get("init", {}).values()) - {"fresh", "pretrained"},
        "length": "?" if steps is None else f"{steps // per_update} x {config.get('batch_size', '?')}",
        "sources": manifest.get("data", {}).get("sources", {}),
        "run": manifest.get("config", {}).get("run", {}),
        "created": manifest.get("created", ""),
        "versions": manifest.get("versions", {}),
    }


def scores(directory: epath.Path, manifest: Mapping[str, Any]) -> dict[str, Any] | None:
    """eval/scores.json beside an export, if it was made with these very weights."""
    file = directory.parent / "eval" / "scores.json"
    if not file.exists():
        return None
    values = state.read(file, "mend or delete it")
    return values if values["model"]["checksums"] == manifest.get("checksums") else None


def card(
    directory: epath.PathLike, config: VLMConfig, written: Written, text: Mapping[str, Any], check: str,
    packages: Mapping[str, str], known: Known = NOTHING,
) -> str:  # fmt: skip
    """README.md of an export. directory: the native export; text: what `spoken` makes, and `cost`, what the mask is worth;
    check: one sentence about the logit check; packages: versions; known: what no file says."""
    stages = history(directory)
    run = stages[-1]["run"]
    named = [run[part] for part in ("model", "vision", "decoder") if isinstance(run.get(part), str)]
    task = TAGS.get(written.layout, "image-text-to-text")
    results = measured(stages[-1], task)
    made = ModelCard.from_template(
        ModelCardData(
            library_name="vlax" if written.layout == "apart" else "transformers",
            pipeline_tag=task,
            tags=["vlax"],
            license=known.license or None,
            datasets=list(known.datasets) or None,
            base_model=[name for name in named if HUB_ID.fullmatch(name) and not Path(name).exists()] or None,
            eval_results=results or None,
            model_name=stages[-1]["name"] if results else None,
        ),
        template_str=Path(__file__).with_name("card.md").read_text(),
        **vars(config),
        **vars(written),
        **text,
        image_tokens=config.tokens_per_image,
        stages=stages,
        gone=sorted(set().union(*(one["parents"] for one in stages)) - {one["name"] for one in stages}),
        unmeasured=[one["name"] for one in stages if not one["scores"]],
        backbones=[f"{p}: {run[p]}" for p in ("vision", "decoder") if run.get(p) and not run[p].startswith(("/", "."))],
        sources={name: fingerprint for one in stages for name, fingerprint in one["sources"].items()},
        check=check,
        packages=packages,
        known=known,
    )
    return f"{made}\n"


def measured(stage: Mapping[str, Any], task: str) -> list[EvalResult]:
    """The scores of a stage as the card's metadata have them; metric_config is the hash of the protocol behind them."""
    if not stage["scores"]:
        return []
    sets, protocols = stage["scores"]["sets"], stage["scores"]["protocol"]["sets"]
    return [
        EvalResult(
            task_type=task, dataset_type=name, dataset_name=name, metric_type=metric, metric_name=metric,
            metric_value=round(row["score"], 4), metric_config=f"vlax protocol {protocols[name]['hash']}",
        )
        for name, metrics in sets.items() for metric, row in metrics.items() if metric != "rows"
    ]  # fmt: skip


def spoken(said: Wording, recipe: Recipe | None, encoder: Encoder) -> dict[str, Any]:
    """What the card says of texts; recipe: how a stock processor gets to the ids of training."""
    prompts, tokens = said["prompts"], encoder.tokenizer
    caption = prompts["caption"]
    return {
        "said": said,
        "recipe": recipe,
        "chat": encoder.is_chat,
        "bos": tokens.bos_token if said["start"] else "",
        "stops": [tokens.decode([token]) for token in said["stops"]],
        "around": any(said["around"]),
        "said_before": repr(said["around"][0]),
        "said_after": repr(said["around"][1]),
        "before": repr(recipe.before) if recipe else "",
        "after": repr(recipe.after) if recipe else "",
        "prompt": repr(caption),
        "prompts": [repr(prompt) for prompt in prompts.values()],
        "example": typed(caption),
    }


def typed(prompt: str) -> str:
    """A prompt as bash takes it. One of several lines cannot be typed in one: that is a raw string of bash."""
    if "\n" in prompt:
        return f"${prompt!r}"
    return f'"{prompt}"' if not set('"$`\\!') & set(prompt) else shlex.quote(prompt)
