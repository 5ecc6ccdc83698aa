"""From a model and the test sets of suites to predictions on disk: batch by batch, before anything is scored.

A run that was cut off goes on by id. What a row is answered depends neither on the rows decoded beside it nor on the number of
devices and hosts: every device decodes `suite.physical_batch` rows at a time, filler included.
"""

import collections
import dataclasses
import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from tqdm import tqdm

from vlax.data.sources import open_source
from vlax.decoding.predict import Predictor, Request
from vlax.errors import VlaxError
from vlax.evaluation import predictions
from vlax.model import exports, opening
from vlax.model.api import Model
from vlax.params import distributed
from vlax.rows import Picture, Row, Source, making
from vlax.storage import jsonl
from vlax.suites import protocol
from vlax.suites.protocol import Suite
from vlax.training import estimate

THREADS = 8  # that decode pictures while the device works


@dataclasses.dataclass(frozen=True)
class TestSet:
    """The rows of a suite, whose pictures may have been exchanged."""

    suite: Suite
    source: Source
    rows: list[Row]

    @property
    def name(self) -> str:
        return self.suite.name

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """Row id -> position: what sampling is seeded with."""
        return {row.id: number for number, row in enumerate(self.rows)}


@dataclasses.dataclass
class Evaluation:
    """One set of predictions on its way to disk. `lines`: by set name, post-processed; empty on all processes but the first."""

    title: str
    directory: epath.Path
    sets: list[TestSet]
    lines: dict[str, list[dict]]
    protocols: dict[str, dict]
    about: dict
    model: Model | None = None
    scores: dict = dataclasses.field(default_factory=dict)
    kept: bool = True  # False: its directory goes when the scores are known


def open_sets(suites: Sequence[Suite], data_root: str, limit: int = 0, split: str = "test") -> list[TestSet]:
    """The sets of suites that have the split. `limit` > 0 keeps the first rows of each.

    VlaxError says for a missing data set which files go where.
    """
    sets = []
    for suite in suites:
        if split not in suite.data:
            continue
        try:
            source = open_source(suite.data[split], data_root, train=False)
        except VlaxError as error:
            if not suite.files:
                raise
            needed = "; ".join(" ".join(line.split()) for line in suite.files.strip().splitlines())
            raise VlaxError(f"suite {suite.name}: {error}. It needs, below run.data_root: {needed}") from None
        with making(source.name):
            rows = [source[i] for i in range(min(limit or len(source), len(source)))]
        if not rows:
            raise VlaxError(f"suite {suite.name}: {source.name} has no rows")
        sets.append(TestSet(suite, source, rows))
    return sets


def derange(rows: Sequence[Row], seed: int) -> list[Row]:
    """The blind twin's rows: every picture replaced by another row's, no picture left in place.

    Ids in a seeded order, each taking the next one's picture: one cycle, so no fixed point. Rows about the same picture get
    the same wrong one. What several pictures say, they may say together, so they are exchanged together, for those of a row
    that has as many. VlaxError where there are no two to exchange.
    """
    pictures = {(len(row.pictures), row.image_id): row.pictures for row in rows if row.picture}
    swapped: dict[tuple[int, str], tuple[Picture, ...]] = {}
    for count in sorted({count for count, _ in pictures}) or [1]:
        ids = sorted(image_id for many, image_id in pictures if many == count)
        strangers = [picture for key in sorted(pictures) if key[0] != count for picture in pictures[key]]
        if len(ids) == 1 and len(strangers) >= count:  # no other row has as many
            swapped[count, ids[0]] = tuple(strangers[:count])
            continue
        if len(ids) < 2:
            raise VlaxError("a blind twin needs at least two pictures to exchange; --notwin leaves the twin out")
        random.Random(seed).shuffle(ids)
        swapped |= {(count, image_id): pictures[count, ids[(i + 1) % len(ids)]] for i, image_id in enumerate(ids)}
    return [row.showing(swapped[len(row.pictures), row.image_id]) if row.picture else row for row in rows]


def requests(model: Model, test: TestSet, rows: Sequence[Row], pool: ThreadPoolExecutor) -> list[Request]:
    """One Request a row: its first turn's prompt and its pictures. A picture that several rows share is decoded once."""
    suite, number = test.suite, test.numbers
    preprocess = model.config.preprocess
    each = [(picture, len(row.pictures) == 1) for row in rows for picture in row.pictures] if preprocess else []
    seen = {(picture.name, alone): (picture, alone) for picture, alone in each}
    tiles = model.config.tiles
    views = dict(zip(seen, pool.map(lambda one: list(one[0].views(preprocess, tiles, one[1])), seen.values()), strict=True))
    asked = [suite.asked(row, model.encoder) for row in rows]
    pictures = [[views[p.name, len(row.pictures) == 1] for p in row.pictures] if preprocess else [] for row in rows]
    found = []
    for prompt, mine, row in zip(asked, pictures, rows, strict=True):
        before = [at for at, each in zip(prompt.before, mine, strict=False) for _ in each]
        found.append(Request(prompt.tokens, [view for each in mine for view in each], number[row.id], before))
    return found


def settings(model: Model, test: TestSet, blind_seed: int | None) -> dict:
    """`protocol.settings` of one set, for this model's encoder."""
    return protocol.settings(test.suite, test.source, len(test.rows), model.encoder, blind_seed)


def run_key(model: Model, proto: Mapping) -> str:
    """What the lines of these weights, decoded so, are filed under."""
    weights = {key: model.manifest.get(key) for key in ("stage", "checksums")}
    tiles = [model.config.tiles] if model.config.tiles else []
    return protocol.digest([proto["decoded"], weights, model.config.mask, dtype(model), *tiles])


def dtype(model: Model) -> str:
    """What the model computes in, and what its matrices are held in where that is another: "bfloat16", "bfloat16, int8"."""
    return ", ".join([str(next(iter(model.params.values())).dtype), *filter(None, [model.held])])


def decoding_mesh(run: ConfigDict, where: str) -> tuple[int, int, int]:
    """(data, fsdp, tp) to decode an export on: run.mesh, with whole parameters on every device where they take up to a quarter
    of its memory. Cut ones are gathered anew for each token. Answers are the same."""
    cut = run.mesh.data, run.mesh.fsdp, run.mesh.tp
    if run.mesh.fsdp == 1 or not opening.is_export(where):
        return cut
    size = exports.read_manifest(where)["parameters"] * (2 if run.dtype == "bfloat16" else 4)
    return (-1, 1, run.mesh.tp) if size <= estimate.memory() / 4 else cut


def shares(test: TestSet) -> bool:
    """Whether rows of a set share pictures, on average two or more one picture: then each is looked at once a batch."""
    pictures = [picture.name for row in test.rows for picture in row.pictures]
    return 0 < 2 * len(set(pictures)) <= len(pictures)


def predictor(model: Model, suite: Suite, shared: bool = False) -> Predictor:
    """What decodes for a suite: `physical_batch` rows on every device along the batch axes of the mesh. shared: of `shares`."""
    shards = model.mesh.shape["data"] * model.mesh.shape["fsdp"]
    return model.predictor(suite.decoding, suite.physical_batch * shards, suite.answers, suite.answers_by, shared)


def texts(model: Model, test: TestSet, rows: Sequence[Row], at_once: int = 0) -> Iterator[tuple[list[Row], list[str]]]:
    """(rows, their answers) in order. at_once: rows asked for together, at most (and by default) the physical batch; fewer
    are padded to it, so that the answers are the same."""
    suite, encoder = test.suite, model.encoder
    decoder = predictor(model, suite, shares(test))
    # Of all rows of the set, not of those that are left: the number of slots is part of what fixes the numbers.
    different = {(row.turns[0].question, row.places, len(row.pictures)): row for row in test.rows}.values()
    longest = max(len(suite.asked(row, encoder).tokens) for row in different)
    length, slots = -(-longest // 16) * 16, model.config.views * max(1, *(len(row.pictures) for row in test.rows))
    size = min(at_once or decoder.batch_size, decoder.batch_size)
    parts = [list(rows[i : i + size]) for i in range(0, len(rows), size)]
    with ThreadPoolExecutor(THREADS) as pool, ThreadPoolExecutor(1) as ahead:
        waiting: collections.deque[Future[list[Request]]] = collections.deque()
        for part in parts[:2]:
            waiting.append(ahead.submit(requests, model, test, part, pool))
        for number, part in enumerate(parts):
            asked = waiting.popleft().result()
            if number + 2 < len(parts):
                waiting.append(ahead.submit(requests, model, test, parts[number + 2], pool))
            for batch in decoder.texts(model.params, asked, length, slots):
                yield part, batch


def predict(model: Model, test: TestSet, path: epath.Path, run: str, at_once: int = 0) -> list[dict]:
    """All predictions of a set as decoded, made or read back from `path`: one dict a row, in order. The first process
    writes; on the others the list is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first = distributed.is_main()
    if first:
        jsonl.mend(path)
    done = predictions.read(path, [run]) if first else {}
    # What is left to do must not depend on who sees which file.
    todo = distributed.from_main(np.array([(run, row.id) not in done for row in test.rows]))
    wanted = [row for row, open_ in zip(test.rows, todo, strict=True) if open_]
    if first and len(wanted) < len(test.rows):
        print(f"{test.name}: {len(test.rows) - len(wanted)} of {len(test.rows)} predictions are there already", flush=True)
    with tqdm(total=len(wanted), desc=test.name, unit="row", mininterval=0.5, disable=not first) as bar:
        for rows, answers in texts(model, test, wanted, at_once) if wanted else ():
            lines = [predictions.line(run, test.name, row, text) for row, text in zip(rows, answers, strict=True)]
            if first:
                jsonl.append(path, lines)
            done.update({(run, line["id"]): line for line in lines})
            bar.update(len(lines))
    return [done[run, row.id] for row in test.rows] if first else []
