"""The batch contract and the road to it: mixture -> global row plan -> grain -> numpy batches of this host.

A batch is a dict of arrays (B rows of this host, N image slots, T text tokens; N = 1 unless packed, or stage.images is more):

    image      uint8[B,N,H,W,3]   normalised and patchified on the device; with AnyRes all of a picture (images/anyres.py)
    has_image  bool[B,N]          False: a dummy image that the mask hides, so that every host runs one program
    tokens     int32[B,T]         prompt and answer ids, padded on the right
    segment    int32[B,T]         0 pad, 1 prompt, 2 answer with its EOS
    example    int32[B,T]         1..N, 0 pad
    owner      int32[B,N]         the example whose picture a slot shows, 0 of a hidden one; n + 1 in slot n where each has one
    before     int32[B,N]         text tokens of that example that come before the picture: 0, but in places of its own
    shown      int32[B,N]         with AnyRes alone: how many tokens the picture in a slot has
    row        int64[B,N]         global row id of example n + 1, -1 filler; stays on the host, for errors and inspection
                                  (devices have int32)

Which rows a batch holds is a pure function of (seed, step): the plan (`row_plan.py`) is global, hosts take slices of it
afterwards. A row that does not fit becomes filler and never shifts the order. In a packed row the text of example n + 1
follows that of example n; an example without a picture has its slot all the same, one of several has as many, side by side.
"""

import dataclasses
import threading
from collections.abc import Iterator, Mapping

import grain
import numpy as np

from vlax.data.batches import augment
from vlax.data.batches.budget import DropBudget
from vlax.data.batches.empty import filler, show
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.quarantine import Quarantine, place
from vlax.data.batches.row_plan import Plan
from vlax.data.readers.prepared import PreparedSource
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.masks import ANSWER
from vlax.rows import Picture, Row, RowFault, as_fault
from vlax.storage import cache
from vlax.text.places import Encoded
from vlax.text.prompts import Encoder


class ImageCache:
    """Resized pictures, kept up to a number of bytes and never evicted: small sets are decoded once, memory stays bounded."""

    def __init__(self, capacity_bytes: int):
        self.capacity, self.size = capacity_bytes, 0
        self._images: dict[tuple[str, str, bool], np.ndarray] = {}
        self._lock = threading.Lock()

    def get(self, picture: Picture, image_id: str, preprocess: Preprocess, tiles: int = 0, alone: bool = True) -> np.ndarray:
        """uint8[n,H,W,3]: the views of a picture of a row with this image id; one where there are no tiles."""
        # ids alone recur: in train and validation files, in sources of one name
        key = (picture.name, image_id, alone)
        if key in self._images:
            return self._images[key]
        image = picture.views(preprocess, tiles, alone)
        with self._lock:
            if key not in self._images and self.size + image.nbytes <= self.capacity:
                self._images[key] = image
                self.size += image.nbytes
        return image


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
    images: int = 1  # pictures that a row may have (stage.images); more are a fault
    tiles: int = 0  # parts that a picture is shown in (run.tiles), each in a slot of its own but with AnyRes
    left_out: DropBudget = dataclasses.field(default_factory=lambda: DropBudget(0, 0))  # by default a bad row is an error
    quarantine: Quarantine = dataclasses.field(default_factory=Quarantine)
    at_work: dict[int, int] = dataclasses.field(default_factory=dict)  # by thread: the row that it reads

    def __post_init__(self) -> None:
        if self.overlong not in ("drop", "cut"):
            raise VlaxError(f"stage.overlong={self.overlong!r} is not one of drop, cut")
        for source in self.mixture.sources:
            if self.preprocess and isinstance(source, PreparedSource):
                source.check(self.preprocess)  # here, and not at its first picture, when the model is compiled

    def __call__(self, ids: np.ndarray, length: int, draws: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The batch of some global row ids.

        ids: int64[rows,N], -1 filler; length: T; draws: f64[rows,N,DRAWS], the random numbers of each row's augmentation.
        """
        slots = self.images * (self.preprocess.slots(self.tiles) if self.preprocess else 1)
        batch = filler(len(ids), length, self.preprocess, self.encoder, max(ids.shape[1], slots))
        for i, examples in enumerate(ids):
            at = slot = 0
            for n in np.flatnonzero(examples >= 0):
                self.at_work[threading.get_ident()] = row_id = int(examples[n])
                slot = max(slot, int(n))  # a row that was refused leaves its slot empty
                at, slot = self._fill(batch, (i, int(n)), at, slot, row_id, None if draws is None else draws[i, n])
        self.at_work.pop(threading.get_ident(), None)
        return batch

    def reading(self) -> list[str]:
        """The rows that some thread is reading, by place: their ids would have to be read. Where nothing comes any more, they
        say why."""
        found = [self.mixture.locate(row_id) for row_id in self.at_work.values()]
        return sorted(f"{source.name}:{place(index)}" for source, index in found)

    def _fill(
        self, batch: Mapping, example: tuple[int, int], at: int, slot: int, row_id: int, draw: np.ndarray | None
    ) -> tuple[int, int]:
        """Writes a row as an example (batch row, number from 0 on): its text from `at`, its pictures from `slot` on. Returns
        the place and the slot after it."""
        accepted = self._accept(row_id)
        if accepted is None:
            return at, slot
        row, encoded, images = accepted
        (i, n), end, last = example, at + len(encoded.tokens), slot + max(len(images), 1)
        if end > batch["tokens"].shape[1] or last > batch["owner"].shape[1]:  # known before batching: it was another row then
            raise VlaxError(
                f"{self.mixture.name(row_id)} has other tokens or pictures than when it was measured; did its file change? "
                f"Lengths are kept in {cache.folder() / 'lengths'}: delete that folder to measure again"
            )
        for number, (image, before) in enumerate(zip(images, encoded.before, strict=False), slot):
            changed = image if draw is None else self._changed(image, row, draw)
            show(batch, i, number, changed, self.preprocess)
            batch["has_image"][i, number], batch["owner"][i, number], batch["before"][i, number] = True, n + 1, before
        batch["tokens"][i, at:end] = encoded.tokens
        batch["segment"][i, at:end] = encoded.segments
        batch["example"][i, at:end] = n + 1
        batch["row"][i, n] = row_id
        return end, last

    def _changed(self, image: np.ndarray, row: Row, draw: np.ndarray) -> np.ndarray:
        """The picture, augmented; with AnyRes its last line says how it lies, and stays."""
        if self.preprocess is None or self.preprocess.anyres is None:
            return augment.apply(image, row, self.augment, draw)
        return np.concatenate([augment.apply(image[:-1], row, self.augment, draw), image[-1:]])

    def _accept(self, row_id: int) -> tuple[Row, Encoded, list[np.ndarray]] | None:
        """(row, its ids, its pictures), or None for a row that becomes filler: quarantined, bad (which counts against the
        budget) or too long. The one place where rows are refused."""
        source, index = self.mixture.locate(row_id)
        name = f"{source.name}:{place(index)}"
        try:
            if self.quarantine.covers(source.name, place(index)):
                self.left_out.quarantined(row_id, source.name)
                return None
            row = source[index]
            name = f"{source.name}:{row.id}"
            if self.quarantine.covers(source.name, row.id):
                self.left_out.quarantined(row_id, source.name)
                return None
            if self.preprocess and len(row.pictures) > self.images:
                raise RowFault(
                    f"{name} has {len(row.pictures)} pictures, and stage.images={self.images} are taken; raise "
                    f"--config.stage.images, or remove the row", "several pictures"
                )  # fmt: skip
            encoded = self.encoder.placed(row)
            if len(encoded.tokens) > self.text_length:
                self.count_overlong(row_id, len(encoded.tokens))
                if self.overlong == "drop":
                    return None
                encoded = encoded.cut(self.text_length)
                if ANSWER not in encoded.segments:  # its prompt alone fills the row: nothing is left to learn
                    return None
            if self.preprocess is None:
                return row, encoded, []
            shown = row.pictures[: len(encoded.before)]
            alone = self.preprocess.anyres is None or len(shown) == 1
            views = [self.cache.get(picture, row.image_id, self.preprocess, self.tiles, alone) for picture in shown]
            before = [at for at, each in zip(encoded.before, views, strict=True) for _ in each]
            return row, encoded._replace(before=before), [image for each in views for image in each]
        except Exception as error:
            fault = as_fault(name, error)
            if not isinstance(fault, RowFault):  # of the source as a whole
                raise
            self.left_out.bad(row_id, str(fault), name)
            return None

    def count_overlong(self, row_id: int, tokens: int) -> None:
        """Counts a row that is dropped or cut for its length: here, or by a plan that gives it no place."""
        kind = "dropped" if self.overlong == "drop" else "cut"
        self.left_out.overlong(row_id, kind, f"{tokens} tokens, limit {self.text_length}", lambda: self.mixture.name(row_id))


@dataclasses.dataclass(frozen=True, eq=False)
class HostBatches:
    """Random access by step to this host's slice of the global batch (grain's RandomAccessDataSource)."""

    collate: Collator
    plan: Plan
    steps: int
    host: int = 0
    hosts: int = 1
    micro_batches: int = 1  # > 1: arrays come as [micro_batches, rows, ...], for a step that scans over them

    def __post_init__(self) -> None:
        if self.plan.rows % (self.hosts * self.micro_batches):
            raise VlaxError(f"a batch of {self.plan.rows} rows does not divide over {self.hosts} hosts x {self.micro_batches}")

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        planned = self.plan.batch(step)
        for row_id, tokens in planned.dropped:
            self.collate.count_overlong(row_id, tokens)
        mine = np.arange(self.plan.rows).reshape(self.micro_batches, self.hosts, -1)[:, self.host].reshape(-1)
        draws = None
        if self.collate.augment:  # by place in the order: the same whatever the layout, the hosts and the workers
            draws = self._draws(planned.positions[mine])
        batch = self.collate(planned.ids[mine], planned.length, draws)
        if self.micro_batches == 1:
            return batch
        return {key: value.reshape(self.micro_batches, -1, *value.shape[1:]) for key, value in batch.items()}

    def _draws(self, positions: np.ndarray) -> np.ndarray:
        """f64[rows,N,DRAWS]; zeros for filler."""
        draws, seed = np.zeros((*positions.shape, augment.DRAWS)), self.collate.mixture.seed
        for at in np.argwhere(positions >= 0):
            draws[*at] = np.random.default_rng([seed, 3, int(positions[*at])]).random(augment.DRAWS)
        return draws


def iterate(batches: HostBatches, start: int = 0, threads: int = 2, prefetch: int = 8) -> Iterator[dict[str, np.ndarray]]:
    """Batches from micro-step `start` on, built by grain's threads ahead of time."""
    if start >= len(batches):
        return iter(())
    dataset = grain.MapDataset.source(batches)[start:]
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)))
