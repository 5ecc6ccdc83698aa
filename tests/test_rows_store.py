"""Rows as columns of Arrow: what is kept of them, and that a second opening reads nothing but that."""

import itertools
import json
import os
import pathlib
import pickle
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest

from tests import format_cases
from vlax.data.batches.quarantine import Quarantine
from vlax.data.readers import files, item_batches, kinds, leaks, row_cache
from vlax.data.readers.faults import Faults
from vlax.data.readers.item_table import SCHEMA, Item, ItemTable, Mapped, Place
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.rows import RowFault, Turn

KINDS = [name for name in format_cases.WRITERS if name not in ("scenes", "cells", "prepared", "tfds")]
ITEMS = [
    Item("a", "p", "p.jpg", "who?", "you", ("you", ""), "other", (Turn("and?", "me", "chat"), Turn("", "x")), "chat"),
    Item("b", "", "", "", "half a pair \ud800", also=("one", "two")),
    Item("c", "q", "tar/q", "", "déjà vu", place=Place(3, 1 << 40, 7), inline=b"\x00\xff"),
]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder of entries, where even the smallest file, however new, gets one."""
    monkeypatch.setenv("VLAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(row_cache, "SMALL", 0)
    monkeypatch.setattr(row_cache, "RECENT", 0.0)
    return tmp_path / "cache" / "rows"


@pytest.fixture
def unread(monkeypatch):
    """Call it, and from then on nothing is read but entries."""

    def fails(self, *_):
        raise AssertionError(f"{type(self).__name__} reads its files again")

    def now():
        for kind in {kind.reader: kind for kind in kinds.KINDS.values()}.values():
            if issubclass(kind.load(), files.FileSource):
                monkeypatch.setattr(kind.load(), "read", fails)

    return now


def coco(folder, captions=("a dog", "a cat", "a cow")):
    """The path of a COCO file: the second picture's number is wrong, and its third caption is empty."""
    images = [{"id": n, "file_name": f"{n:012d}.jpg"} for n in range(len(captions))]
    said = [{"image_id": n if n != 1 else 99, "caption": text} for n, text in enumerate(captions)]
    file = folder / "coco.json"
    file.write_text(json.dumps({"images": images, "annotations": [*said, {"image_id": 0, "caption": " "}]}))
    return {"kind": "coco", "annotations": str(file), "images": "images"}


def entries(folder):
    return sorted(path for path in folder.iterdir() if path.is_dir())


def content(source):
    rows = [source[at] for at in range(len(source))]
    shown = [(row.id, row.image_id, row.task, row.turns, row.references, row.answer_type, row.image_name) for row in rows]
    return source.name, source.fingerprint, source.dropped, shown


def test_items_come_back_as_they_were_from_memory_and_from_a_file(tmp_path):
    blocks = list(item_batches.blocks(ITEMS * 2000))
    assert [len(block) for block in blocks] == [4096, 1904]
    table = item_batches.places([item_batches.write(tmp_path / "rows.arrow", SCHEMA, blocks)])
    assert table[:, 0].tolist() == [0, 4096, 6000]
    mapped = Mapped(str(tmp_path), table, ["rows.arrow"], SCHEMA, "again")
    for held in (ItemTable(blocks), ItemTable(mapped), pickle.loads(pickle.dumps(ItemTable(mapped)))):
        assert len(held) == 6000 and list(held) == ITEMS * 2000
        assert [held[at] for at in (0, 4095, 4096, 5999)] == [ITEMS[0], ITEMS[0], ITEMS[1], ITEMS[2]]


def test_the_same_items_are_the_same_bytes(tmp_path):
    for name in "ab":
        item_batches.write(tmp_path / name, SCHEMA, item_batches.blocks(iter(ITEMS)))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_long_rows_make_short_batches():
    items = [ITEMS[2]._replace(inline=bytes(9 << 20))] * 5
    assert [len(block) for block in item_batches.blocks(items)] == [2, 2, 1]


def test_another_batch_than_was_written_is_an_error_that_names_the_file(tmp_path):
    table = item_batches.places([item_batches.write(tmp_path / "rows.arrow", SCHEMA, item_batches.blocks(ITEMS))])
    file, at = tmp_path / "rows.arrow", int(table[0, 2] + table[0, 3]) - 1
    changed = bytearray(file.read_bytes())
    changed[at] ^= 1
    file.write_bytes(changed)
    with pytest.raises(VlaxError, match=r"rows\.arrow cannot be read \(it is damaged at byte [\d,]+\); fetch it"):
        ItemTable(Mapped(str(tmp_path), table, ["rows.arrow"], SCHEMA, "fetch it"))[0]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("train", (True, False))
def test_a_second_opening_reads_no_file_and_gives_the_same(tmp_path, kept, unread, name, train):
    path, kind, rows = format_cases.WRITERS[name](tmp_path)
    keys = {"coco": "annotations", "karpathy": "annotations", "llava": "annotations", "sharegpt": "annotations",
            "lxmert": "annotations", "gqa": "annotations", "textvqa": "annotations"}  # fmt: skip
    spec = {"kind": kind, keys.get(kind, "path"): path}
    if kind == "vqa":
        answers = str(tmp_path / "v2_mscoco_train2014_annotations.json")
        spec = {"kind": kind, "questions": path, "annotations": answers}
    if kind in keys or kind == "vqa":
        spec["images"] = "images"
    if kind == "karpathy":
        spec["split"] = "train+restval"
    if name == "parquet":
        spec["split"] = "train"
    first = open_source(spec, str(tmp_path), train=train)
    third = next(itertools.islice(first.pictures(), 2, None))
    drop = leaks.keys(*third)
    fewer = open_source(spec, str(tmp_path), train=train, drop_image_ids=drop)
    assert fewer.dropped >= 1 and len(entries(kept)) == 2
    assert len(first) == rows if train else len(first) >= 2
    unread()
    assert content(open_source(spec, str(tmp_path), train=train)) == content(first)
    again = open_source(spec, str(tmp_path), train=train, drop_image_ids=drop)
    assert content(again) == content(fewer)
    assert content(pickle.loads(pickle.dumps(again))) == content(fewer)


def test_faults_are_the_same_whoever_opens_what_another_read(tmp_path, kept, unread):
    spec = coco(tmp_path)
    with pytest.raises(RowFault, match=r"annotations\[1\] names image 99"):
        open_source(spec, str(tmp_path))
    assert not entries(kept)
    first = Faults(collect=True, notes=True)
    rows = content(open_source(spec, str(tmp_path), faults=first))
    assert [(fault.row, fault.kind) for fault in first.found] == [
        ("annotations[1]", "unlisted image"), ("annotations[3]", "empty text")
    ]  # fmt: skip
    unread()
    with pytest.raises(RowFault, match=r"annotations\[1\] names image 99") as raised:
        open_source(spec, str(tmp_path))
    assert raised.value.kind == "unlisted image"
    second = Faults(collect=True, notes=True)
    assert content(open_source(spec, str(tmp_path), faults=second)) == rows
    assert (second.found, second.notes) == (first.found, first.notes)
    some = Faults(Quarantine([("coco-coco", "annotations[1]", "wrong")]), collect=True)
    assert content(open_source(spec, str(tmp_path), faults=some)) == rows
    assert dict(some.passed_over) == {"coco-coco": 1} and [fault.row for fault in some.found] == ["annotations[3]"]


def test_notes_are_kept_and_what_a_reader_says_besides(tmp_path, kept, unread):
    path, *_ = format_cases.llava(tmp_path)
    rows = json.loads(pathlib.Path(path).read_text())
    rows[0]["conversations"][0]["value"], rows[1]["image"] = "what?", ["a.jpg", "b.jpg"]
    pathlib.Path(path).write_text(json.dumps(rows))
    spec = {"kind": "llava", "annotations": path, "images": "images", "skip_multi_image": True}
    plain, noted = Faults(), Faults(notes=True)
    assert open_source(spec, str(tmp_path), faults=plain).skipped == 1 and plain.notes == []
    unread()
    assert open_source(spec, str(tmp_path), faults=noted).skipped == 1
    assert [(note.row, note.kind) for note in noted.notes] == [("row 0", "no image token")]


def test_a_changed_file_is_read_again(tmp_path, kept):
    spec, faults = coco(tmp_path), Faults(collect=True)
    before = content(open_source(spec, str(tmp_path), faults=faults))
    time.sleep(0.02)  # times of files go in steps
    coco(tmp_path, ("a fox", "a cat", "a cow"))
    after = content(open_source(spec, str(tmp_path), faults=faults))
    assert after[3][0][3] == (Turn("", "a fox"),) and before[1] != after[1] and len(entries(kept)) == 2


def test_other_settings_have_entries_of_their_own(tmp_path, kept):
    spec, faults = coco(tmp_path), Faults(collect=True)
    made = {content(open_source({**spec, **more}, str(tmp_path), train=train, faults=faults))[1]
            for more in ({}, {"task": "describe"}, {"limit": 1}) for train in (True, False)}  # fmt: skip
    assert len(made) == 6 and len(entries(kept)) == 4  # a limit shares that of all rows


@pytest.mark.parametrize("name", ("rows.arrow", "rows.npy", "entry.json", "aside.json"))
@pytest.mark.parametrize("how", ("cut", "gone", "flipped"))
def test_a_damaged_entry_is_made_again(tmp_path, kept, caplog, name, how):
    spec, faults = coco(tmp_path), Faults(collect=True, notes=True)
    before = content(open_source(spec, str(tmp_path), faults=faults))
    (entry,) = entries(kept)
    whole = (entry / name).read_bytes()
    if how == "gone":
        (entry / name).unlink()
    else:
        at = len(whole) // 2
        (entry / name).write_bytes(whole[:at] + (b"" if how == "cut" else bytes([whole[at] ^ 1]) + whole[at + 1 :]))
    if (name, how) == ("rows.arrow", "flipped"):  # found when the rows are asked for, which spoils the entry
        with pytest.raises(VlaxError, match=r"damaged at byte .*; give the same command again"):
            content(open_source(spec, str(tmp_path), faults=faults))
        assert not (entry / "entry.json").exists()
    caplog.clear()
    assert content(open_source(spec, str(tmp_path), faults=faults)) == before
    silent = (name, how) in (("entry.json", "gone"), ("rows.arrow", "flipped"))
    assert silent or f"{entry} is damaged: it is made again" in caplog.text
    assert (entry / name).read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path, kept, caplog, monkeypatch):
    spec, faults = coco(tmp_path), Faults(collect=True)
    rows = content(open_source(spec, str(tmp_path), faults=faults))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VLAX_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        faults = Faults(collect=True)
        assert content(open_source(spec, str(tmp_path), faults=faults)) == rows and len(faults.found) == 2
    assert caplog.text.count("rows are kept in memory") == 1


def test_a_disk_that_fills_up_leaves_nothing_and_the_rows_in_memory(tmp_path, kept, caplog, monkeypatch):
    def full(path, schema, made):
        path.write_bytes(b"half")
        next(iter(made))
        raise OSError(28, "No space left on device", str(path))

    spec, faults = coco(tmp_path), Faults(collect=True)
    monkeypatch.setattr(item_batches, "write", full)
    assert len(open_source(spec, str(tmp_path), faults=faults)) == 2 and len(faults.found) == 2
    assert entries(kept) == [] and "No space left on device" in caplog.text


def test_small_files_and_files_of_this_moment_have_no_entry(tmp_path, kept, monkeypatch):
    spec, faults = coco(tmp_path), Faults(collect=True)
    monkeypatch.setattr(row_cache, "RECENT", 60.0)
    open_source(spec, str(tmp_path), faults=faults)
    monkeypatch.setattr(row_cache, "RECENT", 0.0)
    monkeypatch.setattr(row_cache, "SMALL", 1 << 20)
    open_source(spec, str(tmp_path), faults=faults)
    assert not kept.exists()


def test_what_was_not_opened_for_a_month_goes_when_another_entry_is_made(tmp_path, kept):
    spec, faults = coco(tmp_path), Faults(collect=True)
    open_source(spec, str(tmp_path), faults=faults)
    (first,) = entries(kept)
    (kept / "killed.part").mkdir()
    for old in (first / "entry.json", kept / "killed.part"):
        os.utime(old, (0, time.time() - 31 * 86400))
    open_source(spec, str(tmp_path), faults=faults)  # which says that it is in use
    open_source({**spec, "task": "describe"}, str(tmp_path), faults=faults)
    assert first in entries(kept) and len(entries(kept)) == 2
    os.utime(first / "entry.json", (0, time.time() - 31 * 86400))
    open_source(spec, str(tmp_path), train=False, faults=faults)
    assert first not in entries(kept) and len(entries(kept)) == 2


OPENER = """import sys, json
from vlax.data.readers import annotations, row_cache
from vlax.data.readers.faults import Faults
from vlax.data.sources import open_source
row_cache.SMALL, row_cache.RECENT = 0, 0.0
read = annotations.Annotations.read
def logged(self, faults):
    open(sys.argv[2], "a").write("read\\n")
    return read(self, faults)
annotations.Annotations.read = logged
print("ready", flush=True)
sys.stdin.readline()
print(open_source(json.loads(sys.argv[1]), "/data", faults=Faults(collect=True)).fingerprint)
"""


def test_of_two_processes_at_once_one_reads(tmp_path, kept):
    spec = coco(tmp_path, [f"dog {n}" for n in range(20_000)])
    command = [sys.executable, "-c", OPENER, json.dumps(spec), str(tmp_path / "log")]
    opened = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in opened:
        assert process.stdout.readline() == "ready\n"
    for process in opened:
        process.stdin.write("\n")
        process.stdin.flush()
    one, other = (process.communicate(timeout=120)[0] for process in opened)
    assert one == other and len(one) == 65
    assert (tmp_path / "log").read_text() == "read\n"


def test_leaks_are_found_in_columns_of_numbers():
    keys = [{"a"}, set(), {"b", "c"}, {"a", "d"}] * 40_000
    asked = []

    def of(row):
        asked.append(row)
        return keys[row]

    assert leaks.dropped(leaks.columns(keys), frozenset({"c", "x"}), of) == list(range(2, 160_000, 4))
    assert asked == list(range(2, 160_000, 4))
    assert leaks.dropped(leaks.columns(keys), frozenset(), of) == []
    # "plumless" and "buckeroo" have one CRC-32: what counts is the key itself.
    meet = [{"plumless"}, {"buckeroo"}]
    assert leaks.dropped(leaks.columns(meet), frozenset({"buckeroo"}), lambda row: meet[row]) == [1]


def test_numbers_of_rows_are_an_array_only_where_some_are_missing(tmp_path, kept):
    spec, faults = coco(tmp_path), Faults(collect=True)
    assert open_source(spec, str(tmp_path), faults=faults)._left.numbers is None
    fewer = open_source(spec, str(tmp_path), faults=faults, drop_image_ids={"coco/0"})
    assert fewer._left.numbers.dtype == np.int64 and fewer._left.numbers.tolist() == [1] and fewer[0].id == "2#0"


def test_what_datasets_saved_opens_as_it_is(tmp_path):
    """The files of `Dataset.save_to_disk` and, with a folder a split, of `DatasetDict.save_to_disk`."""
    table = format_cases._table()
    for name, part in (("human", table[:4]), ("machine", table[4:])):
        folder = tmp_path / "saved" / name
        folder.mkdir(parents=True)
        listed = [{"filename": f"data-0000{n}-of-00002.arrow"} for n in range(2)]
        (folder / "state.json").write_text(
            json.dumps({"_data_files": listed, "_fingerprint": "160969e8c759317e", "_split": None})
        )
        (folder / "dataset_info.json").write_text(json.dumps({"features": {"image": {"_type": "Image"}}}))
        for n, file in enumerate(listed):
            with pa.ipc.new_stream(str(folder / file["filename"]), part.schema) as writer:
                writer.write_table(part[: len(part) // 2] if n else part[len(part) // 2 :])
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["human", "machine"]}))
    spec = {"kind": "hf", "path": str(tmp_path / "saved")}
    with pytest.raises(VlaxError, match="holds the splits human, machine; name one"):
        open_source(spec)
    assert [row.id for row in open_source({**spec, "split": "machine"})] == [
        "machine/data-00000-of-00002:0", "machine/data-00001-of-00002:0"
    ]  # fmt: skip
    assert len(open_source({"kind": "hf", "path": str(tmp_path / "saved" / "human")})) == 4
