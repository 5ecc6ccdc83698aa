"""Rows of many lengths, and the three plans over them, for the tests of plans and packing."""

import functools

import numpy as np
from PIL import Image

from vlax.data.batches.lengths import Lengths
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.packing import PackedPlan
from vlax.data.batches.pipeline import Collator, HostBatches, ImageCache
from vlax.data.batches.row_plan import BucketPlan, Plan
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.rows import Picture, Row, Turn
from vlax.text.bpe import train_bpe
from vlax.text.prompts import Encoder

PIXELS, LIMIT, BUCKETS = 8, 16, (8, 11, 16)


@functools.cache
def encoder() -> Encoder:
    """A row of k words has k + OVERHEAD tokens: " cat" and " dog" are one each."""
    return Encoder(train_bpe(["caption: cat dog cat dog"] * 4, 300), "plain")


OVERHEAD = 4  # BOS, "caption", ":" and EOS


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (PIXELS, PIXELS, 3)).astype(np.uint8))


class Varied:
    """Row i is words[i] words long; every fourth is text only; `bad` rows have no answer."""

    def __init__(self, name, words, bad=()):
        self.name, self.words, self.bad = name, list(words), bad
        self.fingerprint, self.asked = f"{name}-{self.words}-{bad}", []

    def __len__(self):
        return len(self.words)

    def __getitem__(self, index):
        self.asked.append(index)
        seen = None if index % 4 == 3 else Picture(f"p/{index}", functools.partial(picture, index))
        answer = "" if index in self.bad else " ".join(np.random.default_rng(index).choice(["cat", "dog"], self.words[index]))
        return Row(f"r{index}", "" if seen is None else str(index), "caption", (Turn("", answer),), seen)


def words(rows: int, seed: int = 0, most: int = LIMIT) -> list[int]:
    """As many lengths in words; the longest rows have `most` tokens."""
    return np.random.default_rng(seed).integers(1, most - OVERHEAD + 1, rows).tolist()


def mixture(seed=0, rows=(37, 20), most=LIMIT) -> Mixture:
    sources = [Varied(f"s{i}", words(n, i, most)) for i, n in enumerate(rows)]
    return Mixture(sources, [1.0, 0.5][: len(rows)], seed)


def make(kind: str, mixed: Mixture, rows=4, overlong="drop", window=3, stop=0, slots=3):
    """A plan of one of KINDS, with nothing cached."""
    if kind == "plain":
        return Plan(mixed, rows, LIMIT)
    common = {"lengths": Lengths(encoder()), "overlong": overlong, "window": window, "stop": stop}
    if kind == "buckets":
        return BucketPlan(mixed, rows, LIMIT, buckets=BUCKETS, **common)
    return PackedPlan(mixed, rows, LIMIT, slots, **common)


KINDS = ("plain", "buckets", "packed")


def batches(plan, steps: int, **fields) -> HostBatches:
    """Batches of a plan with augmented pictures."""
    overlong = getattr(plan, "overlong", "drop")
    collate = Collator(plan.mixture, encoder(), LIMIT, Preprocess(PIXELS), ImageCache(1 << 20), overlong, ("flip", "shift"))
    return HostBatches(collate, plan, steps, **fields)


def error(call) -> str:
    try:
        call()
    except VlaxError as raised:
        return str(raised)
    raise AssertionError("no VlaxError")
