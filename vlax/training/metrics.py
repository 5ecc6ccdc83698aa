"""Sums and counts on their way to the terminal, to metrics.jsonl and to TensorBoard."""

import json
import logging
import math
import time
from collections.abc import Mapping

from etils import epath
from tensorboardX import SummaryWriter


class Window:
    """Sums between two log lines; means are taken over tokens, never over batches."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        self.sums: dict[str, float] = {}
        self.steps = self.images = 0
        self.waited = 0.0
        self.started = time.monotonic()

    def add(self, metrics: Mapping[str, float], images: int) -> None:
        for name, value in metrics.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
        self.steps += 1
        self.images += images

    def summary(self) -> dict[str, float]:
        """loss (per answer token), perplexity, accuracy, rates, share of the time that waited for data, mean gradient norms."""
        seconds, tokens = max(time.monotonic() - self.started, 1e-9), max(self.sums.get("tokens", 0.0), 1.0)
        loss = self.sums.get("loss_sum", 0.0) / tokens
        out = {
            "loss": loss,
            "perplexity": math.exp(min(loss, 50.0)),
            "token_accuracy": self.sums.get("correct", 0.0) / tokens,
            "images_per_s": self.images / seconds,
            "tokens_per_s": tokens / seconds,
            "data_wait": self.waited / seconds,
        }
        norms = {k: v / max(self.steps, 1) for k, v in self.sums.items() if k.startswith("grad_norm/")}
        return {**out, **norms}


class Writer:
    """metrics.jsonl (one object a line) and TensorBoard event files of a stage. Only process 0 writes.

    Objects in a bucket cannot be appended to: there, each flush is a numbered file of its own. After a resume, lines of steps
    that will run again are removed first.
    """

    def __init__(self, directory: epath.Path, resumed_at: int, *, tensorboard: bool, enabled: bool = True):
        self.directory, self.enabled = directory, enabled
        self.bucket = "://" in str(directory)
        self.path = directory / "metrics.jsonl"
        self.tensorboard = None
        if not enabled:
            return
        directory.mkdir(parents=True, exist_ok=True)
        if not self.bucket and self.path.exists():
            kept = [line for line in self.path.read_text().splitlines() if _step(line) <= resumed_at]
            self.path.write_text("".join(line + "\n" for line in kept))
        self.chunk = sum(1 for _ in directory.glob("metrics-*.jsonl")) if self.bucket else 0
        if tensorboard and not self.bucket:
            self.tensorboard = SummaryWriter(str(directory / "tensorboard"), purge_step=resumed_at + 1)

    def write(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """One record: {"step": update number, "kind": "train" | "validation" | ..., name: value, ...}"""
        if not self.enabled:
            return
        line = json.dumps({"step": step, "kind": kind, **values}) + "\n"
        if self.bucket:
            (self.directory / f"metrics-{self.chunk:06d}.jsonl").write_text(line)
            self.chunk += 1
        else:
            with self.path.open("a") as file:
                file.write(line)
        if self.tensorboard is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self.tensorboard.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        if self.tensorboard is not None:
            self.tensorboard.close()


def _step(line: str) -> int:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):  # the half line that a kill left behind
        logging.info("metrics.jsonl: dropping an unreadable line")
        return 1 << 62


def read(directory: epath.Path) -> list[dict]:
    """All records of a stage, in order, from either form."""
    paths = (
        [directory / "metrics.jsonl"] if (directory / "metrics.jsonl").exists() else sorted(directory.glob("metrics-*.jsonl"))
    )
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]
