"""inspect.png of `train.py --inspect`: the first rows of a batch with their pictures, their tokens and their attention mask.

A band for each batch row. On the left the pictures as the model sees them (resized, augmented) and the tokens, each on the
colour of its kind and underlined where a loss falls. On the right the mask: a line for each position, a column for each
position that it may see, coloured by what is seen.
"""

import numpy as np
from PIL import Image, ImageDraw

from vlax.text.printable import printable
from vlax.training.inspect import examples, mask_figure
from vlax.training.inspect.examples import Example
from vlax.training.inspect.mask_figure import DRAWN, INK, KINDS, LOSS, PAPER, SOFT, UNSEEN, fit, font

ROWS, EXAMPLES = 4, 6  # bands, and the examples of a packed row whose pictures and tokens are shown
MARGIN, GAP, LEFT = 48, 44, 600  # pixels; the width of the left half
PICTURE, WIDEST = 320, 400  # sides of a picture alone in its row: least and most
CHIP, MOST_LINES = 26, 24  # line pitch of the tokens, lines of them an example
LINE = "#dadce0"


def draw(s, batch: dict[str, np.ndarray], rows: list[list[Example]]) -> Image.Image:
    """The sheet of the first rows that are not filler. s: the stage's Session; rows: `inspection_batch.examples(batch)`."""
    shown = [(at, row) for at, row in enumerate(rows) if row][:ROWS]
    bands = [_band(s, batch, at, row) for at, row in shown]
    width = 2 * MARGIN + LEFT + GAP + mask_figure.WIDTH
    head = MARGIN + 128
    sheet = Image.new("RGB", (width, head + sum(band.height + GAP for band in bands) + MARGIN - GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN - 10), f"{s.plan.name}: the first rows as the model sees them", INK, font(32, "-Bold"))
    pen.text((MARGIN, MARGIN + 36), _subtitle(s, batch), SOFT, font(18))
    _legend(pen, MARGIN, MARGIN + 68)
    y = head
    for band in bands:
        pen.line((MARGIN, y - GAP // 2, width - MARGIN, y - GAP // 2), LINE, 2)
        sheet.paste(band, (MARGIN, y))
        y += band.height + GAP
    return sheet


def _subtitle(s, batch) -> str:
    slots, length = batch["has_image"].shape[1], batch["tokens"].shape[1]
    drawn = f" ({DRAWN} drawn)" if s.config.tokens_per_image > DRAWN else ""
    images = f"{slots} x " * (slots > 1) + f"{s.config.tokens_per_image} image tokens{drawn}, then " if s.config.vision else ""
    changes = f" · augment {', '.join(s.batches.collate.augment)}" if s.batches.collate.augment else ""
    return f"mask {s.config.mask} · sequence: {images}{length} text tokens{changes}"


def _legend(pen: ImageDraw.ImageDraw, x: int, y: int) -> None:
    entries = {"image token": KINDS["image"], "prompt": KINDS["prompt"], "answer (with EOS)": KINDS["answer"],
               "pad": KINDS["pad"], "not seen": UNSEEN}  # fmt: skip
    for label, fill in entries.items():
        pen.rectangle((x, y + 2, x + 18, y + 20), fill, LINE)
        pen.text((x + 26, y), label, INK, font(17))
        x += 26 + int(font(17).getlength(label)) + 30
    pen.ellipse((x + 4, y + 6, x + 14, y + 16), LOSS)
    pen.text((x + 26, y), "a loss falls here (right edge too): the next token is to be predicted", INK, font(17))


def _band(s, batch, at: int, row: list[Example]) -> Image.Image:
    left, right = _texts(s, batch, at, row), mask_figure.panel(s, batch, at, row)
    band = Image.new("RGB", (LEFT + GAP + right.width, max(left.height, right.height)), PAPER)
    band.paste(left, (0, 0))
    band.paste(right, (LEFT + GAP, 0))
    return band


def _texts(s, batch, at: int, row: list[Example]) -> Image.Image:
    """Names, pictures and tokens of a batch row's examples, one below another."""
    mixture = s.batches.collate.mixture
    page = Image.new("RGB", (LEFT, 12_000), PAPER)
    pen, y = ImageDraw.Draw(page), 0
    packed = batch["row"].shape[1] > 1
    if packed:
        pen.text((0, y), f"row {at}: {len(row)} example{'s' if len(row) > 1 else ''}", INK, font(22, "-Bold"))
        y += 40
    for e in row[:EXAMPLES]:
        title, face = f"example {e.number}: " if packed else f"row {at}: ", font(19, "-Bold")
        name = fit(printable(mixture.name(e.row))[::-1], face, LEFT - face.getlength(title))[::-1]  # its end tells rows apart
        pen.text((0, y), title + name, INK, face)
        y += 30
        if e.image is None:
            hidden = "text alone" if mixture.row(e.row).picture is None else "its picture is not shown"
            pen.text((0, y), hidden, SOFT, font(17, "-Oblique"))
            y += 28
        else:
            picture = _enlarged(e.image, PICTURE // 3 if packed else PICTURE)
            page.paste(picture, (1, y + 1))
            pen.rectangle((0, y, picture.width + 1, y + picture.height + 1), outline=LINE)
            height, width = e.image.shape[:2]
            pen.text((picture.width + 16, y), f"{width} x {height} pixels", SOFT, font(17))
            pen.text((picture.width + 16, y + 24), f"{s.config.tokens_per_image} image tokens", SOFT, font(17))
            y += picture.height + 14
        y = _chips(pen, y, e, examples.pieces(s.encoder.tokenizer, e.tokens)) + 24
    if len(row) > EXAMPLES:
        pen.text((0, y), f"… and {len(row) - EXAMPLES} examples more", SOFT, font(17, "-Oblique"))
        y += 48
    return page.crop((0, 0, LEFT, max(y - 24, 1)))


def _enlarged(image: np.ndarray, least: int) -> Image.Image:
    """At least so many pixels a side by a whole factor: the model's pixels stay what they are. At most WIDEST wide."""
    picture = Image.fromarray(image)
    factor = max(1, -(-least // max(picture.size)))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    if picture.width > WIDEST:
        picture = picture.resize((WIDEST, picture.height * WIDEST // picture.width), Image.Resampling.LANCZOS)
    return picture


def _chips(pen: ImageDraw.ImageDraw, y: int, e: Example, pieces: list[str]) -> int:
    """The tokens, each on the colour of its kind, underlined where a loss falls. Returns where they end."""
    x, lines, face = 0, 1, font(16)
    for n, piece in enumerate(pieces):
        text = printable(piece).replace(" ", "·") or "‥"
        width = int(face.getlength(text)) + 8
        if x and x + width > LEFT:
            if lines == MOST_LINES:
                pen.text((0, y + CHIP + 2), f"… and {len(pieces) - n} tokens more", SOFT, font(16, "-Oblique"))
                return y + 2 * CHIP + 4
            x, y, lines = 0, y + CHIP + 6, lines + 1
        pen.rectangle((x, y, x + width - 2, y + CHIP - 4), _light(KINDS["answer" if e.answer[n] else "prompt"], 0.55))
        pen.text((x + 3, y + 1), fit(text, face, LEFT - 8), INK, face)
        if e.loss[n]:
            pen.rectangle((x, y + CHIP - 3, x + width - 2, y + CHIP), LOSS)
        x += width
    return y + CHIP + 4


def _light(colour: str, share: float) -> tuple[int, ...]:
    """The colour mixed with so much white."""
    return tuple(int(v + (255 - v) * share) for v in mask_figure.rgb(colour))
