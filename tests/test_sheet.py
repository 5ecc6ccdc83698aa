"""The contact sheet and the table of scores."""

import pytest
from PIL import Image

from vlax.errors import VlaxError
from vlax.evaluation import table
from vlax.evaluation.report import sheet
from vlax.evaluation.report.sheet import Sample, write_sheet
from vlax.evaluation.table import ScoreRow, score_table
from vlax.scores.statistics import Interval


def colours(path):
    return {colour for _, colour in Image.open(path).getcolors(maxcolors=1 << 24)}


def rgb(code):
    return tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))


def test_sheet_shows_pictures_and_markers(tmp_path):
    path = tmp_path / "new" / "sheet.png"
    good = Sample(Image.new("RGB", (64, 48), (10, 20, 200)), "is it blue?", "yes", ("yes", "blue"), 1.0, "no")
    bad = Sample(Image.new("L", (30, 300), 90), "", "", (), 0.0)
    plain = Sample(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "", "word " * 500, ("日本 \ud800", "x" * 900), None, "")
    write_sheet(path, [good, bad, plain], "A title", "and what it is", columns=2)
    image = Image.open(path)
    assert image.format == "PNG" and image.mode == "RGB"
    assert image.width == 2 * sheet._CARD + sheet._GAP + 2 * sheet._MARGIN
    assert {(10, 20, 200), (90, 90, 90), rgb(sheet._GOOD), rgb(sheet._BAD), rgb(sheet._PLAIN)} <= colours(path)
    write_sheet(path, [good], "One card is as wide as one card", good_from=2.0)
    assert Image.open(path).width == sheet._CARD + 2 * sheet._MARGIN
    assert rgb(sheet._BAD) in colours(path) and rgb(sheet._GOOD) not in colours(path)


def test_sheet_is_the_same_twice(tmp_path):
    samples = [Sample(Image.new("RGB", (5, 5)), "", "a", ("b",), 0.5)] * 5
    write_sheet(tmp_path / "a.png", samples, "t")
    write_sheet(str(tmp_path / "b.png"), samples, "t")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("text", ["one two three four five six", "x" * 200, "a " + "y" * 90 + " b", "", "word " * 99])
def test_wrapping_keeps_width_and_count(text):
    font = sheet._font(21)
    lines = sheet._wrap(text, font, 150, 4)
    assert len(lines) <= 4 and all(font.getlength(line) <= 150 for line in lines)
    whole = "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert whole or lines[-1].endswith("…")


def test_sheet_needs_samples(tmp_path):
    with pytest.raises(VlaxError, match="needs a sample"):
        write_sheet(tmp_path / "a.png", [], "t")


def test_table_is_that_of_its_docstring():
    rows = [
        ScoreRow(
            "CIDEr",
            0.612,
            Interval(0.612, 0.571, 0.655),
            0.208,
            0.171,
            Interval(0.404, 0.360, 0.449),
            Interval(0.441, 0.398, 0.486),
        ),
        ScoreRow("Bleu_4", 0.201, twin=0.112),
    ]
    text = score_table(rows)
    drawn = [line.removeprefix("    ") for line in table.__doc__.splitlines() if line.startswith("    ")]
    assert text.splitlines() == drawn
    assert len({len(line) for line in text.splitlines()}) == 1


def test_table_of_negative_and_wide_values():
    text = score_table([ScoreRow("a metric with a long name", -10.0, over_twin=Interval(-0.5, -1.0, 0.25))])
    assert "-0.500 [-1.000, 0.250]" in text and "-10.000" in text
    with pytest.raises(VlaxError, match="No scores to show"):
        score_table([])
