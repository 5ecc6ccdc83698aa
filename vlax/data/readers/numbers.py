"""Whose numbers are the bare numbers of a source: `image_id` 391895 may be a picture of COCO, or the row of somebody's table.

Known of a source are "?/391895" for each number that is its picture's id or file, "file?/391895" where it is a file's, and a
mark where the number of a question is made of it as VQA makes it. From that, for the whole source:

- ids are COCO's where 99 % of the rows that have one have that mark; so have all rows of a source with VQAv2's own columns, or
  with COCO's own header;
- or where they reach through COCO's numbers (1 to 581,929) and not past them: the chance that n numbers out of these stay below
  the largest that was seen is over 1 in 1,000;
- or where so many of them are numbers of evaluation pictures as chance gives to one source in a million: chance is how thick
  evaluation numbers lie between the smallest and the largest number of the source. So for COCO's and for Flickr's;
- file names are Flickr's where most other files of the source are;
- a count without gaps (0, 1, 2, ... or 70 % of it, from thirty numbers on) is the source's own, whatever speaks for COCO.

Otherwise a number is the source's own, and equals no other.
"""

import collections
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

ANY, FILE, VQA = "?/", "file?/", "?vqa"
MAYBE_COCO = "coco?"
LAST = 581_929  # COCO's largest number, of 2014 and 2017, with those of its test and unlabelled pictures
MARKED, MOST = 0.99, 0.5  # shares of rows
REACH, CHANCE = 1e-3, 1e-6
COUNTED, FULL = 30, 0.7


class Survey:
    """What bare numbers there are in a source.

    known  as JSON: "rows" that have one, of them "marked"; "distinct" ones in COCO's range, with the "low"est and "high"est;
           "beyond": rows with one outside; "files" that are numbers, from "least" to "most"; "photos": rows named by Flickr
    """

    def __init__(self, known: dict[str, int] | None = None):
        self._known = known or dict.fromkeys(("rows", "marked", "beyond", "files", "least", "most", "photos"), 0)
        self._seen: np.ndarray | None = None  # bool[LAST + 1]

    def add(self, keys: Collection[str]) -> None:
        """Takes in a row."""
        known, numbers = self._known, [key for key in keys if key.startswith((ANY, FILE))]
        known["photos"] += any(map(is_photo, keys))
        if not numbers:
            return
        known["rows"] += 1
        known["marked"] += VQA in keys
        beyond = False
        for key in numbers:
            number = int(key.partition("/")[2])
            if key.startswith(FILE):
                known["least"] = min(number, known["least"]) if known["files"] else number
                known["most"], known["files"] = max(number, known["most"]), known["files"] + 1
            elif 1 <= number <= LAST:
                if self._seen is None:
                    self._seen = np.zeros(LAST + 1, bool)
                self._seen[number] = True
            else:
                beyond = True
        known["beyond"] += beyond

    @property
    def known(self) -> dict[str, Any]:
        if self._seen is not None:
            seen = np.flatnonzero(self._seen)
            self._known |= {"distinct": len(seen), "low": int(seen[0]), "high": int(seen[-1])}
        return self._known

    @property
    def _counts(self) -> bool:
        """Whether the numbers are a count of the source's own."""
        distinct = self.known.get("distinct", 0)
        return distinct >= COUNTED and distinct > FULL * self.known["high"]

    @property
    def is_coco(self) -> bool:
        """Whether the ids are COCO's by themselves."""
        known = self.known
        if not known.get("distinct") or self._counts:
            return False
        if known["marked"] >= MARKED * known["rows"]:
            return True
        return not known["beyond"] and known["distinct"] * math.log(LAST / known["high"]) < -math.log(REACH)

    @property
    def is_flickr(self) -> bool:
        """Whether files that are numbers are Flickr's by themselves."""
        return self.known["photos"] > MOST * (self.known["photos"] + self.known["files"])

    def resolved(self, keys: Collection[str]) -> set[str]:
        """The keys of a row with the namespaces of its numbers; without those that stay unknown."""
        found = {key for key in keys if not key.startswith((ANY, FILE)) and key != VQA}
        for key in keys:
            number = int(key.partition("/")[2]) if key.startswith((ANY, FILE)) else 0
            if key.startswith(ANY) and self.is_coco and number <= LAST:
                found.add(f"coco/{number}")
            if key.startswith(FILE) and self.is_flickr:
                found.add(f"flickr/{number}")
        return found

    def candidates(self, drop: Iterable[str]) -> frozenset[str]:
        """The bare numbers that would be pictures of `drop`, were they COCO's or Flickr's."""
        known, bare = self.known, set()
        for key in drop:
            space, _, number = key.partition("/")
            if space == "coco" and known.get("distinct"):
                bare.add(f"{ANY}{number}")
            if space == "flickr" and known["files"]:
                bare.add(f"{FILE}{number}")
        return frozenset(bare)


def is_photo(key: str) -> bool:
    """Whether a key is Flickr's number of a photo, which is no count."""
    return len(key) >= 8 and key.isdecimal() and key[0] != "0"


def declared(kind: str, headers: Iterable[Mapping[str, Any]]) -> str:
    """Whose the numbers of annotation files are, as their kind and what they say beside their rows tell. headers: asked for
    only where the kind has any."""
    if kind not in ("coco", "karpathy", "vqa"):
        return "vg" if kind == "gqa" else ""
    header = collections.ChainMap(*map(dict, headers))
    if kind == "karpathy":
        name = str(header.get("dataset") or "").lower()
        return "flickr" if name.startswith("flickr") else name
    if kind == "vqa":
        name = str(header.get("data_type") or "").lower()
        return "coco" if name == "mscoco" else name
    info = header.get("info")
    url = str(info.get("url") or "") if isinstance(info, Mapping) else ""
    return MAYBE_COCO if ("cocodataset.org" in url or "mscoco.org" in url) else ""


def taken(survey: Survey, bare: frozenset[str], rows: Iterable[Collection[str]]) -> frozenset[str]:
    """Those of `bare` (of `candidates`) that count. rows: the keys of all rows that have any of them."""
    if not bare:
        return bare
    met, known, found = bare.intersection(*[set().union(*rows)]), survey.known, set[str]()
    for prefix, itself, span in (
        (ANY, survey.is_coco, (known.get("distinct", 0), known.get("low", 0), known.get("high", 0))),
        (FILE, survey.is_flickr, (known["files"], known["least"], known["most"])),
    ):
        hits = {key for key in met if key.startswith(prefix)}
        wanted = (int(key.partition("/")[2]) for key in bare if key.startswith(prefix))
        within = sum(span[1] <= number <= span[2] for number in wanted)
        expected = span[0] * within / (span[2] - span[1] + 1)
        if hits and (itself or (not survey._counts and tail(len(hits), expected) < CHANCE)):
            found |= hits
    return frozenset(found)


def tail(hits: int, expected: float) -> float:
    """The chance of at least so many hits where so many are expected (Poisson)."""
    if hits <= expected or not hits:
        return 1.0
    log = hits * math.log(expected) - expected - math.lgamma(hits + 1)
    total, term, at = 0.0, math.exp(log), hits
    while term > total * 1e-12:
        total, at = total + term, at + 1
        term *= expected / at
    return min(total, 1.0)
