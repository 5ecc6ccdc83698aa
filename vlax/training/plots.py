"""curves.png: losses and scores of all stages of a workdir, drawn over the reference curves that ship with a config."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from etils import epath
from matplotlib.axes import Axes
from ml_collections import ConfigDict

from vlax.storage import state
from vlax.training import metrics, stages

Curves = dict[str, dict[str, list[list[float]]]]  # {curve: {stage: [[update, value], ...]}}
TRAINING, LOSS = "training loss", "loss/"  # of a validation: loss/SOURCE
# Okabe & Ito (2008): apart for colour-blind readers. Training is black, and thin.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a6200", "#882255")


def curves(config: ConfigDict, workdir: epath.Path) -> Curves:
    """{curve: {stage: [[update, value], ...]}} of every stage that has records: training loss, held-out losses and scores."""
    out: Curves = {}
    for plan in stages.chain(config, workdir):
        for record in metrics.read(plan.directory):
            for name, value in record.items():
                shown = name == "loss" if record["kind"] == "train" else name.startswith(LOSS) or " " in name
                if shown:
                    label = TRAINING if record["kind"] == "train" else name
                    out.setdefault(label, {}).setdefault(plan.name, []).append([record["step"], round(value, 4)])
    return out


@dataclasses.dataclass(frozen=True)
class Panel:
    """One axis: the curves `names` of some stages, side by side in the order of training."""

    title: str
    kind: str  # "loss" or "score"
    stages: tuple[str, ...]
    names: tuple[str, ...]


def panels(mine: Curves, groups: Mapping[str, Sequence[str]]) -> list[Panel]:
    """One of losses for each group of stages that has records, then one a metric for the stages that were scored by it.

    groups: {title: its stages}, of which the losses can be compared.
    """
    losses = [name for name in mine if name == TRAINING or name.startswith(LOSS)]
    found = [_panel(title, "loss", order, losses, mine) for title, order in groups.items()]
    scores: dict[str, list[str]] = {}
    for name in mine:
        if name not in losses:
            scores.setdefault(name.rpartition(" ")[2], []).append(name)
    order = [stage for each in groups.values() for stage in each]
    found += [_panel(f"{metric} on validation rows", "score", order, names, mine) for metric, names in scores.items()]
    return [panel for panel in found if panel.names]


def _panel(title: str, kind: str, order: Sequence[str], names: Sequence[str], mine: Curves) -> Panel:
    shown = tuple(stage for stage in order if any(mine[name].get(stage) for name in names))
    return Panel(title, kind, shown, tuple(name for name in names if any(mine[name].get(stage) for stage in shown)))


def grouped(config: ConfigDict, workdir: epath.Path) -> dict[str, list[str]]:
    """The stages of a chain by what they train: {"decoder, on text": ["stage0_decoder"], "whole model": ["stage1", ...]}."""
    groups: dict[str, list[str]] = {}
    for plan in stages.chain(config, workdir):
        text = "vision" not in plan.stage.init
        title = "decoder, on text" if text else "vision tower, in a captioner" if plan.stage.captioner else "whole model"
        groups.setdefault(title, []).append(plan.name)
    return groups


def draw(config: ConfigDict, workdir: epath.Path) -> epath.Path:
    """Writes WORKDIR/curves.png and returns its path: a panel a group of stages, and one a metric."""
    mine, reference = curves(config, workdir), {}
    if config.stage.reference and epath.Path(config.stage.reference).exists():
        reference = state.read(epath.Path(config.stage.reference), "mend it or pass --config.stage.reference=''")
    figure = figure_of(panels(mine, grouped(config, workdir)), mine, reference)
    path = workdir / "curves.png"
    with path.open("wb") as file:
        figure.savefig(file, dpi=110, format="png")
    plt.close(figure)
    return path


def figure_of(shown: Sequence[Panel], mine: Curves, reference: Curves) -> plt.Figure:
    """One source has one colour in all panels: captions' loss and captions' score are about the same rows."""
    sources = dict.fromkeys(source(name) for panel in shown for name in panel.names if name != TRAINING)
    colours = {TRAINING: "#303030", **dict(zip(sources, itertools.cycle(COLOURS), strict=False))}
    columns = min(2, len(shown)) or 1
    rows = -(-len(shown) // columns) or 1
    figure, axes = plt.subplots(rows, columns, figsize=(7 * columns, 3.8 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, shown, strict=False):
        _draw(axis, panel, mine, reference, colours)
    return figure


def source(name: str) -> str:
    """`"loss/captions" -> "captions", "captions CIDEr" -> "captions"`"""
    return name if name == TRAINING else name.removeprefix(LOSS) if name.startswith(LOSS) else name.rpartition(" ")[0]


def _draw(axis: Axes, panel: Panel, mine: Curves, reference: Curves, colours: Mapping[str, str]) -> None:
    lengths = {stage: _length(stage, panel.names, mine, reference) for stage in panel.stages}
    offsets = dict(zip(lengths, itertools.accumulate([0, *lengths.values()]), strict=False))
    compared = False
    for name in panel.names:
        colour, training = colours[source(name)], name == TRAINING
        for stage, at in offsets.items():
            if points := reference.get(name, {}).get(stage, []):
                compared = True
                axis.plot([x + at for x, _ in points], [y for _, y in points], color=colour, alpha=0.25, lw=5)
            if points := mine[name].get(stage, []):
                style = {"lw": 0.9} if training else {"lw": 2.4, "marker": "o", "ms": 5 if len(points) > 1 else 7}
                axis.plot([x + at for x, _ in points], [y for _, y in points], color=colour, clip_on=False, **style)
        held = f"held-out loss, {source(name)}" if panel.kind == "loss" and not training else source(name)
        axis.plot([], [], color=colour, lw=0.9 if training else 2.4, label=TRAINING if training else held)
    if compared:
        axis.plot([], [], color="grey", alpha=0.35, lw=5, label="reference run")
    for stage, at in offsets.items():  # names stand above the axis, where no curve is
        axis.axvline(at, color="0.85", lw=1, zorder=0)
        axis.annotate(stage, (at + lengths[stage] / 2, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
                      textcoords="offset points", fontsize=8, color="0.35", ha="center")  # fmt: skip
    axis.set_title(panel.title, loc="left", fontsize=11, weight="bold", pad=18)
    axis.set(ylabel="loss per answer token" if panel.kind == "loss" else "score", xlabel="optimizer updates")
    axis.margins(y=0.12)  # points lie below the names
    axis.set_xlim(0, sum(lengths.values()) or 1)
    if panel.kind == "loss":
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter(lambda y, _: f"{y:g}")  # 0.6, not 6 x 10^-1
        axis.yaxis.set_minor_formatter(lambda y, _: f"{y:g}" if f"{y:.0e}"[0] in "235" else "")
    else:
        axis.set_ylim(bottom=0)
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)
    axis.spines[["top", "right"]].set_visible(False)


def _length(stage: str, names: Sequence[str], mine: Curves, reference: Curves) -> float:
    ends = [points[-1][0] for known in (mine, reference) for name in names if (points := known.get(name, {}).get(stage))]
    return max(ends, default=0)
