"""inspect.png of `train.py --inspect`: the first rows of a batch with their pictures, their tokens and their attention mask.

A band for each batch row. On the left the pictures as the model sees them (resized, augmented) and what is printed of the row.
On the right the mask: a line for each position, a column for each position that it may see, coloured by what is seen.
"""

import itertools
import textwrap
import warnings

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

from vlax.printing import printable
from vlax.text.pieces import pieces
from vlax.training.inspect import examples, rendered
from vlax.training.inspect.examples import Batch, Example
from vlax.training.session import Session

ROWS, EXAMPLES, LINES, COLUMNS = 4, 6, 34, 90  # bands; on the left, examples of a packed row, lines and columns of text
DRAWN = 36  # tokens of an image, evenly spaced: the text would be a thin line beside the 784 of a large one
NAMED = 63  # positions of a mask up to which each token of the text has room for its name
WIDTH, HEAD, BAND, SIDE = 17, 1.6, 9.3, 7.6  # inches: of the sheet; above the bands, of a band, of its mask
SOFT, UNSEEN, RIM = "#5f6368", "#f3f4f6", "#dadce0"
# Of Okabe & Ito (2008), which colour-blind readers can tell apart; loss is vermilion and has a form of its own.
KINDS = {"image": "#56b4e9", "prompt": "#f0b93a", "answer": "#2bab83", "pad": "#b9bec4"}
LOSS = "#c44e00"


def draw(session: Session, batch: Batch, rows: list[list[Example]]) -> Image.Image:
    """The sheet of the first rows that are not filler. rows: `examples.examples(batch)`."""
    shown = [(at, row) for at, row in enumerate(rows) if row][:ROWS]
    height = HEAD + BAND * max(len(shown), 1)
    sheet = Figure((WIDTH, height), dpi=100)
    grid = {"left": 0.03, "right": 0.98, "top": 1 - (HEAD + BAND - SIDE - 0.3) / height, "bottom": 0.3 / height,
            "hspace": BAND / SIDE - 1, "wspace": 0.19, "width_ratios": (6.9, SIDE)}  # fmt: skip
    cells = sheet.subplots(max(len(shown), 1), 2, squeeze=False, gridspec_kw=grid)
    style = {"font.family": "DejaVu Sans", "font.size": 10, "text.parse_math": False}
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of scripts that the font lacks, drawn as boxes
        _head(sheet, session, batch)
        for (left, right), (at, row) in zip(cells, shown or [(0, [])], strict=True):
            _row(left, session, batch, at, row)
            _mask(right, session, batch, at, row)
        canvas = FigureCanvasAgg(sheet)
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _head(sheet: Figure, session: Session, batch: Batch) -> None:
    """Title, settings and legend."""
    config, slots, length = session.config, batch["has_image"].shape[1], batch["tokens"].shape[1]
    drawn = f" ({DRAWN} drawn)" if config.tokens_per_image > DRAWN else ""
    images = f"{slots} x " * (slots > 1) + f"{config.tokens_per_image} image tokens{drawn}, then " if config.vision else ""
    changes = "".join(f" · augment {', '.join(names)}" for names in [session.batches.collate.augment] if names)
    settings = f"mask {config.mask} · sequence: {images}{length} text tokens{changes}"
    told = "a loss falls here (right edge too): the next token is to be predicted"
    loss = Line2D([], [], marker="o", ls="", color=LOSS, label=told)
    handles = [Patch(fc=KINDS["image"], label="image token"), Patch(fc=KINDS["prompt"], label="prompt"),
               Patch(fc=KINDS["answer"], label="answer (with EOS)"), Patch(fc=KINDS["pad"], label="pad"),
               Patch(fc=UNSEEN, ec=RIM, label="not seen"), loss]  # fmt: skip
    height = sheet.get_figheight()
    sheet.text(0.03, 1 - 0.6 / height, f"{session.plan.name}: the first rows as the model sees them", size=23, weight="bold")
    sheet.text(0.03, 1 - 0.95 / height, settings, size=13, color=SOFT)
    sheet.legend(handles=handles, loc="center left", bbox_to_anchor=(0.03, 1 - 1.2 / height), ncols=6, frameon=False,
                 borderpad=0, borderaxespad=0, handlelength=1.2, fontsize=12)  # fmt: skip


def _row(axis: Axes, session: Session, batch: Batch, at: int, row: list[Example]) -> None:
    """Pictures side by side, and below them the row as it is printed."""
    axis.set_axis_off()
    side = 0.14 if batch["row"].shape[1] > 1 else 0.36  # of the band
    for n, image in enumerate(list(itertools.chain.from_iterable(e.images for e in row))[:EXAMPLES]):
        picture = axis.inset_axes((n * side * 1.18, 1.15 - side, side * 1.2, side), anchor="NW", xticks=[], yticks=[])
        picture.imshow(session.config.drawn(image))
        picture.spines[:].set_color(RIM)
    lines = rendered.in_full(session, at, row[:EXAMPLES], batch, False, COLUMNS)
    if len(row) > EXAMPLES:
        lines.append(f"… and {len(row) - EXAMPLES} examples more")
    lines = [part for line in lines for part in textwrap.wrap(line, COLUMNS, subsequent_indent=" " * rendered.INDENT)]
    shown = lines if len(lines) <= LINES else [*lines[:LINES], f"… and {len(lines) - LINES} lines more"]
    axis.text(0, 1.14 - side, "\n".join(shown), va="top", family="DejaVu Sans Mono", transform=axis.transAxes)


def kinds(batch: Batch, at: int, ids: np.ndarray) -> np.ndarray:
    """What each position of a row's sequence is: "image", "prompt", "answer" or "pad" (hidden images too)."""
    text = np.array(["pad", "prompt", "answer"])[batch["segment"][at]]
    images = len(ids) - len(text)
    return np.where(ids > 0, np.concatenate([np.full(images, "image"), text]), "pad")


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def mask_pixels(batch: Batch, at: int, mask: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """uint8[S,S,3]: a pixel for each (query, key), coloured by what the key is where it is seen."""
    colours = np.array([rgb(KINDS[kind]) for kind in kinds(batch, at, ids)], np.uint8)
    return np.where(mask[..., None], colours[None], np.array(rgb(UNSEEN), np.uint8))


def drawn_positions(slots: int, tokens_per_image: int, size: int) -> np.ndarray:
    """int[...]: all positions of the text, and at most DRAWN of each image's."""
    few = np.linspace(0, tokens_per_image - 1, min(tokens_per_image, DRAWN)).round().astype(int)
    images = [few + slot * tokens_per_image for slot in range(slots)]
    return np.concatenate([*images, np.arange(slots * tokens_per_image, size)])


def _mask(axis: Axes, session: Session, batch: Batch, at: int, row: list[Example]) -> None:
    """The mask of batch row `at`, between strips in the colours of who looks (left) and what is seen (top), with labels, and
    of the positions where a loss falls (right)."""
    mask, ids, _ = examples.attention(batch, at, session.config.tokens_per_image, session.config.mask)
    kept = drawn_positions(batch["has_image"].shape[1], session.config.tokens_per_image, len(ids))
    mask, ids = mask[np.ix_(kept, kept)], ids[kept]
    size, before = len(ids), len(ids) - batch["tokens"].shape[1]
    axis.imshow(mask_pixels(batch, at, mask, ids))
    if size <= 2 * NAMED:
        axis.hlines(np.arange(size) + 0.5, -0.5, size - 0.5, color="white", lw=0.7)
        axis.vlines(np.arange(size) + 0.5, -0.5, size - 0.5, color="white", lw=0.7)
    losses = [before + e.begin + n for e in row for n in np.flatnonzero(e.loss)]
    axis.scatter(losses, losses, s=min(350 / size, 7) ** 2, color=LOSS, lw=0, zorder=3)
    colours = np.array([rgb(KINDS[kind]) for kind in kinds(batch, at, ids)], np.uint8)
    edge = np.where(np.isin(np.arange(size), losses)[:, None], rgb(LOSS), 255).astype(np.uint8)
    where, texts = zip(*_labels(session, batch, at, row, ids), strict=True)
    for bounds, strip in (((-0.017, 0, 0.012, 1), colours[:, None]), ((0, 1.005, 1, 0.012), colours[None]),
                          ((1.006, 0, 0.008, 1), edge[:, None])):  # fmt: skip
        beside = axis.inset_axes(bounds, xticks=[], yticks=[])
        beside.imshow(strip, aspect="auto")
        beside.spines[:].set_visible(False)
        beside.tick_params(length=0, labeltop=True, labelbottom=False, labelsize=9)
        if bounds[0] < 0:
            beside.set_yticks(where, texts)
        elif bounds[1] > 1:
            beside.set_xticks(where, texts, rotation=90)
    axis.set_axis_off()
    axis.text(-0.03, 1.03, "line: looks\ncolumn:\nis seen", transform=axis.transAxes, ha="right", color=SOFT)


def _labels(session: Session, batch: Batch, at: int, row: list[Example], ids: np.ndarray) -> list[tuple[float, str]]:
    """(middle, text), far enough from each other to be read: the tokens of the text where there is room for them, and runs of
    one kind and example: image image prompt answer pad -> "image 2", "prompt 1", "answer 1", "pad 1"."""
    kind, before, named = kinds(batch, at, ids), len(ids) - batch["tokens"].shape[1], len(ids) <= NAMED
    scale = session.config.tokens_per_image / max(1, min(session.config.tokens_per_image, DRAWN))
    edges = np.flatnonzero((kind[1:] != kind[:-1]) | (ids[1:] != ids[:-1])) + 1
    found: list[tuple[float, str]] = []
    for e in row if named else ():
        texts = (printable(text).replace(" ", "·") or "‥" for text in pieces(session.encoder.tokenizer, e.tokens))
        found += [(before + e.begin + n, text) for n, text in enumerate(texts)]
    for a, b in itertools.pairwise([0, *edges.tolist(), len(kind)]):
        if not named or kind[a] in ("image", "pad"):
            name = "no image" if ids[a] == 0 and a < before else kind[a]
            whose = f"{ids[a]}: " if ids[a] and batch["row"].shape[1] > 1 else ""
            found.append(((a + b - 1) / 2, f"{whose}{name} {round((b - a) * (scale if a < before else 1))}"))
    out: list[tuple[float, str]] = []
    for middle, text in sorted(found):
        if not out or middle - out[-1][0] >= len(ids) / NAMED:
            out.append((middle, text if len(text) < 16 else text[:14] + "…"))
    return out
