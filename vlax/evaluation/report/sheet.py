"""Contact sheet: pictures with what was asked, predicted and expected, as one PNG.

    write_sheet("sheet.png", [Sample(image, "is it red?", "no", ("no", "not really"), 1.0, twin="yes")], "stage 3, VQA")

Drawn with Pillow in DejaVu Sans, the font that matplotlib carries, so that sheets look alike on every machine.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from etils import epath
from PIL import Image, ImageDraw, ImageFont, ImageOps

from vlax.errors import VlaxError

_CARD, _PICTURE, _GAP, _MARGIN, _PAD = 460, 345, 36, 56, 20  # pixels; the picture box is 4:3
_INK, _SOFT, _LINE, _PAPER, _BOX = "#1a1a1a", "#5f6368", "#dadce0", "#ffffff", "#f1f3f4"
# Bluish green and vermilion stay apart for colour-blind readers (Okabe & Ito 2008); the sign says it as well.
_GOOD, _BAD, _PLAIN = "#00805f", "#c44e00", "#5f6368"
_BODY, _LEAD = 21, 29  # text size and line pitch, pixels
_LABEL = 74  # width of the column of labels
_MOST_LINES = {"asked": 4, "model": 6, "truth": 4, "blind": 4}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One card of the sheet.

    image       any mode and size
    prompt      the question; "" for a caption
    prediction  what the model said
    references  what humans said; the first two are shown
    score       of this sample, in the metric's units; None shows a neutral marker
    twin        what the blind twin said; None leaves the line out
    """

    image: Image.Image
    prompt: str
    prediction: str
    references: tuple[str, ...]
    score: float | None = None
    twin: str | None = None


def write_sheet(
    path: str | Path, samples: Sequence[Sample], title: str, subtitle: str = "", columns: int = 4, good_from: float = 0.5
) -> None:
    """Writes the samples as a PNG of cards, in reading order, `columns` to a row.

    Args:
      path: a file, also on an object store; missing folders are made.
      samples: at least one. A sheet of 24 is about 2,000 x 4,500 pixels.
      title, subtitle: the head of the sheet.
      good_from: scores from here on get the green tick, lower ones the orange cross (per-sample units).

    Raises VlaxError: no samples, a column count below 1.
    """
    if not samples or columns < 1:
        raise VlaxError(f"A sheet needs a sample and a column or more; got {len(samples)} samples, columns={columns}.")
    cards = [_card(sample, good_from) for sample in samples]
    columns = min(columns, len(cards))
    rows = [cards[i : i + columns] for i in range(0, len(cards), columns)]
    inner = columns * _CARD + (columns - 1) * _GAP
    title_lines, subtitle_lines = _wrap(title, _font(38, "-Bold"), inner, 3), _wrap(subtitle, _font(24), inner, 4)
    head = _MARGIN + 50 * len(title_lines) + 34 * len(subtitle_lines) + 30
    height = head + sum(max(card.height for card in row) + _GAP for row in rows) - _GAP + _MARGIN
    sheet = Image.new("RGB", (inner + 2 * _MARGIN, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _MARGIN
    for lines, font, colour, pitch in ((title_lines, _font(38, "-Bold"), _INK, 50), (subtitle_lines, _font(24), _SOFT, 34)):
        for line in lines:
            draw.text((_MARGIN, y), line, colour, font)
            y += pitch
    y = head
    for row in rows:
        tallest = max(card.height for card in row)
        for column, card in enumerate(row):
            x = _MARGIN + column * (_CARD + _GAP)
            sheet.paste(card, (x, y))
            draw.rectangle((x - 1, y - 1, x + _CARD, y + tallest), outline=_LINE, width=2)
        y += tallest + _GAP
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        sheet.save(file, format="PNG")


def _card(sample: Sample, good_from: float) -> Image.Image:
    """The picture above its texts; the card is as tall as its texts need."""
    entries = [("model", sample.prediction or "(empty)", _font(_BODY, "-Bold"), _INK)]
    if sample.prompt:
        entries.insert(0, ("asked", sample.prompt, _font(_BODY, "-Oblique"), _INK))
    entries += [("truth" if i == 0 else "", text, _font(_BODY), _SOFT) for i, text in enumerate(sample.references[:2])]
    if sample.twin is not None:
        entries.append(("blind", sample.twin or "(empty)", _font(_BODY), _SOFT))
    width = _CARD - 2 * _PAD - _LABEL
    blocks = [(label, _wrap(text, font, width, _MOST_LINES[label or "truth"]), font, ink) for label, text, font, ink in entries]
    text_height = sum(_LEAD * len(lines) + 10 for _, lines, _, _ in blocks) - 10
    card = Image.new("RGB", (_CARD, _PICTURE + 2 * _PAD + text_height), _PAPER)
    draw = ImageDraw.Draw(card)
    draw.rectangle((0, 0, _CARD, _PICTURE - 1), _BOX)
    # contain() also enlarges: thumbnails of 64 pixels would be stamps otherwise.
    picture = ImageOps.contain(_rgb(sample.image), (_CARD, _PICTURE), Image.Resampling.LANCZOS)
    card.paste(picture, ((_CARD - picture.width) // 2, (_PICTURE - picture.height) // 2))
    _marker(draw, sample.score, good_from)
    y = _PICTURE + _PAD
    for label, lines, font, ink in blocks:
        draw.text((_PAD, y + 3), label, _SOFT, _font(_BODY - 4))
        for line in lines:
            draw.text((_PAD + _LABEL, y), line, ink, font)
            y += _LEAD
        y += 10
    return card


def _marker(draw: ImageDraw.ImageDraw, score: float | None, good_from: float) -> None:
    """A pill in the corner of the picture: sign and score on the colour of good, bad or unknown."""
    colour = _PLAIN if score is None else (_GOOD if score >= good_from else _BAD)
    text = "–" if score is None else f"{'✓' if score >= good_from else '✗'} {score:.2f}"
    font = _font(_BODY, "-Bold")
    width = font.getlength(text) + 24
    box = (_CARD - width - 12, 12, _CARD - 12, 48)
    draw.rounded_rectangle(box, 18, colour, _PAPER, 2)
    draw.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), text, _PAPER, font, anchor="mm")


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float, most: int) -> list[str]:
    """Lines no wider than `width` pixels; words that are wider are cut; after `most` lines an ellipsis."""
    lines: list[str] = []
    line = ""
    # Half of a surrogate pair, which a model may emit, has no glyph and cannot be measured.
    for word in text.encode("utf-8", "replace").decode().split():
        joined = f"{line} {word}" if line else word
        if font.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while font.getlength(word) > width:
            fits = next(n for n in range(len(word), 0, -1) if n == 1 or font.getlength(word[:n]) <= width)
            lines.append(word[:fits])
            word = word[fits:]
            if len(lines) > most:
                break
        line = word
        if len(lines) > most:
            break
    lines += [line] if line else []
    if len(lines) <= most:
        return lines
    last = lines[most - 1]
    while last and font.getlength(f"{last}…") > width:
        last = last[:-1]
    return [*lines[: most - 1], f"{last.rstrip()}…"]


def _rgb(image: Image.Image) -> Image.Image:
    """On white where it is transparent: a plain conversion shows what lies under transparent pixels, often black."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, _PAPER), image).convert("RGB")


@functools.cache
def _font(size: int, style: str = "") -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{style}.ttf"), size)
