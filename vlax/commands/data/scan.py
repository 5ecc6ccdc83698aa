"""The doctor's examination of a source: every row, every picture once, and what they share.

Of a picture no pixels are kept, only hashes: about half a kilobyte with the ids of its rows.
"""

import collections
import contextlib
import dataclasses
import re
import time
from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from vlax.commands.data.checks import Finding, Limits, text_findings
from vlax.commands.data.picture_checks import Look, look
from vlax.commands.data.runners import Local, Runner
from vlax.data.batches.quarantine import place
from vlax.data.readers import leaks, phash, prints
from vlax.errors import VlaxError
from vlax.rows import REFUSED, Source, making

ANOTHER = 20  # bits between the hashes of two pictures of one name from which on they are two pictures


@dataclasses.dataclass(slots=True)
class Picture:
    """One picture of a source, whatever number of rows are about it."""

    name: str
    image_id: str
    index: tuple[int, int]  # of a row about it, and which of that row's pictures it is
    rows: list[str] = dataclasses.field(default_factory=list)
    keys: set[str] = dataclasses.field(default_factory=set)  # of the leak filter
    look: Look = dataclasses.field(default_factory=lambda: Look(()))


@dataclasses.dataclass
class Scan:
    """What the examination of one source found."""

    name: str
    limits: Limits
    rows: int = 0
    pictures: list[Picture] = dataclasses.field(default_factory=list)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    seconds: float = 0.0  # that the pictures took
    shown: list[int] = dataclasses.field(default_factory=list)  # the number of each row's (first) picture, -1 without one
    others: list[tuple[int, int]] = dataclasses.field(default_factory=list)  # (row, number) of its others

    @property
    def looks(self) -> prints.Prints:
        """What the (first) picture of each row looks like."""
        found = prints.packed([(picture.look.hash, picture.look.colours) for picture in self.pictures])
        return found.of(np.array(self.shown, np.int64)) if self.pictures else prints.packed([(None, None)] * len(self.shown))

    @property
    def other_looks(self) -> tuple[np.ndarray, prints.Prints]:
        """(int64[n] rows, what their pictures after the first one look like)."""
        rows, numbers = np.array(self.others, np.int64).reshape(-1, 2).T
        return rows, prints.packed([(self.pictures[n].look.hash, self.pictures[n].look.colours) for n in numbers.tolist()])

    def add(self, kind: str, rows: Iterable[str], image: str, detail: str, source: str = "") -> None:
        """A finding about this source. source: what its reader calls it, where it could not be opened."""
        self.findings.append(Finding(kind, self.limits.severity(kind), source or self.name, tuple(rows), image, detail))


@dataclasses.dataclass(frozen=True)
class Examine:
    """Looks at the picture of a row: the work that a runner does."""

    source: Source
    limits: Limits
    places: list[tuple[int, int]]  # of each picture: a row about it, and which of that row's it is
    keeps = False

    def __call__(self, picture: int) -> Look:
        index, number = self.places[picture]
        row = self.source[index]
        return look(row.showing(row.pictures[number : number + 1]), self.limits)

    def fault(self, seen: Look) -> list[str]:
        """The kinds of what was found, where it did not decode."""
        return [] if seen.digest else [kind for kind, _ in seen.findings]


def scan(source: Source, limits: Limits, workers: int = 4, progress: bool = True, runner: Runner | None = None) -> Scan:
    """Reads all rows of a source and decodes all of its pictures. runner: who does; None: `workers` threads."""
    result = Scan(source.name, limits, len(source))
    said = _read_rows(result, source)
    begin = time.monotonic()
    bar = tqdm(total=len(result.pictures), desc=source.name, unit="picture", disable=not progress)
    own = dataclasses.replace(limits, tokens=None, special=None)  # a tokenizer need not be sent to a worker
    examine = Examine(source, own, [picture.index for picture in result.pictures])
    looks = (runner or Local(workers)).map(examine, range(len(result.pictures)))
    with bar, contextlib.closing(looks):
        for picture, seen in zip(result.pictures, looks, strict=True):
            picture.look = seen
            for kind, detail in seen.findings:
                result.add(kind, picture.rows, picture.name, detail)
            bar.update()
    result.seconds = time.monotonic() - begin
    _duplicates(result, said)
    if keep := getattr(source, "keep_looks", None):
        keep(result.looks, *result.other_looks)
    return result


def _read_rows(result: Scan, source: Source) -> list[tuple[str, int, int]]:
    """Texts and ids; fills in `result.pictures`. Returns (row id, its picture or -1, hash of its texts) of each row."""
    said: list[tuple[str, int, int]] = []
    called = getattr(source, "called", None)
    numbers: dict[tuple[str, str], int] = {}
    for index in range(len(source)):
        try:
            with making(f"{source.name}:{place(index)}"):
                row = source[index]
                findings = text_findings(row, result.limits)
        except VlaxError as error:
            result.add(getattr(error, "kind", REFUSED), [place(index)], "", str(error))
            result.shown.append(-1)
            continue
        for kind, detail in findings:
            result.add(kind, [row.id], row.image_name, detail)
        shown = []
        for at, one in enumerate(row.pictures):
            number = numbers.setdefault((one.name, row.image_id), len(numbers))
            if number == len(result.pictures):
                result.pictures.append(Picture(one.name, row.image_id, (index, at)))
            if called:
                result.pictures[number].keys |= leaks.keys(*called(index)[at])
            if number not in shown:
                result.pictures[number].rows.append(row.id)
            shown.append(number)
        if len(shown) > 1:
            result.add(
                "several pictures", [row.id], row.image_name, f"{len(shown)}: train with --config.stage.images={len(shown)}"
            )
        number, *others = shown or [-1]
        result.shown.append(number)
        result.others += [(index, other) for other in others]
        said.append((row.id, number, hash((row.task, row.turns, *others))))
    for row_id, count in collections.Counter(row_id for row_id, _, _ in said).items():
        if count > 1:
            result.add("duplicate row id", [row_id], "", f"{count} rows have it; the quarantine list cannot tell them apart")
    return said


def _duplicates(result: Scan, said: list[tuple[str, int, int]]) -> None:
    """Rows and pictures that occur twice."""
    keys = [picture.look.digest or picture.name for picture in result.pictures]
    first_rows: dict[tuple, str] = {}
    for row_id, number, text in said:
        if number >= 0:
            first = first_rows.setdefault((keys[number], text), row_id)
            if first != row_id:
                image = result.pictures[number].name
                result.add("duplicate row", [row_id], image, f"same picture and text as row {first}")
    first_pictures: dict[bytes, Picture] = {}
    for picture in result.pictures:
        if picture.look.digest:
            twin = first_pictures.setdefault(picture.look.digest, picture)
            if twin is not picture:
                result.add("duplicate picture", picture.rows, picture.name, f"same pixels as {twin.name}")
    hashed = [picture for picture in first_pictures.values() if picture.look.hash is not None]
    near = phash.nearest(*_prints(hashed) * 2, result.limits.distance, earlier=True)
    for picture, other in zip(hashed, near, strict=True):
        if other >= 0:
            detail = f"{_bits(picture, hashed[other])} from {hashed[other].name}"
            result.add("near-duplicate picture", picture.rows, picture.name, detail)


def overlap(result: Scan, evaluation: Scan) -> None:
    """Adds the findings about pictures of a source that an evaluation set has too: by pixels, by name, by perceptual hash."""
    digests = {picture.look.digest: picture for picture in evaluation.pictures if picture.look.digest}
    by_name = leaks.meetings([picture.keys for picture in result.pictures], [picture.keys for picture in evaluation.pictures])
    words = {word: picture for picture in evaluation.pictures for word in words_of(picture)}
    hashed = [picture for picture in evaluation.pictures if picture.look.hash is not None]
    mine = [picture for picture in result.pictures if picture.look.hash is not None]
    near = phash.nearest(*_prints(mine), *_prints(hashed), result.limits.distance)
    nearest = {id(picture): hashed[other] for picture, other in zip(mine, near, strict=True) if other >= 0}
    for picture, at in zip(result.pictures, by_name, strict=True):
        named = evaluation.pictures[at] if at >= 0 else None
        alike = next((words[word] for word in words_of(picture) if word in words), None)
        if other := digests.get(picture.look.digest):
            kind = "same picture as in an evaluation set"
        elif named and (_apart(picture, named) or 0) <= ANOTHER:
            kind, other = "same name as in an evaluation set", named
        elif alike and _one_name(picture, alike):
            kind, other = "same name as in an evaluation set", alike
        elif other := nearest.get(id(picture)):
            kind = "near duplicate of an evaluation picture"
        elif named := named or alike:
            kind, other = "same name as in an evaluation set, another picture", named
        else:
            continue
        detail = f"{evaluation.name}: {other.name or other.image_id}, {_bits(picture, other)}"
        result.add(kind, picture.rows, picture.name, detail)


def shared(result: Scan, other: Scan) -> None:
    """Adds one note where two training sources have pictures in common, which mixtures often want (captions and questions)."""
    digests = {picture.look.digest for picture in other.pictures}
    common = [picture for picture in result.pictures if picture.look.digest and picture.look.digest in digests]
    if common:
        detail = f"{len(common):,} of {len(result.pictures):,} pictures are in {other.name} too"
        result.add("pictures shared with another source", (), common[0].name, detail)


def words_of(picture: Picture) -> list[str]:
    """Names that two sets may well give to different pictures: an id and a file's name, neither of them a number. They count
    where the pictures are alike, or one of them cannot be seen.

    words_of(Picture("shard.tar: train/a.jpg", "7", 0))  ->  ["a.jpg"]
    """
    base = re.split(r"[/\\]|: ", picture.name)[-1]  # also of "shard.tar: train/a.jpg"
    base = base if re.search(r"\.\w{2,5}$", base) else ""  # "scene test/8 (rendered)" is no file
    return [name for name in dict.fromkeys((picture.image_id, base)) if name and not name.rpartition(".")[0].isdigit()
            and not name.isdigit()]  # fmt: skip


def _one_name(picture: Picture, alike: Picture) -> bool:
    """Whether two pictures of one word are taken for one: they look alike, or the evaluation set's is not there to see."""
    apart = _apart(picture, alike)
    return not alike.look.digest or (apart is not None and apart <= ANOTHER)


def _apart(a: Picture, b: Picture) -> int | None:
    """Bits in which the hashes of two pictures differ; None where one of them has no hash."""
    return None if a.look.hash is None or b.look.hash is None else phash.distance(a.look.hash, b.look.hash)


def _bits(a: Picture, b: Picture) -> str:
    return "not comparable" if (apart := _apart(a, b)) is None else f"{apart} of 64 bits"


def _prints(pictures: list[Picture]) -> tuple[np.ndarray, np.ndarray]:
    """uint64[n] hashes and uint8[n,48] colours, for phash.nearest."""
    hashes = np.array([picture.look.hash for picture in pictures], np.uint64)
    return hashes, np.array([picture.look.colours for picture in pictures], np.uint8).reshape(len(pictures), 48)
