"""Training and evaluation from Python: what `vlax train` and `vlax eval` do, as functions."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image

from vlax.commands import config_flag, export, setup
from vlax.decoding.predict import Request
from vlax.errors import VlaxError
from vlax.evaluation import evaluate as evaluation
from vlax.evaluation import runner, sampling, scoring, table
from vlax.evaluation.options import Options, chosen
from vlax.evaluation.report.attention import answer_attention
from vlax.model import opening
from vlax.model.api import Model
from vlax.pretrained.writing import cards, push
from vlax.process import stop
from vlax.process.activity import Interrupted
from vlax.storage import cache, paths
from vlax.training import chain, stages
from vlax.training.inspect import inspection
from vlax.training.listeners import Listener
from vlax.training.trackers import tracker


def config_of(name: str, **fields: Any) -> ConfigDict:
    """A config by its file or its name ("stage3", "stage4:0.9b", "configs/mine.py"), as `--config` takes it.

    fields: values of run's and of stage's fields by their names, as `steps=100`; what lies deeper is set in the dict that comes
    back: `config.stage.lora.rank = 8`. VlaxError for a config or a field that there is not.
    """
    if not isinstance(name, str):
        raise VlaxError(f"a config is named by a text such as 'stage3', not by {type(name).__name__}")
    found, rest = config_flag.parse([f"--config={name}"], required=True)
    assert not rest
    made: ConfigDict = found.copy_and_resolve_references()
    for field, value in fields.items():
        places = [part for part in ("stage", "run") if field in made[part]]
        if not places:
            known = [*made.stage, *made.run]
            raise VlaxError(f"there is no field {field!r}{stages.closest(field, known)}. Every field is in configs/base.py")
        try:
            made[places[0]][field] = value
        except TypeError as error:
            raise VlaxError(f"{places[0]}.{field}={value!r}: {str(error).splitlines()[0]}") from None
    return made


def train(
    config: ConfigDict | str,
    workdir: str = paths.WORKDIR,
    *,
    callbacks: Sequence[Listener] = (),
    extend: int = 0,
    fork: str = "",
) -> Model | None:
    """Trains a stage and the stages that it needs, as `vlax train` does; the Model of its export.

    config: of `vlax.config`, or its name. workdir: directory of checkpoints, exports, logs. extend, fork: as the flags.
    callbacks: each is called with a `vlax.Progress` of whatever is recorded; what it raises ends the run like any error, saved.
    Where one asked for a stop the run is saved and None comes back: the same call goes on.
    KeyboardInterrupt after Ctrl-C, when it is saved; VlaxError for whatever is wrong.
    """
    if isinstance(config, str):
        config = config_of(config)
    if not isinstance(config, ConfigDict):
        raise VlaxError(f"config is a ConfigDict (vlax.config('stage3')) or a config's name, not {type(config).__name__}")
    for callback in callbacks:
        if not callable(callback):
            raise VlaxError(f"callbacks are functions of a vlax.Progress; {callback!r} can't be called")
    setup.settings(config)
    cache.beside(workdir)
    try:
        follow, heard = tracker.checked(config.run.trackers), tuple(callbacks)
        chain.run(config, str(workdir), sampling.sampler, extend=extend, fork=fork, listeners=heard, follow=follow)
    except Interrupted as stopped:
        if stopped.code:
            raise KeyboardInterrupt(f"training was stopped by signal {int(stopped.code) - 128} and saved") from None
        return None
    finally:
        stop.forget()
    return opening.load(str(epath.Path(fork or workdir) / config.stage.name / "export"), dtype=config.run.dtype or "float32")


def finetune(
    model: Model | str, data: str | Sequence[str], workdir: str = "runs/finetune", *, callbacks: Sequence[Listener] = (),
    **fields: Any,
) -> Model | None:  # fmt: skip
    """A whole model tuned on one's own data (`configs/finetune.py`): what is not said is guessed, and printed.

    model: a Model that was loaded from somewhere, or what `vlax.load` takes. data: files or folders of any known format.
    fields: as of `vlax.config`: epochs, steps, batch_size, learning rates by group, tune="lora", ...
    Returns and raises what `train` does.
    """
    where = model.where if isinstance(model, Model) else model
    if not isinstance(where, str) or not where:
        raise VlaxError("finetune begins from a model that lies somewhere: a directory or hub id, or a Model of vlax.load")
    files = [data] if isinstance(data, str) else [str(each) for each in data]
    made = config_of("finetune", data=",".join(files), **fields)
    made.run.model = where
    return train(made, workdir, callbacks=callbacks)


@dataclasses.dataclass(frozen=True)
class Scores:
    """An evaluation. `scores["CIDEr"]`, of several sets `scores["NAME", "CIDEr"]`; printed, it is the table of `vlax eval`.

    raw: what scores.json holds: scores, intervals, blind twin, prior and protocol of each set.
    directory: of predictions.jsonl, scores.json, samples.png and report.html; None where none was asked for.
    """

    raw: Mapping[str, Any]
    directory: Path | None = None

    def __getitem__(self, key: str | tuple[str, str]) -> float:
        """The model's own score, on the metric's own scale. KeyError with the names that there are."""
        sets = self.raw["sets"]
        name, metric = key if isinstance(key, tuple) else (next(iter(sets)), key)
        if not isinstance(key, tuple) and len(sets) > 1:
            raise KeyError(f"there are the sets {', '.join(sets)}: scores[SET, {key!r}]")
        if name not in sets or metric not in sets[name]:
            there = ", ".join(f"({each!r}, {m!r})" for each, one in sets.items() for m in one if m != "rows")
            raise KeyError(f"there is no {key!r}; there are {there}")
        return float(sets[name][metric]["score"])

    def __repr__(self) -> str:
        return table.score_table(scoring.table_rows(self.raw["sets"]))


def evaluate(
    model: Model | str,
    suites: str | Sequence[str] = (),
    *,
    directory: str = "",
    data_root: str = "data",
    seed: int = 0,
    **options: Any,
) -> Scores:
    """Scores a model beside its blind twin and a prior that has seen no picture.

    suites: names (`vlax eval --suite=help`), FILE.toml, or "custom" with the options data, images and like. directory: where
    predictions, scores and the report are kept, and gone on with; "": nowhere. options: those of `eval.py`: limit, twin,
    answers, quantise, ... VlaxError for whatever is wrong.
    """
    if isinstance(model, str):
        model = opening.load(model)
    if not isinstance(model, Model):
        raise VlaxError(f"evaluate takes a Model or what vlax.load takes, not {type(model).__name__}")
    known = [field.name for field in dataclasses.fields(Options)]
    if wrong := [name for name in options if name not in known]:
        raise VlaxError(f"there is no option {wrong[0]!r}{stages.closest(wrong[0], known)}; there are {', '.join(known)}")
    asked = Options(suites=(suites,) if isinstance(suites, str) else tuple(suites), **options)
    if not asked.suites:
        raise VlaxError(
            "evaluate needs a suite: vlax.evaluate(model, 'coco_karpathy_test'); `vlax eval --suite=help` lists them"
        )
    if asked.checkpoint or asked.predictions or asked.against:
        raise VlaxError("checkpoint, predictions and against belong to a workdir: use `vlax eval`")
    sets = runner.open_sets(chosen(None, asked), data_root, asked.limit)
    with tempfile.TemporaryDirectory(prefix="vlax-evaluation-") as beside:
        where, title = epath.Path(directory or beside), model.where or "a model"
        mine, blind = where / "eval", where / "eval-blind"
        raw = evaluation.scored(model, title, sets, mine, blind, asked, data_root, seed, kept=bool(directory))
    return Scores(raw, Path(directory) / "eval" if directory else None)


def inspect(config: ConfigDict | str, workdir: str = paths.WORKDIR, batches: int = 1) -> Image.Image:
    """Prints a stage's first batches as the model will see them, as `vlax train --inspect` does; the picture of pictures and
    attention mask that it writes. Nothing is trained, and no parent stage need be. VlaxError for whatever is wrong."""
    if isinstance(config, str):
        config = config_of(config)
    setup.settings(config)
    cache.beside(workdir)
    inspection.run(config, str(workdir), batches)
    with (epath.Path(workdir) / config.stage.name / "inspect.png").open("rb") as file:
        return Image.open(file).convert("RGB")


def attention(model: Model, image: Any, question: str = "", answer: str = "") -> list[tuple[str, np.ndarray]]:
    """Where the model looks while it answers: [(token of the answer, f32[h,w] of sum 1 over the picture), ...], EOS included.

    image: what `Model.generate` takes. question: "" is for a caption. answer: the words to look at; "": the model's own.
    A map is the token's attention to the image tokens, mean over heads and layers: it says where was looked, and not why.
    VlaxError for a model without a tower, or whose image tokens are no grid.
    """
    if not model.config.vision:
        raise VlaxError("this model has no vision tower: there is nothing that it looks at")
    prompt = model.encoder.prompt_text("question" if question else "caption", question)
    answer = answer or model.generate(image, prompt)
    asked = model.encoder.asked(prompt, 1)
    views = list(model.views(image))
    request = Request(asked.tokens, views, before=[at for at in asked.before for _ in views])
    return answer_attention(model, [request], [answer])[0]


def push_to_hub(model: Model, name: str, *, private: bool = True, license: str = "", datasets: Sequence[str] = ()) -> str:
    """Writes a trained Model in Hugging Face layout, with its card, and uploads it to the repository `name` (USER/NAME); its
    address. `Model.push_to_hub` is this.

    license, datasets: for the card, as the hub calls them. VlaxError for a Model of no vlax export, without a token, and for
    whatever `vlax export` refuses.
    """
    if not model.where or not (epath.Path(model.where) / "manifest.json").exists():
        raise VlaxError(
            f"what is pushed is a vlax export, and this Model is of {model.where or 'no directory'}: train it first"
        )
    push.check(name)
    with tempfile.TemporaryDirectory(prefix="vlax-push-") as beside:
        out = Path(beside) / "files"
        export.export(model.where, str(out), known=cards.Known(license, tuple(datasets)))
        return push.push(out, name, private=private)
