"""The attention mask of a batch row as a picture, for inspect.png: a line for each position, a column for each position that it
may see, coloured by what is seen."""

import functools
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vlax.text.printable import printable
from vlax.training.inspect import examples
from vlax.training.inspect.examples import Example

SIDE = 760  # pixels, the most
DRAWN = 36  # tokens of an image, evenly spaced: the text would be a thin line beside the 784 of a large one
STRIP, LABELS, EDGE = 14, 104, 30  # the coloured strips beside the mask, the labels beside them, the right edge
WIDTH = LABELS + STRIP + SIDE + EDGE
INK, SOFT, PAPER, UNSEEN = "#1a1a1a", "#5f6368", "#ffffff", "#f3f4f6"
# Of Okabe & Ito (2008), which colour-blind readers can tell apart; loss is vermilion and has a form of its own.
KINDS = {"image": "#56b4e9", "prompt": "#f0b93a", "answer": "#2bab83", "pad": "#b9bec4"}
LOSS = "#c44e00"


def kinds(batch, at: int, ids: np.ndarray) -> np.ndarray:
    """What each position of a row's sequence is: "image", "prompt", "answer" or "pad" (hidden images too)."""
    text = np.array(["pad", "prompt", "answer"])[batch["segment"][at]]
    images = len(ids) - len(text)
    return np.where(ids > 0, np.concatenate([np.full(images, "image"), text]), "pad")


def mask_pixels(batch, at: int, mask: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """uint8[S,S,3]: a pixel for each (query, key), coloured by what the key is where it is seen."""
    colours = np.array([rgb(KINDS[kind]) for kind in kinds(batch, at, ids)], np.uint8)
    return np.where(mask[..., None], colours[None], np.array(rgb(UNSEEN), np.uint8))


def drawn_positions(slots: int, tokens_per_image: int, size: int) -> np.ndarray:
    """int[...]: all positions of the text, and at most DRAWN of each image's."""
    few = np.linspace(0, tokens_per_image - 1, min(tokens_per_image, DRAWN)).round().astype(int)
    images = [few + slot * tokens_per_image for slot in range(slots)]
    return np.concatenate([*images, np.arange(slots * tokens_per_image, size)])


def panel(s, batch, at: int, row: list[Example]) -> Image.Image:
    """The mask of batch row `at`, with strips, labels and loss positions; at most WIDTH pixels wide."""
    mask, ids, _ = examples.attention(batch, at, s.config.tokens_per_image, s.config.mask)
    kept = drawn_positions(batch["has_image"].shape[1], s.config.tokens_per_image, len(ids))
    mask, ids = mask[np.ix_(kept, kept)], ids[kept]
    size = len(ids)
    cell = max(1, SIDE // size)
    side = min(cell * size, SIDE)
    x0 = y0 = LABELS + STRIP
    sheet = Image.new("RGB", (x0 + side + EDGE, y0 + side + 8), PAPER)
    picture = Image.fromarray(mask_pixels(batch, at, mask, ids))
    how = Image.Resampling.NEAREST if cell * size <= SIDE else Image.Resampling.BOX
    sheet.paste(picture.resize((side, side), how), (x0, y0))
    pen, scale = ImageDraw.Draw(sheet), side / size
    if cell >= 6:
        for n in range(size + 1):
            pen.line((x0 + n * cell, y0, x0 + n * cell, y0 + side), PAPER)
            pen.line((x0, y0 + n * cell, x0 + side, y0 + n * cell), PAPER)
    before = size - batch["tokens"].shape[1]
    for n in (before + e.begin + k for e in row for k in np.flatnonzero(e.loss)):
        x, y, radius = x0 + (n + 0.5) * scale, y0 + (n + 0.5) * scale, max(1.0, min(scale * 0.32, 5.0))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), LOSS)
        pen.rectangle((x0 + side + 4, y - scale * 0.35, x0 + side + 10, y + scale * 0.35), LOSS)
    labels = _region_labels(s, batch, at, ids) if scale < 12 else _token_labels(s, batch, at, row, ids)
    _axes(sheet, labels, kinds(batch, at, ids), scale)
    return sheet


def _regions(kind: np.ndarray, ids: np.ndarray) -> list[tuple[int, int]]:
    """Runs of one kind and example: image image prompt answer pad -> [(0, 2), (2, 3), (3, 4), (4, 5)]."""
    edges = np.flatnonzero((kind[1:] != kind[:-1]) | (ids[1:] != ids[:-1])) + 1
    return list(zip([0, *edges.tolist()], [*edges.tolist(), len(kind)], strict=True))


def _region_labels(s, batch, at: int, ids) -> list[tuple[float, str]]:
    """(middle, text) of the regions."""
    kind, before = kinds(batch, at, ids), len(ids) - batch["tokens"].shape[1]
    out = []
    for a, b in _regions(kind, ids):
        name = "no image" if ids[a] == 0 and a < before else kind[a]
        whose = f"{ids[a]}: " if ids[a] and batch["row"].shape[1] > 1 else ""
        times = s.config.tokens_per_image / min(s.config.tokens_per_image, DRAWN) if a < before else 1
        out.append(((a + b) / 2, f"{whose}{name} {round((b - a) * times)}"))
    return out


def _token_labels(s, batch, at: int, row: list[Example], ids) -> list[tuple[float, str]]:
    """The same with every text token named, where there is room for it."""
    kind, before = kinds(batch, at, ids), len(ids) - batch["tokens"].shape[1]
    labels = [label for label, (a, b) in zip(_region_labels(s, batch, at, ids), _regions(kind, ids), strict=True)
              if kind[a] in ("image", "pad")]  # fmt: skip
    for e in row:
        for n, piece in enumerate(examples.pieces(s.encoder.tokenizer, e.tokens)):
            labels.append((before + e.begin + n + 0.5, printable(piece).replace(" ", "·") or "‥"))
    return labels


def _axes(sheet: Image.Image, labels: list[tuple[float, str]], kind: np.ndarray, scale: float) -> None:
    """Strips in the colours of the regions along the left (who looks) and the top (what is seen), and labels beside them."""
    pen, face, zero = ImageDraw.Draw(sheet), font(13), LABELS + STRIP
    for n, name in enumerate(kind):
        low, high = zero + n * scale, zero + max((n + 1) * scale - 1, n * scale)
        pen.rectangle((LABELS, low, zero - 4, high), KINDS[name])
        pen.rectangle((low, LABELS, high, zero - 4), KINDS[name])
    pen.multiline_text((4, LABELS - 44), "line: looks\ncolumn:\nis seen", SOFT, font(12), spacing=2)
    last = -100.0
    for middle, text in sorted(labels):
        if middle * scale - last < 12:
            continue  # no room
        last, text = middle * scale, fit(text, face, LABELS - 8)
        pen.text((LABELS - 5, zero + last), text, INK, face, anchor="rm")
        ink = Image.new("L", (LABELS, 16))
        ImageDraw.Draw(ink).text((5, 8), text, 255, face, anchor="lm")
        sheet.paste(INK, (int(zero + last) - 8, 0), ink.rotate(90, expand=True))


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def fit(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """The text, its end cut where it is wider than `width` pixels."""
    text = text.encode("utf-8", "replace").decode()
    while len(text) > 1 and face.getlength(text) > width:
        text = text[:-2] + "…"
    return text


@functools.cache
def font(size: int, style: str = "") -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib carries."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVuSans{style}.ttf"), size)
