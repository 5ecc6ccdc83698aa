"""What is measured of a trained arm: scores by row beside the blind twin's, held-out losses and their curves, perplexity."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from etils import epath

from vlax.errors import VlaxError
from vlax.evaluation import predictions, runner, scoring
from vlax.evaluation.runner import TestSet
from vlax.findings.experiment import Outcome
from vlax.model import opening
from vlax.model.api import Model
from vlax.models.build import DTYPES, abstract_model
from vlax.rows import Row
from vlax.scores.statistics import Pooled
from vlax.storage import state
from vlax.suites import protocol
from vlax.training import held_out, metrics, session, stages, start
from vlax.training.stages import StagePlan

Found = dict[str, Any]  # of one outcome: score, and by its kind twin, values, pictures, mask, curve


class Bench:
    """Scores exports on suites. Test sets are opened and programs are compiled once for all arms of a shape."""

    def __init__(self, data_root: str):
        self.root = data_root
        self._sets: dict[str, TestSet] = {}
        self._scorers: dict[str, scoring.Scorer] = {}  # each keeps its references' tokens
        self._models: dict[Any, Model] = {}

    def score(self, plan: StagePlan, outcome: Outcome) -> Found:
        """{"score", "twin", "values": {row id: value}, "pictures": {row id: image id}, "mask"}"""
        content = plan.stage.suites[outcome.suite].to_dict()
        key = json.dumps([outcome.suite, outcome.metric, content], sort_keys=True)
        if key not in self._sets:
            self._sets[key] = self._opened(outcome, content)
        test = self._sets[key]
        model = self._model(plan, outcome.mask)
        mine = self._scored(key, model, test, test.rows, outcome)
        blind = self._scored(key, model, test, runner.derange(test.rows, plan.run.seed), outcome)
        pictures = {row.id: row.image_id or row.id for row in test.rows}
        return {"score": _mean(mine), "twin": _mean(blind), "values": mine, "pictures": pictures, "mask": model.config.mask}

    def _opened(self, outcome: Outcome, content: Mapping[str, Any]) -> TestSet:
        suite = protocol.from_dict(outcome.suite, content)
        asked = tuple(name for name in suite.metrics if outcome.metric.startswith(name)) or suite.metrics[:1]
        [test] = runner.open_sets([dataclasses.replace(suite, metrics=asked)], self.root)
        return test

    def _model(self, plan: StagePlan, mask: str) -> Model:
        """The Model of a stage's export, with the compiled programs of the last one of its shapes."""
        loaded = opening.load(str(plan.export), dtype=plan.run.dtype, templates=plan.run.templates)
        config = loaded.config
        if mask:
            other = "causal" if config.mask == "image_bidirectional" else "image_bidirectional"
            config = dataclasses.replace(config, mask=other)
            loaded = dataclasses.replace(loaded, config=config, graphdef=abstract_model(config, DTYPES[plan.run.dtype])[0])
        key = (repr(config), loaded.manifest.get("tokenizer"), loaded.manifest.get("templates"))
        model = self._models.setdefault(key, loaded)
        model.params, model.manifest, model.where = loaded.params, loaded.manifest, loaded.where
        return model

    def _scored(self, key: str, model: Model, test: TestSet, rows: Sequence[Row], outcome: Outcome) -> dict[str, float]:
        """{row id: value}"""
        answers = [text for _, batch in runner.texts(model, test, rows) for text in batch]
        lines = [predictions.line("", test.name, row, text) for row, text in zip(rows, answers, strict=True)]
        lines = predictions.finished(lines, test.suite)
        if key not in self._scorers:
            self._scorers[key] = scoring.Scorer(test.suite, lines)
        with self._scorers[key] as score:
            values = score(lines).values
        if isinstance(values.get(outcome.metric), Pooled) or outcome.metric not in values:
            known = [name for name, each in values.items() if not isinstance(each, Pooled)]
            raise VlaxError(f"outcome {outcome.name}: {outcome.metric!r} is no mean over rows of {test.name}; there are "
                            f"{', '.join(known) or 'none'}")  # fmt: skip
        return {str(row): float(value) for row, value in values[outcome.metric].items()}  # type: ignore[union-attr]


def measure(bench: Bench, outcome: Outcome, plan: StagePlan) -> Found:
    """One outcome of one arm and seed; plan: of the outcome's stage."""
    if outcome.of == "suite":
        return bench.score(plan, outcome)
    if outcome.of == "perplexity":
        return {"score": math.exp(min(_at_the_beginning(plan)[f"loss/{outcome.source}"], 50.0))}
    points = curve(plan.directory, outcome.source)
    return {"score": points[-1][1], "curve": points}


def curve(directory: epath.Path, source: str) -> list[list[float]]:
    """[[share of the stage's updates, held-out loss], ...]. VlaxError where there is none."""
    length = state.read(directory / stages.LENGTH, "train the stage again")
    updates = length["micro_steps"] // length["per_update"]
    records = [each for each in metrics.read(directory) if each["kind"] == "validation" and f"loss/{source}" in each]
    if not records:
        raise VlaxError(f"{directory}/metrics.jsonl has no held-out loss of {source}; delete the directory and run again")
    return [[each["step"] / updates, each[f"loss/{source}"]] for each in records]


def _at_the_beginning(plan: StagePlan) -> dict[str, float]:
    built = session.build(plan)
    with jax.set_mesh(built.mesh):
        return held_out.held_out(built, *start.initial_state(built))


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)
