"""The report of an evaluation: one HTML file with scores, samples and attention, which opens offline.

    write_report("eval/report.html", title="stage 4", subtitle="scenes", sets=sets, protocol={"hash": "eef7b522", "beams": 1},
                 formulas={"captions": {"CIDEr": "..."}}, samples=[ReportSample("captions", "test/7", image, ...)])

The page is `template/`, filled by `page.py`; pictures and attention are packed by `pack.py`.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath
from PIL import Image

from vlax.errors import VlaxError
from vlax.evaluation.report.pack import Pictures, pack_attention
from vlax.evaluation.report.page import page

# Of these there is no right and wrong: a sample is low, middle or high among the samples of its set.
_CAPTION_METRICS = ("CIDEr", "ROUGE_L", "METEOR", "SPICE", "Bleu")
_HEADLINES = ("CIDEr", "accuracy")  # of a set without samples
WRONG, PARTLY, CORRECT = range(3)  # grades; or low, middle, high


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
    other: Mapping | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Writes the report as one HTML file; missing folders are made.

    Args:
      path: the file, local or on an object store.
      title, subtitle: the head of the page.
      sets: {set: {metric: {score, interval, twin, prior, over_twin, over_prior}, "rows": n}} as `scoring.score_sets` gives it.
      formulas: {set: {metric: what it is}}; shown when the metric is opened.
      protocol: JSON tree; its "hash" stands in the head.
      samples: the cards, in the order that "original order" means. May be fewer than the rows that were scored.
      other: a second run: {"title", "sets" (as above), "differences": {set: {metric: Interval of this - other}}, "protocol"}.
      notes: what a reader must know before the scores, one paragraph each.

    Raises VlaxError: no sets; a sample of an unknown set, without scores, with a score that is not finite, with the id of
    another, or with attention of several grids or with negative or non-finite values.
    """
    if not sets:
        raise VlaxError(f"{path}: a report needs a set of scores; `sets` is empty.")
    _check(samples, sets)
    pictures = Pictures()
    headlines = {name: _headline(name, sets[name], samples) for name in sets}
    grades = {name: _grades(name, headlines[name], samples) for name in sets}
    data = {
        "sets": [
            {
                "name": name,
                "rows": metrics.get("rows"),
                "headline": headlines[name],
                "verdict": _has_verdict(headlines[name], [s for s in samples if s.set == name]),
                "metrics": _metrics(name, metrics, formulas.get(name, {}), other),
            }
            for name, metrics in sets.items()
        ],
        "samples": [_sample(s, pictures, grades[s.set][s.id]) for s in samples],
        "pictures": pictures.packed,
        "protocol": protocol,
        "other": {"title": other["title"], "protocol": other.get("protocol", {})} if other else None,
        "notes": list(notes),
    }
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page(title, subtitle, str(protocol.get("hash", "")), data).encode())  # UTF-8 in any locale


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


def _has_verdict(headline: str, samples: Sequence[ReportSample]) -> bool:
    """Whether 1 means correct and 0 wrong: so for all metrics but those of captions, as long as scores lie in [0, 1]."""
    if headline.startswith(_CAPTION_METRICS):
        return False
    return all(0 <= next(iter(s.scores.values())) <= 1 for s in samples)


def _grades(name: str, headline: str, samples: Sequence[ReportSample]) -> dict[str, int]:
    """{id: WRONG | PARTLY | CORRECT}: by right and wrong, or by thirds of the set's scores (ties share the lower third)."""
    mine = [s for s in samples if s.set == name]
    scores = {s.id: next(iter(s.scores.values())) for s in mine}
    if not scores or _has_verdict(headline, mine):
        return {i: CORRECT if v >= 1 - 1e-9 else WRONG if v <= 1e-9 else PARTLY for i, v in scores.items()}
    low, high = np.quantile(list(scores.values()), (1 / 3, 2 / 3))
    if low == high:
        return {i: WRONG if v < low else CORRECT if v > high else PARTLY for i, v in scores.items()}
    return {i: WRONG if v <= low else CORRECT if v >= high else PARTLY for i, v in scores.items()}


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
