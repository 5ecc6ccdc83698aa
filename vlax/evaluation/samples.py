"""The rows that people look at: a contact sheet (samples.png) and the report (report.html) of one evaluation."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from vlax.evaluation import made, runner, scoring, trained_on
from vlax.evaluation.compare import Kept, Pair
from vlax.evaluation.report.attention import answer_attention
from vlax.evaluation.report.report import ReportSample, write_report
from vlax.evaluation.report.sheet import write_sheet
from vlax.evaluation.runner import Evaluation, TestSet
from vlax.model.api import Model
from vlax.params import distributed
from vlax.rows import Row

SHEET = 12  # pictures
ByWhom = Mapping[str, scoring.Scored]  # of "model", "twin" and "prior"


def spread(lines: Sequence[Mapping], values: Mapping[str, float], count: int) -> list[Mapping]:
    """`count` lines evenly spaced over those sorted from best to worst, so that the best and the worst are among them."""
    ordered = sorted(lines, key=lambda line: (-values[line["id"]], line["id"]))
    count = min(count, len(ordered))
    return [ordered[round(i * (len(ordered) - 1) / max(1, count - 1))] for i in range(count)]


def telling(lines: Sequence[Mapping], values: Mapping[str, float], count: int) -> list[Mapping]:
    """`count` lines in their own order: a quarter the worst, a quarter the best, the others spread over what lies between."""
    ordered = sorted(lines, key=lambda line: (-values[line["id"]], line["id"]))
    if len(ordered) <= count:
        return list(lines)
    edge = max(1, count // 4)
    middle = spread(ordered[edge:-edge], values, count - 2 * edge)
    kept = {line["id"] for line in (*ordered[:edge], *middle, *ordered[-edge:])}
    return [line for line in lines if line["id"] in kept]


def sheet(mine: Evaluation, twin: Evaluation | None, scored: Mapping[str, ByWhom]) -> None:
    """samples.png: rows from best to worst, beside the blind twin's answers."""
    shown: list[ReportSample] = []
    of_all = {test.name: _values(test, scored[test.name]["model"]) for test in mine.sets}
    for test in mine.sets:
        pictured, values = {row.id for row in test.rows if row.picture}, _values(test, scored[test.name]["model"])
        lines = [line for line in mine.lines[test.name] if line["id"] in values and line["id"] in pictured]
        chosen = spread(lines, values, max(1, SHEET // len(mine.sets)))
        shown += _report_samples(mine, twin, test, chosen, scored[test.name], attention=False)
    if shown:
        write_sheet(mine.directory / "samples.png", shown, mine.title, f"{_summary(mine)}; rows from best to worst", of_all)


def report(
    mine: Evaluation,
    twin: Evaluation | None,
    scored: Mapping[str, ByWhom],
    count: int,
    other: Kept | None = None,
    pairs: Mapping[str, Pair] = {},
    name: str = "report.html",
) -> None:
    """The HTML report with up to `count` rows a set, beside its twin's answers and those of another evaluation."""
    rows: list[ReportSample] = []
    for test in mine.sets:
        lines, values = mine.lines[test.name], _values(test, scored[test.name]["model"])
        chosen = telling([line for line in lines if line["id"] in values], values, count)
        rows += _report_samples(mine, twin, test, chosen, scored[test.name], other, pairs.get(test.name))
    against = None if other is None else {
        "title": other.title, "sets": {name: other.scores["sets"][p.its_name] for name, p in pairs.items()},
        "differences": {name: pair.differences for name, pair in pairs.items()},
        "protocol": {"sets": {name: other.scores["protocol"]["sets"][p.its_name] for name, p in pairs.items()}},
        "about": made.read(other.directory),
    }  # fmt: skip
    notes = [f"The samples of {t.name} are {count:,} of {len(t.rows):,} rows: a quarter the worst, a quarter the best, "
             "the others spread over what lies between." for t in mine.sets if len(t.rows) > count]  # fmt: skip
    if mine.model and distributed.hosts() > 1:
        notes.append("Attention is drawn on one host: run eval.py there, and the predictions are read, not made again.")
    notes = [*trained_on.notes(mine.about.get("trained_on", {})), *notes]
    sets = {test.name: mine.scores["sets"][test.name] for test in mine.sets}
    protocol = {"sets": {name: mine.scores["protocol"]["sets"][name] for name in sets}}
    of_all = {test.name: _values(test, scored[test.name]["model"]) for test in mine.sets}
    write_report(mine.directory / name, title=mine.title, subtitle=_summary(mine), sets=sets, formulas=mine.scores["formulas"],
                 protocol=protocol, samples=rows, values=of_all, about=made.read(mine.directory), other=against,
                 notes=notes)  # fmt: skip


def _summary(mine: Evaluation) -> str:
    headlines = {t.name: scoring.headline(t.suite) for t in mine.sets}
    return ", ".join(f"{name} {m} {mine.scores['sets'][name][m]['score']:.3f}" for name, m in headlines.items())


def _report_samples(
    mine: Evaluation,
    twin: Evaluation | None,
    test: TestSet,
    lines: Sequence[Mapping],
    scored: ByWhom,
    other: Kept | None = None,
    pair: Pair | None = None,
    attention: bool = True,
) -> list[ReportSample]:
    model_scores, headline = scored["model"], scoring.headline(test.suite)
    by_id = {row.id: row for row in test.rows}
    twin_values = _values(test, scored["twin"]) if "twin" in scored else {}
    twins = _by_id(twin.lines[test.name]) if twin else {}
    others = _by_id(other.lines[pair.its_name]) if other and pair else {}
    other_values = _values(test, pair.theirs) if pair else {}
    ordered = [headline, *(m for m in model_scores.scores if m != headline)]
    drawn = attention and distributed.hosts() == 1 and mine.model is not None and mine.model.config.anyres is None
    model = mine.model if drawn else None
    maps: Sequence[Sequence] = _attention(model, test, lines) if model else [()] * len(lines)
    out = []
    for line, seen in zip(lines, maps, strict=True):
        i, row = line["id"], by_id[line["id"]]
        values = {m: model_scores.by_row[m][i] for m in ordered if i in model_scores.by_row[m]}
        out.append(ReportSample(
            test.name, i, _seen(mine.model, row), line["question"], line["prediction"], tuple(line["references"]),
            line["answer_type"], values, twins.get(i), twin_values.get(i), others.get(i), other_values.get(i), tuple(seen),
        ))  # fmt: skip
    return out


def _seen(model: Model | None, row: Row) -> Image.Image | None:
    """The picture as the tower sees it from edge to edge: cropped where it is cropped there, in its own resolution. Of several,
    and of a picture's tiles, squares of one size side by side, as their attention is, parted by white lines."""
    preprocess = model.config.preprocess if model else None
    if model and preprocess and model.config.tiles and not preprocess.anyres:
        images = [Image.fromarray(view) for p in row.pictures for view in p.views(preprocess, model.config.tiles)]
    else:
        images = [preprocess.frame(p.open()) if preprocess else p.open() for p in row.pictures]
    if len(images) < 2:
        return images[0] if images else None
    side = max(max(image.size) for image in images)
    strip = Image.new("RGB", (side * len(images), side))
    for n, image in enumerate(images):
        strip.paste(image.convert("RGB").resize((side, side)), (n * side, 0))
    edge = max(1, side // 64)  # a line over both pictures' rims and not between them: attention lies where its picture does
    for at in range(side, strip.width, side):
        strip.paste("white", (at - edge, 0, at + edge, side))
    return strip


def _attention(model: Model, test: TestSet, lines: Sequence[Mapping]) -> list[list[tuple[str, np.ndarray]]]:
    by_id = {row.id: row for row in test.rows}
    rows = [by_id[line["id"]] for line in lines]
    with ThreadPoolExecutor(runner.THREADS) as pool:
        asked = runner.requests(model, test, rows, pool)
    return answer_attention(model, asked, [line["prediction"] for line in lines])


def _values(test: TestSet, scored: scoring.Scored) -> Mapping[str, float]:
    """The headline's value of every row; rows that it says nothing about count 0."""
    return scored.by_row[scoring.headline(test.suite)]


def _by_id(lines: Sequence[Mapping]) -> dict[str, str]:
    return {line["id"]: line["prediction"] for line in lines}
