"""Batches of nothing yet, and pictures into their slots (the contract is `pipeline.py`'s)."""

from collections.abc import Mapping

import numpy as np

from vlax.images import Preprocess, anyres
from vlax.text.prompts import Encoder


def filler(rows: int, length: int, preprocess: Preprocess | None, encoder: Encoder, slots: int = 1) -> dict[str, np.ndarray]:
    """A batch of nothing but filler, to be filled in: pads, hidden images (one pixel for a text-only model), row ids -1."""
    height, width = (preprocess.height, preprocess.size) if preprocess else (1, 1)
    sewn = {"shown": np.zeros((rows, slots), np.int32)} if preprocess and preprocess.anyres else {}
    return sewn | {
        "image": np.zeros((rows, slots, height, width, 3), np.uint8),
        "has_image": np.zeros((rows, slots), bool),
        "tokens": np.full((rows, length), encoder.tokenizer.pad_token_id, np.int32),
        "segment": np.zeros((rows, length), np.int32),
        "example": np.zeros((rows, length), np.int32),
        "owner": np.zeros((rows, slots), np.int32),
        "before": np.zeros((rows, slots), np.int32),
        "row": np.full((rows, slots), -1, np.int64),
    }


def show(batch: Mapping, row: int, slot: int, image: np.ndarray, preprocess: Preprocess | None) -> None:
    """Puts a picture, uint8[H,W,3] of `preprocess`, into a slot of a batch."""
    batch["image"][row, slot] = image
    if preprocess and preprocess.anyres:
        batch["shown"][row, slot] = anyres.tokens(image, preprocess.anyres.side)
