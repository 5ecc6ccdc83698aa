"""The quarantine list, the budget of bad rows, and the readers' dealings with faulty rows."""

import concurrent.futures
import json

import pytest

from vlax.data.batches.budget import DropBudget, planned_rows
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.quarantine import Quarantine, place, read_quarantine
from vlax.data.readers.faults import STRICT, Fault, Faults
from vlax.errors import VlaxError
from vlax.rows import Picture, Row, RowFault, Turn

LINES = [
    {"source": "coco-a", "row": "17#1", "image": "a.jpg", "reason": "truncated picture: a.jpg"},
    {"source": "coco-a", "row": "annotations[7]", "image": "", "reason": "unlisted image: 98"},
    {"source": "vqa-q", "row": "[3]", "image": "", "reason": "row refused: record 3"},
]


@pytest.fixture
def path(tmp_path):
    out = tmp_path / "quarantine.jsonl"
    out.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return out


def test_the_list(path, tmp_path):
    quarantine = read_quarantine(str(path))
    assert len(quarantine) == 3 and quarantine.count("coco-a") == 2 and quarantine.count("coco-b") == 0
    assert quarantine.covers("coco-a", "17#1") == "truncated picture: a.jpg"
    assert quarantine.covers("coco-a", "17#0") is None and quarantine.covers("coco-b", "17#1") is None
    assert quarantine.covers("vqa-q", "any", 3) == "row refused: record 3" and quarantine.covers("vqa-q", "any", 4) is None
    assert place(3) == "[3]"
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({**LINES[0], "row": "18"}) + "\n\n")
    for both in (f"{path}, {other}", [path, other]):
        assert len(read_quarantine(both)) == 4
    assert len(read_quarantine("")) == len(read_quarantine(())) == len(Quarantine()) == 0
    assert quarantine.about(["vqa-q", "scenes", "coco-a"]) == "2 rows of coco-a, 1 rows of vqa-q"
    assert quarantine.about(["coco-b"]) == "none of 3 rows: the list is about coco-a, vqa-q"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{oops", r"quarantine\.jsonl: line 4 is not JSON"),
        ("[1]", r"quarantine\.jsonl: line 4 is a list, not an object; a quarantine list has one"),
        ('{"source": "a", "row": 7, "reason": "x"}', r'quarantine\.jsonl: line 4: "row" is 7, not a text'),
        ('{"source": "a", "row": "7"}', r'quarantine\.jsonl: line 4: "reason" is None, not a text'),
    ],
)
def test_faulty_lists(path, line, text):
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(VlaxError, match=text):
        read_quarantine(str(path))


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(VlaxError, match=r"run.quarantine: there is no file .*none\.jsonl; write it with .*doctor SOURCE"):
        read_quarantine(str(tmp_path / "none.jsonl"))


def read(faults, captions=("a", "", 7, "d")):
    """A reader: captions that are texts, under their numbers."""
    items = []
    for at, caption in enumerate(captions):
        where = f"/data: odd/a.json: annotations[{at}]"
        with faults.row("coco-a", where):
            if not isinstance(caption, str):
                raise VlaxError(f"{where}: {caption!r} is not a text")
            if not caption:
                raise RowFault(f"{where}: the caption is empty", "empty text")
            items.append((at, caption))
            faults.note("coco-a", f"#{at}", "no image token", "noted")
    return items


def test_faulty_rows_are_raised_passed_over_or_collected():
    for strict in (STRICT, Faults()):
        with pytest.raises(RowFault, match=r"annotations\[1\]: the caption is empty"):
            read(strict)
        assert strict.found == strict.notes == []
    want = [(0, "a"), (3, "d")]
    both = Quarantine([("coco-a", "annotations[1]", "r"), ("coco-a", "annotations[2]", "r"), ("coco-a", "annotations[3]", "r")])
    faults = Faults(both)
    # the last entry is about a row that reads well (its picture may be bad): it stays, whoever opens its picture leaves it out
    assert read(faults) == want and faults.passed_over == {"coco-a": 2} and faults.notes == []
    with pytest.raises(VlaxError, match=r"annotations\[2\]: 7 is not a text"):
        read(Faults(Quarantine([("coco-a", "annotations[1]", "r")])))
    with pytest.raises(VlaxError, match=r"annotations\[1\]"):
        read(Faults(Quarantine([("coco-b", "annotations[1]", "r"), ("coco-b", "annotations[2]", "r")])))
    collecting = Faults(Quarantine([("coco-a", "annotations[1]", "r")]), collect=True)
    assert read(collecting) == want and collecting.passed_over == {"coco-a": 1}
    where = "/data: odd/a.json: annotations[2]"
    assert collecting.found == [Fault("coco-a", "annotations[2]", "row refused", f"{where}: 7 is not a text")]
    doctor = Faults(collect=True, notes=True)
    assert read(doctor) == want and [fault.kind for fault in doctor.found] == ["empty text", "row refused"]
    assert [note.row for note in doctor.notes] == ["#0", "#3"]


def test_what_no_reader_foresaw_is_the_fault_of_its_row():
    faults = Faults(collect=True)
    with faults.row("a", "f.json: row 7"):
        raise KeyError("a list where a text should be")
    said = "f.json: row 7: KeyError ('a list where a text should be'); mend or remove the row"
    assert faults.found == [Fault("a", "row 7", "row refused", said)]
    with pytest.raises(RowFault, match="KeyError"), Faults().row("a", "b"):
        raise KeyError("not to be passed over")
    with pytest.raises(KeyboardInterrupt), Faults(collect=True).row("a", "b"):
        raise KeyboardInterrupt


class Rows:
    """Numbered rows; the pictures of `bad` ones do not open, those of `broken` can't even be read."""

    fingerprint = "f"

    def __init__(self, name, rows, bad=(), broken=()):
        self.name, self.rows, self.bad, self.broken = name, rows, set(bad), set(broken)

    def __len__(self):
        return self.rows

    def __getitem__(self, index):
        if index in self.broken:
            raise RowFault(f"{self.name}: record {index} is broken")

        def opener():
            if index in self.bad:
                raise RowFault(f"row r{index}: {index}.jpg: the picture does not decode")
            return index

        return Row(f"r{index}", str(index), "caption", (Turn("", "a"),), Picture(f"{index}.jpg", opener))


def fill(mixture, ids, quarantine, budget, long=()):
    """What the collator does with some global row ids; returns them with -1 in the place of filler."""
    return [_fill(mixture, int(row_id), quarantine, budget, long) for row_id in ids]


def _fill(mixture, row_id, quarantine, budget, long):
    source, index = mixture.locate(row_id)
    if quarantine.covers(source.name, place(index)):
        budget.quarantined(row_id, source.name)
        return -1
    name = f"{source.name}:{place(index)}"
    try:
        row = source[index]
        name = f"{source.name}:{row.id}"
        if quarantine.covers(source.name, row.id):
            budget.quarantined(row_id, source.name)
            return -1
        row.picture.open()
    except RowFault as fault:
        budget.bad(row_id, str(fault), name)
        return -1
    if index in long:
        budget.overlong(row_id, "dropped", "99 tokens, limit 40", lambda: name)
        return -1
    return row_id


def test_bad_rows_become_filler_within_the_budget():
    mixture = Mixture([Rows("a", 40, bad=(3, 8), broken=(5,))], [1.0], seed=0)
    budget = DropBudget(0.07, planned_rows(mixture, 40))
    ids = mixture.ids(0, 40)
    assert budget.allowed == 3
    for _ in range(3):  # epochs: a row counts once
        assert fill(mixture, ids, Quarantine(), budget) == [-1 if i in (3, 5, 8) else i for i in ids]
    assert budget.counts == {"bad": 3} and budget.summary() == {
        "left_out/bad": 3, "left_out/quarantined": 0, "left_out/dropped": 0, "left_out/cut": 0,
    }  # fmt: skip
    assert sorted(budget.named["bad"])[0] == "a:[5]: a: record 5 is broken"
    assert budget.lines()[0].startswith("left out  3 bad rows of 3 allowed: a:")


def test_the_run_stops_at_the_budget_with_the_first_rows_named():
    mixture = Mixture([Rows("a", 2000, bad=range(0, 2000, 10))], [1.0], seed=0, shuffle=False)
    budget = DropBudget(0.006, planned_rows(mixture, 2000))
    with pytest.raises(VlaxError) as caught:
        fill(mixture, mixture.ids(0, 2000), Quarantine(), budget)
    text = str(caught.value)
    assert budget.counts["bad"] == 13 and "\n" not in text
    assert text.startswith(
        "13 bad rows, and the drop budget allows 12 (stage.drop_budget=0.006 of 2,000 rows): a:r0: row r0: 0.jpg"
    )
    assert "a:r90: " in text and "a:r100" not in text  # the first ten
    assert "Run python -m vlax data doctor SOURCE --out=DIR" in text
    assert "--config.run.quarantine=DIR/quarantine.jsonl" in text and text.endswith("raise --config.stage.drop_budget")
    with pytest.raises(VlaxError, match=r"^1 bad rows, and the drop budget allows 0 .*a:r7: no such file\. Run python"):
        DropBudget(0, 100).bad(7, "no such file", "a:r7")


def test_quarantined_rows_are_outside_the_budget():
    mixture = Mixture([Rows("a", 30, bad=(1, 2), broken=(3,)), Rows("b", 30)], [1.0, 1.0], seed=0)
    entries = [("a", "r1", "x"), ("a", "r2", "x"), ("a", "[3]", "x"), ("b", "r9", "x")]
    budget, ids = DropBudget(0, 60), mixture.ids(0, 60)
    assert fill(mixture, ids, Quarantine(entries), budget) == [-1 if i in (1, 2, 3, 39) else i for i in ids]
    assert budget.counts == {"quarantined": 4} and budget.quarantined_by_source == {"a": 3, "b": 1}
    assert budget.lines() == ["quarantined 4 rows: 3 of a, 1 of b"] and budget.named["bad"] == []


def test_with_and_without_the_list_the_order_is_the_same():
    mixture = Mixture([Rows("a", 50, bad=(7, 20))], [1.0], seed=3)
    ids = mixture.ids(0, 50)
    without = fill(mixture, ids, Quarantine(), DropBudget(0.1, 50))
    listed = fill(mixture, ids, Quarantine([("a", "r7", "x"), ("a", "r20", "x")]), DropBudget(0, 50))
    assert without == listed


def test_overlong_rows_are_counted_apart():
    mixture = Mixture([Rows("a", 1000)], [1.0], seed=0, shuffle=False)
    budget = DropBudget(0, 1000)
    for _ in range(2):
        fill(mixture, mixture.ids(0, 1000), Quarantine(), budget, long=range(0, 1000, 50))
    assert budget.counts == {"dropped": 20} and len(budget.named["dropped"]) == 10
    first = "; ".join(f"a:r{i} (99 tokens, limit 40)" for i in (0, 50, 100))
    line = f"left out  20 rows that are too long: {first}"
    assert budget.named["dropped"][0] == "a:r0 (99 tokens, limit 40)" and budget.lines() == [line]
    budget = DropBudget(0, 10)
    budget.overlong(3, "cut", "41 tokens, limit 40", lambda: "a:r3")
    assert budget.lines() == ["cut       1 rows that are too long: a:r3 (41 tokens, limit 40)"]


def test_planned_rows():
    mixture = Mixture([Rows("a", 100), Rows("b", 1000)], [1.0, 0.5], seed=0)  # an epoch: 100 of a and 50 of b
    assert [planned_rows(mixture, positions) for positions in (15, 150, 300, 30_000, 60_000)] == [15, 150, 200, 1100, 1100]


@pytest.mark.parametrize(
    ("share", "rows", "allowed"), [(0.001, 10_000, 10), (0.001, 400, 1), (0.0, 400, 0), (0.001, 2500.5, 3)]
)
def test_what_a_budget_allows(share, rows, allowed):
    assert DropBudget(share, rows).allowed == allowed


@pytest.mark.parametrize("share", (-0.1, 1, 20))
def test_shares_that_are_none(share):
    with pytest.raises(VlaxError, match=f"stage.drop_budget={share} is not a share"):
        DropBudget(share, 10)


def test_threads_count_every_row_once():
    budget = DropBudget(0.5, 4000)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: budget.bad(i % 1500, "r", f"n{i}"), range(6000)))
    assert budget.counts["bad"] == 1500 and len(budget.named["bad"]) == 10


def test_what_a_reader_refused_counts_as_well():
    """Rows without a global id: their source and place make them distinct."""
    faults = Faults(collect=True)
    read(faults, ("a", "", "b", ""))
    assert DropBudget(0.02, 100, faults.found * 2).counts == {"bad": 2}
    with pytest.raises(
        VlaxError, match=r"^2 bad rows, and the drop budget allows 1 .* of 100 rows\): coco-a:annotations\[1\]: /data"
    ):
        DropBudget(0.01, 100, faults.found)
    many = [Fault("a", f"[{i}]", "row refused", "x" * 500) for i in range(20)]
    with pytest.raises(VlaxError, match=r"^20 bad rows, and the drop budget allows 1 ") as caught:
        DropBudget(0.01, 100, many)
    assert "a:[9]: xxx" in str(caught.value) and "a:[10]" not in str(caught.value) and len(str(caught.value)) < 2500


def test_hosts_count_bad_rows_together_and_decide_alike():
    """One bad row is allowed. The second is met by a thread that runs ahead, after its host has told of the first."""
    one, two = DropBudget(0.01, 100), DropBudget(0.01, 100)
    one.bad(7, "no such file", "a:r7")
    first = one.news() + two.news()
    with pytest.raises(VlaxError):
        one.bad(8, "no such file", "a:r8")
    for budget in (one, two):
        budget.heard(first)  # the others don't know of the second yet
    second = one.news() + two.news()
    for budget in (one, two):
        with pytest.raises(VlaxError, match="2 bad rows, and the drop budget allows 1"):
            budget.heard(second)
    apart = DropBudget(0.01, 100), DropBudget(0.01, 100)
    apart[0].overlong(1, "cut", "90 tokens, limit 40", lambda: "a:r1")  # a row that is bad for the other host is too long here
    for row, budget in enumerate(apart):
        budget.bad(row, "no such file", f"a:r{row}")  # within each host's own count
    told = [row for budget in apart for row in budget.news()]
    for budget in apart:
        with pytest.raises(VlaxError, match="2 bad rows"):
            budget.heard(told)
