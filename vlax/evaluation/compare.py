"""Two evaluations of the same rows: paired differences, refused where the protocols differ."""

import dataclasses
import json
from collections.abc import Mapping

from etils import epath

from vlax.errors import VlaxError
from vlax.evaluation import predictions, scoring
from vlax.printing import GREEN, OFF, RED, columns
from vlax.scores.statistics import Interval
from vlax.storage import state
from vlax.suites.protocol import Suite, from_dict


@dataclasses.dataclass(frozen=True)
class Kept:
    """An evaluation as it lies on disk: what scores.json holds, and its predictions by set."""

    title: str
    directory: epath.Path
    scores: Mapping
    lines: dict[str, list[dict]]


def load(directory: str | epath.Path) -> Kept:
    """The evaluation in a directory that eval.py wrote; VlaxError where there is none."""
    with state.understood(directory, "run eval.py again"):
        return _load(epath.Path(directory))


def _load(directory: epath.Path) -> Kept:
    path = directory / "scores.json"
    if not path.exists():
        raise VlaxError(f"{directory} holds no evaluation: there is no scores.json. Give a directory that eval.py wrote, e.g. "
                        "runs/embedded/stage3/eval, or run eval.py first")  # fmt: skip
    scores = state.read(path, "run eval.py again")
    if not (runs := scores.get("runs")):
        raise VlaxError(f"{path} names no runs, as an old one does; run eval.py again")
    found = predictions.read(directory / "predictions.jsonl", runs.values())
    kept = Kept(scores["title"], directory, scores, {})
    for name, key in runs.items():
        raw = [line for (run, _), line in found.items() if run == key]
        if len(raw) != scores["sets"][name]["rows"]:
            raise VlaxError(f"{directory}/predictions.jsonl has {len(raw)} of the {scores['sets'][name]['rows']} rows of "
                            f"{name} that were scored; run eval.py again, which makes what is missing")  # fmt: skip
        kept.lines[name] = raw
        kept.lines[name] = predictions.finished(raw, suite_of(kept, name))
    return kept


def find(workdir: epath.Path, against: str, below: str = "") -> Kept:
    """`--against`: a stage of the workdir by name, or an evaluation's directory."""
    stage = workdir / against / "eval" / below
    if (workdir / against).exists() and "/" not in against:
        if not (stage / "scores.json").exists():
            raise VlaxError(f"{against} was not evaluated: there is no {stage}/scores.json. Run eval.py with its config first")
        return load(stage)
    return load(against)


def suite_of(kept: Kept, name: str) -> Suite:
    """The suite of a set, as far as its scores depend on it, from scores.json."""
    proto = kept.scores["protocol"]["sets"][name]
    task = kept.lines[name][0]["task"]
    return from_dict(name, {"task": task, "metrics": proto["metrics"], "data": kept.scores["where"]["sets"][name],
                            "post_processing": proto["post_processing"][1:], "answers": proto.get("answers", ())})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two predictions of the same rows, scored alike. differences: first minus second, {metric: paired 95 % interval}; mine,
    its: the interval of each by itself; of `rows` predictions `differ` are not the same text; the second calls the set
    `its_name`."""

    its_name: str
    ours: scoring.Scored
    theirs: scoring.Scored
    differences: dict[str, Interval]
    rows: int
    differ: int
    mine: dict[str, Interval]
    its: dict[str, Interval]


def _matched(a: Kept, b: Kept) -> dict[str, str]:
    """{set of a: set of b} by name, else by protocol: a stage's own set and a suite of the same protocol are one set."""
    hashes = {b.scores["protocol"]["sets"][name]["hash"]: name for name in b.lines}
    found = {name: name if name in b.lines else hashes.get(a.scores["protocol"]["sets"][name]["hash"]) for name in a.lines}
    return {name: other for name, other in found.items() if other}


def paired(a: Kept, b: Kept, different_protocols: bool = False) -> dict[str, Pair]:
    """{set: a beside b} over the sets that both have.

    VlaxError where no set is shared, and where protocols differ unless `different_protocols` is true; then the rows that both
    have are compared.
    """
    names = _matched(a, b)
    if not names:
        raise VlaxError(f"{a.directory} ({', '.join(a.lines)}) and {b.directory} ({', '.join(b.lines)}) have no set in common")
    out = {}
    for name, its_name in names.items():
        protos = [a.scores["protocol"]["sets"][name], b.scores["protocol"]["sets"][its_name]]
        if protos[0]["hash"] != protos[1]["hash"] and not different_protocols:
            fields = [k for k in sorted(protos[0].keys() | protos[1].keys())
                      if k not in ("hash", "decoded") and protos[0].get(k) != protos[1].get(k)]  # fmt: skip
            told = "; ".join(f"{k}: {json.dumps(protos[0].get(k))} and {json.dumps(protos[1].get(k))}" for k in fields)
            raise VlaxError(f"{name} was evaluated under two protocols ({protos[0]['hash']} and {protos[1]['hash']}), which "
                            f"differ in {told}. Evaluate both alike, or insist with --different_protocols")  # fmt: skip
        by_id = {line["id"]: line for line in b.lines[its_name]}
        mine = [line for line in a.lines[name] if line["id"] in by_id]
        if not mine:
            raise VlaxError(f"{name}: the two evaluations have no row in common")
        theirs = [{**line, "prediction": by_id[line["id"]]["prediction"]} for line in mine]
        suite = suite_of(a, name)
        with scoring.Scorer(suite, mine) as score:
            ours, others = score(mine), score(theirs)
        clusters = {line["id"]: line["image_id"] or line["id"] for line in mine}
        differ = sum(line["prediction"] != other["prediction"] for line, other in zip(mine, theirs, strict=True))
        alone = [{metric: scoring.interval(scored.values[metric], clusters, suite) for metric in scored.scores}
                 for scored in (ours, others)]  # fmt: skip
        out[name] = Pair(its_name, ours, others, {
            metric: scoring.difference(ours.values[metric], others.values[metric], clusters, suite) for metric in ours.scores
        }, len(mine), differ, *alone)  # fmt: skip
    return out


def names(a: Kept, b: Kept) -> tuple[str, str]:
    """What to call two evaluations: their titles, or what tells their directories apart where these are the same."""
    if a.title != b.title:
        return a.title, b.title
    parts = [kept.directory.parts for kept in (a, b)]
    apart = [n for n, pair in enumerate(zip(*parts, strict=False)) if pair[0] != pair[1]]
    if not apart:
        return a.title, a.title if a.directory == b.directory else str(b.directory)
    return f"{a.title} of {'/'.join(parts[0][apart[0] :])}", f"{b.title} of {'/'.join(parts[1][apart[0] :])}"


def text(a: Kept, b: Kept, found: Mapping[str, Pair], coloured: bool = False) -> str:
    """The comparison as lines for the terminal; coloured: green where a is better, red where it is worse."""
    mine, its = names(a, b)
    lines = [f"{mine} - {its}, paired over rows, 95 % intervals:"]
    for name, pair in found.items():
        lines.append(f"\n{name}: {pair.differ:,} of {pair.rows:,} predictions differ")
        rows: list[tuple[str, ...]] = [("", its, mine, "difference")]
        rows += [_row(metric, pair, metric) for metric in pair.differences]
        head, *body = columns(rows).splitlines()
        lines.append(head)
        for line, d in zip(body, pair.differences.values(), strict=True):
            sign = "" if d.low <= 0 <= d.high else "  *"
            colour = (GREEN if d.mean > 0 else RED) if sign and coloured else ""
            lines.append(f"{colour}{line}{sign}{OFF if colour else ''}")
    return "\n".join([*lines, "\n* the interval excludes 0"])


def _row(name: str, pair: Pair, metric: str) -> tuple[str, ...]:
    both = (
        (scored.scores[metric], interval)
        for scored, interval in ((pair.theirs, pair.its[metric]), (pair.ours, pair.mine[metric]))
    )
    d = pair.differences[metric]
    return (
        name,
        *(f"{score:.3f} [{i.low:.3f}, {i.high:.3f}]" for score, i in both),
        f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]",
    )
