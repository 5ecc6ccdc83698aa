"""Seals of folders: every flipped bit, cut and missing file is named."""

import os
import re
import threading

import numpy as np
import pytest
from etils import epath

from configs import stage1
from vlax.errors import VlaxError
from vlax.storage import seal
from vlax.training import stages, start

AGAIN = "copy it again"


@pytest.fixture
def folder(tmp_path):
    """A folder of three files, sealed; the manifest is written after its seal."""
    directory = epath.Path(tmp_path / "export")
    (directory / "params").mkdir(parents=True)
    (directory / "params/a").write_bytes(bytes(range(200)))
    (directory / "config.json").write_text("{}")
    seal.write(directory, coming={"manifest.json": b'{"format": 2}'})
    (directory / "manifest.json").write_bytes(b'{"format": 2}')
    return directory


def test_a_whole_folder_passes_and_one_without_a_seal_is_told_apart(folder, tmp_path):
    assert seal.check(folder, way_out=AGAIN)
    assert not seal.check(tmp_path, way_out=AGAIN)


def test_every_flipped_bit_is_named(folder):
    """The seal's own bits included: no flip passes."""
    rng = np.random.default_rng(0)
    files = [folder / name for name in ("params/a", "config.json", "manifest.json", "seal.json")]
    for trial in range(200):
        file = files[trial % 4]
        content = bytearray(whole := file.read_bytes())
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(content))
        with pytest.raises(VlaxError, match=rf"(params/a|config\.json|manifest\.json|seal\.json).*; {AGAIN}"):
            seal.check(folder, way_out=AGAIN)
        file.write_bytes(whole)
    assert seal.check(folder, way_out=AGAIN)


def test_a_damaged_seal_is_seen_by_whoever_reads_any_file(folder):
    """Of an entry that the reader doesn't ask for, too."""
    file = folder / "seal.json"
    file.write_text(file.read_text().replace('"bytes": 200', '"bytes": 201'))
    with pytest.raises(VlaxError, match=r"seal\.json is damaged; copy it again"):
        seal.check(folder, "config.json", way_out=AGAIN)


@pytest.mark.parametrize(
    ("harm", "text"),
    [
        (lambda file: file.unlink(), r"params/a is missing or cannot be read \(FileNotFoundError\)"),
        (lambda file: file.write_bytes(b"short"), r"params/a is damaged: it has 5 bytes in place of 200"),
        (lambda file: file.write_bytes(bytes(200)), r"params/a is damaged: its content is not what was written"),
    ],
)
def test_what_is_wrong_is_said(folder, harm, text):
    harm(folder / "params/a")
    with pytest.raises(VlaxError, match=rf"{text} \(by {re.escape(str(folder))}/seal\.json\); copy it again"):
        seal.check(folder, "params", way_out=AGAIN)
    assert seal.check(folder, "config.json", way_out=AGAIN)  # what is not read is not compared


def test_what_was_compared_is_not_read_again_until_it_changes(folder, monkeypatch):
    read = []
    monkeypatch.setattr(seal.paths, "sha256", lambda file, real=seal.paths.sha256: read.append(file.name) or real(file))
    for _ in range(2):
        seal.check(folder, way_out=AGAIN)
    assert sorted(read) == ["a", "config.json", "manifest.json"]
    os.utime(folder / "params/a", ns=(1, 1))
    seal.check(folder, way_out=AGAIN)
    assert read[3:] == ["a"]


def test_comparing_can_be_switched_off_and_is_said(folder, caplog):
    (folder / "params/a").unlink()
    try:
        seal.verify(False)
        assert seal.check(folder, way_out=AGAIN) and "run.verify=False" in caplog.text
    finally:
        seal.verify(True)


def test_a_seal_may_lie_beside_its_folder(folder):
    """Checkpoints belong to another library, which wants no stranger's file among its own."""
    beside = folder.parent / "seals" / "3.json"
    seal.write(folder, beside)
    assert seal.check(folder, way_out=AGAIN, seal=beside)
    (folder / "seal.json").write_bytes(b"x")
    with pytest.raises(VlaxError, match=r"seal\.json is damaged"):
        seal.check(folder, way_out=AGAIN, seal=beside)


@pytest.fixture
def large(folder):
    (folder / "params/a").write_bytes(bytes(seal.LARGE))
    seal.write(folder, coming={"manifest.json": b'{"format": 2}'})
    return folder


def test_large_files_are_compared_ahead_and_waited_for_by_whoever_reads_them(large, monkeypatch):
    read, gate = [], threading.Event()

    def sha256(file, real=seal.paths.sha256):
        read.append((file.name, threading.current_thread().name))
        if file.name == "a":
            assert gate.wait(30)
        return real(file)

    monkeypatch.setattr(seal.paths, "sha256", sha256)
    for _ in range(2):
        seal.ahead(large)
    assert seal.check(large, "config.json", way_out=AGAIN)  # while the other is still read
    threading.Timer(0.05, gate.set).start()
    assert seal.check(large, "params", way_out=AGAIN)
    assert [name for name, _ in read].count("a") == 1 and ("a", "seals") in read


def test_what_is_found_ahead_is_said_where_it_is_read(large):
    content = bytearray((large / "params/a").read_bytes())
    content[7] ^= 1
    (large / "params/a").write_bytes(bytes(content))
    seal.ahead(large)
    assert seal.check(large, "config.json", way_out=AGAIN)
    for _ in range(2):
        with pytest.raises(VlaxError, match=r"params/a is damaged: its content is not what was written \(by .*; copy it again"):
            seal.check(large, "params", way_out=AGAIN)


def test_a_stage_compares_its_checkpoints_and_its_parents_ahead(large, tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(seal, "ahead", lambda *given: begun.append(tuple(map(str, given))))
    plan = stages.chain(stage1.get_config(), tmp_path)[-1]
    for path in (plan.directory / "checkpoints" / "8", *(parent / "export" for parent in plan.parents.values())):
        path.mkdir(parents=True)
        (path / "manifest.json").write_text("{}")
    start.compare_ahead(plan)
    wanted = [(f"{plan.directory}/checkpoints/8", f"{plan.directory}/seals/8.json")]
    wanted += [(f"{tmp_path}/stage0_decoder/export",), (f"{tmp_path}/stage0_vision/export",)]
    assert sorted(begun) == sorted(wanted)
    plan.run.model, plan.stage.init.decoder = "", "model"
    start.compare_ahead(plan)  # names no model: the build says so
