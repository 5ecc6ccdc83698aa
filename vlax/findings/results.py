"""From what was measured to an answer: means by arm, paired comparisons, and whether the claim holds at this scale."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlax.findings import statistics
from vlax.findings.experiment import Comparison, Experiment, Outcome, Plan
from vlax.printing import columns
from vlax.scores.statistics import check_same_ids, paired_interval

HOLDS, OPPOSITE, OPEN = "holds", "the opposite", "can't be told at this scale"
SUPPORTS, CONTRADICTS, NOTHING = "supports it", "contradicts it", "open"
ALPHA = 0.05
EARLY = " ≤: there when it was first looked at; where both arms were, nothing is compared."

Figures = Mapping[str, Mapping[int, Mapping[str, Any]]]  # arm -> seed -> outcome -> what was measured


def of(experiment: Experiment, plan: Plan, swept: Mapping[str, Any], figures: Figures) -> dict[str, Any]:
    """All of it as plain JSON. Where arms or seeds are missing yet, of those that are there."""
    values = {name: _values(outcome, figures) for name, outcome in experiment.outcomes.items()}
    arms: dict[str, Any] = {}
    for arm, seeds in figures.items():
        arms[arm] = {}
        for name in experiment.outcomes if seeds else ():
            found = [float(np.mean(values[name][arm][seed])) for seed in seeds]
            blind = [seeds[seed][name]["twin"] for seed in seeds if "twin" in seeds[seed][name]]
            arms[arm][name] = {
                "mean": float(np.mean(found)), "deviation": float(np.std(found, ddof=1)) if len(found) > 1 else None,
                "by_seed": dict(zip(map(str, seeds), found, strict=True)), "twin": float(np.mean(blind)) if blind else None,
                "mask": next((each[name]["mask"] for each in seeds.values() if "mask" in each[name]), None),
                "at_most": any(_early(experiment.outcomes[name], values[name], figures, arm, seed) for seed in seeds),
            }  # fmt: skip
    compared = [_compare(each, experiment, values[each.outcome], figures) for each in experiment.compare]
    for each, p in zip(compared, statistics.holm([each["p"] for each in compared]), strict=True):
        each["holm"] = p
        each["says"] = NOTHING if p >= ALPHA else SUPPORTS if each["advantage"] > 0 else CONTRADICTS
        each["detectable"] = _finite(statistics.detectable(each.pop("error"), each.pop("freedom"), ALPHA / len(compared)))
    said = [each["says"] for each in compared[: experiment.deciding]]
    done = min(len(figures[arm]) for arm in experiment.arms)
    about: dict[str, Any] = {"name": experiment.name, "question": experiment.question, "claim": experiment.claim}
    about |= {"seeds": list(plan.seeds), "finished": done, "verdict": verdict(said), "deciding": experiment.deciding}
    about["line"] = _line(experiment, values, figures) if experiment.line else None
    higher = {name: outcome.higher for name, outcome in experiment.outcomes.items()}
    return {**about, "sweep": dict(swept), "higher": higher, "arms": arms, "comparisons": compared}


def _line(experiment: Experiment, values: Mapping[str, Any], figures: Figures) -> dict[str, Any] | None:
    """What a doubling of x adds to an outcome: least squares over log2(x), one line a seed, their mean and its interval. None
    before two arms and a seed are there."""
    outcome, over, x = (experiment.line[key] for key in ("outcome", "over", "x"))
    arms = [arm for arm in x if figures[arm]]
    seeds = sorted(set.intersection(*(set(figures[arm]) for arm in arms))) if len(arms) > 1 else []
    if not seeds:
        return None
    at = np.log2([x[arm] for arm in arms])
    lines = np.array([np.polyfit(at, [values[outcome][arm][seed].mean() for arm in arms], 1) for seed in seeds])
    found = statistics.compared(lines[:, 0])
    about = {"outcome": outcome, "over": over, "x": {arm: x[arm] for arm in arms}, "at_1": float(lines[:, 1].mean())}
    return {**about, "doubling": found.mean, "low": _finite(found.low), "high": _finite(found.high), "p": found.p}


def verdict(said: Sequence[str]) -> str:
    """`holds` where every comparison that decides supports the claim, `the opposite` where every one contradicts it."""
    if all(each == SUPPORTS for each in said):
        return HOLDS
    return OPPOSITE if all(each == CONTRADICTS for each in said) else OPEN


def _values(outcome: Outcome, figures: Figures) -> dict[str, dict[int, np.ndarray]]:
    """{arm: {seed: f64[rows], or f64[1]}}"""
    if outcome.of == "reach":
        return _reached({arm: {seed: each[outcome.name]["curve"] for seed, each in seeds.items()}
                         for arm, seeds in figures.items()})  # fmt: skip
    return {
        arm: {seed: np.array(list(each[outcome.name].get("values", {"": each[outcome.name]["score"]}).values()), np.float64)
              for seed, each in seeds.items()} for arm, seeds in figures.items()
    }  # fmt: skip


def _reached(curves: Mapping[str, Mapping[int, Sequence[Sequence[float]]]]) -> dict[str, dict[int, np.ndarray]]:
    """When each curve is as low as every arm's of its seed comes to be, between two points by a straight line."""
    out: dict[str, dict[int, np.ndarray]] = {arm: {} for arm in curves}
    for seed in sorted({seed for seeds in curves.values() for seed in seeds}):
        there = {arm: seeds[seed] for arm, seeds in curves.items() if seed in seeds}
        level = max(min(loss for _, loss in points) for points in there.values())
        for arm, points in there.items():
            out[arm][seed] = np.array([reach(points, level)])
    return out


def _early(outcome: Outcome, values: Mapping[str, Any], figures: Figures, arm: str, seed: int) -> bool:
    """Whether a level was reached before anybody looked: when is not known, but by when."""
    return outcome.of == "reach" and bool(values[arm][seed][0] <= figures[arm][seed][outcome.name]["curve"][0][0])


def reach(points: Sequence[Sequence[float]], level: float) -> float:
    """`([[0.5, 4.0], [1.0, 2.0]], 3.0) -> 0.75`: where a curve first is at or below a level; infinity where it never is."""
    before: Sequence[float] | None = None
    for at, loss in points:
        if loss <= level:
            if before is None or before[1] == loss:
                return at
            return before[0] + (at - before[0]) * (before[1] - level) / (before[1] - loss)
        before = (at, loss)
    return math.inf


def _compare(each: Comparison, experiment: Experiment, values: Mapping[str, Any], figures: Figures) -> dict[str, Any]:
    """The advantage of the arm that the claim holds for better: positive is in its favour, also where lower is better."""
    outcome = experiment.outcomes[each.outcome]
    seeds = [seed for seed in values[each.better] if seed in values[each.worse]]
    both = each.better, each.worse
    if any(all(_early(outcome, values, figures, arm, seed) for arm in both) for seed in seeds):
        seeds = []  # which was the first to be there nobody has seen
    said = {"outcome": each.outcome, "better": each.better, "worse": each.worse, "seeds": len(seeds)}
    if not seeds:
        nothing = dict.fromkeys(("advantage", "low", "high", "pictures"))
        return {**said, **nothing, "p": 1.0, "error": math.inf, "freedom": 0}
    sign = 1.0 if outcome.higher else -1.0
    first = figures[each.better][seeds[0]][each.outcome]
    rows, shown = sorted(first.get("values", {})), first.get("pictures", {})
    ours, theirs = (np.stack([_row(each.outcome, values[arm], figures[arm], seed, rows) for seed in seeds])
                    for arm in (each.better, each.worse))  # fmt: skip
    difference = sign * (ours - theirs)
    found = statistics.compared(difference, [shown[row] for row in rows])
    out = {**said, "advantage": found.mean, "low": _finite(found.low), "high": _finite(found.high), "p": found.p}
    out |= {"error": found.error, "freedom": found.freedom, "pictures": None}
    if rows:
        by_row = dict(zip(rows, difference.mean(0), strict=True))
        alone = paired_interval(by_row, dict.fromkeys(by_row, 0.0), clusters=shown)
        out["pictures"] = [alone.low, alone.high]  # of these very seeds, other pictures
    return out


def _row(outcome: str, scores: Mapping[int, Any], measured: Mapping[int, Any], seed: int, rows: Sequence[str]) -> np.ndarray:
    """f64[rows] of an arm and seed, or f64[1] where there is one figure."""
    values = measured[seed][outcome].get("values", {})
    check_same_ids(dict.fromkeys(rows), values, "one arm and seed", "another")
    alone: np.ndarray = scores[seed]
    return np.array([values[row] for row in rows], np.float64) if rows else alone


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def text(result: Mapping[str, Any]) -> str:
    """The table for the terminal."""
    lines = [f"{result['name']}: {result['question']}", f"Claim: {result['claim']}. At this scale: {result['verdict']}.", ""]
    lines += [columns([("arm", *result["higher"]), *arm_rows(result)]), ""]
    lines += [columns([HEADS, *comparison_rows(result)], left=2), "", summary(result)]
    return "\n".join(lines)


HEADS = ("in favour of", "by", "advantage", "95 % interval", "p (Holm)", "could have seen", "the claim")


def arm_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Mean and standard deviation over seeds, and the blind twin's mean."""
    rows = []
    for arm, found in result["arms"].items():
        cells = []
        for name in result["higher"]:
            one = found.get(name)
            spread = "" if one is None or one["deviation"] is None else f" ± {one['deviation']:.3f}"
            twin = "" if one is None or one["twin"] is None else f" (blind {one['twin']:.3f})"
            bound = "≤ " if one and one["at_most"] else ""
            cells.append("-" if one is None else f"{bound}{one['mean']:.3f}{spread}{twin}")
        rows.append((arm, *cells))
    return rows


def comparison_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for number, each in enumerate(result["comparisons"]):
        star = " *" if number < result["deciding"] else ""
        between = "-" if each["low"] is None else f"[{each['low']:+.3f}, {each['high']:+.3f}]"
        seen = "-" if each["detectable"] is None else f"{each['detectable']:.3f}"
        advantage = "-" if each["advantage"] is None else f"{each['advantage']:+.3f}"
        name = f"{each['better']} over {each['worse']}{star}"
        rows.append((name, each["outcome"], advantage, between, f"{each['holm']:.3f}", seen, each["says"]))
    return rows


def summary(result: Mapping[str, Any]) -> str:
    """One paragraph: what the verdict rests on."""
    count, comparisons = len(result["seeds"]), len(result["comparisons"])
    part = "" if result["finished"] == count else f" So far: of {count} seeds, every arm has {result['finished']}."
    factor = f"{result['sweep']['factor']:g}"
    chosen = f"times {factor}, chosen with seed {result['sweep']['seed']}" if result["sweep"]["losses"] else f"times {factor}"
    line = result["line"]
    fitted = "" if line is None else f" A doubling of {line['over']} adds {line['doubling']:+.3f} to {line['outcome']}"
    early = any(one["at_most"] for found in result["arms"].values() for one in found.values())
    fitted += "." if fitted and line["low"] is None else f" [{line['low']:+.3f}, {line['high']:+.3f}]." if fitted else ""
    decide = "comparison with * decides" if result["deciding"] == 1 else f"{result['deciding']} comparisons with * decide"
    return (
        f"The {decide}, at p < {ALPHA} after Holm's correction for {comparisons}. Advantages are paired by seed and picture, "
        f'positive ones for the claim; "could have seen" is the true advantage that 80 % of such experiments would find. '
        f"Rates: {chosen}.{fitted}{EARLY * early}{part}"
    )
