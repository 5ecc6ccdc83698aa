"""curves.png: loss and scores of all stages of a workdir, drawn over the reference curves that ship with a config."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from etils import epath
from ml_collections import ConfigDict

from vlax.storage import state
from vlax.training import metrics, stages

Curves = dict[str, dict[str, list[list[float]]]]  # {curve: {stage: [[update, value], ...]}}


def curves(config: ConfigDict, workdir: epath.Path) -> Curves:
    """{curve: {stage: [[update, value], ...]}} of every stage that has records: training loss, held-out losses and scores."""
    out: Curves = {}
    for plan in stages.chain(config, workdir):
        for record in metrics.read(plan.directory):
            for name, value in record.items():
                shown = name == "loss" if record["kind"] == "train" else name.startswith("loss/") or " " in name
                if shown:
                    label = "training loss" if record["kind"] == "train" else name
                    out.setdefault(label, {}).setdefault(plan.name, []).append([record["step"], round(value, 4)])
    return out


def draw(config: ConfigDict, workdir: epath.Path) -> epath.Path:
    """Writes WORKDIR/curves.png and returns its path; stages lie side by side along the x axis."""
    mine = curves(config, workdir)
    reference = {}
    if config.stage.reference and epath.Path(config.stage.reference).exists():
        reference = state.read(epath.Path(config.stage.reference), "mend it or pass --config.stage.reference=''")
    order = [plan.name for plan in stages.chain(config, workdir)]
    length = {
        stage: max((points[-1][0] for c in (mine, reference) for x in c.values() if (points := x.get(stage))), default=0)
        for stage in order
    }
    offsets: dict[str, float] = {}
    total: float = 0
    for stage in order:
        offsets[stage] = total
        total += length[stage]
    panels = [("loss", [n for n in mine if n == "training loss" or n.startswith("loss/")]),
              ("score", [n for n in mine if not (n == "training loss" or n.startswith("loss/"))])]  # fmt: skip
    panels = [(title, names) for title, names in panels if names]
    figure, axes = plt.subplots(len(panels), 1, figsize=(12, 4 * len(panels)), sharex=True, squeeze=False)
    for axis, (title, names) in zip(axes[:, 0], panels, strict=True):
        for number, name in enumerate(names):
            colour = f"C{number % 10}"
            for source, style in ((reference, {"alpha": 0.35, "lw": 5}), (mine, {"lw": 1.5})):
                for stage, points in source.get(name, {}).items():
                    if stage in offsets:
                        xs, ys = [x + offsets[stage] for x, _ in points], [y for _, y in points]
                        marker = {} if len(points) > 1 else {"marker": "o", "ls": ""}
                        axis.plot(xs, ys, color=colour, **style, **marker)
            axis.plot([], [], color=colour, label=name)
        if reference:
            axis.plot([], [], color="grey", alpha=0.35, lw=5, label="reference run")
        for stage in order:
            if length[stage]:
                axis.axvline(offsets[stage], color="0.85", zorder=0)
                axis.annotate(stage, (offsets[stage], 1.0), xycoords=("data", "axes fraction"), xytext=(3, -12),
                              textcoords="offset points", fontsize=8, color="0.35")  # fmt: skip
        axis.set_ylabel(title)
        if title == "loss":
            axis.set_yscale("log")
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1, 0].set_xlabel("optimizer updates")
    figure.tight_layout()
    path = workdir / "curves.png"
    with path.open("wb") as file:
        figure.savefig(file, dpi=110, format="png")
    plt.close(figure)
    return path
