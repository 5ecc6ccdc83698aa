"""What `train.py --inspect` prints: rows token by token, lengths, checks (`inspection.py` has an example)."""

import unicodedata

import numpy as np

from vlax.errors import VlaxError
from vlax.printing import BOLD, GREEN, OFF, printable
from vlax.rows import Row
from vlax.text.pieces import pieces
from vlax.text.tokenizer import Tokenizer
from vlax.training.inspect import examples
from vlax.training.inspect.examples import Batch, Check, Example
from vlax.training.session import Session

WHOLE = 4  # rows that are shown in full; of the others there is a line each
BARS = 8  # of the histogram of lengths
INDENT = 11  # columns before what a line says
RED = "\x1b[1;31m"


def head(session: Session, waiting: list[str]) -> list[str]:
    """What holds for every batch of the stage."""
    stage, batches = session.plan.stage, session.batches
    sources = ", ".join(f"{source.name} ({len(source):,} rows)" for source in batches.collate.mixture.sources)
    lines = [f"=== {session.plan.name}: its first batches ===", f"data       {sources}"]
    images = f"{session.config.tokens_per_image} tokens an image, " if session.config.vision else ""
    lines.append(f"model      {images}mask {session.config.mask}, templates {session.encoder.templates}")
    changes = ", ".join(batches.collate.augment) or "none"
    layout = f"packing {stage.packing}" if stage.packing > 1 else f"buckets {tuple(stage.buckets)}" if stage.buckets else ""
    lines.append(f"settings   text_length {stage.text_length}, overlong {stage.overlong}, augment {changes}"
                 + (f", {layout}" if layout else ""))  # fmt: skip
    if waiting:
        lines.append(f"note       not trained yet: {', '.join(waiting)}; tokenizer and shapes are what they will hand over")
    return lines


def described(session: Session, step: int, batch: Batch, rows: list[list[Example]], colours: bool, width: int) -> list[str]:
    """One batch: rows, lengths, checks."""
    where = f", host {session.batches.host} of {session.batches.hosts}" if session.batches.hosts > 1 else ""
    size = f"{len(rows)} rows of {batch['tokens'].shape[1]} text tokens"
    slots = batch["row"].shape[1]
    size += f", up to {slots} examples a row" if slots > 1 else ""
    lines = ["", f"--- batch {step} of {len(session.batches):,}{where}: {size} ---"]
    planned, whole = _planned(session, step), 0
    for at, row in enumerate(rows):
        if row and whole < WHOLE:
            whole += 1
            lines += ["", *in_full(session, at, row, batch, colours, width)]
            left_out = _left_out(session, batch, planned, at)
            lines += [f"{' ' * 6}{left_out}"] if left_out and slots > 1 else []
            continue
        left_out = _left_out(session, batch, planned, at)
        lines += ([""] if whole == WHOLE else []) + [in_short(session, at, row, batch, left_out, width)]
        whole += whole == WHOLE  # one empty line between the two kinds
    lines += ["", *fill(batch, rows), *histogram(rows), "", *verdict(examples.checks(batch, rows, session), colours)]
    return lines


def in_full(session: Session, at: int, row: list[Example], batch: Batch, colours: bool, width: int) -> list[str]:
    """A batch row token by token."""
    mixture, lines = session.batches.collate.mixture, []
    packed, used = batch["row"].shape[1] > 1, sum(len(e.tokens) for e in row)
    pads = batch["tokens"].shape[1] - used
    if packed:
        lines.append(f"row {at}  {_count(len(row), 'example')}, {used} tokens + {pads} pads")
    for e in row:
        source = mixture.row(e.row)
        name = f"{printable(mixture.name(e.row))}  ({source.task})"
        place = f"  example {e.number}, tokens {e.begin}..{e.end - 1}" if packed else f"row {at}"
        lines.append(f"{place}  {name}")
        lines += [
            f"  {'' if n else 'picture':{INDENT - 2}}{printable(picture(session, e, source, n))}"
            for n in range(max(len(source.pictures), 1))
        ]
        lines += token_lines(session.encoder.tokenizer, e, colours, width)
        learned = int(e.learned.sum())
        shown = f"{len(e.tokens) - learned} of prompt + {learned} supervised" + ("" if packed else f" + {pads} pads")
        lines.append(f"  {'length':{INDENT - 2}}{shown}{examples.was_cut(e, session)}")
    return lines


def picture(session: Session, e: Example, source: Row, number: int = 0) -> str:
    """`"images/a.jpg, 500 x 375 -> 48 x 48 pixels (squash), 36 image tokens"`"""
    if not source.pictures:
        return "none: text alone" + (", its image tokens are hidden" if session.config.vision else "")
    name = source.pictures[number].name
    if number >= len(e.images) or session.config.preprocess is None:
        return f"{name}, not shown" + ("" if session.config.vision else ": the model has no vision tower")
    width, height = source.pictures[number].open().size
    tall, wide = session.config.drawn(e.images[number]).shape[:2]
    slot = f" in slot {e.number}" if e.number > 1 and len(e.images) == 1 else ""
    before = session.encoder.placed(source).before[number]
    slot += f" after {before} of the text" if before else ""
    became = f"{width} x {height} -> {wide} x {tall} pixels ({session.config.preprocess.mode})"
    return f"{name}, {became}, {session.config.tokens_of(e.images[number])} image tokens{slot}"


def token_lines(tokenizer: Tokenizer, e: Example, colours: bool, width: int) -> list[str]:
    """The tokens in lines of less than `width` columns, and below a line ^ under the positions where a loss falls."""
    cells = []
    texts = [printable(text) or "‥" for text in pieces(tokenizer, e.tokens)]
    learned = [False, *e.learned.tolist(), False]
    for n, text in enumerate(texts):
        before, own, after = learned[n : n + 3]
        opens, closes = own and not before, own and not after
        size = sum(_columns(c) for c in text) + (0 if colours else opens + closes)
        if colours and own:
            text = f"{BOLD if closes else GREEN}{text}{OFF}"
        elif not colours:
            text = "«" * opens + text + "»" * closes
        cells.append((text, ("^" if e.loss[n] else " ") * size))
    lines: list[str] = []
    start, room, labelled = 0, max(width - INDENT, 40), False
    while start < len(cells):
        stop, taken = start + 1, len(cells[start][1])
        while stop < len(cells) and taken + 1 + len(cells[stop][1]) < room:
            taken += 1 + len(cells[stop][1])
            stop += 1
        first = not lines
        lines.append(f"  {'tokens' if first else '':{INDENT - 2}}" + "│".join(text for text, _ in cells[start:stop]))
        marks = " ".join(mark for _, mark in cells[start:stop]).rstrip()
        lines += [f"  {'' if labelled else 'loss':{INDENT - 2}}{marks}"] if marks else []
        labelled = labelled or bool(marks)
        start = stop
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _columns(character: str) -> int:
    """Of a terminal."""
    return 0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1


def in_short(session: Session, at: int, row: list[Example], batch: Batch, left_out: str, width: int) -> str:
    """A line about a batch row."""
    if not row:
        return f"row {at:<3} filler{': ' if left_out else ''}{left_out}"
    mixture, length = session.batches.collate.mixture, batch["tokens"].shape[1]
    learned = sum(int(e.learned.sum()) for e in row)
    used = sum(len(e.tokens) for e in row)
    names = ", ".join(mixture.name(e.row) for e in row)
    seen = f"{sum(bool(e.images) for e in row)} of {len(row)} with picture" if len(row) > 1 else (
        ("picture" if len(row[0].images) == 1 else f"{len(row[0].images)} pictures") if row[0].images else "no picture"
    )  # fmt: skip
    text = " / ".join(session.encoder.tokenizer.decode(e.tokens.tolist()) for e in row)
    seen += ", cut" if any(examples.was_cut(e, session) for e in row) else ""
    line = printable(f"row {at:<3} {seen}, {used - learned} + {learned} + {length - used} pads  {names}  {text}")
    return line if len(line) <= width else line[: width - 1] + "…"


def _planned(session: Session, step: int) -> np.ndarray:
    """int64[B,N]: the global row ids that the plan has for this host's batch, whatever became of them."""
    b = session.batches
    mine = np.arange(b.plan.rows).reshape(b.micro_batches, b.hosts, -1)[:, b.host].reshape(-1)
    return b.plan.batch(step).ids[mine]


def _left_out(session: Session, batch: Batch, planned: np.ndarray, at: int) -> str:
    """ "coco:17 was left out (57 tokens, the limit is 40)": rows that were to be here and are filler; "" without any."""
    collate, out = session.batches.collate, []
    for row_id in planned[at][(planned[at] >= 0) & (batch["row"][at][: planned.shape[1]] < 0)]:
        source, index = collate.mixture.locate(int(row_id))
        try:
            row = source[index]
            tokens = len(session.encoder.encode(row)[0])
            why = f"{tokens} tokens, the limit is {collate.text_length}" if tokens > collate.text_length else "a bad row"
            out.append(f"{source.name}:{row.id} was left out ({why})")
        except VlaxError as error:
            out.append(f"{source.name}, row {index}, was left out ({error})")
    return printable("; ".join(out))


def fill(batch: Batch, rows: list[list[Example]]) -> list[str]:
    """How much of the batch is learned from, read, and neither."""
    size, used = batch["tokens"].size, int((batch["segment"] > 0).sum())
    learned = sum(int(e.learned.sum()) for row in rows for e in row)
    filler = sum(not row for row in rows)
    slots, pictures = batch["has_image"].size, int(batch["has_image"].sum())
    return [
        f"fill       {learned / size:.0%} supervised, {(used - learned) / size:.0%} prompt, {(size - used) / size:.0%} pads of "
        f"{size:,} text positions; {pictures:,} pictures in {slots:,} slots; {filler:,} of {len(rows):,} rows filler"
    ]


def histogram(rows: list[list[Example]]) -> list[str]:
    """Bars of the examples' text lengths."""
    lengths = np.array([len(e.tokens) for row in rows for e in row])
    if not lengths.size:
        return []
    step = max(1, -(-int(lengths.max() - lengths.min() + 1) // BARS))
    lines: list[str] = []
    for low in range(int(lengths.min()), int(lengths.max()) + 1, step):
        count = int(((lengths >= low) & (lengths < low + step)).sum())
        label = f"{low}" if step == 1 else f"{low}..{low + step - 1}"
        bar = "█" * -(-40 * count // lengths.size)
        lines.append(f"{'' if lines else 'lengths':{INDENT}}{label:>9} tokens {bar} {count}")
    return lines


def verdict(checks: list[Check], colours: bool) -> list[str]:
    """A line a check, and below a failed one where it fails."""
    lines: list[str] = []
    for check in checks:
        bad = len(check.faults)
        mark = f"{RED}FAULT{OFF}" if colours and bad else "FAULT" if bad else "ok   "
        lines.append(f"{mark}      {check.holds}" + (f": not in {_count(bad, 'case')}" if bad else ""))
        lines += [f"{'':{INDENT}}  {printable(fault)}" for fault in check.faults[:3]]
        lines += [f"{'':{INDENT}}  and {bad - 3:,} more"] if bad > 3 else []
    return lines
