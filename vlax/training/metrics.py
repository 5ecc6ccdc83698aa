"""Sums and counts on their way to the terminal, to metrics.jsonl and to TensorBoard."""

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from etils import epath
from ml_collections import ConfigDict

from vlax.storage import jsonl
from vlax.storage.paths import remote
from vlax.training.listeners import Shown
from vlax.training.throughput import Counts, Meter

if TYPE_CHECKING:
    from vlax.training.board import Board


class Window:
    """Sums between two log lines; means are taken over tokens, never over batches. meter: knows what the rows are worth."""

    def __init__(self, meter: Meter):
        self.meter = meter
        self.reset()

    def reset(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps, self.seen = 0, Counts()
        self.waited = 0.0
        self.started = time.monotonic()

    def add(self, metrics: Mapping[str, float], seen: Counts) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self.steps += 1
        self.seen += seen

    def summary(self) -> dict[str, float]:
        """loss (per answer token), perplexity, accuracy; a second of samples, images, answer tokens, tokens of text, all
        tokens; shares: of positions that are padding, of the time that waited for data, of the devices' peak (`mfu`); mean
        gradient norms."""
        seconds, tokens = max(time.monotonic() - self.started, 1e-9), max(self.sums.get("tokens", 0.0), 1.0)
        loss = self.sums.get("loss_sum", 0.0) / tokens
        out = {
            "loss": loss,
            "perplexity": math.exp(min(loss, 50.0)),
            "token_accuracy": self.sums.get("correct", 0.0) / tokens,
            "samples_per_s": self.seen.samples / seconds,
            "images_per_s": self.seen.images / seconds,
            "tokens_per_s": tokens / seconds,
            "text_tokens_per_s": self.seen.text / seconds,
            "all_tokens_per_s": (self.seen.text + self.seen.seen) / seconds,
            "padding": self.seen.padding,
            "data_wait": self.waited / seconds,
            **self.meter.mfu(self.seen, seconds),
        }
        norms = {k: v / max(self.steps, 1) for k, v in self.sums.items() if k.startswith("grad_norm/")}
        return {**out, **norms}


class Writer:
    """metrics.jsonl (one object a line) and TensorBoard event files of a stage. Only process 0 writes.

    After a resume at an update, lines of what will run again are removed first (the update's own validation unless it was
    `validated`), and what a kill left unreadable.
    """

    def __init__(
        self, directory: epath.Path, resumed_at: int, validated: bool = True, *, tensorboard: bool, enabled: bool = True
    ):
        self.path, self.enabled = directory / "metrics.jsonl", enabled
        self.tensorboard: Board | None = None
        if not enabled:
            return
        directory.mkdir(parents=True, exist_ok=True)
        end = (resumed_at, validated)  # an update's validation comes after its training
        jsonl.prune(self.path, lambda x: _is_record(x) and (x["step"], x["kind"] == "validation") <= end)
        if tensorboard and not remote(directory):
            from vlax.training import board as events  # where it is asked for: it takes a while

            self.tensorboard = events.Board(directory / "tensorboard", resumed_at + 1)

    def write(self, step: int, kind: str, values: Mapping[str, float], shown: Sequence[Shown] = ()) -> None:
        """One record: {"step": update number, "kind": "train" | "validation" | ..., name: value, ...}. shown: of TensorBoard"""
        if not self.enabled:
            return
        jsonl.append(self.path, [{"step": step, "kind": kind, **values}])
        if self.tensorboard is not None:
            self.tensorboard.write(step, {f"{kind}/{name}": value for name, value in values.items()}, shown)

    def close(self) -> None:
        if self.tensorboard is not None:
            self.tensorboard.close()


def board(run: ConfigDict) -> bool:
    """Whether TensorBoard's event file is asked for, in one of two ways."""
    return bool(run.tensorboard) or "tensorboard" in run.trackers


def read(directory: epath.Path) -> list[dict[str, Any]]:
    """All records of a stage by step. A damaged line is left out, with a warning: curves without it are better than none."""
    records = []
    for where, entry in jsonl.read(directory / "metrics.jsonl"):
        if _is_record(entry):
            records.append(entry)
        else:
            logging.warning("%s is no record of metrics; it is left out", where)
    return sorted(records, key=lambda record: record["step"])


def _is_record(entry: dict[str, Any] | None) -> TypeGuard[dict[str, Any]]:
    if entry is None or not isinstance(entry.get("kind"), str):
        return False
    return type(entry.get("step")) is int and 0 <= entry["step"] < 1 << 53
