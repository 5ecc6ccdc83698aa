"""What stage.data names: its sources, the pictures that are held out of them, and what its rows are like."""

import collections
import dataclasses
import math
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from vlax.data import parts
from vlax.data.batches.lengths import Lengths
from vlax.data.readers.faults import Faults
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.models.vlm import VLMConfig
from vlax.rows import RowFault, Source
from vlax.storage.paths import absolute, rooted
from vlax.text.tokenizer import size
from vlax.training import origins, stages, wording

SAMPLE = 5000  # rows that are looked at
LONG = {"caption": 32, "describe": 128, "question": 16}  # tokens that an answer may have when it is scored
METRICS = {"question": ["vqav2@official", "exact_match"], "": ["CIDEr", "Bleu", "ROUGE_L"]}


@dataclasses.dataclass(frozen=True)
class Data:
    """specs: training sources by name; held: of them, pictures held out; tasks: of the rows looked at, how many of each;
    measured: the tokens of these; scored: the task that a source is scored by, "" for none; only_train: sources that were
    prepared to train on, and have no rows to evaluate on; images: the most pictures that one of these rows has."""

    specs: dict[str, dict[str, Any]]
    names: dict[str, str]
    held: dict[str, int]
    scored: dict[str, str]
    only_train: set[str]
    rows: int
    pictures: int
    tasks: dict[str, int]
    measured: np.ndarray
    model: VLMConfig
    images: int = 1

    @property
    def most(self) -> int:
        """Tokens that 99 % of the rows do not exceed."""
        return int(np.quantile(self.measured, 0.99, method="inverted_cdf"))

    @property
    def longest(self) -> int:
        return int(self.measured.max())

    @property
    def text_length(self) -> int:
        """A multiple of 8 that holds the longest row, or twice `most`; no more than the decoder has positions for."""
        wanted = math.ceil(min(self.longest, 2 * self.most) / 8) * 8
        decoder = self.model.decoder
        if decoder.rope_theta is None:
            return min(wanted, decoder.max_positions - self.model.tokens_per_image)
        return wanted

    def validation(self) -> dict[str, Any]:
        """stage.validation: the held-out loss."""
        return {name: self._part(name, "validation") for name in self.specs if self.held[name]}

    def suites(self) -> dict[str, Any]:
        """stage.suites: what eval.py scores, by the task of each source's rows; none of conversations."""
        return {name: self._suite(name, task) for name, task in self.scored.items() if task}

    def _part(self, name: str, part: str) -> dict[str, Any]:
        return {**self.specs[name], "part": part, **({"train": True} if name in self.only_train else {})}

    def _suite(self, name: str, task: str) -> dict[str, Any]:
        data = {part: self._part(name, part) for part in parts.PARTS}
        return {
            "task": task,
            "metrics": METRICS.get(task, METRICS[""]),
            "decoding": {"max_new_tokens": LONG[task]},
            "data": data,
        }

    def lines(self) -> list[str]:
        """What the rows were taken for."""
        said = ", ".join(f"{count:,} {task}" for task, count in self.tasks.items())
        out = [f"  {'data':24}{', '.join(self.names.values())}: {self.rows:,} rows to train on; looked at: {said}"]
        out[0] += "     --config.stage.data_is.task=..."
        for name, count in self.held.items():
            kept = (
                f"{count - count // 2} pictures to choose the best state by, {count // 2} to score it on, by hash of picture id"
            )
            scored = f"scored as {self.scored[name]}" if self.scored[name] else "rows of this kind have no score: loss alone"
            out.append(
                f"  {'held out':24}{self.names[name]}: {kept}; {scored}"
                if count
                else f"  {'held out':24}nothing: too few pictures"
            )
        return out


def mixture(config: ConfigDict) -> ConfigDict:
    """stage.mixture of what stage.data names: every source once an epoch."""
    given = [path.strip() for path in config.stage.data.split(",") if path.strip()]
    more = {field: value for field, value in config.stage.data_is.items() if value}
    if "images" in more:
        more["images"] = _placed(more["images"], config.run.data_root)
    names = ["own", *(f"own{n}" for n in range(2, len(given) + 1))]
    specs = {
        name: {"path": _placed(path, config.run.data_root), **more, "part": "train"}
        for name, path in zip(names, given, strict=True)
    }
    return ConfigDict({name: {**spec, "epochs": 1.0} for name, spec in specs.items()} if len(specs) > 1 else specs)


def _placed(path: str, data_root: str) -> str:
    """Paths are the shell's, or below run.data_root where the shell has no such thing."""
    here = absolute(path)
    return path if rooted(path) or (data_root and not here.exists()) else str(here)


def read(config: ConfigDict) -> Data:
    """Opens model and data as far as guesses need them."""
    run, stage = config.run, config.stage
    plan = stages.StagePlan(run, stage, epath.Path("/nowhere"), {})
    found = origins.find(plan)
    tokenizer = origins.load_tokenizer(plan, found["decoder"])
    named = origins.templates(plan, found["decoder"], tokenizer)
    encoder = wording.encoder(plan, tokenizer, named, origins.leading(plan, found))
    model = origins.model_config(plan, found, size(tokenizer))
    lengths, measured, tasks = Lengths(encoder), [], collections.Counter[str]()
    names, held, scored, only_train, rows, pictures, images = {}, {}, {}, set[str](), 0, 0, 1
    specs = {name: {key: value for key, value in spec.items() if key != "epochs"} for name, spec in stage.mixture.items()}
    for name, spec in specs.items():
        source = open_source(spec, run.data_root, train=True, faults=Faults(collect=True))
        whole = open_source({**spec, "part": ""}, run.data_root, train=True, faults=Faults(collect=True))
        there = len({parts.image_of(called) for called in getattr(whole, "pictures", list)()} - {""})
        names[name], held[name], rows, pictures = source.name, parts.count(there), rows + len(source), pictures + there
        _check_pictures(source)
        indices = np.unique(np.linspace(0, len(source) - 1, SAMPLE).astype(np.int64))
        measured.append(lengths.of_source(source, indices))
        found_tasks, most = _tasks(source, indices)
        images = max(images, most)
        tasks.update(found_tasks)
        scored[name] = _scored(set(found_tasks)) if held[name] else ""
        if held[name] and not _evaluable({**spec, "part": "test"}, run.data_root):
            scored[name] = ""
            only_train.add(name)
    all_lengths = np.concatenate(measured)
    if not (all_lengths > 0).any():
        raise VlaxError(
            f"stage.data: none of the rows of {', '.join(names.values())} can be read; python -m vlax data doctor says why"
        )
    measured_lengths = all_lengths[all_lengths > 0]
    return Data(specs, names, held, scored, only_train, rows, pictures, dict(tasks), measured_lengths, model, images)


def _check_pictures(source: Source) -> None:
    """VlaxError where neither the first row's picture opens, nor the last one's, nor one between: they lie elsewhere."""
    faults = []
    for index in (0, len(source) // 2, len(source) - 1):
        try:
            if (picture := source[index].picture) is not None:
                picture.open()
            return
        except VlaxError as error:
            faults.append(error)
    raise VlaxError(f"{faults[0]}. If the pictures lie in another folder: --config.stage.data_is.images=DIR")


def _tasks(source: Source, indices: np.ndarray) -> tuple[collections.Counter[str], int]:
    """(how many rows of each task, the most pictures that one of them has)"""
    found, most = collections.Counter[str](), 1
    for index in indices.tolist():
        try:
            row = source[index]
        except RowFault:  # training counts it
            continue
        found[row.task] += 1
        most = max(most, len(row.pictures))
    return found, most


def _scored(tasks: set[str]) -> str:
    """The task of the suite that rows of these tasks can be scored by; "" for none."""
    if len(tasks) == 1:
        return next((task for task in LONG if task in tasks), "")
    return "caption" if tasks == {"caption", "describe"} else ""


def _evaluable(spec: dict[str, Any], data_root: str) -> bool:
    """Whether a source has rows to evaluate on: a set that was prepared to train on has none."""
    try:
        open_source(spec, data_root, train=False, faults=Faults(collect=True))
    except VlaxError:
        return False
    return True
