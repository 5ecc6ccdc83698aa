"""One page with the curves of all runs and their scores side by side; it opens offline and has no script."""

import collections
from collections.abc import Sequence

from vlax.evaluation.report import page as report
from vlax.evaluation.report.page import escape
from vlax.evaluation.runs.charts import Points, chart
from vlax.evaluation.runs.survey import Run, StageFound, told
from vlax.training import metrics
from vlax.training.plots import LOSS

_COLOURS = (("#0072b2", "#56a9e0"), ("#c44e00", "#ff9c5f"), ("#00775a", "#4fd0ab"), ("#b8568f", "#d88fbb"),
            ("#7a6200", "#e2c04f"), ("#59626d", "#a0aab6"), ("#5b3fa0", "#a996e6"), ("#8a1f1f", "#e88b8b"))  # fmt: skip
_STYLE = """
.charts { margin-top: 14px; display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 380px), 1fr)); gap: 18px; }
.chart { padding: 14px 16px 8px; background: var(--card); border: 1px solid var(--line); border-radius: 14px; min-width: 0; }
.chart svg { width: 100%; height: auto; display: block; margin-top: 6px; }
.chart text { fill: var(--soft); font: 15px var(--sans); }
.grid { stroke: var(--line); }
.run polyline { fill: none; stroke: currentColor; stroke-width: 2; }
.run circle { fill: currentColor; }
.swatch { display: inline-block; width: 12px; height: 12px; border-radius: 3px; background: currentColor; margin-right: 8px; }
.table { background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow-x: auto; }
.table td, .table th { text-align: left; }
.table tr:first-child > * { border-top: 0; }
""" + "".join(f".c{n} {{ color: light-dark({light}, {dark}); }}\n" for n, (light, dark) in enumerate(_COLOURS))


def page(where: str, runs: Sequence[Run]) -> str:
    """HTML text."""
    names = [str(run.directory) for run in runs]
    body = f"""<header class="masthead"><div class="wrap">
<p class="brand"><span class="mark" aria-hidden="true"></span>vlax <span class="soft">runs</span></p>
<h1 dir="auto">{escape(where)}</h1><p class="subtitle">{len(runs)} run{"s" * (len(runs) != 1)}</p></div></header>
<main class="wrap"><section><h2>Stages</h2><div class="table">{_stages(runs)}</div></section>
<section><h2>Scores</h2>{_scores(runs, names)}</section>
<section><h2>Curves</h2><p class="hint">Over optimizer updates of the stage. A loss is that of an answer token, on a logarithmic
scale; held-out losses and scores are of validation rows.</p><div class="charts">{_charts(runs, names)}</div></section></main>
<footer class="wrap"><p>One file, written by vlax. It opens offline and loads nothing from a network.</p></footer>"""
    return report.plain(f"{where} · vlax runs", _STYLE, body)


def _named(number: int, name: str) -> str:
    return f'<span class="c{number % 8}"><span class="swatch" aria-hidden="true"></span></span>{escape(name)}'


def _stages(runs: Sequence[Run]) -> str:
    lines = ["<table><thead><tr><th>Run</th><th>Stage</th><th>Updates</th><th>State</th><th>Size</th></tr></thead><tbody>"]
    for number, run in enumerate(runs):
        for at, stage in enumerate(run.stages):
            first = _named(number, str(run.directory)) if at == 0 else ""
            cells = (escape(stage.directory.name), stage.progress.removesuffix(" updates"), stage.standing, told(stage.size))
            lines.append(f"<tr><td>{first}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    return "".join([*lines, "</tbody></table>"])


def _scores(runs: Sequence[Run], names: Sequence[str]) -> str:
    """A row a score, a column a run."""
    rows: dict[tuple[str, ...], dict[int, str]] = collections.defaultdict(dict)
    for number, run in enumerate(runs):
        for stage in run.stages:
            for one in stage.scores:
                between = f"[{one.interval[0]:.3f}, {one.interval[1]:.3f}]" if one.interval else ""
                cell = f'<b>{one.score:.3f}</b> <span class="soft">{between}</span>'
                rows[stage.directory.name, one.folder.removeprefix("eval").strip("/"), one.set, one.metric][number] = cell
    if not rows:
        return '<p class="soft">None of them was evaluated: python eval.py --config=CONFIG --workdir=RUN</p>'
    shown = sorted({number for cells in rows.values() for number in cells})
    heads = "".join(f"<th>{_named(number, names[number])}</th>" for number in shown)
    lines = [f"<table><thead><tr><th>Stage</th><th>Set</th><th>Metric</th>{heads}</tr></thead><tbody>"]
    for (at, folder, name, metric), cells in sorted(rows.items()):
        label = escape(name) + (f' <span class="soft">{escape(folder)}</span>' if folder not in ("", name) else "")
        found = "".join(f"<td>{cells.get(number, '–')}</td>" for number in shown)
        lines.append(f"<tr><td>{escape(at)}</td><td>{label}</td><td>{escape(metric)}</td>{found}</tr>")
    return f'<div class="table">{"".join(lines)}</tbody></table></div>'


def _charts(runs: Sequence[Run], names: Sequence[str]) -> str:
    found: dict[tuple[str, str], dict[int, Points]] = collections.defaultdict(dict)
    for number, run in enumerate(runs):
        for stage in run.stages:
            for name, points in curves(stage).items():
                found[stage.directory.name, name][number] = points
    out = []
    for (at, name), lines in found.items():
        log = " loss" in name
        out.append(f'<figure class="chart"><figcaption><b>{escape(at)}</b>{escape(name)}</figcaption>')
        out.append(f"{chart(lines, names, log)}</figure>")
    return "".join(out)


def curves(stage: StageFound) -> dict[str, list[tuple[float, float]]]:
    """{"training loss" | "held-out loss, SOURCE" | "SUITE METRIC": [(update, value), ...]}"""
    out: dict[str, list[tuple[float, float]]] = {}
    for record in metrics.read(stage.directory):
        for name, value in record.items():
            if not _is_number(value):
                continue
            if record["kind"] == "train" and name == "loss":
                out.setdefault("training loss", []).append((record["step"], value))
            elif record["kind"] == "validation" and (name.startswith(LOSS) or " " in name):
                label = f"held-out loss, {name.removeprefix(LOSS)}" if name.startswith(LOSS) else name
                out.setdefault(label, []).append((record["step"], value))
    return out


def _is_number(value: object) -> bool:
    """One that can be drawn; JSON has others."""
    return isinstance(value, int | float) and not isinstance(value, bool) and (value == 0 or 1e-300 < abs(value) < 1e300)
