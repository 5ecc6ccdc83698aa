"""Scores of predictions beside their blind twin and a prior: per-row values, intervals, scores.json, table and sheet."""

import json
from collections.abc import Mapping, Sequence

from etils import epath

from vlax.data.sources import open_source
from vlax.evaluation.captions import caption_scores_by_image
from vlax.evaluation.prior import best_constant_caption, question_majority
from vlax.evaluation.sheet import Sample, write_sheet
from vlax.evaluation.statistics import bootstrap_interval, paired_interval
from vlax.evaluation.table import ScoreRow
from vlax.evaluation.vqa import score_vqa, vqa_scores_by_question

FLAVOUR = "vqav2@official"


def by_row(lines: Sequence[Mapping], metrics: Sequence[str] = ("Bleu", "METEOR", "ROUGE_L", "CIDEr")):
    """(scores of a set, {metric: {row id: value}} for the metrics that are means over rows, so that intervals make sense)."""
    references = {line["id"]: line["references"] for line in lines}
    predictions = {line["id"]: line["prediction"] for line in lines}
    if lines[0]["task"] == "question":
        types = {line["id"]: line["answer_type"] or "other" for line in lines}
        scores = score_vqa(references, predictions, FLAVOUR, types)
        values = vqa_scores_by_question(references, predictions, FLAVOUR)
        parts = {f"accuracy[{t}]": {i: v for i, v in values.items() if types[i] == t} for t in sorted(set(types.values()))}
        return scores, {"accuracy": values, **parts}
    scores, values = caption_scores_by_image(references, predictions, metrics)
    return scores, {name: values[name] for name in ("CIDEr", "ROUGE_L") if name in values}


def prior_lines(lines: Sequence[Mapping], specs: Mapping, data_root: str) -> list[dict]:
    """The same lines with the predictions of a prior that sees no image; the prior is fitted on specs.train."""
    train = open_source(specs["train"], data_root, train=True)
    if lines[0]["task"] == "question":
        prior = question_majority((t.question, t.answer) for i in range(len(train)) for t in train[i].turns)
        return [{**line, "prediction": prior.answer(line["question"])} for line in lines]
    held_out = open_source(specs["validation"], data_root, train=False)
    candidates = [turn.answer for i in range(len(train)) for turn in train[i].turns]
    references = {row.id: row.references for row in map(held_out.__getitem__, range(len(held_out)))}
    constant = best_constant_caption(candidates, references)
    return [{**line, "prediction": constant} for line in lines]


def score_sets(
    lines: Sequence[Mapping], twin: Sequence[Mapping] | None, priors: Mapping, data_root: str
) -> tuple[dict, list[ScoreRow]]:
    """(JSON-ready {set: {metric: {score, interval, twin, prior, over_twin, over_prior}}}, rows of the table)."""
    out: dict[str, dict] = {}
    table: list[ScoreRow] = []
    for name in dict.fromkeys(line["set"] for line in lines):
        mine = [line for line in lines if line["set"] == name]
        clusters = {line["id"]: line["image_id"] for line in mine}
        scores, values = by_row(mine)
        other = by_row([line for line in twin if line["set"] == name]) if twin else None
        prior = by_row(prior_lines(mine, priors[name], data_root)) if name in priors else None
        out[name] = {}
        for metric, score in scores.items():
            row = {"score": score, "twin": other[0][metric] if other else None, "prior": prior[0][metric] if prior else None}
            if metric in values:
                within = {i: clusters[i] for i in values[metric]}
                row["interval"] = bootstrap_interval(values[metric], clusters=within)
                for key, base in (("over_twin", other), ("over_prior", prior)):
                    row[key] = paired_interval(values[metric], base[1][metric], clusters=within) if base else None
            out[name][metric] = row
            table.append(ScoreRow(f"{name} {metric}", **row))
        out[name]["rows"] = len(mine)
    return out, table


def compare(lines: Sequence[Mapping], others: Sequence[Mapping]) -> list[str]:
    """One line a metric: the mean difference to other predictions of the same rows, with its paired 95 % interval."""
    out = []
    for name in dict.fromkeys(line["set"] for line in lines):
        mine, theirs = ([line for line in part if line["set"] == name] for part in (lines, others))
        if not theirs:
            continue
        values, base = by_row(mine)[1], by_row(theirs)[1]
        clusters = {line["id"]: line["image_id"] for line in mine}
        for metric in values:
            d = paired_interval(values[metric], base[metric], clusters={i: clusters[i] for i in values[metric]})
            out.append(f"{name} {metric}: {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]")
    return out


def flat(sets: Mapping) -> dict[str, float]:
    """The headline figures: {"CIDEr": ..., "accuracy": ...}, of the first set that has them."""
    out: dict[str, float] = {}
    for metrics in sets.values():
        for name, value in metrics.items():
            if name != "rows":
                out.setdefault(name, value["score"])
    return out


def write_scores(directory: epath.Path, sets: Mapping, proto: Mapping) -> dict:
    """scores.json: headline figures, everything by set, and the protocol."""
    scores = {**flat(sets), "sets": sets, "protocol": proto}
    (directory / "scores.json").write_text(json.dumps(scores, indent=1, sort_keys=True))
    return scores


def sheet(path, lines: Sequence[Mapping], twin, tests, title: str, subtitle: str, count: int = 12) -> None:
    """A PNG of samples: evenly spaced over the rows sorted by score, so that the best and the worst are on it."""
    rows = {(test.name, row.id): row for test in tests for row in test.rows}
    other = {(line["set"], line["id"]): line["prediction"] for line in twin or ()}
    samples = []
    names = list(dict.fromkeys(line["set"] for line in lines))
    for name in names:
        mine = [line for line in lines if line["set"] == name]
        metric = "accuracy" if mine[0]["task"] == "question" else "CIDEr"
        values = by_row(mine, ("CIDEr",))[1][metric]
        ordered = sorted(mine, key=lambda line: (-values[line["id"]], line["id"]))
        share = max(1, count // len(names))
        picked = [ordered[round(i * (len(ordered) - 1) / max(1, share - 1))] for i in range(min(share, len(ordered)))]
        for line in picked:
            row = rows[name, line["id"]]
            if row.open_image is not None:
                samples.append(Sample(row.open_image(), line["question"], line["prediction"], tuple(line["references"][:2]),
                                      values[line["id"]], other.get((name, line["id"]))))  # fmt: skip
    write_sheet(str(path), samples, title, subtitle)
