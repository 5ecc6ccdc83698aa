"""Token lengths of rows, known before batches are made of them: buckets, packing, token budgets and the header go by these.

    lengths = Lengths(encoder)
    lengths.of(mixture, np.array([4, 17, -1]))      int32[3]: [12, 9, 0]; filler is 0 tokens long

A length is what `Encoder.encode` gives, so it can't disagree with the batch. Rows are measured when they are first asked for,
on all cores, and once: of sources with WORTH rows or more, what a plan asks for is kept in the cache (`measured.py`), by
tokenizer, templates, source and the code that reads rows, for every run that comes.
"""

import concurrent.futures
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from vlax.data.batches.measured import Measured
from vlax.data.batches.mixture import Mixture
from vlax.errors import VlaxError
from vlax.rows import Source, making
from vlax.storage import cache, state
from vlax.text.prompts import Encoder

SAMPLE = 1000  # rows that the header and token budgets judge a source by
WORTH = 10_000  # rows of a source from which on a file is worth its place: fewer take less than a second
CHUNK = 512  # rows that a thread tokenises at a time
READING = ("rows.py", "text", "data/readers", "data/embedded")  # of vlax: what makes texts of rows
_measured: dict[tuple, Measured] = {}  # by encoder and source


@functools.cache
def _code() -> str:
    """Digest of what else a row's tokens depend on: another version of vlax may read other texts from the same file."""
    base = Path(__file__).parents[2]
    files = sorted(
        path for name in READING for path in ([base / name] if name.endswith(".py") else (base / name).rglob("*.py"))
    )
    digest = hashlib.sha256(importlib.metadata.version("tokenizers").encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


class Lengths:
    """Token lengths under one encoder. Thread-safe."""

    def __init__(self, encoder: Encoder):
        self._encoder = encoder

    @functools.cached_property
    def key(self) -> str:
        """Digest of what lengths depend on besides the rows: tokenizer and templates."""
        tokenizer = self._encoder.tokenizer
        # Truncation and padding are switched off at the first encoding, and would make another key of the same tokenizer.
        rules = state.load_json("the tokenizer", tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
        parts = (json.dumps(rules, sort_keys=True), str(tokenizer.chat_template), self._encoder.digest)
        return hashlib.sha256(
            "\0".join((*parts, self._encoder.templates, self._encoder.settings.as_json())).encode()
        ).hexdigest()[:16]

    def pictures(self, mixture: Mixture, ids: np.ndarray) -> np.ndarray:
        """int32, as many as `ids` (global row ids): how many pictures each row has; 0 for filler and for a bad row."""
        return self._each(mixture, ids, self._pictures_of)

    def _pictures_of(self, source: Source, indices: np.ndarray) -> np.ndarray:
        name = ("pictures", source.name, source.fingerprint, len(source))
        known = _measured.setdefault(name, Measured(len(source)))
        with known.measuring():
            wanted = np.unique(indices[known.get(indices) < 0])
            known.put(wanted, np.array([_pictures(source, index) for index in wanted.tolist()], np.int32))
        return known.get(indices)

    def of_source(self, source: Source, indices: np.ndarray, keep: bool = False) -> np.ndarray:
        """int32, as many as `indices`: tokens of these rows, whole (nothing is cut). keep: in the cache, for other runs."""
        known = self._known(source, keep)
        found = known.get(indices)
        if (found < 0).any():
            with known.measuring():
                wanted = np.unique(indices[known.get(indices) < 0])
                known.put(wanted, self._measure(source, wanted))
            found = known.get(indices)
        return found

    def _known(self, source: Source, keep: bool) -> Measured:
        name = (self.key, source.name, source.fingerprint, len(source))
        if name not in _measured:
            _measured.setdefault(name, Measured(len(source)))
        if len(source) >= WORTH:
            digest = hashlib.sha256(json.dumps([*name, _code()]).encode()).hexdigest()[:32]
            _measured[name].share(cache.folder() / "lengths" / digest, make=keep)
        return _measured[name]

    def _measure(self, source: Source, wanted: np.ndarray) -> np.ndarray:
        """int32, as many as `wanted`; -1 for a bad row."""
        parts = np.array_split(wanted, -(-len(wanted) // CHUNK) or 1)
        measure = functools.partial(self._measure_some, source)
        with concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, len(parts))) as pool:
            return np.array([length for part in pool.map(measure, parts) for length in part], np.int32)

    def _measure_some(self, source: Source, wanted: np.ndarray) -> list[int]:
        encoder = self._encoder
        pieces: list[tuple[list[tuple[str, bool]], list[int]] | None] = []
        for index in wanted.tolist():
            try:
                with making(source.name):
                    pieces.append(encoder.pieces(source[index]))
            except VlaxError:  # a bad row keeps its place in the plan; the Collator meets it again and says what is wrong
                pieces.append(None)
        texts = list(dict.fromkeys(text for found in pieces if found for text, _ in found[0]))
        try:
            counts = dict(zip(texts, encoder.counts(texts), strict=True))
        except Exception:  # one of the texts is more than the tokenizer can take
            return [self._measure_one(source, index) for index in wanted.tolist()]
        start = len(encoder.start)
        return [
            -1 if found is None else start + sum(counts[text] + answer * len(found[1]) for text, answer in found[0])
            for found in pieces
        ]

    def _measure_one(self, source: Source, index: int) -> int:
        try:
            with making(source.name):
                return len(self._encoder.encode(source[index])[0])
        except VlaxError:
            return -1

    def of(self, mixture: Mixture, ids: np.ndarray, keep: bool = False) -> np.ndarray:
        """int32, as many as `ids` (global row ids); 0 for filler. keep: as in `of_source`."""
        return self._each(mixture, ids, functools.partial(self.of_source, keep=keep))

    def _each(self, mixture: Mixture, ids: np.ndarray, of: Callable[[Source, np.ndarray], np.ndarray]) -> np.ndarray:
        out = np.zeros(len(ids), np.int32)
        owner = np.where(ids < 0, -1, np.searchsorted(mixture.offsets, ids, side="right") - 1)
        for number in np.unique(owner[owner >= 0]):
            mine = owner == number
            out[mine] = of(mixture.sources[number], ids[mine] - mixture.offsets[number])
        return out

    def mean(self, source: Source, limit: int, overlong: str) -> float:
        """Tokens that a row of the source brings to training, by an even sample of it.

        limit: stage.text_length; a longer row counts `limit` where it is cut, 0 where it is dropped.
        """
        rows = np.unique(np.linspace(0, len(source) - 1, SAMPLE).astype(np.int64))
        found = self.of_source(source, rows)
        return float(np.where(found <= limit, found, limit if overlong == "cut" else 0).mean())


def _pictures(source: Source, index: int) -> int:
    try:
        with making(source.name):
            return len(source[index].pictures)
    except VlaxError:
        return 0


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
