"""The two orders of rows: what each promises, and that neither changes. Of runs: test_order_runs.py."""

import collections

import numpy as np
import pytest
from varied import Varied, encoder

from vlax.data.batches import order, shuffle
from vlax.data.batches.mixture import BLOCK, Mixture
from vlax.data.batches.pipeline import Collator, HostBatches, ImageCache
from vlax.data.batches.row_plan import Plan
from vlax.errors import VlaxError
from vlax.images import Preprocess


class Rows:
    """A source of so many rows, which nobody reads."""

    fingerprint = "f"

    def __init__(self, rows: int, name: str = "s"):
        self.rows, self.name = rows, name

    def __len__(self) -> int:
        return self.rows


def three(version: int, seed: int = 3) -> Mixture:
    """Epochs of 5 rows of a (one pass), 6 of b (fixed: a pass and a half) and 10 of c (twice a's: 3 passes and a third)."""
    sources = [Rows(5, "a"), Rows(4, "b"), Rows(3, "c")]
    return Mixture(sources, [1.0, 0.5, 2.0], seed, fixed=[0, 6, 0], order=version)


def test_order_1_is_what_it_was():
    """As the code before order 2 had it."""
    assert three(1).ids(0, 42).tolist() == [
        10, 0, 6, 9, 1, 3, 11, 10, 4, 6, 2, 7, 5, 10, 11, 7, 10, 8, 11, 9, 9,
        9, 11, 3, 7, 9, 11, 11, 9, 6, 10, 0, 10, 8, 2, 8, 1, 9, 5, 5, 4, 11,
    ]  # fmt: skip
    single = Mixture([Rows(7, "a")], [1.0], 0)
    assert single.ids(0, 21).tolist() == [2, 6, 1, 5, 3, 4, 0, 6, 1, 2, 0, 5, 3, 4, 6, 1, 5, 3, 0, 2, 4]
    assert (three(1).plan_hash, single.plan_hash) == ("56cbe1fa017c39cd", "e1f064a73d89ddf2")


def test_order_2_is_what_it_was():
    """Runs that were started with it go on by these very numbers."""
    assert three(2).ids(0, 42).tolist() == [
        9, 7, 9, 11, 11, 10, 9, 10, 3, 5, 0, 9, 6, 6, 10, 1, 8, 11, 7, 2, 4,
        9, 0, 5, 3, 8, 11, 11, 6, 5, 8, 10, 10, 10, 9, 1, 11, 7, 4, 2, 9, 11,
    ]  # fmt: skip
    single = Mixture([Rows(7, "a")], [1.0], 0, order=2)
    assert single.ids(0, 21).tolist() == [6, 1, 2, 0, 3, 4, 5, 2, 1, 0, 3, 6, 5, 4, 0, 2, 6, 4, 5, 1, 3]
    assert (three(2).plan_hash, single.plan_hash) == ("5ea371a31bb1bca6", "27e4f42aa7846f56")
    far = Mixture([Rows(5_000_000_000, "a"), Rows(10**8, "b")], [1.0, 0.5], 1)
    assert far.ids(10**15, 10**15 + 3).tolist() == [1480505137, 4648565093, 2620369535]


@pytest.mark.parametrize("size", (1, 2, 3, 5, 64, 65, 1000, 65_537, 262_145))  # 2**16 + 1: where grain's own repeats a row
def test_a_shuffle_is_a_permutation(size):
    found = shuffle.shuffled(np.arange(size), size, shuffle.key(0, "test"))
    assert found.dtype == np.int64 and np.array_equal(np.sort(found), np.arange(size))


def test_a_shuffle_takes_sizes_and_keys_by_element_up_to_62_bits():
    index, sizes, keys = (
        np.array([0, 4, 4, 2**40, 7]),
        np.array([1, 5, 5, 2**40 + 1, 2**62]),
        np.array([3, 3, 4, 5, 2**63], np.uint64),
    )
    together = shuffle.shuffled(index, sizes, keys)
    alone = [int(shuffle.shuffled(index[i : i + 1], int(sizes[i]), int(keys[i]))[0]) for i in range(5)]
    assert together.tolist() == alone and (together < sizes).all() and (together >= 0).all()


def test_a_shuffle_looks_random():
    """Where the first two of 10 rows go under 20,000 keys; how neighbours of 100,000 lie to each other."""
    keys = shuffle.numbered(shuffle.key(0, "many"), np.arange(20_000))
    first, second = (shuffle.shuffled(np.full(20_000, at), 10, keys) for at in (0, 1))
    for counts in (np.bincount(first, minlength=10), np.bincount((second - first) % 10, minlength=10)[1:]):
        assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 30  # chi squared of 9 or 8 degrees: 22 once in 100
    found = shuffle.shuffled(np.arange(100_000), 100_000, shuffle.key(1))
    assert all(abs(np.corrcoef(found[:-lag], found[lag:])[0, 1]) < 0.015 for lag in (1, 2, 64, 4096))  # 4.7 sigma


@pytest.mark.parametrize("version", order.ORDERS)
def test_every_pass_meets_each_row_once_and_every_epoch_has_its_shares(version):
    m = three(version)
    epochs = m.ids(0, 12 * 21).reshape(12, 21)
    for name, (begin, end), count in zip("abc", ((0, 5), (5, 9), (9, 12)), (5, 6, 10), strict=True):
        mine = [epoch[(epoch >= begin) & (epoch < end)] for epoch in epochs]
        assert [len(part) for part in mine] == [count] * 12, name
        together = collections.Counter(np.concatenate(mine).tolist())
        assert set(together.values()) == {12 * count // (end - begin)}, name  # whole passes
    single = Mixture([Rows(1000)], [1.0], 0, fixed=[2500], order=version)
    for epoch in range(2):  # 2.5 passes an epoch
        met = np.bincount(single.ids(2500 * epoch, 2500 * (epoch + 1)), minlength=1000)
        assert set(met) == {2, 3}
    assert set(np.bincount(single.ids(0, 5000))) == {5}


@pytest.mark.parametrize("version", order.ORDERS)
def test_ids_do_not_depend_on_how_they_are_cut_and_do_on_the_seed(version):
    m = three(version)
    whole = m.ids(0, 100)
    for size in (1, 8, 21, 50):  # within an epoch, over its end, over several
        assert np.array_equal(np.concatenate([m.ids(at, min(at + size, 100)) for at in range(0, 100, size)]), whole), size
    assert whole.dtype == np.int64
    assert not np.array_equal(whole[:21], whole[21:42]) and not np.array_equal(whole, three(version, seed=4).ids(0, 100))


def test_order_2_is_computed_in_blocks_that_join():
    m = three(2)
    whole = order.second(np.arange(3 * BLOCK), m.seed, m.rows, m.counts, m.offsets[:-1])
    for begin, end in ((0, 7), (BLOCK - 3, BLOCK + 4), (BLOCK - 3, 2 * BLOCK + 1), (BLOCK, BLOCK + 1)):
        np.testing.assert_array_equal(m.ids(begin, end), whole[begin:end])


def test_order_1_copies_no_epoch_for_a_batch():
    m = three(1)
    assert np.shares_memory(m.epoch(1)[:4], m.epoch(1)) and m.ids(21, 25).tolist() == m.epoch(1)[:4].tolist()
    assert m.ids(40, 44).base is None and m.ids(40, 44).tolist() == [*m.epoch(1)[19:], *m.epoch(2)[:2]]


@pytest.mark.parametrize("hosts", (2, 4))
def test_order_2_is_the_same_on_any_number_of_hosts(hosts):
    sources = [Varied("a", [3] * 9), Varied("b", [2] * 5)]

    def batches(**host) -> HostBatches:
        m = Mixture(sources, [1.0, 0.5], 0, order=2)
        return HostBatches(Collator(m, encoder(), 40, Preprocess(8), ImageCache(0)), Plan(m, 4, 40), 8, **host)

    one, parts = batches(), [batches(host=host, hosts=hosts) for host in range(hosts)]
    for step in (5, 0, 5):
        rows = np.concatenate([part[step]["row"] for part in parts])
        assert rows.tolist() == one[step]["row"].tolist() and rows.dtype == np.int64


def test_the_order_goes_by_the_record_and_by_size_without_one(monkeypatch):
    small, large = Mixture([Rows(2**20 - 1)], [1.0], 0), Mixture([Rows(2**19)], [1.0], 0, fixed=[2**20])
    assert (small.version, large.version) == (1, 2)
    assert Mixture([Rows(2**20)], [1.0], 0, order=1).version == 1 and three(2).version == 2
    assert Mixture([Rows(2**20)], [1.0], 0, shuffle=False).version == 1
    assert (
        Mixture([Rows(2**20)], [1.0], 0, order=1).plan_hash == "eb699d8b962e1d5b" != Mixture([Rows(2**20)], [1.0], 0).plan_hash
    )
    with pytest.raises(VlaxError, match=r"started with order 3 of its rows, and this vlax knows \(1, 2\); go on with the vlax"):
        Mixture([Rows(9)], [1.0], 0, order=3).ids(0, 4)
    monkeypatch.setattr(order, "LARGE", 5)
    assert Mixture([Rows(5)], [1.0], 0).version == 2
