"""The report of an evaluation: one HTML file with scores, samples and attention, which opens offline.

    write_report("eval/report.html", title="stage 4", subtitle="scenes", sets=sets,
                 protocol={"sets": {"captions": {"hash": "eef7b522", "beams": 1}}},
                 formulas={"captions": {"CIDEr": "..."}}, samples=[ReportSample("captions", "test/7", image, ...)])

The page is `template/`, filled by `page.py`; pictures and attention are packed by `pack.py`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from etils import epath
from PIL import Image

from vlax.errors import VlaxError
from vlax.evaluation.report.grades import grades, has_verdict
from vlax.evaluation.report.pack import Pictures, pack_attention
from vlax.evaluation.report.page import page

_HEADLINES = ("CIDEr", "accuracy")  # of a set without samples


@dataclasses.dataclass(frozen=True)
class ReportSample:
    """One card of the report.

    set          one of the sets whose scores are shown
    id           of the row, unique in its set
    image        any mode and size, None for a text-only row. Attention is drawn over it from edge to edge: where the tower
                 crops or pads, pass what the tower saw
    prompt       the question; "" for a caption
    prediction   what the model said; like all words here it is shown as text, never as markup
    references   what humans said; equal ones are counted ("blue ×8")
    answer_type  "yes/no", "number", ...; "" where there is none
    scores       {"accuracy": 0.6, ...} of this sample; the first is the headline that sorts and grades
    twin         the blind twin's words, with their headline score
    other        the second run's words, with their headline score
    attention    (token, float[h,w]) for each generated token, one grid for all; no negative values
    """

    set: str
    id: str
    image: Image.Image | None
    prompt: str
    prediction: str
    references: tuple[str, ...]
    answer_type: str
    scores: dict[str, float]
    twin: str | None = None
    twin_score: float | None = None
    other: str | None = None
    other_score: float | None = None
    attention: tuple[tuple[str, np.ndarray], ...] = ()


def write_report(
    path: epath.Path | str,
    *,
    title: str,
    subtitle: str,
    sets: Mapping,
    formulas: Mapping[str, Mapping[str, str]],
    protocol: Mapping,
    samples: Sequence[ReportSample],
    values: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    about: Mapping[str, str] = MappingProxyType({}),
    other: Mapping | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Writes the report as one HTML file; missing folders are made.

    Args:
      path: the file, local or on an object store.
      title, subtitle: the head of the page.
      sets: {set: {metric: {score, interval, twin, prior, over_twin, over_prior}, "rows": n}} as `scoring.score_sets` gives it.
      formulas: {set: {metric: what it is}}; shown when the metric is opened.
      protocol: {"sets": {set: {..., "hash"}}}, a JSON tree; the hash of each set stands in the head, as on the terminal.
      samples: the cards, in the order that "original order" means. May be fewer than the rows that were scored.
      values: {set: {id: headline}} of all rows, among which a sample is graded (`grades.py`); else among the samples.
      about: {"model": ..., "date": ...}: what the report is about, shown in the head.
      other: a run: {"title", "sets", "differences": {set: {metric: Interval of this - other}}, "protocol", "about"} likewise.
      notes: what a reader must know before the scores, one paragraph each.

    Raises VlaxError: no sets; a sample of an unknown set, without scores, with a score that is not finite, with the id of
    another, or with attention of several grids or with negative or non-finite values.
    """
    if not sets:
        raise VlaxError(f"{path}: a report needs a set of scores; `sets` is empty.")
    _check(samples, sets)
    pictures = Pictures()
    headlines = {name: _headline(name, sets[name], samples) for name in sets}
    scores = {name: {s.id: next(iter(s.scores.values())) for s in samples if s.set == name} for name in sets}
    scores |= {name: {**scores[name], **mine} for name, mine in values.items() if name in scores}
    graded = {name: grades(headlines[name], scores[name]) for name in sets}
    data = {
        "sets": [
            {
                "name": name,
                "rows": metrics.get("rows"),
                "headline": headlines[name],
                "verdict": has_verdict(headlines[name], scores[name]),
                "metrics": _metrics(name, metrics, formulas.get(name, {}), other),
            }
            for name, metrics in sets.items()
        ],
        "samples": [_sample(s, pictures, graded[s.set][s.id]) for s in samples],
        "pictures": pictures.packed,
        "about": dict(about),
        "protocol": protocol,
        "other": {"title": other["title"], **{key: other.get(key, {}) for key in ("protocol", "about")}} if other else None,
        "notes": list(notes),
    }
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page(title, subtitle, data).encode())  # UTF-8 in any locale


def _check(samples: Sequence[ReportSample], sets: Mapping) -> None:
    seen = set()
    for sample in samples:
        name = f"sample {sample.id!r} of set {sample.set!r}"
        if sample.set not in sets:
            raise VlaxError(f"{name}: there are no scores of that set; the sets are {', '.join(map(repr, sets))}.")
        if (sample.set, sample.id) in seen:
            raise VlaxError(f"{name} is there twice; ids are unique in a set.")
        seen.add((sample.set, sample.id))
        if not sample.scores:
            raise VlaxError(f"{name} has no score; `scores` needs at least its headline, such as {{'accuracy': 0.0}}.")
        numbers = {**sample.scores, "twin_score": sample.twin_score, "other_score": sample.other_score}
        bad = {key: value for key, value in numbers.items() if value is not None and not math.isfinite(value)}
        if bad:
            raise VlaxError(f"{name}: a score must be finite; got {bad}.")


def _headline(name: str, metrics: Mapping, samples: Sequence[ReportSample]) -> str:
    """The samples' first score if the set has it, else CIDEr or accuracy, else the set's first metric."""
    first = next((next(iter(s.scores)) for s in samples if s.set == name), None)
    for metric in (first, *_HEADLINES, *metrics):
        if metric in metrics and metric != "rows":
            return metric
    raise VlaxError(f"set {name!r} has no metric; it holds {list(metrics)}.")


def _metrics(name: str, metrics: Mapping, formulas: Mapping[str, str], other: Mapping | None) -> list[dict]:
    theirs = other["sets"].get(name, {}) if other else {}
    differences = other.get("differences", {}).get(name, {}) if other else {}
    return [
        {
            "name": metric,
            "formula": formulas.get(metric, ""),
            **{key: _number(row.get(key)) for key in ("score", "twin", "prior")},
            **{key: _interval(row.get(key)) for key in ("interval", "over_twin", "over_prior")},
            "other": _number(theirs[metric].get("score")) if metric in theirs else None,
            "over_other": _interval(differences.get(metric)),
        }
        for metric, row in metrics.items()
        if metric != "rows"
    ]


def _number(value: float | None) -> float | None:
    """None for what is not finite, which JSON cannot hold; the page shows a dash."""
    return None if value is None or not math.isfinite(value) else float(value)


def _interval(interval: Sequence[float] | None) -> list[float] | None:
    numbers = [number for value in interval or () if (number := _number(value)) is not None]
    return numbers if numbers and len(numbers) == len(interval or ()) else None


def _sample(sample: ReportSample, pictures: Pictures, grade: int) -> dict:
    """The JSON object of one card; keys without content are left out, since there are many cards."""
    tree = {
        "set": sample.set,
        "id": sample.id,
        "picture": None if sample.image is None else pictures.add(sample.image),
        "prompt": sample.prompt,
        "prediction": sample.prediction,
        "references": list(sample.references),
        "type": sample.answer_type,
        "scores": {key: float(value) for key, value in sample.scores.items()},
        "grade": grade,
        "twin": sample.twin,
        "twin_score": _number(sample.twin_score),
        "other": sample.other,
        "other_score": _number(sample.other_score),
        "attention": pack_attention(sample.attention, f"sample {sample.id!r} of set {sample.set!r}"),
    }
    return {key: value for key, value in tree.items() if value is not None}
