"""The model card of an export, made from what the stages left on disk: manifests, scores, configs. Its text is card.md.

Nothing is asked and nothing is claimed that is not in those files; what they lack, the card says is not known.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath
from huggingface_hub import ModelCard, ModelCardData
from transformers import PreTrainedTokenizerBase

from vlax.models.vlm import VLMConfig
from vlax.pretrained.writing.whole import Written
from vlax.storage import state
from vlax.text.templates import TEMPLATES

TAGS = {"decoder": "text-generation", "vision": "image-feature-extraction"}


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
        "templates": manifest.get("template_name", "plain"),
        "prompts": manifest.get("text", {}).get("prompts"),
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
    directory: epath.PathLike, config: VLMConfig, written: Written, tokens: PreTrainedTokenizerBase, check: str,
    packages: Mapping[str, str],
) -> str:  # fmt: skip
    """README.md of an export. directory: the native export; check: one sentence about the logit check; packages: versions."""
    stages = history(directory)
    run = stages[-1]["run"]
    prompts = stages[-1]["prompts"] or TEMPLATES[stages[-1]["templates"]]
    caption = prompts["caption"]
    made = ModelCard.from_template(
        ModelCardData(
            library_name="vlax" if written.layout == "apart" else "transformers",
            pipeline_tag=TAGS.get(written.layout, "image-text-to-text"),
            tags=["vlax"],
        ),
        template_str=Path(__file__).with_name("card.md").read_text(),
        **vars(config),
        **vars(written),
        image_tokens=config.tokens_per_image,
        bos=tokens.bos_token or "",
        prompts=[repr(prompt) for prompt in prompts.values()],
        # A prompt of several lines cannot be typed in one: the example is a raw string of bash.
        example=f"${caption!r}" if "\n" in caption else f'"{caption}"',
        stages=stages,
        gone=sorted(set().union(*(one["parents"] for one in stages)) - {one["name"] for one in stages}),
        unmeasured=[one["name"] for one in stages if not one["scores"]],
        backbones=[f"{p}: {run[p]}" for p in ("vision", "decoder") if run.get(p) and not run[p].startswith(("/", "."))],
        sources={name: fingerprint for one in stages for name, fingerprint in one["sources"].items()},
        check=check,
        packages=packages,
    )
    return f"{made}\n"
