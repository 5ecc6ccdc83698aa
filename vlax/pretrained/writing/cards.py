"""The model card of an export, made from what the stages left on disk: manifests, scores, configs.

Nothing is asked and nothing is claimed that is not in those files; what they lack, the card says is not known.
"""

import dataclasses
from collections.abc import Mapping

from etils import epath

from vlax.models.vlm import VLMConfig
from vlax.pretrained.writing.usage import run_section
from vlax.pretrained.writing.whole import Written
from vlax.storage import state

MASKS = {
    "causal": "every token sees what precedes it",
    "image_bidirectional": "image tokens see each other, text is causal",
    "prefix_lm": "image and prompt tokens see each other, the answer is causal",
    "image_sees_prompt": "image tokens see each other and the prompt, text is causal",
}

SHAPES = {
    "squash": "squashed to the square, whatever its shape",
    "crop": "its middle square, the rest is cut off",
    "pad": "padded to a square first",
}


@dataclasses.dataclass(frozen=True)
class Stage:
    """What one stage of the chain left: its manifest, scores (of exactly these weights) and where they would lie."""

    manifest: dict
    scores: dict | None

    @property
    def name(self) -> str:
        return self.manifest.get("stage", "unnamed")


def history(directory) -> list[Stage]:
    """The stages that made an export, parents first; parents that are no longer on disk are left out."""
    found: dict[str, Stage] = {}

    def visit(where: epath.Path) -> None:
        if not (where / "manifest.json").exists():
            return
        manifest = state.read(where / "manifest.json", "mend or delete it")
        for parent in manifest.get("parents", {}).values():
            # A work directory may have been moved since, and a backbone is recorded where it lies in Hugging Face layout.
            beside = where.parent.parent / parent["stage"] / "export"
            visit(beside if (beside / "manifest.json").exists() else epath.Path(parent["path"]))
        found.setdefault(manifest.get("stage", str(where)), Stage(manifest, scores(where, manifest)))

    visit(epath.Path(directory))
    return list(found.values())


def scores(directory: epath.Path, manifest: Mapping) -> dict | None:
    """eval/scores.json beside an export, if it was made with these very weights."""
    file = directory.parent / "eval" / "scores.json"
    if not file.exists():
        return None
    values = state.read(file, "mend or delete it")
    return values if values["model"]["checksums"] == manifest.get("checksums") else None


def card(directory, config: VLMConfig, written: Written, tokens, check: str, hf_versions: Mapping[str, str]) -> str:
    """README.md of an export. directory: the native export; check: one sentence about the logit check."""
    stages = history(directory)
    last = stages[-1].manifest
    parts = {"decoder": "decoder", "vision": "vision tower"}
    what = f"The {parts[written.layout]} of {last['stage']}" if written.layout in parts else last["stage"]
    sections = [
        _front(written),
        f"# {what}, exported from vlax",
        _summary(config, written),
        "## How to run it\n\n" + run_section(config, written, tokens, last.get("template_name", "plain"), hf_versions),
        "## How it was trained\n\n" + stage_table(stages),
        "## Data\n\n" + data_section(stages),
        "## Scores\n\n" + score_sections(stages),
        "## Limits\n\n" + limits(config, written, stages),
        "## Checks and versions\n\n" + check + "\n\n" + versions(last, hf_versions),
    ]
    return "\n\n".join(sections) + "\n"


def _front(written: Written) -> str:
    tags = {"decoder": "text-generation", "vision": "image-feature-extraction"}
    library = "library_name: vlax" if written.layout == "apart" else "library_name: transformers"
    return f"---\n{library}\npipeline_tag: {tags.get(written.layout, 'image-text-to-text')}\ntags:\n- vlax\n---"


def _summary(c: VLMConfig, written: Written) -> str:
    d, lines = c.decoder, []
    if written.layout != "decoder":
        v = c.tower.vision
        size = f"images of {v.image_size} x {v.image_size} pixels in patches of {v.patch_size}"
        lines.append(f"vision tower: {v.layers} layers of width {v.width}, {size}")
    if written.layout not in ("decoder", "vision"):
        p = c.tower.projector
        joined = f", {p.pixel_shuffle} x {p.pixel_shuffle} features to a token" if p.pixel_shuffle > 1 else ""
        lines.append(f"projector: {p.kind}{joined}; an image takes {c.tokens_per_image} tokens")
    if written.layout != "vision":
        lines.append(f"decoder: {d.layers} layers of width {d.width}, vocabulary {d.vocab_size}")
    if written.layout not in ("decoder", "vision"):
        lines.append(f"attention mask: `{c.mask}` ({MASKS[c.mask]})")
    return "\n".join(f"- {line}" for line in lines + written.notes)


def stage_table(stages: list[Stage]) -> str:
    """One row a stage: what learned, what it started from, how long, on what."""
    rows = ["| stage | learned | starts from | updates x rows | data |", "| --- | --- | --- | --- | --- |"]
    for stage in stages:
        m, config = stage.manifest, stage.manifest.get("config", {}).get("stage", {})
        per_update = config.get("accumulate", 1) if config.get("accumulation") == "multisteps" else 1
        learned = ", ".join(f"{name} (`{pattern}`)" for name, pattern in m.get("trained", {}).items())
        origin = ", ".join(f"{part}: {start}" for part, start in config.get("init", {}).items())
        length = f"{m['micro_steps'] // per_update} x {config.get('batch_size', '?')}" if "micro_steps" in m else "?"
        rows.append(f"| {stage.name} | {learned} | {origin} | {length} | {', '.join(m.get('data', {}).get('sources', {}))} |")
    named = {start for stage in stages for start in stage.manifest.get("config", {}).get("stage", {}).get("init", {}).values()}
    gone = sorted(named - {stage.name for stage in stages} - {"fresh", "pretrained"})
    note = f"\n\nNothing was found on disk of: {', '.join(gone)}." if gone else ""
    run = stages[-1].manifest.get("config", {}).get("run", {})
    hubs = [f"{part}: {run[part]}" for part in ("vision", "decoder") if run.get(part) and not run[part].startswith(("/", "."))]
    return "\n".join(rows) + note + (f"\n\nPretrained backbones: {', '.join(hubs)}." if hubs else "")


def data_section(stages: list[Stage]) -> str:
    """Every source with the fingerprint of its rows."""
    prints = {name: value for stage in stages for name, value in stage.manifest.get("data", {}).get("sources", {}).items()}
    return "\n".join(f"- {name}: rows with fingerprint `{value[:16]}`" for name, value in prints.items()) or "Not recorded."


def score_sections(stages: list[Stage]) -> str:
    """The tables of the stages that were evaluated, this one first."""
    tables = [score_section(stage.name, stage.scores) for stage in reversed(stages) if stage.scores]
    none = [stage.name for stage in stages if not stage.scores]
    return "\n\n".join([*tables, *([f"Not evaluated with these weights: {', '.join(none)}."] if none else [])])


def score_section(name: str, scores: Mapping) -> str:
    """A table of one stage: score, interval, blind twin, prior."""

    def number(value):
        return "-" if value is None else f"{value:.3f}"

    def span(value):
        return "-" if value is None else f"[{value[1]:.3f}, {value[2]:.3f}]"

    heads = (name, "score", "95 % interval", "blind twin", "prior", "score - twin")
    rows = [heads, ("---",) * len(heads)]
    for name, metrics in scores["sets"].items():
        for metric, row in metrics.items():
            if metric != "rows":
                over = row.get("over_twin")
                difference = "-" if over is None else f"{over[0]:+.3f} {span(over)}"
                numbers = (number(row["score"]), span(row.get("interval")), number(row["twin"]), number(row["prior"]))
                rows.append((f"{name} {metric}", *numbers, difference))
    sizes = ", ".join(f"{name}: {metrics['rows']} rows" for name, metrics in scores["sets"].items())
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + (
        f"\n\n{sizes}; protocol {scores['protocol']['hash']}. The blind twin is the same model with the pictures "
        f"exchanged; the prior sees no picture."
    )


def limits(c: VLMConfig, written: Written, stages: list[Stage]) -> str:
    """What nobody should expect."""
    lines = [
        "It was trained on the data listed above and on nothing else that this card knows of. Its errors were not studied "
        "beyond the scores, nor its biases or its safety."
    ]
    if written.layout not in ("decoder", "vision"):
        size = f"{c.tower.vision.image_size} x {c.tower.vision.image_size} pixels"
        lines.append(f"One picture a prompt, in front of the text, at {size} ({SHAPES[c.tower.preprocess.mode]}).")
    if stages[-1].scores is None:
        lines.append("Nothing was measured of these weights: expect nothing.")
    lines.append("The licences of its backbones and of its data apply; fill them in here before it is passed on.")
    return "\n".join(f"- {line}" for line in lines)


def versions(manifest: Mapping, hf: Mapping[str, str]) -> str:
    """Of the training and of the export."""
    trained = ", ".join(f"{name} {value}" for name, value in manifest.get("versions", {}).items())
    return (
        f"Trained {manifest.get('created', '')} with {trained}. Exported with {', '.join(f'{k} {v}' for k, v in hf.items())}."
    )
