"""Rows and pictures of strangers: what would hang the reader, lead out of its folders or end a run with a trace is a fault of
one row, which the drop budget and the doctor count."""

import functools
import json
import os
import pathlib
import re
import socket
import struct
import types

import numpy as np
import pytest
from PIL import Image
from varied import encoder

from vlax import images
from vlax.commands import front
from vlax.commands.data.checks import Limits
from vlax.commands.data.picture_checks import look
from vlax.commands.data.scan import scan
from vlax.data.batches.budget import DropBudget
from vlax.data.batches.lengths import Lengths
from vlax.data.batches.mixture import Mixture
from vlax.data.batches.pipeline import Collator, ImageCache
from vlax.data.readers import annotation_file, pictures
from vlax.data.readers.faults import Faults
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.images import Preprocess
from vlax.model.api import Model
from vlax.rows import Picture, Row, RowFault, Turn
from vlax.storage import state

SEEN = Preprocess(8)


def save(path, colour="red") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), colour).save(path)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """data/rows.jsonl beside data/images, and a picture outside of both."""
    save(tmp_path / "data" / "images" / "a.png")
    save(tmp_path / "secret.png", "blue")
    os.symlink(tmp_path / "secret.png", tmp_path / "data" / "images" / "link.png")
    os.symlink(tmp_path, tmp_path / "data" / "images" / "up")
    return tmp_path


def table(folder, *names, root="data", **fields):
    rows = "\n".join(json.dumps({"image": name, "text": "a dog"}) for name in names)
    (folder / "data" / "rows.jsonl").write_text(rows)
    spec = {"kind": "table", "path": str(folder / "data" / "rows.jsonl"), "images": str(folder / "data" / "images"), **fields}
    return open_source(spec, str(folder / root) if root else "")


OUTSIDE = ("../../secret.png", "{}/secret.png", "link.png", "up/secret.png", "../images/../../secret.png")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_picture_outside_of_its_folders_is_refused_unless_that_is_allowed(folder, name):
    source = table(folder, name.format(folder), "a.png")
    with pytest.raises(RowFault, match=r"leads outside of .*/data/images.*--config.run.allow_outside=True") as caught:
        source[0].picture.open()
    assert caught.value.kind == "picture outside"
    assert [f.kind for f in scan(source, Limits(), 1, progress=False).findings if f.rows == ("0",)] == ["picture outside"]
    assert source[1].picture.open().getpixel((0, 0)) == (255, 0, 0)
    pictures.allow_outside(True)
    try:
        assert source[0].picture.open().getpixel((0, 0)) == (0, 0, 255)
    finally:
        pictures.allow_outside(False)


def test_what_the_user_names_is_the_root(folder):
    """An images folder anywhere, one that is a link itself, and the data root: rows may name what lies in them by any path."""
    os.symlink(folder / "data" / "images", folder / "elsewhere")
    for chosen, name in ((folder / "elsewhere", "a.png"), (folder, "secret.png")):
        assert table(folder, str(chosen / name), root="", images=str(chosen))[0].picture.open()
    assert table(folder, "../../secret.png", root=".")[0].picture.open()


def test_paths_on_an_object_store_are_judged_by_their_text():
    roots = ("gs:/bucket/images",)
    for name in ("gs://bucket/images/../secret.png", "gs://other/a.png", "/etc/passwd", "s3://there/a.png"):
        with pytest.raises(RowFault, match="leads outside"):
            pictures.read_picture(name, "7", roots)
    assert pictures.resolved("gs://bucket/images") == roots[0]


def fifo(path):
    os.mkfifo(path)


def unix_socket(path):
    with socket.socket(socket.AF_UNIX) as opened:
        here = os.getcwd()
        os.chdir(path.parent)  # its whole path may be too long for a socket
        opened.bind(path.name)
        os.chdir(here)


ODD = {"fifo": fifo, "socket": unix_socket, "folder": os.mkdir, "device": lambda path: os.symlink("/dev/zero", path)}


@pytest.mark.parametrize("make", ODD.values(), ids=ODD)
def test_a_picture_that_is_no_regular_file_is_never_opened(tmp_path, make):
    path = str(tmp_path / "a.png")
    make(tmp_path / "a.png")
    opener = functools.partial(pictures.open_picture, path, "7")
    read = functools.partial(pictures.read_picture, path, "7")
    row = Row("7", "a", "caption", (Turn("", "x"),), Picture(path, opener, path, read))
    with pytest.raises(RowFault, match=r"a\.png is not a regular file"):
        row.picture.pixels(SEEN)
    assert look(row, Limits()).findings[0][0] == "not a picture"
    with pytest.raises(VlaxError, match=r"a\.png is not a regular file; give the path of a picture$"):  # of `vlax ask`
        Model.pixels(types.SimpleNamespace(config=types.SimpleNamespace(vision=1)), path)
    with pytest.raises(
        VlaxError, match="is not recognised" if make is os.mkdir else "is not a regular file"
    ):  # nor annotations
        open_source({"path": path}, str(tmp_path))


def test_a_sparse_file_of_a_terabyte_is_not_read(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RowFault, match=r"has 1,099,511,627,776 bytes, limit 536,870,912"):
        pictures.open_picture(str(tmp_path / "a.png"), "7")
    with pytest.raises(VlaxError, match=r"has 1,099,511,627,776 bytes, limit 4,294,967,296"):
        open_source({"kind": "coco", "annotations": "a.png", "images": "."}, str(tmp_path))


@pytest.mark.parametrize("name", ("a\0b.png", "\ud800.png", "n" * 300 + ".png", "a.png/b.png", "loop.png"))
def test_a_file_name_that_is_none_is_a_row_fault(folder, name):
    os.symlink("loop.png", folder / "data" / "images" / "loop.png")
    with pytest.raises(RowFault):
        table(folder, name)[0].picture.open()


def test_a_link_that_leads_nowhere_is_named(tmp_path):
    os.symlink("nowhere", tmp_path / "a.parquet")
    for spec in ({"kind": "hf", "path": "."}, {"path": "a.parquet"}, {"path": "."}):
        with pytest.raises(VlaxError) as caught:
            open_source(spec, str(tmp_path))
        assert "a.parquet" in str(caught.value) or "not recognised" in str(caught.value)


def test_no_picture_runs_a_program(tmp_path):
    """Pillow hands EPS to Ghostscript, and PostScript is a language."""
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n")
    with pytest.raises(RowFault, match="of no format that Pillow knows"):
        pictures.open_picture(str(tmp_path / "a.eps"), "7")


ERRORS = (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), ValueError("no"), MemoryError(),
          struct.error("short"), RecursionError("deep"), KeyError("x"), OSError(5, "Input/output error"))  # fmt: skip


class Raising:
    """Every second row raises: as it is asked for, as its picture is opened or as its text is read."""

    name = fingerprint = "raising"

    def __init__(self, error, where):
        self.error, self.where = error, where

    def __len__(self):
        return 4

    def fail(self):
        raise self.error

    def __getitem__(self, index):
        bad = index % 2
        if bad and self.where == "row":
            self.fail()
        seen = self.fail if bad and self.where == "picture" else functools.partial(Image.new, "RGB", (8, 8))
        turns = None if bad and self.where == "text" else (Turn("", "cat"),)
        return Row(str(index), str(index), "caption", turns, Picture(f"p{index}", seen))


@pytest.mark.parametrize("where", ("row", "picture", "text"))
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_whatever_a_row_raises_is_its_own_fault(error, where):
    source = Raising(error, where)
    mixed, budget = Mixture([source], [1.0], 0), DropBudget(0.5, 4)
    collate = Collator(mixed, encoder(), 16, SEEN, ImageCache(0), left_out=budget)
    batch = collate(np.arange(4)[:, None], 16)
    assert batch["row"].ravel().tolist() == [0, -1, 2, -1]
    named = "TypeError" if where == "text" else type(error).__name__
    assert budget.counts["bad"] == 2 and all(named in said for said in budget.named["bad"])
    assert Lengths(encoder()).of_source(source, np.arange(4))[[1, 3]].tolist() == [0, 0] or where == "picture"
    found = scan(source, Limits(), 1, progress=False)
    assert {row for finding in found.findings if finding.severity == "error" for row in finding.rows} >= (
        {"1", "3"} if where == "picture" else {"[1]", "[3]"}
    )


@pytest.mark.parametrize("error", (KeyboardInterrupt(), SystemExit(3), VlaxError("the disk does not answer")))
def test_what_is_no_fault_of_a_row_goes_on(error):
    mixed, budget = Mixture([Raising(error, "picture")], [1.0], 0), DropBudget(0.5, 4)
    collate = Collator(mixed, encoder(), 16, SEEN, ImageCache(0), left_out=budget)
    with pytest.raises(type(error)):
        collate(np.arange(4)[:, None], 16)


def test_json_is_read_in_one_place():
    vlax = pathlib.Path(state.__file__).parents[1]
    reads = re.compile(r"\bjson\.(loads?|JSONDecoder)\b")
    readers = {str(path.relative_to(vlax)) for path in vlax.rglob("*.py") if reads.search(path.read_text())}
    ours = {"process/supervise.py", "training/agreement.py"}  # what processes of one run tell each other, a moment ago
    streamed = {"data/readers/json_stream.py"}  # large files, a value at a time; its limits and texts are those of state.py
    alone = {"pretrained/writing/generate_hf.py"}  # runs without vlax, beside the export that it was written with
    assert readers - ours - streamed - alone == {"storage/state.py"}


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "content"),
    (("a.json", DEEP), ("a.json", '{"annotations": ' + DEEP), ("a.jsonl", f'{{"image": "a", "text": {DEEP}\n' * 2),
     ("a.csv", f'image,question,answer,answers\na.png,what?,red,"{DEEP}"\n')),
)  # fmt: skip
def test_lists_without_end_are_one_line(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    for spec in ({"path": name}, {"kind": "llava", "annotations": name, "images": "."}, {"kind": "table", "path": name}):
        with pytest.raises(VlaxError) as caught:
            open_source(spec, str(tmp_path), faults=Faults())
        assert "\n" not in str(caught.value)


def test_a_line_has_a_limit(tmp_path, monkeypatch):
    assert state.LINE_BYTES == 64 << 20
    monkeypatch.setattr(annotation_file, "load_line", functools.partial(state.load_json, limit=100))
    rows = [{"image": "a.png", "text": "a dog" * n} for n in (1, 100)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    faults = Faults(collect=True)
    assert len(open_source({"kind": "table", "path": "a.jsonl"}, str(tmp_path), faults=faults)) == 1
    assert [fault.row for fault in faults.found] == ["line 2"] and "bytes of JSON, limit 100" in faults.found[0].text


def test_a_set_is_prepared_of_what_is_sound(folder, capsys):
    said = {"a.png": "a dog \ud800", "\ud800.png": "x", "../../secret.png": "y"}
    rows = [{"image": name, "text": text} for name, text in said.items()]
    rows.append({"image": "a.png", "text": "a cat", "id": "\udfff"})
    (folder / "data" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = [f"--images={folder / 'data' / 'images'}", "--drop-budget=0.5", "--image-size=8", "--workers=1"]
    assert front.main(["data", "prepare", str(folder / "data" / "rows.jsonl"), str(folder / "out"), *flags]) == 0
    prepared = open_source({"kind": "prepared", "path": str(folder / "out")})
    assert [(row.id, row.turns[0].answer) for row in map(prepared.__getitem__, range(2))] == [
        ("0", "a dog \ud800"),
        ("\udfff", "a cat"),
    ]
    dropped = [json.loads(line)["reason"] for line in (folder / "out" / "dropped.jsonl").read_text().splitlines()]
    assert "UnicodeEncodeError" in dropped[0] and "leads outside" in dropped[1]
    assert front.main(["data", "preview", str(folder / "data" / "rows.jsonl"), flags[0]]) == 0


def test_a_long_cell_ends_no_table(tmp_path):
    long = "a dog " * 100_000
    (tmp_path / "a.csv").write_text(f"image,text\na.png,{long}\nb.png,a cat\n")
    source = open_source({"path": "a.csv"}, str(tmp_path))
    assert [len(source[at].turns[0].answer) for at in (0, 1)] == [len(long.strip()), 5]


@pytest.mark.parametrize("mode", ("pad", "crop", "squash"))
@pytest.mark.parametrize("size", ((1, 60_000), (60_000, 1)))
def test_a_thread_of_a_picture_takes_no_square_of_memory(mode, size, monkeypatch):
    real = Image.new
    monkeypatch.setattr(images, "LONGEST", 1024)

    def new(how, size, *colour):
        assert size[0] * size[1] < 1 << 24, size
        return real(how, size, *colour)

    monkeypatch.setattr(Image, "new", new)
    seen = Preprocess(8, mode, 8).apply(Image.new("RGB", size, "red"))
    assert seen.shape == (8, 8, 3) and seen.max() > 100


@pytest.mark.parametrize("size", ((64, 48), (48, 64), (5, 700), (700, 5), (10, 7), (24, 600)))
@pytest.mark.parametrize("resample", range(6))
def test_a_square_by_bands_is_the_square_bit_for_bit(size, resample):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3)).astype(np.uint8))
    side = max(size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2))
    want = np.asarray(square.resize((24, 24), resample))[4:20, 4:20]
    seen = Preprocess(16, "pad", 24, resample, mean=(0.481, 0.457, 0.408))
    np.testing.assert_array_equal(seen.apply(image), want)
