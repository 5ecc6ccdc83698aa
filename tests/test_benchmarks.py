"""The benchmarks run, on so little that their figures mean nothing: what they time is changed by people who don't run them."""

import gc
import random
import sys

import pytest
from etils import epath

from benchmarks import backbones, data_memory, flips, fuzz, input, rows, serve, soak, training
from benchmarks.timing import Taken
from vlax.models.decoder import DecoderConfig
from vlax.models.projector import ProjectorConfig
from vlax.models.vision import VisionConfig
from vlax.models.vlm import VLMConfig
from vlax.storage import seal


def printed(monkeypatch, capsys, program, *flags: str) -> str:
    monkeypatch.setattr(sys, "argv", [program.__name__, *flags])
    program.main()
    return capsys.readouterr().out


def test_input(monkeypatch, capsys):
    flags = ("--pictures=8", "--batch=4", "--sizes", "16", "--threads", "0", "--workers", "0", "--repeats=1", "--seconds=0.01")
    out = printed(monkeypatch, capsys, input, *flags)
    for how in ("| JPEG files | 16 |", "| prepared, jpeg | 16 |", "| prepared, raw | 16 |"):
        assert how in out, out


@pytest.mark.parametrize("flags", (["--plan=plain"], ["--plan=buckets"], ["--plan=packed"], ["--prepared"]))
def test_data_memory(monkeypatch, capsys, flags):
    monkeypatch.setattr(data_memory, "PICTURES", 8)
    monkeypatch.setattr(data_memory, "QUESTIONS", 20)
    monkeypatch.setattr(data_memory, "SCENES", 40)
    out = printed(monkeypatch, capsys, data_memory, "--batches=4", "--every=2", "--batch=2", "--size=16", "--threads=0", *flags)
    assert "MB" in out, out


def test_rows(tmp_path, monkeypatch):
    """Each format's file is one that vlax reads, the links to one file among them."""
    monkeypatch.setenv("VLAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(rows, "LINKED", 40)
    for name, made in rows.FORMATS.items():
        (tmp_path / name).mkdir()
        found = rows.measure(made(tmp_path / name, 90))
        assert (found["rows"], found["plan"] > 0) == (120 if name == "table" else 90, True), name


@pytest.mark.slow
def test_serve(monkeypatch, capsys, trained):
    out = printed(monkeypatch, capsys, serve, str(trained[1] / "stage4" / "export"), "--requests=4", "--batch_size", "2")
    assert "| 2 | one at a time |" in out and out.count("| 4 of 4 |") == 2, out


@pytest.mark.slow
def test_training(monkeypatch, capsys):
    pytest.importorskip("torch")
    flags = ("--sizes", "embedded", "--stages", "stage1", "--arms", "scan", "eager", "--batch=4", "--steps=1", "--turns=1")
    out = printed(monkeypatch, capsys, training, *flags)
    lines = [line.split(" | ") for line in out.splitlines() if line.startswith("| 0.8")]
    assert [(line[2], len(line[3].split())) for line in lines] == [("vlax", 1), ("scan", 1), ("eager", 1)], out


def test_backbones_switch_off_fields_of_parts_and_fields_that_are_dicts():
    made = VLMConfig(DecoderConfig(16, 8, 1, 1, 1, 8, 8), VisionConfig(8, 4, 8, 1, 1, 8), ProjectorConfig("linear", 8, 8))
    off = backbones.changed(made, {"decoder": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "eps": 0.5}})
    assert (off.decoder.rope_scaling["factor"], off.decoder.eps, off.vision) == (2.0, 0.5, made.vision)
    plain = backbones.changed(made.decoder, {"rope_scaling": {"rope_type": "linear", "factor": 3.0}})
    assert plain.rope_scaling["factor"] == 3.0


OURS = Taken(2.0, {"projector": 0.5}, [30.0, 10.0, 20.0], [15.0], 100.0)


@pytest.mark.parametrize(
    ("loss", "norm", "said"),
    [
        (2.0001, 0.505, ""),
        (2.001, 0.5, "eager: its first loss is 2.001000, vlax's 2.000000"),
        (float("nan"), 0.5, "eager: its first loss is nan, vlax's 2.000000"),
        (2.0, 0.52, "eager: its gradient norm of projector is 0.52000, vlax's 0.50000"),
    ],
)
def test_steps_that_compute_another_thing_are_not_compared(loss, norm, said):
    assert training.apart("eager", OURS, Taken(loss, {"projector": norm}, [1.0], [1.0], 1.0), "float32") == said


def test_what_training_prints_of_its_arms():
    again, eager = Taken(2.0, {}, [16.0], [12.0], 90.0), Taken(2.0, {}, [32.0], [36.0], 80.0)
    lines = training.table("stage1", 834_496, 64, {"vlax": [OURS, again], "eager": [eager]})
    assert lines == [
        ["0.83 M", "stage1", "vlax", "20.0 16.0", "13.5", "4,741", "1.00", "1.00", "100"],
        ["0.83 M", "stage1", "eager", "32.0", "36.0", "1,778", "1.78", "2.67", "80"],
    ]


def test_what_the_fuzzer_finds_is_kept_once_a_place(tmp_path, monkeypatch):
    """Without atheris: an input is a file's number and its content; the sound one and one line of an error are no findings."""
    for name in ("files", "seeds", "found"):
        (tmp_path / name).mkdir()
    target = fuzz.Target("suite", tmp_path / "files", tmp_path / "found")
    target.seeds(tmp_path / "seeds")
    (seed,) = (tmp_path / "seeds").iterdir()
    for data in (b"", seed.read_bytes(), b"\0task = 1"):
        target(data)
    assert not list((tmp_path / "found").iterdir())
    monkeypatch.setattr("vlax.suites.protocol.from_dict", lambda *given: 1 // 0)
    for data in (seed.read_bytes(), seed.read_bytes() + b"# again"):
        target(data)
    found = sorted((tmp_path / "found").iterdir())
    assert [path.name.partition("-")[0] for path in found] == ["ZeroDivisionError"] * 2
    assert found[0].read_bytes() == seed.read_bytes()[1:] and "1 // 0" in found[1].read_text()
    assert target.files[0].read_bytes() == seed.read_bytes()[1:], "the sound file is there for the next one"


@pytest.mark.parametrize(
    ("read", "result"),
    [
        (lambda folder: seal.check(epath.Path(folder), way_out="again"), "named"),
        (lambda folder: sorted(file.read_bytes() for file in folder.iterdir()), "silent"),
        (lambda folder: "something else", "unread"),
    ],
)
def test_what_comes_of_a_flipped_bit(tmp_path, monkeypatch, read, result):
    """And the folder is as it was before."""
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "rows").write_bytes(b"a dog " * 9)
    seal.write(epath.Path(folder))
    monkeypatch.setitem(flips.READ, "prepared set", read)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    found, said = flips.tried("prepared set", folder, random.Random(0), read(folder))
    assert found == result and said.startswith(("rows", "seal.json"))
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before and len(list(tmp_path.iterdir())) == 1


def test_what_a_soak_counts_of_python(capfd):
    gc.collect()  # what tests before this one left: to be freed now, and not in between
    before = soak.of_python()
    held = [[number] for number in range(20_000)]
    assert 1_000_000 < soak.of_python() - before < 4_000_000 and len(held) == 20_000
    assert capfd.readouterr().err == ""
