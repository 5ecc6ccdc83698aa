"""Shows what a file or folder of data is taken for, and some of its rows as the model will see them.

    python -m vlax data preview captions_train.json
    python -m vlax data preview dataset_coco.json --images=coco --split=test --rows=3 --tokenizer=DIR

The supervised part of a text (the answer and its EOS, where the loss falls) stands between « and », or is coloured on a
terminal. At the end: the source as a config takes it, and the commands to go on with. Nothing is written.
"""

import argparse
import collections
import json
import shlex

from vlax.commands.data.source_argument import add_source_flags
from vlax.data.batches.quarantine import place
from vlax.data.readers import pictures
from vlax.data.readers.faults import Faults
from vlax.data.readers.kinds import KINDS, PATHS
from vlax.data.recognise.recognise import Recognised, recognise
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.masks import ANSWER
from vlax.printing import BOLD, GREEN, OFF, in_colour, printable
from vlax.rows import Row, RowFault, Source, making
from vlax.storage.paths import absolute, join
from vlax.text.codec import shown
from vlax.text.exchanges import spans
from vlax.text.prompts import make
from vlax.text.templates import TEMPLATES, named

COUNTED = 200_000  # rows that are counted; of more, so many evenly spaced ones
LONGEST = 600  # characters of a text that are shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of preview."""
    add = parser.add_argument
    add("path", metavar="PATH", help="file or folder; shards also as a glob or with {000..010}")
    add_source_flags(parser)
    add("--rows", type=int, default=5, help="rows to show, evenly spaced (default: %(default)s)")
    add("--evaluation", action="store_true", help="rows as they are evaluated: captions of a picture together")
    add("--templates", default="plain", help=f"prompt template set: {', '.join(TEMPLATES)} or FILE.toml (default: %(default)s)")
    add("--tokenizer", default="", metavar="DIR", help="counts tokens, and shows EOS as this tokenizer writes it")


def main(args: argparse.Namespace) -> int:
    pictures.allow_outside(args.allow_outside)
    name, own, _ = named(args.templates)
    if (name == "chat" or own.chat) and not args.tokenizer:
        raise VlaxError("--templates=chat renders by the tokenizer's own template; add --tokenizer=DIR")
    if args.rows < 1:
        raise VlaxError(f"--rows={args.rows}: show at least one row")
    found = recognise(args.path, args.images, base=args.data_root, kind=args.kind, columns=args.columns)
    if args.split and "split" not in KINDS[found.spec["kind"]].fields:
        raise VlaxError(f"--split={args.split}: {found.what} in {args.path} know no splits; leave it out")
    spec = {**found.spec, **({"split": args.split} if args.split else {})}
    source, faults = _open(spec, args)
    tokenizer = _tokenizer(args.tokenizer)
    colours = in_colour()
    lines = [*map(printable, summary(found, spec, source, faults)), ""]
    for index in evenly(len(source), args.rows):
        try:
            with making(f"{source.name}:{place(index)}"):
                lines += [*rendered(source[index], index, len(source), args.templates, tokenizer, colours), ""]
        except RowFault as fault:  # the others may be sound
            lines += [printable(f"row {index + 1:,} of {len(source):,} is faulty: {fault}"), ""]
    print("\n".join([*lines, *map(printable, closing(args, spec))]))
    return 0


def _open(spec: dict, args: argparse.Namespace) -> tuple[Source, Faults]:
    """The source, and the rows that its reader refused: preview shows the others. VlaxError where none is left."""
    faults = Faults(collect=True)
    try:
        return open_source(spec, args.data_root, train=not args.evaluation, faults=faults), faults
    except VlaxError:
        if faults.found:
            raise VlaxError(faults.found[0].text) from None
        raise


def _tokenizer(directory: str):
    if not directory:
        return None
    from vlax.text.tokenizer import load_tokenizer  # transformers takes seconds to import

    return load_tokenizer(directory, 1 << 30, "--tokenizer=DIR")


def evenly(total: int, count: int) -> list[int]:
    """`(1500, 4) -> [0, 500, 999, 1499]`: indices evenly spaced, the first and the last among them."""
    if total <= count:
        return list(range(total))
    return [at * (total - 1) // max(1, count - 1) for at in range(count)]


def summary(found: Recognised, spec: dict, source: Source, faults: Faults) -> list[str]:
    """What was recognised, where, and how much of it there is."""
    lines = [f"{found.what} (kind {spec['kind']})"]
    lines += [f"  {field:12}{spec[field]}" for field in ("questions", "annotations", "path") if field in spec]
    if found.note and not spec.get("images"):
        lines.append(f"  {'images':12}{found.note}")
    elif found.note:
        lines.append(f"  {'images':12}{spec.get('images', '')} ({found.note})")
    lines += [f"  {field:12}{spec[field]}" for field in ("split", "strip", "columns") if spec.get(field)]
    lines += [f"  {key:12}{value}" for key, value in counts(source).items()]
    if faults.found:
        lines.append(f"  {'refused':12}{len(faults.found):,} rows, first: {faults.found[0].text}")
    if found.also:
        more = f" and {len(found.also) - 8} more" if len(found.also) > 8 else ""
        lines.append(f"  {'also there':12}{', '.join(found.also[:8])}{more}")
    return lines


def counts(source: Source) -> dict[str, str]:
    """{"rows": "1,500", "pictures": "300, 5.0 rows each", "captions": "1,500, of 11.8 words"} and the like."""
    indices = evenly(len(source), COUNTED)
    pictures: set[str] = set()
    tasks: collections.Counter[str] = collections.Counter()
    words: dict[str, list[int]] = {"questions": [], "captions": [], "answers": []}
    for index in indices:
        row = source[index]
        pictures.update((f"{one.name}\n{row.image_id}" for one in row.pictures) if row.picture else ("",))
        tasks[row.task] += 1
        captions = row.task in ("caption", "describe")
        said = row.references if captions and row.references else [turn.answer for turn in row.turns]
        words["captions" if captions else "answers"] += [len(text.split()) for text in said]
        words["questions"] += [len(turn.question.split()) for turn in row.turns if turn.question]
    of = "" if len(indices) == len(source) else f" (in {len(indices):,} rows)"
    by_task = ", ".join(f"{count:,} {task}" for task, count in tasks.items())
    out = {"rows": f"{len(source):,} ({by_task}{', of those counted' if of else ''})"}
    out["pictures"] = f"{len(pictures - {''}):,}{of}" + (", and rows of text alone" if "" in pictures else "")
    means = {name: f"{len(each):,}, of {sum(each) / len(each):.1f} words{of}" for name, each in words.items() if each}
    return {**out, **means}


def rendered(row: Row, index: int, total: int, templates: str, tokenizer, colours: bool) -> list[str]:
    """One row: its name, its picture, its text with the supervised spans marked, its references and its tokens."""
    lines = [f"row {index + 1:,} of {total:,}: {row.id} ({row.task}{', ' + row.answer_type if row.answer_type else ''})"]
    seen = [picture(row.showing((one,))) for one in row.pictures] or [picture(row)]
    lines += [f"  {'' if number else 'picture':12}{one}" for number, one in enumerate(seen)]
    eos = tokenizer.eos_token if tokenizer else "<eos>"
    if tokenizer:
        encoder = make(tokenizer, templates)
        pieces, eos = [(shown(text), own) for text, own in encoder.pieces(row)[0]], "" if encoder.is_chat else eos
    else:
        name, settings, _ = named(templates)
        pieces = spans(row, settings.prompts or name)
    lines = [printable(line) for line in lines]
    lines.append(f"  {'text':12}" + "".join(marked(text, eos, colours) if own else cut(text) for text, own in pieces))
    if row.references and row.references != (row.turns[-1].answer,):
        said = collections.Counter(row.references)
        each = [cut(text) + (f" ({count} times)" if count > 1 else "") for text, count in said.items()]
        lines.append(f"  {'references':12}" + " | ".join(each))
    if tokenizer:
        tokens, segments = encoder.encode(row)
        learned = segments.count(ANSWER)
        lines.append(f"  {'tokens':12}{len(tokens) - learned} of prompt, {learned} supervised")
    return lines


def picture(row: Row) -> str:
    """`"images/a.jpg, 640 x 480 pixels"`, or what is wrong with it."""
    if row.picture is None:
        return "none: text alone"
    try:
        width, height = row.picture.open().size
    except VlaxError as error:
        missing = getattr(error, "kind", "") == "missing picture"
        return f"{row.image_name}, missing" if missing else f"broken: {error}"
    return f"{row.image_name}, {width} x {height} pixels"


def marked(text: str, eos: str, colours: bool) -> str:
    """`« a dog<eos>»`, or the same in colour."""
    return f"{GREEN}{cut(text)}{BOLD}{eos}{OFF}" if colours else f"«{cut(text)}{eos}»"


def cut(text: str) -> str:
    """The text on one line, the middle of a long one left out."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}[... {len(text) - LONGEST:,} characters ...]{text[-LONGEST // 2 :]}"
    return printable(text)


def closing(args: argparse.Namespace, spec: dict) -> list[str]:
    """The spec as Python, and the commands to go on with."""
    whole = {key: str(absolute(join(args.data_root, value))) if key in PATHS else value for key, value in spec.items()}
    lines = ["as a source in a config (stage.mixture, or a suite's data):", "{"]
    lines += [f'    "{key}": {json.dumps(value, ensure_ascii=False)},' for key, value in whole.items()]
    given = [f"--{name}={getattr(args, name)}" for name in ("images", "kind", "split") if getattr(args, name)]
    given += [f"--data-root={args.data_root}"] if args.data_root != "." else []
    doctor = shlex.join(["python", "-m", "vlax", "data", "doctor", args.path, *given])
    prepare = shlex.join(["python", "-m", "vlax", "data", "prepare", args.path, "OUT", *given])
    lines += ["}", "", "to go on:", f"  {doctor}", *([f"  {prepare}"] if spec["kind"] != "prepared" else [])]
    where = [f"--config.stage.data_is.{name}={getattr(args, name)}" for name in ("images", "split") if getattr(args, name)]
    path = args.path if args.data_root == "." else join(args.data_root, args.path)
    tune = ["--config.run.model=MODEL", f"--config.stage.data={path}", *where, "--workdir=runs/mine"]
    return [*lines, f"  {shlex.join(['python', '-m', 'vlax', 'train', '--config=finetune', *tune])}"]
