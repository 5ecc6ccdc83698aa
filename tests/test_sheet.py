"""The contact sheet and the table of scores."""

import pytest
from PIL import Image

from vlax.errors import VlaxError
from vlax.evaluation import table
from vlax.evaluation.report import sheet
from vlax.evaluation.report.report import ReportSample
from vlax.evaluation.report.sheet import write_sheet
from vlax.evaluation.table import ScoreRow, score_table
from vlax.images import as_rgb
from vlax.printing import columns
from vlax.scores.statistics import Interval


def colours(path):
    return {colour for _, colour in Image.open(path).convert("RGB").getcolors(maxcolors=1 << 24)}


def rgb(code):
    return tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))


def sample(image, prompt, prediction, references, score, twin=None):
    return ReportSample("s", f"{score} {prediction[:9]}", image, prompt, prediction, references, "", {"accuracy": score}, twin)


def test_sheet_shows_pictures_and_markers(tmp_path):
    path = tmp_path / "new" / "sheet.png"
    good = sample(Image.new("RGB", (64, 48), (10, 20, 200)), "is it $blue$?", "yes", ("yes", "blue"), 1.0, "no")
    bad = sample(Image.new("L", (30, 300), 90), "", "", (), 0.0)
    odd = sample(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "", "word " * 500, ("日本 \ud800", "x" * 900), 0.2, "")
    unseen = sample(None, "what?", "nothing", (), 0.0)
    write_sheet(path, [good, bad, odd, unseen, *[bad] * 3], "A title", "and what it is")
    image = Image.open(path)
    assert image.format == "PNG"
    assert {(10, 20, 200), (90, 90, 90), rgb(sheet.GOOD), rgb(sheet.BAD)} <= colours(path)
    wide, tall = image.size
    write_sheet(path, [good], "One is narrower and lower")
    assert Image.open(path).width < wide and Image.open(path).height < tall
    assert rgb(sheet.GOOD) in colours(path) and rgb(sheet.BAD) not in colours(path)
    write_sheet(path, [odd], "Black lies under its transparent pixels, white is shown")
    assert rgb(sheet.FAIR) in colours(path) and (10, 20, 200) not in colours(path)


def test_a_sheet_of_captions_has_thirds_of_all_rows(tmp_path):
    """A CIDEr of 0.5 is one of 10: among rows of 3 and more it is low."""
    low = ReportSample("s", "1", Image.new("RGB", (9, 9)), "", "a dog", ("a cat",), "", {"CIDEr": 0.5})
    for values, colour in (({}, sheet.FAIR), ({"s": {str(i): float(i) for i in range(2, 9)}}, sheet.BAD)):
        write_sheet(tmp_path / "a.png", [low], "t", values=values)
        shown = colours(tmp_path / "a.png") & {rgb(code) for code in (sheet.GOOD, sheet.FAIR, sheet.BAD)}
        assert shown == {rgb(colour)}


def test_equal_references_are_shown_once(tmp_path):
    for name, references in (("a.png", ("yes", "yes", "no")), ("b.png", ("yes", "no"))):
        write_sheet(tmp_path / name, [sample(Image.new("RGB", (5, 5)), "", "a", references, 1.0)], "t")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_sheet_is_the_same_twice(tmp_path):
    samples = [sample(Image.new("RGB", (5, 5)), "", "a", ("b",), 0.5)] * 5
    write_sheet(tmp_path / "a.png", samples, "t")
    write_sheet(str(tmp_path / "b.png"), samples, "t")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_picture_is_shown_as_rgb():
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (10, 20, 30, 255))
    assert list(as_rgb(clear).getdata()) == [(255, 255, 255), (10, 20, 30)] and clear.mode == "RGBA"
    plain = Image.new("RGB", (1, 1), "red")
    assert as_rgb(plain) is not plain and list(as_rgb(plain).getdata()) == [(255, 0, 0)]


@pytest.mark.parametrize("samples", ([], [sample(None, "what?", "nothing", (), 0.0)]))
def test_sheet_needs_a_picture(tmp_path, samples):
    with pytest.raises(VlaxError, match="needs a sample with a picture"):
        write_sheet(tmp_path / "a.png", samples, "t")


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


def test_columns():
    assert columns([("group", "bytes"), ("vision", "8")]) == "group   bytes\nvision      8"
    assert columns([("a", "bb", "c"), ("aa", "", "")], left=2) == "a   bb  c\naa"
