"""The batch contract and the road to it: mixture -> global row plan -> grain -> numpy batches of this host.

A batch is a dict of arrays (B rows of this host, N image slots, T text tokens; N = 1 unless packed):

    image      uint8[B,N,H,W,3]   normalised and patchified on the device
    has_image  bool[B,N]          False: a dummy image that the mask hides, so that every host runs one program
    tokens     int32[B,T]         prompt and answer ids, padded on the right
    segment    int32[B,T]         0 pad, 1 prompt, 2 answer with its EOS
    example    int32[B,T]         1..N, 0 pad; image slot n belongs to example n + 1
    row        int32[B,N]         global row id, -1 filler

Which rows a batch holds is a pure function of (seed, step): the plan is global, hosts take slices of it afterwards.
A row that does not fit becomes filler and never shifts the order.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import threading
from collections.abc import Mapping, Sequence

import grain
import numpy as np

from vlax.data.prompts import Encoder
from vlax.data.rows import Row, Source
from vlax.errors import VlaxError
from vlax.images import Preprocess


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Sources with weights, and the order in which their rows are met.

    One epoch is one pass over the first source; the others contribute rows in proportion to their weights, each walking
    through its own reshuffled passes. `shuffle=False` keeps the file order (evaluation; a single source then).
    """

    sources: Sequence[Source]
    weights: Sequence[float]
    seed: int
    shuffle: bool = True

    def __post_init__(self):
        for source, weight in zip(self.sources, self.weights, strict=True):
            if len(source) == 0:
                raise VlaxError(f"data source {source.name} has no rows")
            if weight <= 0:
                raise VlaxError(f"data source {source.name} has weight {weight}; a weight is positive")

    @functools.cached_property
    def offsets(self) -> np.ndarray:
        """Global id of each source's first row."""
        return np.concatenate([[0], np.cumsum([len(s) for s in self.sources])]).astype(np.int64)

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Rows that each source contributes to one epoch."""
        first = len(self.sources[0])
        counts = [max(1, round(first * weight / self.weights[0])) for weight in self.weights]
        return np.array([first, *counts[1:]], np.int64)

    @property
    def epoch_size(self) -> int:
        return int(self.counts.sum())

    @functools.cached_property
    def plan_hash(self) -> str:
        """Identifies the row order: it changes with the rows, their weights, the seed and the shuffling."""
        parts = [[s.name, s.fingerprint, len(s)] for s in self.sources]
        text = json.dumps([parts, list(map(float, self.weights)), self.seed, self.shuffle])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _pass(self, source: int, number: int) -> np.ndarray:
        """The order of one pass over a source."""
        rows = len(self.sources[source])
        if not self.shuffle:
            return np.arange(rows)
        return np.random.default_rng([self.seed, 1, source, number]).permutation(rows)

    @functools.lru_cache(maxsize=3)  # noqa: B019  (a mixture lives as long as its run)
    def epoch(self, number: int) -> np.ndarray:
        """int64[epoch_size]: global row ids of one epoch, in the order in which they are met."""
        parts = []
        for source, count in enumerate(self.counts):
            rows = len(self.sources[source])
            begin, end = number * count, (number + 1) * count
            passes = [self._pass(source, n) for n in range(begin // rows, -(-end // rows))]
            start = begin - begin // rows * rows
            parts.append(np.concatenate(passes)[start : start + count] + self.offsets[source])
        order = np.concatenate(parts)
        return np.random.default_rng([self.seed, 2, number]).permutation(order) if self.shuffle else order

    def ids(self, begin: int, end: int) -> np.ndarray:
        """Global row ids at positions begin..end-1: of an endless order when shuffled, else of one pass, then filler (-1)."""
        if not self.shuffle:
            position = np.arange(begin, end)
            return np.where(position < self.epoch_size, position, -1)
        epochs = range(begin // self.epoch_size, (end - 1) // self.epoch_size + 1)
        rows = np.concatenate([self.epoch(e) for e in epochs])
        return rows[begin - epochs[0] * self.epoch_size :][: end - begin]

    def locate(self, row_id: int) -> tuple[Source, int]:
        source = int(np.searchsorted(self.offsets, row_id, side="right")) - 1
        return self.sources[source], int(row_id - self.offsets[source])

    def row(self, row_id: int) -> Row:
        source, index = self.locate(row_id)
        return source[index]

    def name(self, row_id: int) -> str:
        """What an error calls a global row id: "coco:1234#2" """
        return "filler" if row_id < 0 else f"{self.locate(row_id)[0].name}:{self.row(row_id).id}"


class ImageCache:
    """Resized pictures, kept up to a number of bytes and never evicted: small sets are decoded once, memory stays bounded."""

    def __init__(self, capacity_bytes: int):
        self.capacity, self.size = capacity_bytes, 0
        self._images: dict[tuple[str, str], np.ndarray] = {}
        self._lock = threading.Lock()

    def get(self, row: Row, preprocess: Preprocess) -> np.ndarray:
        key = (row.image_name, row.image_id)  # ids alone recur: in train and validation files, in sources of one name
        if key in self._images:
            return self._images[key]
        image = preprocess.apply(row.open_image())
        with self._lock:
            if key not in self._images and self.size + image.nbytes <= self.capacity:
                self._images[key] = image
                self.size += image.nbytes
        return image


def filler(rows: int, length: int, preprocess: Preprocess | None, encoder: Encoder) -> dict[str, np.ndarray]:
    """A batch of nothing but filler, to be filled in: pads, hidden images (one pixel for a text-only model), row ids -1."""
    pixels = preprocess.size if preprocess else 1
    return {
        "image": np.zeros((rows, 1, pixels, pixels, 3), np.uint8),
        "has_image": np.zeros((rows, 1), bool),
        "tokens": np.full((rows, length), encoder.tokenizer.pad_token_id, np.int32),
        "segment": np.zeros((rows, length), np.int32),
        "example": np.zeros((rows, length), np.int32),
        "row": np.full((rows, 1), -1, np.int32),
    }


class RowCounter:
    """What was left out, and the first names of it."""

    def __init__(self):
        self.counts: collections.Counter[str] = collections.Counter()
        self.first: list[str] = []
        self._seen: set[int] = set()
        self._lock = threading.Lock()

    def add(self, row_id: int, reason: str, name: str) -> None:
        with self._lock:  # a row of several epochs counts once
            if row_id not in self._seen:
                self._seen.add(row_id)
                self.counts[reason] += 1
                if len(self.first) < 10:
                    self.first.append(f"{name} ({reason})")


@dataclasses.dataclass(frozen=True, eq=False)
class Collator:
    """Rows to one host's numpy batch."""

    mixture: Mixture
    encoder: Encoder
    text_length: int
    preprocess: Preprocess | None  # None: a text-only model; batches carry a dummy image of one pixel
    cache: ImageCache
    overlong: str = "drop"  # or "cut": the answer loses its end (EOS too), never the image
    left_out: RowCounter = dataclasses.field(default_factory=RowCounter)

    def __post_init__(self):
        if self.overlong not in ("drop", "cut"):
            raise VlaxError(f"stage.overlong={self.overlong!r} is not one of drop, cut")

    def __call__(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        batch = filler(len(ids), self.text_length, self.preprocess, self.encoder)
        for i, row_id in enumerate(ids):
            if row_id >= 0:
                self._fill(batch, i, int(row_id))
        return batch

    def _fill(self, batch: Mapping[str, np.ndarray], i: int, row_id: int) -> None:
        source, index = self.mixture.locate(row_id)
        row = source[index]
        tokens, segments = self.encoder.encode(row)
        if len(tokens) > self.text_length:
            self.left_out.add(row_id, f"{len(tokens)} tokens, limit {self.text_length}", f"{source.name}:{row.id}")
            if self.overlong == "drop":
                return
            tokens, segments = tokens[: self.text_length], segments[: self.text_length]
        if row.open_image is not None and self.preprocess:
            batch["image"][i, 0] = self.cache.get(row, self.preprocess)
            batch["has_image"][i, 0] = True
        batch["tokens"][i, : len(tokens)] = tokens
        batch["segment"][i, : len(tokens)] = segments
        batch["example"][i, : len(tokens)] = 1
        batch["row"][i, 0] = row_id


@dataclasses.dataclass(frozen=True, eq=False)
class HostBatches:
    """Random access by micro-step to this host's slice of the global batch (grain's RandomAccessDataSource)."""

    collate: Collator
    global_batch: int
    steps: int
    host: int = 0
    hosts: int = 1
    micro_batches: int = 1  # > 1: arrays come as [micro_batches, rows, ...], for a step that scans over them

    def __post_init__(self):
        if self.global_batch % (self.hosts * self.micro_batches):
            raise VlaxError(
                f"a batch of {self.global_batch} rows does not divide over {self.hosts} hosts x {self.micro_batches}"
            )

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        begin = step * self.global_batch
        ids = self.collate.mixture.ids(begin, begin + self.global_batch).reshape(self.micro_batches, self.hosts, -1)[
            :, self.host
        ]
        batch = self.collate(ids.reshape(-1))
        if self.micro_batches == 1:
            return batch
        return {key: value.reshape(self.micro_batches, -1, *value.shape[1:]) for key, value in batch.items()}


def iterate(batches: HostBatches, start: int = 0, threads: int = 2, prefetch: int = 8):
    """Batches from micro-step `start` on, built by grain's threads ahead of time."""
    if start >= len(batches):
        return iter(())
    dataset = grain.MapDataset.source(batches)[start:]
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)))
