"""The stage scheduler: which stages a config needs, in which order, and what of them is done already."""

import dataclasses
import difflib
import json
import logging
from collections.abc import Iterable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from vlax.errors import VlaxError
from vlax.storage import state

# Fields that may change between the start and the resumption of a run: they touch neither parameters nor data order.
FREE_RUN = ("mesh", "log_every", "tensorboard", "trackers", "compilation_cache", "threads", "prefetch", "image_cache_mb",
            "layers", "remat", "attention", "distributed", "hosts", "data_root", "quarantine", "keep", "verify",
            "allow_outside", "grace_seconds", "watchdog_minutes", "profile", "peak_tflops", "zero1")  # fmt: skip
FREE_STAGE = ("drop_budget", "eval_every", "eval_batches", "generate_samples", "suites", "reference", "validation",
              "data", "data_is", "tune")  # fmt: skip

USUAL = {"mask": "image_bidirectional", "templates": "plain"}  # what an empty field of run means without a whole model
EXTENDED, LENGTH = "extended.json", "length.json"
FORKED = "forked"  # WORKDIR/STAGE/forked: the export of the state that a stage began from, in place of its parents
GIVEN = ("model", "fresh", "pretrained")  # values of stage.init that are no stage's name


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """One stage of a chain: its settings, its directory, and the stages that it starts from by part of the model."""

    run: ConfigDict
    stage: ConfigDict
    directory: epath.Path
    parents: dict[str, epath.Path]  # part of the model -> parent stage's directory
    first: ConfigDict | None = None  # the stage.mixture that the chain begins with; None: this stage's own

    @property
    def name(self) -> str:
        return str(self.stage.name)

    @property
    def leader(self) -> bool:
        """Whether the decoder comes from a whole model, whose mask kind and templates hold where the config names none."""
        return self.stage.init.get("decoder") in ("model", FORKED)

    @property
    def export(self) -> epath.Path:
        return self.directory / "export"

    @property
    def extended(self) -> tuple[int, ...]:
        """Updates that were added to the stage when it was finished, in turn (`lineage.py`)."""
        file = self.directory / EXTENDED
        return tuple(state.read(file, "write the list that export/manifest.json has", list)) if file.exists() else ()

    @property
    def finished(self) -> bool:
        manifest = self.export / "manifest.json"
        if not manifest.exists():
            return False
        more = list(self.extended)
        return not more or bool(state.read(manifest, "train the stage again").get("extended", []) == more)

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that make this stage what it is, as plain JSON: what a resumed run must agree with."""
        run = {k: v for k, v in state.load_json("run", self.run.to_json()).items() if k not in FREE_RUN}
        if not self.leader:
            run |= {field: run[field] or usual for field, usual in USUAL.items()}
        stage = {k: v for k, v in state.load_json("stage", self.stage.to_json()).items() if k not in FREE_STAGE}
        if not stage.get("buckets") and not stage.get("packing"):
            stage.pop("plan_window", None)  # of no effect
        if stage.get("images") == 1:
            stage.pop("images")  # as before there could be more
        return {"run": run, "stage": stage}


def chain(config: ConfigDict, workdir: epath.PathLike) -> list[StagePlan]:
    """The asked-for stage and every stage that it needs, parents first. VlaxError for an unknown parent or a cycle."""
    workdir = epath.Path(workdir)
    known = {s.name: s for s in [*config.parents.values(), config.stage]}
    order: list[StagePlan] = []
    visiting: list[str] = []

    def visit(name: str, needed_by: str) -> None:
        if any(plan.name == name for plan in order):
            return
        if name not in known:
            raise VlaxError(
                f"{needed_by}: init names {name!r}, which is no stage of this chain. Write {', '.join(GIVEN)} or one of: "
                f"{', '.join(sorted(known))}"
            )
        if name in visiting:
            raise VlaxError(f"stages depend on each other in a circle: {' -> '.join([*visiting, name])}")
        visiting.append(name)
        stage = known[name]
        if (workdir / name / FORKED / "manifest.json").exists():
            stage = stage.copy_and_resolve_references()
            with stage.unlocked():
                stage.init = ConfigDict(dict.fromkeys(stage.init, FORKED))
        parents = {part: origin for part, origin in stage.init.items() if origin not in (*GIVEN, FORKED)}
        for origin in dict.fromkeys(parents.values()):
            visit(origin, name)
        visiting.pop()
        order.append(StagePlan(config.run, stage, workdir / name, {p: workdir / o for p, o in parents.items()}))

    visit(config.stage.name, "the config")
    if config.run.model and not any({"model", FORKED} & set(plan.stage.init.values()) for plan in order):
        raise VlaxError(
            f"run.model={config.run.model}, and no stage takes a part from it: pass --config.stage.init.decoder=model, and "
            "likewise vision and projector, or train with --config=configs/finetune.py"
        )
    return [dataclasses.replace(plan, first=order[0].stage.mixture) for plan in order]


def resolved(plans: list[StagePlan]) -> tuple[StagePlan, list[str]]:
    """(the last plan, the parents that are not trained yet).

    What such a parent would hand over has the tokenizer, the shapes and the picture size of where it has them from itself: a
    trained stage before it, pretrained weights or run.shapes. The plan names that origin in the parent's place.
    """
    by_name, last = {plan.name: plan for plan in plans}, plans[-1]
    init, parents, waiting = dict(last.stage.init), dict(last.parents), []
    for part, origin in init.items():
        while origin in by_name and not by_name[origin].finished:
            waiting.append(origin)
            origin = by_name[origin].stage.init[part]
        init[part] = origin
        parents.pop(part, None)
        if origin in by_name:
            parents[part] = by_name[origin].directory
    stage = last.stage.copy_and_resolve_references()
    with stage.unlocked():
        stage.init = ConfigDict(init)
    return dataclasses.replace(last, stage=stage, parents=parents), list(dict.fromkeys(waiting))


def differences(have: dict[str, Any], want: dict[str, Any], prefix: str = "") -> list[str]:
    """Flat list of "field: old -> new" between two JSON trees."""
    out = []
    for key in sorted(have.keys() | want.keys()):
        path = f"{prefix}{key}"
        a, b = have.get(key), want.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            out += differences(a, b, path + ".")
        elif a != b:
            out.append(f"{path}: {json.dumps(a)} -> {json.dumps(b)}")
    return out


def without_news(have: dict[str, Any], want: dict[str, Any]) -> dict[str, Any]:
    """`want` without the fields that came into being after `have` was written and are switched off ("", 0, (), False)."""
    return {
        key: without_news(have[key], value) if isinstance(value, dict) and isinstance(have.get(key), dict) else value
        for key, value in want.items()
        if key in have or value
    }


def started(directory: epath.Path) -> bool:
    """Whether a stage's directory holds something that a config could disagree with."""
    checkpoints = directory / "checkpoints"
    kept = (directory / "export" / "manifest.json").exists() or (checkpoints.exists() and any(checkpoints.iterdir()))
    return bool(kept and (directory / "config.json").exists())


def renamed(have: dict[str, Any]) -> dict[str, Any]:
    """Recorded settings under today's names: the shapes of fresh parts were called run.model once."""
    run = have.get("run", {})
    if isinstance(run.get("model"), dict):
        run = {**run, "shapes": run["model"], "model": ""}
    return {**have, "run": run}


def _longer(diffs: list[str], have: dict[str, Any], plan: StagePlan) -> str:
    """The other road, to the one who wants more updates."""
    more = plan.stage.steps - have["stage"].get("steps", 0)
    told = len(diffs) == 1 and diffs[0].startswith("stage.steps:") and 0 < more < plan.stage.steps
    return f"; or train it longer when it is finished: the old values and --extend={more if told else 'STEPS'}"


def check_identity(plan: StagePlan) -> None:
    """Compares with the settings that the stage's directory was started with (`record_identity`).

    VlaxError lists every difference: the same directory never holds two different runs.
    """
    path = plan.directory / "config.json"
    if not started(plan.directory):
        return  # nothing was kept yet that the config could disagree with
    have = renamed(state.read(path, "delete it if the stage was started with this very config, else the whole directory"))
    diffs = differences(have, without_news(have, plan.identity))
    if diffs:
        shown = "; ".join(diffs[:6]) + (f"; and {len(diffs) - 6} more" if len(diffs) > 6 else "")
        raise VlaxError(
            f"{plan.directory} was made with another config ({shown}). Use the old values, another --workdir, or delete that "
            f"directory. Or begin another run from its state, with the new values: add --fork=NEW_WORKDIR to this command"
            f"{_longer(diffs, have, plan)}"
        )


def check_end(plan: StagePlan, micro_steps: int) -> None:
    """VlaxError for a checkpoint beyond the stage's end: where config.json is gone, nothing else says that it is another's."""
    folder = plan.directory / "checkpoints"
    last = max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=0) if folder.exists() else 0
    if last > micro_steps:
        gone = "" if (plan.directory / "config.json").exists() else ", and no config.json that says which one it was made with"
        raise VlaxError(
            f"{plan.directory} has a checkpoint at micro-step {last:,}, where this config ends at {micro_steps:,}{gone}. Pass "
            f"the values that it was trained with, name another --workdir, or delete that directory"
        )


def record_length(plan: StagePlan, micro_steps: int, per_update: int) -> None:
    """How long the stage is, for who lists runs (`vlax runs`)."""
    plan.directory.mkdir(parents=True, exist_ok=True)
    state.write_json(plan.directory / LENGTH, {"micro_steps": micro_steps, "per_update": per_update})


def record_identity(plan: StagePlan) -> None:
    plan.directory.mkdir(parents=True, exist_ok=True)
    state.write_json(plan.directory / "config.json", plan.identity, indent=1, sort_keys=True)


def todo(plans: list[StagePlan]) -> list[StagePlan]:
    """What is still to run. Every directory is checked against its config before anything starts."""
    for plan in plans:
        check_identity(plan)
    open_plans = [plan for plan in plans if not plan.finished]
    done = [plan.name for plan in plans if plan.finished]
    if done:
        logging.info("finished already: %s", ", ".join(done))
    if len(open_plans) > 1:
        *first, last = (plan.name for plan in open_plans)
        logging.info("%s needs %s first: running them in this order", last, ", ".join(first))
    return open_plans


def closest(word: str, choices: Iterable[str]) -> str:
    """ "; did you mean X?" or nothing."""
    match = difflib.get_close_matches(word, list(choices), 1)
    return f"; did you mean {match[0]!r}?" if match else ""
