"""Scores of predictions beside their blind twin and a prior: values by row, intervals, JSON and table."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from etils import epath

from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.evaluation.table import ScoreRow
from vlax.scores import vqa
from vlax.scores.captions import CAPTION_FORMULAS, CaptionScorer
from vlax.scores.closed import closed_difference, closed_interval
from vlax.scores.prior import best_constant_caption, question_majority
from vlax.scores.statistics import Interval, Pooled, bootstrap_interval, paired_interval
from vlax.storage import state
from vlax.suites.protocol import Suite, digest

FEW_PICTURES = 20
Values = Mapping[str, float] | Pooled  # {row id: value}, or counts by row


@dataclasses.dataclass(frozen=True)
class Scored:
    """One set of predictions: {metric: score}; by metric what a bootstrap resamples; and what to show beside a row."""

    scores: dict[str, float]
    values: dict[str, Values]
    by_row: Mapping[str, Mapping[str, float]]


class Scorer:
    """What scores predictions of a set's rows, the same predictions once. Within its `with` METEOR is started once; references
    are tokenised once at all."""

    def __init__(self, suite: Suite, lines: Sequence[Mapping]):
        self._suite, self._known = suite, dict[tuple[str, ...], Scored]()
        self._references = {line["id"]: line["references"] for line in lines}
        self._types = {line["id"]: line["answer_type"] or None for line in lines}
        self._captions = CaptionScorer(self._references, suite.metrics) if suite.is_caption else None

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(self, *exception: object) -> None:
        self._known.clear()
        if self._captions:
            self._captions.__exit__(*exception)

    def __call__(self, lines: Sequence[Mapping]) -> Scored:
        predictions = {line["id"]: line["prediction"] for line in lines}
        key = (*predictions, *predictions.values())
        if key not in self._known:
            self._known[key] = self._scored(predictions)
        return self._known[key]

    def _scored(self, predictions: Mapping[str, str]) -> Scored:
        if not self._captions:
            return _answers(self._suite, self._references, predictions, self._types)
        scores, by_image = self._captions(predictions)
        pooled = self._captions.pooled()
        return Scored(scores, {name: pooled.get(name, by_image[name]) for name in scores}, by_image)


def _answers(suite: Suite, references: Mapping, answers: Mapping, types: Mapping) -> Scored:
    """The first flavour's scores go by their own names, those of further ones by "FLAVOUR: NAME"."""
    values: dict[str, Mapping[str, float]] = {}
    for number, flavour in enumerate(suite.metrics):
        for name, by_row in vqa.vqa_values(references, answers, flavour, types).items():
            if number == 0 or "[" not in name:
                values[name if number == 0 else f"{flavour}: {name}"] = by_row
    return Scored({name: sum(by_row.values()) / len(by_row) for name, by_row in values.items()}, {**values}, values)


def headline(suite: Suite) -> str:
    """The metric that a suite is summed up by: the first; of BLEU, that of four-grams."""
    if suite.is_caption:
        return "Bleu_4" if suite.metrics[0] == "Bleu" else suite.metrics[0]
    return vqa.HEADLINE[suite.metrics[0]]


def formulas(suite: Suite, metrics: Iterable[str]) -> dict[str, str]:
    """{metric: how it is computed, and whose rule that is} of a suite's scores."""
    if suite.is_caption:
        return {metric: CAPTION_FORMULAS[metric] for metric in metrics if metric in CAPTION_FORMULAS}
    first, *others = suite.metrics
    known = vqa.formulas(first) | {f"{f}: {name}": text for f in others for name, text in vqa.formulas(f).items()}
    parts = {m: m.partition("[") for m in metrics}
    return {m: known[m] if m in known else f"{base} over the questions of type {kind[:-1]}: {known[base]}"
            for m, (base, _, kind) in parts.items() if base in known}  # fmt: skip


Prior = Callable[[Mapping], str]  # line -> what one who sees no picture would answer


def fit_prior(suite: Suite, data_root: str) -> Prior | None:
    """The suite's prior, fitted on its training set; None, with a line that says so, where there is no such set. It is fitted
    before anything is decoded, so that a missing Java is known by then."""
    if "train" not in suite.data or (suite.is_caption and "validation" not in suite.data):
        return None
    try:
        train = open_source(suite.data["train"], data_root, train=True)
        held_out = open_source(suite.data["validation"], data_root, train=False) if suite.is_caption else None
    except VlaxError as error:
        print(f"{suite.name}: no prior, since its training set cannot be read ({error})", flush=True)
        return None
    if held_out is None:
        majority = question_majority((t.question, t.answer) for i in range(len(train)) for t in train[i].turns)
        return lambda line: majority.answer(line["question"])
    candidates = [turn.answer for i in range(len(train)) for turn in train[i].turns]
    constant = best_constant_caption(
        candidates, {row.id: row.references for row in map(held_out.__getitem__, range(len(held_out)))}
    )
    return lambda line: constant


def score_set(
    suite: Suite, lines: Sequence[Mapping], twin: Sequence[Mapping] | None, prior: Prior | None, score: Scorer | None = None
) -> tuple[dict, dict[str, Scored]]:
    """(JSON-ready {metric: {score, interval, twin, prior, over_twin, over_prior}, "rows": n}, the Scored of "model", "twin" and
    "prior" as far as they are there). Over one picture there are no intervals: nothing could be drawn instead of it.

    score: of these rows, where more than this is scored of them.
    """
    if score is None:
        with Scorer(suite, lines) as own:
            return score_set(suite, lines, twin, prior, own)
    constant = [{**line, "prediction": prior(line)} for line in lines] if prior else None
    scored = {name: score(part) for name, part in (("model", lines), ("twin", twin), ("prior", constant)) if part}
    clusters = {line["id"]: line["image_id"] or line["id"] for line in lines}
    pictures = len(set(clusters.values()))
    if pictures < FEW_PICTURES:
        print(f"{suite.name}: {pictures} pictures are few; intervals over so few are too narrow", flush=True)
    mine = scored["model"]
    out: dict[str, Any] = {}
    for metric, value in mine.scores.items():
        row: dict[str, Any] = {
            "score": value,
            "interval": interval(mine.values[metric], clusters, suite) if pictures > 1 else None,
        }
        for name, key in (("twin", "over_twin"), ("prior", "over_prior")):
            base = scored.get(name)
            row[name] = row[key] = None
            if base is not None and metric in base.values:
                row[name] = base.scores[metric]
                if pictures > 1:
                    row[key] = difference(mine.values[metric], base.values[metric], clusters, suite)
        out[metric] = row
    out["rows"] = len(lines)
    return out, scored


def interval(values: Values, clusters: Mapping[str, str], suite: Suite) -> Interval:
    """Of a score: answers are right or wrong, captions better or worse."""
    if isinstance(values, Pooled) or suite.is_caption:
        return bootstrap_interval(values, clusters=clusters)
    return closed_interval(values, clusters)


def difference(ours: Values, theirs: Values, clusters: Mapping[str, str], suite: Suite) -> Interval:
    """Of ours minus theirs, on the same rows."""
    if isinstance(ours, Pooled) or isinstance(theirs, Pooled) or suite.is_caption:
        return paired_interval(ours, theirs, clusters=clusters)
    return closed_difference(ours, theirs, clusters)


def table_rows(sets: Mapping[str, Mapping]) -> list[ScoreRow]:
    """The rows of the printed table."""
    return [ScoreRow(f"{name} {metric}", **row) for name, metrics in sets.items()
            for metric, row in metrics.items() if metric != "rows"]  # fmt: skip


def flat(sets: Mapping) -> dict[str, float]:
    """The figures by metric: {"CIDEr": ..., "accuracy": ...}, of the first set that has them."""
    out: dict[str, float] = {}
    for metrics in sets.values():
        for name, value in metrics.items():
            if name != "rows":
                out.setdefault(name, value["score"])
    return out


def by_name(scores: Mapping) -> dict[str, float]:
    """What scores.json holds as {"SET METRIC": score}."""
    return {f"{name} {metric}": row["score"] for name, metrics in scores.get("sets", {}).items()
            for metric, row in metrics.items() if metric != "rows"}  # fmt: skip


def write_scores(directory: epath.Path, sets: Mapping, protocols: Mapping[str, Mapping], about: Mapping) -> dict:
    """scores.json: figures by metric, everything by set, the protocol of each set with one hash over all, and `about`: model,
    formulas and where the data lay, which are no part of the protocol."""
    together = {"hash": digest({name: p["hash"] for name, p in protocols.items()}), "sets": protocols}
    scores = {**flat(sets), "sets": sets, "protocol": together, **about}
    directory.mkdir(parents=True, exist_ok=True)
    state.write_json(directory / "scores.json", scores, indent=1)
    return scores
