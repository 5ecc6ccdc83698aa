"""curves.png and what is read off a run."""

import types

import numpy as np
import pytest
from matplotlib.colors import to_hex

from vlax.training import gauges, plots

MINE = {
    "training loss": {"stage0": [[20, 2.0], [40, 1.0]], "stage1": [[20, 3.0], [40, 0.5]]},
    "loss/text": {"stage0": [[40, 1.1]]},
    "loss/captions": {"stage1": [[20, 0.9], [40, 0.8]]},
    "captions CIDEr": {"stage1": [[20, 0.1], [40, 2.0]]},
    "questions accuracy": {"stage1": [[40, 0.5]]},
}


def test_panels_are_those_of_stage_groups_and_of_metrics():
    """A metric's panel has the stages that were scored by it, and no other."""
    found = plots.panels(MINE, {"decoder": ["stage0"], "whole": ["stage1", "stage2"]})
    assert [(p.title, p.stages, p.names) for p in found] == [
        ("decoder", ("stage0",), ("training loss", "loss/text")),
        ("whole", ("stage1",), ("training loss", "loss/captions")),
        ("CIDEr on validation rows", ("stage1",), ("captions CIDEr",)),
        ("accuracy on validation rows", ("stage1",), ("questions accuracy",)),
    ]


def test_a_source_has_one_colour_and_training_is_thin():
    figure = plots.figure_of(plots.panels(MINE, {"decoder": ["stage0"], "whole": ["stage1"]}), MINE, {})
    lines = {line.get_label(): line for axis in figure.axes for line in axis.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["training loss", "held-out loss, text", "held-out loss, captions", "captions", "questions"]
    colour = {label: to_hex(line.get_color()) for label, line in lines.items()}
    assert colour["captions"] == colour["held-out loss, captions"] and len(set(colour.values())) == 4
    assert lines["training loss"].get_linewidth() < 1 < 2 < lines["held-out loss, captions"].get_linewidth()
    scored = figure.axes[2]
    assert scored.get_xlim() == (0, 40) and scored.get_ylim()[0] == 0, "no room for what there is not"
    figure.canvas.draw()
    for axis in figure.axes:  # the names of stages, and the legend, stand outside of where curves are
        inside = axis.get_window_extent()
        assert not any(text.get_window_extent().overlaps(inside) for text in axis.texts)
        assert not axis.get_legend().get_window_extent().overlaps(inside)


def test_the_learning_rate_is_the_optimizer_s_own():
    stage = types.SimpleNamespace(learning_rate={"projector": 2e-3, "decoder": 1e-4}, accumulate=1, accumulation="scan",
                                  warmup=0.2, final_learning_rate=0.0, clip=1.0, weight_decay=0.0, beta2=0.9,
                                  bf16_momentum=False)  # fmt: skip
    session = types.SimpleNamespace(plan=types.SimpleNamespace(stage=stage, extended=()), updates=10)
    read = [gauges.read(session, update, gauges.Compiler()) for update in (1, 2, 6, 10)]
    rates = [one["learning_rate/projector"] for one in read]
    np.testing.assert_allclose(rates, [1e-3, 2e-3, 1e-3, 0.0], atol=1e-9)  # half way, the peak, half of the cosine, its end
    assert read[0]["learning_rate/decoder"] == pytest.approx(5e-5) and 0.01 < read[0]["memory_gib/host"] < 1000


def test_who_has_compiled_the_like_says_how_long(tmp_path, monkeypatch):
    said, clock = [], iter([0.0, 23.4, 100.0, 101.0, 200.0, 201.0])
    monkeypatch.setenv("VLAX_CACHE", str(tmp_path))
    monkeypatch.setattr(gauges.console, "say", said.append)
    monkeypatch.setattr(gauges.time, "monotonic", lambda: next(clock))
    stage = types.SimpleNamespace(name="stage3", batch_size=8, accumulate=1, text_length=40)
    plan = types.SimpleNamespace(name="stage3", stage=stage, run=types.SimpleNamespace(layers="unroll"))
    session = types.SimpleNamespace(plan=plan, abstract={})
    for _ in range(2):
        with gauges.compiling(session, gauges.contextlib.nullcontext()):
            pass
    (tmp_path / "compiling.json").write_text("{")
    with gauges.compiling(session, gauges.contextlib.nullcontext()):
        pass
    assert said == ["compiling stage3", "compiling stage3 (first time about 23 s)", "compiling stage3"]
