"""The held-out part of a source that says no split: by a hash of picture ids, so that it stays the same whoever asks.

    {"path": "captions.json", "part": "train"}         the rest
    {"path": "captions.json", "part": "validation"}    2.5 % of the pictures with all of their rows, at most 100
    {"path": "captions.json", "part": "test"}          as many others

Held out are the pictures of the smallest hashes, validation and test in turns: 5 % of all, but 10 or a fifth of few (4
where that is less), and at most 200; none of fewer than 8. Rows without a picture are trained on.
"""

import hashlib
from collections.abc import Iterable

from vlax.data.readers import leaks
from vlax.errors import VlaxError

PARTS = ("train", "validation", "test")
SHARE, LEAST, FEWEST, MOST = 0.05, 10, 4, 200  # of the pictures; pictures. A blind twin takes two to exchange


def count(pictures: int) -> int:
    """`[count(n) for n in (7, 8, 50, 1000, 100_000)] == [0, 4, 10, 50, 200]`: pictures held out of n."""
    if pictures < 2 * FEWEST:
        return 0
    return min(max(round(SHARE * pictures), min(LEAST, max(FEWEST, pictures // 5))), MOST)


def image_of(called: leaks.Called) -> str:
    """The image id of a row's picture, which sources name second, after its file; "" of a row of text."""
    _, image_id, *_ = called.names
    return image_id


def left_out(pictures: Iterable[leaks.Called], part: str, name: str) -> frozenset[str]:
    """What `drop_image_ids` must hold for the rows of a part to remain. pictures: those of every row.

    VlaxError for an unknown part, and where so few pictures are there that none is held out.
    """
    if part not in PARTS:
        raise VlaxError(f"data source {name}: part={part!r} is not one of {', '.join(PARTS)}")
    found: dict[str, set[str]] = {}
    for called in pictures:
        if image_id := image_of(called):
            found.setdefault(image_id, {image_id}).update(leaks.keys(*called))
    order = sorted(found, key=lambda image_id: hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).digest())
    held = order[: count(len(order))]
    if part == "train":
        return frozenset().union(*map(found.__getitem__, held))
    kept = set(held[PARTS.index(part) - 1 :: 2])
    if not kept:
        raise VlaxError(f"data source {name}: of {len(order)} pictures none is held out; name a source for {part}")
    return frozenset({"", *(found.keys() - kept)})
