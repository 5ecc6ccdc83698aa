"""The pictures of the documentation, drawn by the masks, stages and schedule that train: they say what the code does."""

import io

import matplotlib

matplotlib.use("svg")

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from configs import stage4
from vlax import masks
from vlax.training import optimizer

# Readable on light and dark pages: every picture brings its own white ground.
SEEN, UNSEEN, LEARNS, FROZEN, ABSENT = "#2f6db5", "#eef1f5", "#d9822b", "#8fa8c4", "#ffffff"
# (label of a text token, segment, example)
ONE = [("p", masks.PROMPT, 1), ("p", masks.PROMPT, 1), ("a", masks.ANSWER, 1), ("a", masks.ANSWER, 1), ("-", masks.PAD, 0)]
TWO = [("p", masks.PROMPT, 1), ("a", masks.ANSWER, 1), ("q", masks.PROMPT, 1), ("b", masks.ANSWER, 1)]


def _svg(figure: plt.Figure) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", facecolor="white", metadata={"Date": None})
    plt.close(figure)
    return out.getvalue()


def _tables(text: list[tuple[str, int, int]], slots: int, names: str) -> str:
    """One panel a mask kind: who (a row) sees whom (a column)."""
    segment, example = (jnp.array([[token[at] for token in text]], jnp.int32) for at in (1, 2))
    owner = jnp.ones((1, slots), jnp.int32)
    labels = [*names, *(token[0] for token in text)]
    figure, axes = plt.subplots(1, len(masks.KINDS), figsize=(11, 3.1), layout="constrained")
    for axis, kind in zip(axes, masks.KINDS, strict=True):
        sees = masks.attention_mask(segment, example, jnp.ones((1, slots), bool), len(names) // slots, kind, owner)[0]
        axis.imshow(np.asarray(sees), cmap=ListedColormap([UNSEEN, SEEN]), vmin=0, vmax=1)
        axis.set_title(kind, fontsize=10)
        axis.set_xticks(range(len(labels)), labels)
        axis.set_yticks(range(len(labels)), labels)
        axis.set_xticks(np.arange(len(labels)) - 0.5, minor=True)
        axis.set_yticks(np.arange(len(labels)) - 0.5, minor=True)
        axis.grid(which="minor", color="white", lw=1.2)
        axis.tick_params(which="both", length=0)
    axes[0].set_ylabel("query")
    figure.supxlabel("key", fontsize=10)
    return _svg(figure)


def one_picture() -> str:
    return _tables(ONE, 1, "iii")


def two_pictures() -> str:
    return _tables(TWO, 2, "iijj")


def stages() -> str:
    """What learns in which stage, as the configs of the full-size recipe say."""
    config = stage4.get_config("0.9b")
    chain = [*config.parents.values(), config.stage]
    parts = ("vision", "projector", "decoder")
    figure, axis = plt.subplots(figsize=(8, 2.4), layout="constrained")
    for x, stage in enumerate(chain):
        for y, part in enumerate(reversed(parts)):
            trained = part in stage.trainable
            axis.add_patch(plt.Rectangle((x + 0.06, y + 0.08), 0.88, 0.84, color=LEARNS if trained else FROZEN))
            said = f"learns\n{stage.learning_rate[part]:g}" if trained else "frozen"
            axis.text(x + 0.5, y + 0.5, said, ha="center", va="center", fontsize=9, color="white")
    axis.set_xlim(0, len(chain))
    axis.set_ylim(0, len(parts))
    axis.set_xticks(np.arange(len(chain)) + 0.5, [stage.name for stage in chain])
    axis.set_yticks(np.arange(len(parts)) + 0.5, list(reversed(parts)))
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    return _svg(figure)


def schedule() -> str:
    """The share of the peak learning rate over 100 updates, and 40 more after --extend=40."""
    figure, axis = plt.subplots(figsize=(8, 2.4), layout="constrained")
    for updates, extended, colour, name in ((100, (), SEEN, "100 updates"), (140, (40,), LEARNS, "then --extend=40")):
        share = optimizer.schedule(optimizer.OptimizerConfig(updates, extended=extended), np)
        at = np.arange(updates)
        axis.plot(at, [float(share(n)) for n in at], color=colour, lw=2, label=name, zorder=3 if not extended else 2)
    axis.set_xlabel("update")
    axis.set_ylabel("share of the peak")
    axis.legend(frameon=False)
    return _svg(figure)


PICTURES = {"masks": one_picture, "masks_of_two_pictures": two_pictures, "stages": stages, "schedule": schedule}
