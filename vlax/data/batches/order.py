"""Two orders of a mixture's rows. A run keeps the one that it was started with: its checkpoints and exports say which.

    1   numpy's permutations of whole passes and epochs, in memory. What says nothing was made under it
    2   each place of the order is computed by itself (`shuffle.py`): no memory, and the same time for any number of rows

In both, each pass over a source meets each of its rows once, every epoch has the same number of rows of each source, and a
batch is a function of (seed, step). New runs take order 1 below LARGE rows an epoch and order 2 from there on. Order 1 is the
faster one while its epoch is small (a slice; at 2**20 rows it takes 0.1 s and 34 MB an epoch), and what was published for small
sets, the embedded chain first of all, comes out bit for bit. At 100 M rows an epoch of it took 59 s and 3.0 GB (two busy
cores), in every process of a host and again at each resumption. There order 2 pays; nobody repeats such a run for its bits.
"""

import numpy as np

from vlax.data.batches import shuffle
from vlax.errors import VlaxError

ORDERS = (1, 2)
LARGE = 1 << 20  # rows an epoch


def choose(recorded: int | None, epoch: int) -> int:
    """The order of a run: the recorded one, else by the rows of an epoch. VlaxError for one that this version can't make."""
    if recorded is None:
        return 2 if epoch >= LARGE else 1
    if recorded not in ORDERS:
        raise VlaxError(f"the run was started with order {recorded} of its rows, and this vlax knows {ORDERS}; go on with the "
                        "vlax that started it")  # fmt: skip
    return recorded


def second(positions: np.ndarray, seed: int, rows: np.ndarray, counts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int64[n]: the global row ids at these positions (int64[n]) of order 2.

    rows, counts, offsets: int64, by source: its rows, those that it brings to an epoch, the global id of its first.

    A position is a place in an epoch; places are shuffled among the sources, the first counts[0] of them to the first source;
    epoch after epoch they run through the source's passes, each of which has its own shuffle.
    """
    ends = np.cumsum(counts)
    epoch, place = np.divmod(positions, ends[-1])
    if len(rows) > 1:
        place = shuffle.shuffled(place, int(ends[-1]), shuffle.numbered(shuffle.key(seed, "epoch"), epoch))
    source = np.searchsorted(ends, place, side="right")
    met = epoch * counts[source] + place - (ends - counts)[source]  # rows of the source before this one
    number, at = np.divmod(met, rows[source])
    bases = np.array([shuffle.key(seed, "pass", n) for n in range(len(rows))], np.uint64)
    return offsets[source] + shuffle.shuffled(at, rows[source], shuffle.numbered(bases[source], number))
