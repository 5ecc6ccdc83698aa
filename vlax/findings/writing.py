"""What an experiment leaves: findings.json, table.md, PNG plots and page.html, which opens offline and has no script."""

import base64
import io
import math
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from etils import epath
from matplotlib.axes import Axes

from vlax.evaluation.report import page
from vlax.evaluation.report.page import escape
from vlax.findings import results
from vlax.findings.results import Figures
from vlax.printing import printable
from vlax.storage import state
from vlax.training.plots import COLOURS

_STYLE = """
.answer { margin-top: 14px; padding: 16px 18px; background: var(--card); border: 1px solid var(--line); border-radius: 14px; }
.answer b { font-size: 19px; display: block; margin-bottom: 6px; }
.answer p { margin: 8px 0 0; } footer p { margin-top: 22px; }
.good b { color: var(--good); } .bad b { color: var(--bad); } .open b { color: var(--fair); }
.table { margin-top: 14px; background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow-x: auto; }
.table td, .table th { text-align: left; }
.table tr:first-child > * { border-top: 0; }
figure { margin: 14px 0 0; padding: 14px; background: #fff; border: 1px solid var(--line); border-radius: 14px; }
figure img { width: 100%; max-width: 900px; height: auto; display: block; margin: auto; }
@media (max-width: 700px) {
  .table thead { display: none; }
  .table tr { display: block; padding: 8px 0; border-top: 1px solid var(--line); }
  .table td { display: flex; justify-content: space-between; gap: 16px; border: 0; padding: 3px 16px; text-align: right;
    white-space: normal; }
  .table td::before { content: attr(data-head); color: var(--soft); text-align: left; }
  .table td:first-child { font-weight: 600; }
}
"""
_LOOK = {results.HOLDS: "good", results.OPPOSITE: "bad", results.OPEN: "open"}


def write(result: Mapping[str, Any], figures: Figures, folder: epath.Path) -> None:
    """All files of one experiment."""
    folder.mkdir(parents=True, exist_ok=True)
    state.write_json(folder / "findings.json", result, indent=1)
    state.write(folder / "table.md", markdown(result).encode())
    images = {"advantages.png": _png(_advantages(result))}
    if curves := _curves(figures):
        images["curves.png"] = _png(curves)
    if result["line"]:
        images["line.png"] = _png(_line(result["line"], result["arms"]))
    for name, content in images.items():
        state.write(folder / name, content)
    state.write(folder / "page.html", html(result, images).encode("utf-8", "replace"))


def markdown(result: Mapping[str, Any]) -> str:
    """For the docs."""

    def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
        escaped = [[printable(cell).replace("|", "\\|").replace("*", "\\*") for cell in row] for row in rows]
        return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *escaped)]

    lines = [f"**{result['question']}** Claim: {result['claim']}. At this scale: **{result['verdict']}**.", ""]
    lines += [*table(("arm", *result["higher"]), results.arm_rows(result)), ""]
    lines += [*table(results.HEADS, results.comparison_rows(result)), "", results.summary(result).replace("*", "\\*")]
    return "\n".join(lines) + "\n"


def html(result: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """The page."""

    def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
        heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        named = (
            [f'<td data-head="{escape(of)}">{escape(cell)}</td>' for of, cell in zip(head, row, strict=True)] for row in rows
        )
        lines = ("<tr>" + "".join(cells) + "</tr>" for cells in named)
        return f'<div class="table"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'

    shown = "".join(
        f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{base64.b64encode(content).decode()}"></figure>'
        for name, content in images.items()
    )
    swept = result["sweep"]["losses"]
    rates = table(("rates times", "held-out loss"), [(name, f"{loss:.4f}") for name, loss in swept.items()]) if swept else ""
    body = f"""<header class="masthead"><div class="wrap">
<p class="brand"><span class="mark" aria-hidden="true"></span>vlax <span class="soft">findings</span></p>
<h1 dir="auto">{escape(result["question"])}</h1><p class="subtitle">{escape(result["name"])}, {result["finished"]} of
{len(result["seeds"])} seeds an arm</p></div></header>
<main class="wrap"><section><div class="answer {_LOOK[result["verdict"]]}"><b>{escape(result["verdict"])}</b>
The claim: {escape(result["claim"])}.<p class="soft">{escape(results.summary(result))}</p></div></section>
<section><h2>Comparisons</h2>{table(results.HEADS, results.comparison_rows(result))}</section>
<section><h2>Arms</h2><p class="hint">Mean and standard deviation over seeds; beside a score the blind twin's: the same model,
pictures exchanged.</p>{table(("arm", *result["higher"]), results.arm_rows(result))}</section>
<section><h2>Plots</h2>{shown}</section>{f"<section><h2>Learning rates</h2>{rates}</section>" if rates else ""}</main>
<footer class="wrap"><p>One file, written by vlax. It opens offline and loads nothing from a network.</p></footer>"""
    return page.plain(f"{result['name']} · vlax findings", _STYLE, body)


def _png(figure: plt.Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, dpi=110, format="png")
    plt.close(figure)
    return content.getvalue()


def _advantages(result: Mapping[str, Any]) -> plt.Figure:
    """Each comparison with its interval; a panel an outcome, since scales differ."""
    compared = [each for each in result["comparisons"] if each["advantage"] is not None] or result["comparisons"]
    names = list(dict.fromkeys(each["outcome"] for each in compared))
    by = {name: [each for each in result["comparisons"] if each["outcome"] == name] for name in names}
    heights = [max(len(each), 1) for each in by.values()]
    tall = 0.9 * len(names) + 0.38 * sum(heights)
    figure, axes = plt.subplots(
        len(names), 1, figsize=(9, tall), layout="constrained", squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axis, name in zip(axes[:, 0], names, strict=True):
        for at, each in enumerate(reversed(by[name])):
            if each["advantage"] is None:
                continue
            low, high = (each["advantage"] if each[end] is None else each[end] for end in ("low", "high"))
            colour = {results.SUPPORTS: COLOURS[2], results.CONTRADICTS: COLOURS[1]}.get(each["says"], "#59626d")
            axis.plot([low, high], [at, at], color=colour, linewidth=2)
            axis.plot([each["advantage"]], [at], "o", color=colour)
        axis.set_yticks(range(len(by[name])), [f"{each['better']} over {each['worse']}" for each in reversed(by[name])])
        axis.set_ylim(-0.6, len(by[name]) - 0.4)
        axis.axvline(0, color="#8d96a1", linewidth=1)
        axis.set_title(f"{name}: advantage for the claim, 95 % interval", fontsize=10, loc="left")
        _plain(axis)
    return figure


def _curves(figures: Figures) -> plt.Figure | None:
    """Held-out losses over the share of the training, a panel an outcome, a line a seed."""
    names = list(dict.fromkeys(name for seeds in figures.values() for found in seeds.values() for name, one in found.items()
                               if len(one.get("curve", ())) > 1 and not name.startswith("reach")))  # fmt: skip
    if not names:
        return None
    figure, axes = plt.subplots(1, len(names), figsize=(4.6 * len(names), 3.4), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        for (arm, seeds), colour in zip(figures.items(), COLOURS * math.ceil(len(figures) / len(COLOURS)), strict=False):
            for number, found in enumerate(seeds.values()):
                at, loss = zip(*found[name]["curve"], strict=True)
                axis.plot(at, loss, color=colour, linewidth=1.2, alpha=0.8, label=arm if number == 0 else None)
        axis.set_title(name, fontsize=10, loc="left")
        axis.set_xlabel("share of the training")
        axis.legend(fontsize=8, frameon=False)
        _plain(axis)
    return figure


def _line(line: Mapping[str, Any], arms: Mapping[str, Any]) -> plt.Figure:
    """Every seed of every arm, and the mean of the lines."""
    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for arm, x in line["x"].items():
        found = list(arms[arm][line["outcome"]]["by_seed"].values())
        axis.plot([x] * len(found), found, "o", color=COLOURS[0], alpha=0.5)
    ends = min(line["x"].values()), max(line["x"].values())
    axis.plot(ends, [line["at_1"] + line["doubling"] * math.log2(x) for x in ends], color=COLOURS[1])
    axis.set_xscale("log", base=2)
    axis.set_xticks(list(line["x"].values()), [f"{x:g}" for x in line["x"].values()])
    axis.set_xlabel(line["over"])
    axis.set_ylabel(line["outcome"])
    _plain(axis)
    return figure


def _plain(axis: Axes) -> None:
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
