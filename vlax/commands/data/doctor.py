"""The data doctor: looks at every row and every picture of some sources, and writes what training must not see.

    python -m vlax data doctor captions_train.json --images=images --against captions_val.json captions_test.json --out=doctor
    python -m vlax data doctor '{"kind": "vqa", "questions": "q.json", "annotations": "a.json", "images": "images"}'

A SOURCE is a file, folder or glob that vlax recognises, or what a config says of it, as a JSON object. OUT/doctor.json has all
findings, OUT/quarantine.jsonl the rows to leave out: train with --config.run.quarantine=OUT/quarantine.jsonl. The exit code is
1 when there are any.
"""

import argparse
import collections
import dataclasses
import logging
import os
import re
import sys
import warnings

from etils import epath

from vlax.commands.data.checks import ERROR, KINDS, NOTE, WARNING, Finding, Limits
from vlax.commands.data.runner_argument import add_runner_flags, started
from vlax.commands.data.runners import Runner, RunnerError
from vlax.commands.data.scan import Scan, overlap, scan, shared
from vlax.commands.data.source_argument import add_source_flags, source_spec
from vlax.data.readers import pictures
from vlax.data.readers.faults import Faults
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.printing import printable
from vlax.storage import jsonl, paths, state

NAMED = 5  # rows that the report names of each kind
DEFAULTS = Limits()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The doctor's flags."""
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE", help="file, folder or glob; or a JSON object as in a config")
    add_source_flags(parser)
    add("--against", nargs="+", default=[], metavar="EVAL", help="evaluation sets whose pictures must not be in SOURCE")
    add("--against-images", default="", metavar="DIR", help="folder of their pictures; otherwise that of --images")
    add("--against-split", default="", help="of an evaluation set that holds several; otherwise --split")
    about = "where doctor.json and quarantine.jsonl go (default: beside the first SOURCE, doctor-NAME)"
    add("--out", default="", metavar="DIR", help=about)
    add_runner_flags(parser, workers=min(16, os.cpu_count() or 1))
    add("--max-words", type=int, default=DEFAULTS.max_words, help="words in the texts of a row (default: %(default)s)")
    add(
        "--tokenizer",
        default="",
        metavar="DIR",
        help="count texts that spell out its special tokens, and tokens for --text-length",
    )
    add("--templates", default="plain", help="... and this prompt template set, as run.templates")
    add("--text-length", type=int, default=0, help="... and this limit, as stage.text_length")
    add("--min-side", type=int, default=DEFAULTS.min_side, help="pixels of the shorter side (default: %(default)s)")
    add("--max-side", type=int, default=DEFAULTS.max_side, help="pixels of the longer side (default: %(default)s)")
    add("--max-aspect", type=float, default=DEFAULTS.max_aspect, help="longer side / shorter side (default: %(default)g)")
    add("--distance", type=int, default=DEFAULTS.distance, help="of 64 bits, for near duplicates (default: %(default)s)")
    add("--drop-near-duplicates", action="store_true", help="quarantine near duplicates of evaluation pictures")


def main(args: argparse.Namespace) -> int:
    """Examines, prints, writes. Returns 0, or 1 when something is quarantined or a source cannot be read."""
    pictures.allow_outside(args.allow_outside)
    limits, out = _limits(args), epath.Path(args.out or beside(args.sources[0], args.data_root))
    writable(out)
    warnings.simplefilter("ignore")  # Pillow's, of odd pictures: they are findings
    progress, faults = sys.stderr.isatty(), Faults(collect=True, notes=True)
    with started(args) as runner:
        scans = [_examine(text, args, faults, limits, progress, runner) for text in args.sources]
        _check_names(scans)
        evaluation = []
        for text in args.against:  # its own faults are no matter here: doctor it as a SOURCE
            images, split = args.against_images or args.images, args.against_split or args.split
            spec = source_spec(text, images, base=args.data_root, kind=args.kind, split=split)
            source = open_source(spec, args.data_root, train=False, faults=Faults(collect=True))
            evaluation.append(scan(source, limits, progress=progress, runner=runner))
    for at, result in enumerate(scans):
        for other in evaluation:
            overlap(result, other)
        for other in scans[:at]:
            shared(result, other)
    entries = quarantine_entries(scans)
    write(out, scans, entries)
    print(report(scans, entries, out))
    return int(any(finding.severity == ERROR for result in scans for finding in result.findings))


def _examine(text: str, args: argparse.Namespace, faults: Faults, limits: Limits, progress: bool, runner: Runner) -> Scan:
    """The Scan of one SOURCE, with what its reader refused or noted; one of a single finding where it cannot be read."""
    begin, noted = len(faults.found), len(faults.notes)
    try:
        spec = source_spec(text, args.images, base=args.data_root, kind=args.kind, split=args.split,
                           columns=args.columns)  # fmt: skip
        source = open_source(spec, args.data_root, train=True, faults=faults)
        result = scan(source, limits, progress=progress, runner=runner)
    except RunnerError:
        raise
    except VlaxError as error:
        result = Scan(text, limits)
        result.add("unreadable source", (), "", str(error))
    refused = faults.found[begin:]
    for fault in [*refused, *faults.notes[noted:]]:
        result.add(fault.kind, [fault.row], "", fault.text, fault.source)
    result.rows += len(refused)
    return result


def beside(source: str, base: str) -> str:
    """Where the findings on a SOURCE go: `"pets/captions.json" -> "pets/doctor-captions"`, `"pets" -> "doctor-pets"`, of shards
    `"pets/{00..09}.tar" -> "pets/doctor-00..09"`; of what lies in no file, `runs/doctor`."""
    if source.lstrip().startswith("{"):
        fields = state.load_json("SOURCE", source)
        source = next((str(fields[key]) for key in ("annotations", "path", "questions", "files") if fields.get(key)), "")
    if not source:
        return "runs/doctor"
    path = paths.join(base, re.sub(r"[*?\[\]{}]", "", source))
    if path.is_dir():
        return str(path.parent / f"doctor-{path.resolve().name}")
    return str(path.parent / f"doctor-{path.stem.strip('.-_') or 'data'}")


def writable(out: epath.Path) -> None:
    """VlaxError where nothing can be written, before all pictures are looked at; on a disk alone."""
    there = next((folder for folder in (out, *out.parents) if folder.exists()), None)
    if there is not None and not paths.remote(out) and not os.access(there, os.W_OK):
        raise VlaxError(f"{out} cannot be written: {there} is read-only. Name another folder with --out=DIR")


def _limits(args: argparse.Namespace) -> Limits:
    values = {
        field.name: getattr(args, field.name) for field in dataclasses.fields(Limits) if field.name not in ("tokens", "special")
    }
    if not 0 <= args.distance <= 16:
        raise VlaxError(f"--distance={args.distance}: pictures of which 0 to 16 of 64 bits differ can be near duplicates")
    if args.text_length and not args.tokenizer:
        raise VlaxError("--text-length says how many tokens are too many; add --tokenizer=DIR, which counts them")
    tokens = special = None
    if args.tokenizer:
        from vlax.text.prompts import make  # transformers takes seconds to import
        from vlax.text.tokenizer import load_tokenizer

        encoder = make(load_tokenizer(args.tokenizer, 1 << 30, "--tokenizer=DIR"), args.templates)

        def count(row):
            return len(encoder.encode(row)[0])

        tokens, special = count if args.text_length else None, encoder.codec.special_in
    return Limits(**values, tokens=tokens, special=special)


def _check_names(scans: list[Scan]) -> None:
    names = [result.name for result in scans]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            logging.warning(
                "%d sources are called %s: the quarantine list cannot tell them apart; rename a file", names.count(name), name
            )


def quarantine_entries(scans: list[Scan]) -> list[dict[str, str]]:
    """One {"source", "row", "image", "reason"} for each row that has an error; several reasons are joined."""
    reasons: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    images: dict[tuple[str, str], str] = {}
    for result in scans:
        for finding in result.findings:
            if finding.severity == ERROR:
                for row in finding.rows:
                    key = finding.source, row
                    reason = f"{finding.kind}: {finding.detail}"
                    if reason not in reasons[key]:
                        reasons[key].append(reason)
                    images[key] = images.get(key) or finding.image
    return [{"source": key[0], "row": key[1], "image": images[key], "reason": "; ".join(why)} for key, why in reasons.items()]


def write(out: epath.Path, scans: list[Scan], entries: list[dict[str, str]]) -> None:
    """OUT/doctor.json and OUT/quarantine.jsonl (which is there, and empty, when nothing is quarantined)."""
    out.mkdir(parents=True, exist_ok=True)
    sources = [
        {
            "source": result.name,
            "rows": result.rows,
            "pictures": len(result.pictures),
            "quarantined": sum(entry["source"] == result.name for entry in entries),
            "findings": [{**vars(finding), "rows": list(finding.rows)} for finding in result.findings],
        }
        for result in scans
    ]
    state.write_json(out / "doctor.json", sources, end="\n", indent=1)
    state.write(out / "quarantine.jsonl", jsonl.lines(entries))


def report(scans: list[Scan], entries: list[dict[str, str]], out: epath.Path) -> str:
    """What is printed: by source and kind, how many rows, which share, and the first names."""
    lines = []
    for result in scans:
        speed = f", {len(result.pictures) / result.seconds:,.0f} pictures/s" if result.seconds > 0 else ""
        lines += ["", f"{result.name}: {result.rows:,} rows, {len(result.pictures):,} pictures{speed}"]
        by_kind = collections.defaultdict(list)
        for finding in result.findings:
            by_kind[finding.kind].append(finding)
        order = {ERROR: 0, WARNING: 1, NOTE: 2}
        for kind in sorted(by_kind, key=lambda kind: (order[by_kind[kind][0].severity], list(KINDS).index(kind))):
            lines += _paragraph(by_kind[kind], result.rows)
        if not result.findings:
            lines.append("  nothing found")
    total = sum(result.rows for result in scans)
    share = f" ({100 * len(entries) / total:.3g} %)" if total else ""
    lines += ["", f"quarantined {len(entries):,} of {total:,} rows{share}; all findings are in {out / 'doctor.json'}"]
    if entries:
        lines.append(f"leave them out of training with --config.run.quarantine={out / 'quarantine.jsonl'}")
    return "\n".join(map(printable, lines))


def _paragraph(findings: list[Finding], total: int) -> list[str]:
    """The lines about one kind in one source."""
    rows = {row for finding in findings for row in finding.rows}
    pictures = {finding.image for finding in findings if finding.image}
    about = f"{len(rows):,} rows" + (f" ({100 * len(rows) / total:.3g} %)" if total else "")
    about += f", {len(pictures):,} pictures" if pictures else ""
    lines = [f"  {findings[0].severity:8}{findings[0].kind:52}{about if rows else ''}".rstrip()]
    for finding in findings[:NAMED]:
        named = ", ".join(finding.rows[:3]) + (f" and {len(finding.rows) - 3} more" if len(finding.rows) > 3 else "")
        lines.append(f"          {named + ': ' if named else ''}{finding.detail}")
    return lines + ([f"          and {len(findings) - NAMED:,} more"] if len(findings) > NAMED else [])
