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
import threading
from collections.abc import Mapping

import grain
import numpy as np

from vlax.data import augment
from vlax.data.mixture import Mixture
from vlax.data.prompts import Encoder
from vlax.data.rows import Row
from vlax.errors import VlaxError
from vlax.images import Preprocess


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
    augment: tuple[str, ...] = ()  # see augment.py
    left_out: RowCounter = dataclasses.field(default_factory=RowCounter)

    def __post_init__(self):
        if self.overlong not in ("drop", "cut"):
            raise VlaxError(f"stage.overlong={self.overlong!r} is not one of drop, cut")

    def __call__(self, ids: np.ndarray, draws: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The batch of some global row ids; draws: f64[rows,3], the random numbers of their augmentation."""
        batch = filler(len(ids), self.text_length, self.preprocess, self.encoder)
        for i, row_id in enumerate(ids):
            if row_id >= 0:
                self._fill(batch, i, int(row_id), None if draws is None else draws[i])
        return batch

    def _fill(self, batch: Mapping[str, np.ndarray], i: int, row_id: int, draw: np.ndarray | None) -> None:
        source, index = self.mixture.locate(row_id)
        row = source[index]
        tokens, segments = self.encoder.encode(row)
        if len(tokens) > self.text_length:
            self.left_out.add(row_id, f"{len(tokens)} tokens, limit {self.text_length}", f"{source.name}:{row.id}")
            if self.overlong == "drop":
                return
            tokens, segments = tokens[: self.text_length], segments[: self.text_length]
        if row.open_image is not None and self.preprocess:
            image = self.cache.get(row, self.preprocess)
            batch["image"][i, 0] = image if draw is None else augment.apply(image, row, self.augment, draw)
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
        positions = step * self.global_batch + np.arange(self.global_batch)
        mine = positions.reshape(self.micro_batches, self.hosts, -1)[:, self.host].reshape(-1)
        mixture, draws = self.collate.mixture, None
        if self.collate.augment:  # by position in the global order: the same whatever the batch, the hosts and the workers
            draws = np.stack([np.random.default_rng([mixture.seed, 3, int(p)]).random(3) for p in mine])
        batch = self.collate(mixture.ids(int(positions[0]), int(positions[-1]) + 1)[mine - positions[0]], draws)
        if self.micro_batches == 1:
            return batch
        return {key: value.reshape(self.micro_batches, -1, *value.shape[1:]) for key, value in batch.items()}


def iterate(batches: HostBatches, start: int = 0, threads: int = 2, prefetch: int = 8):
    """Batches from micro-step `start` on, built by grain's threads ahead of time."""
    if start >= len(batches):
        return iter(())
    dataset = grain.MapDataset.source(batches)[start:]
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)))
