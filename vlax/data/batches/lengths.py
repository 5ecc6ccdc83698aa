"""Token lengths of rows, known before batches are made of them: buckets, packing, token budgets and the header go by these.

    lengths = Lengths(encoder)
    lengths.of(mixture, np.array([4, 17, -1]))      int32[3]: [12, 9, 0]; filler is 0 tokens long

A length is what `Encoder.encode` gives, so it can't disagree with the batch. Rows are measured when they are first asked for
and once a process: 4 bytes a row are kept, by tokenizer, templates and source, for every stage that reads it.
"""

import dataclasses
import functools
import hashlib
import json

import numpy as np

from vlax.data.batches.mixture import Mixture
from vlax.errors import VlaxError
from vlax.rows import Source, making
from vlax.storage import state
from vlax.text.prompts import Encoder, template_hash

SAMPLE = 1000  # rows that the header and token budgets judge a source by
_measured: dict[tuple, np.ndarray] = {}  # (encoder, source) -> int32[rows], length + 1; 0 where nobody asked yet


class Lengths:
    """Token lengths under one encoder. Thread-safe: a row that two threads measure at once gets the same number twice."""

    def __init__(self, encoder: Encoder):
        self._encoder = encoder

    @functools.cached_property
    def key(self) -> str:
        """Digest of what lengths depend on besides the rows: tokenizer and templates."""
        tokenizer = self._encoder.tokenizer
        # Truncation and padding are switched off at the first encoding, and would make another key of the same tokenizer.
        rules = state.load_json("the tokenizer", tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
        parts = (json.dumps(rules, sort_keys=True), str(tokenizer.chat_template), template_hash(self._encoder.templates))
        return hashlib.sha256("\0".join((*parts, self._encoder.templates)).encode()).hexdigest()[:16]

    def of_source(self, source: Source, indices: np.ndarray) -> np.ndarray:
        """int32, as many as `indices`: tokens of these rows, whole (nothing is cut)."""
        name = (self.key, source.name, source.fingerprint, len(source))
        if name not in _measured:
            _measured.setdefault(name, np.zeros(len(source), np.int32))  # the system gives memory for what is written to
        known = _measured[name]
        for index in np.unique(indices[known[indices] == 0]):
            known[index] = self._measure(source, int(index)) + 1
        return known[indices] - 1

    def _measure(self, source: Source, index: int) -> int:
        try:
            with making(source.name):
                return len(self._encoder.encode(source[index])[0])
        except VlaxError:
            return 0  # a bad row keeps its place in the plan; the Collator meets it again and says what is wrong

    def of(self, mixture: Mixture, ids: np.ndarray) -> np.ndarray:
        """int32, as many as `ids` (global row ids); 0 for filler."""
        out = np.zeros(len(ids), np.int32)
        owner = np.where(ids < 0, -1, np.searchsorted(mixture.offsets, ids, side="right") - 1)
        for number in np.unique(owner[owner >= 0]):
            mine = owner == number
            out[mine] = self.of_source(mixture.sources[number], ids[mine] - mixture.offsets[number])
        return out

    def mean(self, source: Source, limit: int, overlong: str) -> float:
        """Tokens that a row of the source brings to training, by an even sample of it.

        limit: stage.text_length; a longer row counts `limit` where it is cut, 0 where it is dropped.
        """
        rows = np.unique(np.linspace(0, len(source) - 1, SAMPLE).astype(np.int64))
        found = self.of_source(source, rows)
        return float(np.where(found <= limit, found, limit if overlong == "cut" else 0).mean())


@dataclasses.dataclass(frozen=True)
class Survey:
    """Lengths of the first rows of a stage, in tokens."""

    rows: int
    median: int
    most: int  # 99 % are no longer
    longest: int
    overlong: float  # share of rows over the limit


def survey(lengths: Lengths, mixture: Mixture, limit: int) -> Survey:
    """What the first rows of the order are like; `limit` is stage.text_length."""
    found = lengths.of(mixture, mixture.ids(0, min(SAMPLE, mixture.epoch_size)))
    return Survey(len(found), int(np.median(found)), int(np.quantile(found, 0.99, method="inverted_cdf")), int(found.max()),
                  float((found > limit).mean()))  # fmt: skip
