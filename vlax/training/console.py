"""What a person sees while a stage trains: header, progress bar, validation lines, footer."""

import logging
import sys
from collections.abc import Mapping

import jax
from tqdm import tqdm

from vlax.data.batches import lengths
from vlax.data.readers.files import FileSource
from vlax.data.readers.prepared import PreparedSource
from vlax.model import exports
from vlax.models import quantised
from vlax.models.build import DTYPES
from vlax.params import distributed, groups
from vlax.process import memory
from vlax.training import exclusion
from vlax.training.session import Session

MANY_OVERLONG = 0.01  # share of overlong rows from which on the header warns


def print_header(session: Session, begin: int) -> None:
    """Devices, mesh, model, trainable table, data and steps; before anything compiles."""
    stage, plan, config = session.plan.stage, session.plan, session.config
    devices = jax.devices()
    mesh = " x ".join(f"{axis} {size}" for axis, size in session.mesh.shape.items()) + ", ZeRO-1" * plan.run.zero1
    print(f"\n=== {plan.name} " + "=" * (100 - len(plan.name)))
    print(
        f"devices   {len(devices)} {devices[0].device_kind}, {distributed.hosts()} process(es); "
        f"mesh {mesh}; compute {plan.run.dtype}{f', frozen matrices {stage.quantise}' if stage.quantise else ''}"
    )
    if memory.kept():
        print(f"memory    what a step frees is kept for the next one ({memory.VARIABLE}=0 gives it back)")
    print(
        f"model     {groups.count(session.abstract):,} parameters, {config.tokens_per_image} tokens an image, "
        f"mask {config.mask}"
    )
    print(f"attention {session.attention}")
    print(f"remat     {session.remat}")
    for part, origin in stage.init.items():
        source = {"pretrained": plan.run.get(part), "model": plan.run.model}.get(origin, origin)
        print(f"  from    {part}: {source}")
    print(groups.table(quantised.abstract(session.abstract, stage.quantise, DTYPES[plan.run.dtype], session.assigned),
                       session.assigned, dict(stage.learning_rate)))  # fmt: skip
    mixture = session.batches.collate.mixture
    for source, count in zip(mixture.sources, mixture.counts, strict=True):
        note = ""
        if isinstance(source, FileSource | PreparedSource):
            alone = source.read_rows - source.pictured
            pictures = f"{alone:,} of {source.read_rows:,} without a picture" if alone else "all with pictures"
            dropped = f" ({source.dropped_by['hash']:,} by what they show)" if source.dropped_by["hash"] else ""
            note = f", {pictures}, {source.dropped:,} dropped as evaluation pictures{dropped}"
        print(f"data      {source.name}: {len(source):,} rows, {count:,} an epoch{note}")
    if line := exclusion.unseen(plan, mixture.sources):
        print(f"leaks     {line}")
    if len(quarantine := session.batches.collate.quarantine):
        print(f"quarantine {quarantine.about(source.name for source in mixture.sources)}")
    print_lengths(session)
    epochs = session.batches.plan.positions(len(session.batches)) / mixture.epoch_size
    split = f" in {stage.accumulate} micro-batches ({stage.accumulation})" if stage.accumulate > 1 else ""
    print(
        f"steps     {session.updates:,} updates of {stage.batch_size} rows{split} "
        f"= {epochs:.2f} epochs; text {stage.text_length} tokens"
    )
    if begin:
        print(f"resuming  at micro-step {begin:,} of {session.micro_steps:,}")
    sys.stdout.flush()


def print_lengths(session: Session) -> None:
    """How long the first rows are, loudly where many of them don't fit, and how batches are laid out."""
    stage, collate = session.plan.stage, session.batches.collate
    found = lengths.survey(lengths.Lengths(session.encoder), collate.mixture, stage.text_length)
    done = "dropped" if stage.overlong == "drop" else "cut"
    print(
        f"lengths   median {found.median}, 99 % up to {found.most}, longest {found.longest} tokens of {found.rows:,} rows; "
        f"{found.overlong:.1%} over {stage.text_length}, which are {done}"
    )
    if found.overlong > MANY_OVERLONG:
        logging.warning(
            "WARNING: %.1f %% of the rows are longer than stage.text_length=%d and are %s (stage.overlong); "
            "99 %% of all rows fit in --config.stage.text_length=%d%s",
            100 * found.overlong, stage.text_length, done, found.most, _shorter(session),
        )  # fmt: skip
    if layout := session.batches.plan.describe():
        print(layout)


def _shorter(session: Session) -> str:
    """What, beside more room, helps rows that are too long: where the tokenizer is made for this run, a better one."""
    run = session.plan.run
    if run.tokenizer or session.plan.parents or session.origins["decoder"].kind != "fresh":
        return ""
    more = f"; or each row takes fewer tokens, with a larger vocabulary: --config.run.bpe_vocab={4 * run.bpe_vocab}"
    return more + (f", or one made of this very text: the config's run.bpe_text has that of {', '.join(run.bpe_text)}, and "
                   "{} would be the training text" if run.bpe_text else "")  # fmt: skip


def progress_bar(session: Session, begin: int, enabled: bool) -> tqdm:
    """One bar a stage. Where output is no terminal it draws itself rarely, so that log files stay short."""
    terminal = sys.stderr.isatty()
    return tqdm(
        total=session.updates,
        initial=begin // session.per_update,
        desc=session.plan.name,
        unit="step",
        disable=not enabled,
        dynamic_ncols=terminal,
        mininterval=0.5 if terminal else 20,
    )


def say(text: str) -> None:
    """A line above the bar, once for all hosts."""
    if distributed.is_main():
        tqdm.write(text)


def show_progress(bar: tqdm, update: int, updates: int, summary: Mapping[str, float]) -> None:
    mfu = f"MFU {summary['mfu']:.1%}, " if "mfu" in summary else ""
    bar.set_postfix_str(
        f"loss {summary['loss']:.3f}, {summary['samples_per_s']:.0f} rows/s, {summary['all_tokens_per_s']:.0f} tok/s, "
        f"{mfu}padding {summary['padding']:.0%}, data wait {summary['data_wait']:.0%}",
        refresh=False,
    )


def validation_line(name: str, update: int, values: Mapping[str, float], scores: Mapping[str, float]) -> str:
    losses = ", ".join(f"{k.removeprefix('loss/')} {v:.4f}" for k, v in values.items() if k != "loss")
    shown = "".join(f"; {k} {v:.3f}" for k, v in scores.items() if isinstance(v, float))
    return f"{name} step {update}: held-out loss {losses}{shown}"


def print_footer(session: Session) -> None:
    """Rows that were left out, and where export, logs and plots are."""
    directory = session.plan.directory
    manifest = exports.read_manifest(session.plan.export)
    which = "" if manifest["validation_loss"] is None else f" (best on validation: loss {manifest['validation_loss']:.4f})"
    for line in session.batches.collate.left_out.lines():
        print(line)
    programs = getattr(session.train_step, "_cache_size", None)
    if programs and len(session.batches.plan.lengths_used) > 1:
        print(f"programs  {programs()} of the train step, for {len(session.batches.plan.lengths_used)} text lengths")
    print(
        f"export {session.plan.export}{which} | logs {directory / 'metrics.jsonl'} | plots {directory.parent / 'curves.png'}",
        flush=True,
    )
