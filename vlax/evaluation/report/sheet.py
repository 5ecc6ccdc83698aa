"""samples.png: the pictures of a few samples with what was asked, predicted and expected."""

import textwrap
import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import matplotlib
from etils import epath
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from vlax.errors import VlaxError
from vlax.evaluation.report.grades import CORRECT, PARTLY, WRONG, grades, has_verdict
from vlax.evaluation.report.report import ReportSample
from vlax.images import as_rgb
from vlax.printing import printable

COLUMNS, WIDTH = 4, 46  # pictures side by side; characters of a line below a picture
# Bluish green and vermilion stay apart for colour-blind readers (Okabe & Ito 2008); the sign says it as well.
GOOD, FAIR, BAD, SOFT = "#00805f", "#7a6200", "#c44e00", "#5f6368"
_COLOURS = {WRONG: BAD, PARTLY: FAIR, CORRECT: GOOD}
_SIGNS = {True: {WRONG: "✗", PARTLY: "~", CORRECT: "✓"}, False: {WRONG: "▼", PARTLY: "●", CORRECT: "▲"}}  # as in the report


def write_sheet(
    path: epath.Path | str, samples: Sequence[ReportSample], title: str, subtitle: str = "",
    values: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Writes the samples that have a picture as a PNG, in reading order; missing folders are made.

    Above a picture stands the headline score, its colour and sign by `grades.py`. values: {set: {id: headline}} of all rows,
    among which a sample is graded; else among the samples. VlaxError where no sample has a picture.
    """
    sets = {sample.set: next(iter(sample.scores)) for sample in samples}
    scores = {name: {s.id: next(iter(s.scores.values())) for s in samples if s.set == name} for name in sets}
    scores |= {name: {**scores[name], **mine} for name, mine in values.items() if name in scores}
    graded = {name: grades(headline, scores[name]) for name, headline in sets.items()}
    signs = {name: _SIGNS[has_verdict(headline, scores[name])] for name, headline in sets.items()}
    shown = [(sample, sample.image) for sample in samples if sample.image is not None]
    if not shown:
        raise VlaxError(f"{path}: a sheet needs a sample with a picture; none of {len(samples)} has one.")
    columns, rows = min(COLUMNS, len(shown)), -(-len(shown) // COLUMNS)
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    style = {"font.family": "DejaVu Sans", "font.size": 9, "text.parse_math": False}
    with matplotlib.rc_context(style), warnings.catch_warnings(), path.open("wb") as file:
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of scripts that the font lacks, drawn as boxes
        layout = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15)  # inches
        figure = Figure((4 * columns, 4.6 * rows + 0.8), dpi=100, layout=layout)
        figure.suptitle("\n".join(textwrap.wrap(printable(title), 25 * columns)), weight="bold", size=15)
        figure.supxlabel("\n".join(textwrap.wrap(printable(subtitle), 50 * columns)), color=SOFT, size=11)
        for axis in figure.subplots(rows, columns, squeeze=False).flat:
            axis.set_axis_off()
        for axis, (sample, image) in zip(figure.axes, shown, strict=False):  # the last row may have room left
            score, grade = next(iter(sample.scores.values())), graded[sample.set][sample.id]
            axis.imshow(as_rgb(image))
            axis.set(xticks=[], yticks=[], anchor="S")
            axis.set_axis_on()
            axis.set_title(f"{signs[sample.set][grade]} {score:.2f}", color=_COLOURS[grade], weight="bold")
            said = [
                ("asked", sample.prompt),
                ("model", sample.prediction or "(empty)"),
                ("blind", "(empty)" if sample.twin == "" else sample.twin),
            ]
            said[2:2] = [("truth", text) for text in [*dict.fromkeys(sample.references)][:2]]
            told = (textwrap.wrap(f"{label}: {printable(text)}", WIDTH, max_lines=4) for label, text in said if text)
            axis.set_xlabel("\n".join(line for lines in told for line in lines), loc="left")
        figure.savefig(file, format="png")
