"""Scores of predictions beside their blind twin and a prior: values by row, intervals, JSON and table."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from etils import epath

from vlax.data.sources import open_source
from vlax.evaluation import vqa
from vlax.evaluation.captions import CAPTION_FORMULAS, CaptionScorer
from vlax.evaluation.prior import best_constant_caption, question_majority
from vlax.evaluation.protocol import Suite
from vlax.evaluation.statistics import Pooled, bootstrap_interval, paired_interval
from vlax.evaluation.table import ScoreRow

Values = Mapping[str, float] | Pooled  # {row id: value}, or counts by row


@dataclasses.dataclass(frozen=True)
class Scored:
    """One set of predictions: {metric: score}, and by metric what the score is made of, row by row."""

    scores: dict[str, float]
    values: dict[str, Values]

    def row_values(self, metric: str) -> Mapping[str, float]:
        """{row id: value} of a metric that is a mean over rows."""
        return self.values[metric]


@contextlib.contextmanager
def scorer(suite: Suite, lines: Sequence[Mapping]) -> Iterator[Callable[[Sequence[Mapping]], Scored]]:
    """What scores predictions of these rows, as often as it is called; Java is started once."""
    references = {line["id"]: line["references"] for line in lines}
    if not suite.is_caption:
        types = {line["id"]: line["answer_type"] or None for line in lines}
        yield lambda lines: _answers(suite, references, {line["id"]: line["prediction"] for line in lines}, types)
        return
    with CaptionScorer(references, suite.metrics) as captions:

        def score(lines: Sequence[Mapping]) -> Scored:
            scores, by_image = captions({line["id"]: line["prediction"] for line in lines})
            pooled = captions.pooled()
            return Scored(scores, {name: pooled.get(name, by_image[name]) for name in scores})

        yield score


def _answers(suite: Suite, references: Mapping, answers: Mapping, types: Mapping) -> Scored:
    """The first flavour's scores go by their own names, those of further ones by "FLAVOUR: NAME"."""
    values: dict[str, Values] = {}
    for number, flavour in enumerate(suite.metrics):
        for name, by_row in vqa.vqa_values(references, answers, flavour, types).items():
            if number == 0 or "[" not in name:
                values[name if number == 0 else f"{flavour}: {name}"] = by_row
    return Scored({name: sum(by_row.values()) / len(by_row) for name, by_row in values.items()}, values)


def headline(suite: Suite) -> str:
    """The metric that a suite is summed up by: the first."""
    return suite.metrics[0] if suite.is_caption else vqa.HEADLINE[suite.metrics[0]]


def formulas(suite: Suite, metrics: Iterable[str]) -> dict[str, str]:
    """{metric: how it is computed, and whose rule that is} of a suite's scores."""
    if suite.is_caption:
        return {metric: CAPTION_FORMULAS[metric] for metric in metrics if metric in CAPTION_FORMULAS}
    first, *others = suite.metrics
    known = vqa.formulas(first) | {f"{f}: {name}": text for f in others for name, text in vqa.formulas(f).items()}
    parts = {m: m.partition("[") for m in metrics}
    return {m: known[m] if m in known else f"{base} over the questions of type {kind[:-1]}: {known[base]}"
            for m, (base, _, kind) in parts.items() if base in known}  # fmt: skip


def prior_lines(lines: Sequence[Mapping], suite: Suite, data_root: str) -> list[dict] | None:
    """The same lines with the predictions of a prior that sees no image, fitted on the suite's training set; None where the
    suite names none."""
    if "train" not in suite.data or (suite.is_caption and "validation" not in suite.data):
        return None
    train = open_source(suite.data["train"], data_root, train=True)
    if not suite.is_caption:
        prior = question_majority((t.question, t.answer) for i in range(len(train)) for t in train[i].turns)
        return [{**line, "prediction": prior.answer(line["question"])} for line in lines]
    held_out = open_source(suite.data["validation"], data_root, train=False)
    candidates = [turn.answer for i in range(len(train)) for turn in train[i].turns]
    references = {row.id: row.references for row in map(held_out.__getitem__, range(len(held_out)))}
    constant = best_constant_caption(candidates, references)
    return [{**line, "prediction": constant} for line in lines]


def score_set(
    suite: Suite, lines: Sequence[Mapping], twin: Sequence[Mapping] | None, prior: Sequence[Mapping] | None
) -> tuple[dict, dict[str, Scored]]:
    """(JSON-ready {metric: {score, interval, twin, prior, over_twin, over_prior}, "rows": n}, the Scored of "model", "twin" and
    "prior" as far as they are there)."""
    with scorer(suite, lines) as score:
        scored = {name: score(part) for name, part in (("model", lines), ("twin", twin), ("prior", prior)) if part}
    clusters = {line["id"]: line["image_id"] or line["id"] for line in lines}
    mine, out = scored["model"], {}
    for metric, value in mine.scores.items():
        row = {"score": value, "interval": bootstrap_interval(mine.values[metric], clusters=clusters)}
        for name, key in (("twin", "over_twin"), ("prior", "over_prior")):
            base = scored.get(name)
            row[name] = base.scores[metric] if base else None
            row[key] = paired_interval(mine.values[metric], base.values[metric], clusters=clusters) if base else None
        out[metric] = row
    out["rows"] = len(lines)
    return out, scored


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


def write_scores(directory: epath.Path, sets: Mapping, protocols: Mapping[str, Mapping], about: Mapping) -> dict:
    """scores.json: figures by metric, everything by set, the protocol of each set with one hash over all, and `about`: model,
    formulas and where the data lay, which are no part of the protocol."""
    from vlax.evaluation.protocol import digest

    together = {"hash": digest({name: p["hash"] for name, p in protocols.items()}), "sets": protocols}
    scores = {**flat(sets), "sets": sets, "protocol": together, **about}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "scores.json").write_text(json.dumps(scores, indent=1, sort_keys=True))
    return scores
