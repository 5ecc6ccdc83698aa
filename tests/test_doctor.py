"""The data doctor: all damage is found and named, a clean folder gives nothing, overlap with evaluation sets is found."""

import argparse
import ast
import collections
import functools
import io
import json
import shutil
from pathlib import Path

import damage
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vlax.commands.data import checks, doctor, picture_checks, scan
from vlax.commands.data.checks import ERROR, KINDS, Limits
from vlax.data.batches.quarantine import read_quarantine
from vlax.data.readers import leaks, phash
from vlax.data.readers.dialogue import TOKEN_FAULTS
from vlax.data.readers.pictures import decode_picture, open_picture
from vlax.data.recognise import recognise
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.rows import Picture, Row, Turn
from vlax.text.bpe import train_bpe

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    damage.write_damaged(folder)
    return folder


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    damage.write_clean(folder)
    return folder


def specs(folder, kinds=("coco", "vqa", "llava")):
    files = {
        "coco": {"annotations": f"{folder}/captions.json"},
        "vqa": {"questions": f"{folder}/questions.json", "annotations": f"{folder}/annotations.json"},
        "llava": {"annotations": f"{folder}/chat.json"},
    }
    return [json.dumps({"kind": kind, **files[kind], "images": f"{folder}/images"}) for kind in kinds]


def run(folder, out, *flags, kinds=("coco", "vqa", "llava")):
    """(exit code, {source: {kind: {row, ...}}}, the quarantine list's lines)"""
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    code = doctor.main(parser.parse_args([*specs(folder, kinds), f"--out={out}", "--workers=3", *flags]))
    found = {}
    for source in json.loads((out / "doctor.json").read_text()):
        found[source["source"]] = kinds = collections.defaultdict(set)
        for finding in source["findings"]:
            kinds[finding["kind"]].update(finding["rows"])
    return code, found, [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]


def against(folder):
    evaluation = {"kind": "coco", "annotations": f"{folder}/evaluation.json", "images": f"{folder}/evaluation"}
    return "--against", json.dumps(evaluation)


def test_all_damage_is_found_and_named(damaged, tmp_path, capsys):
    code, found, entries = run(damaged, tmp_path)
    assert code == 1
    shared = (
        found["llava-chat"].pop("pictures shared with another source"),
        found["vqa-questions"].pop("pictures shared with another source"),
    )
    assert shared == (set(), set())
    assert {k: dict(v) for k, v in found.items()} == {
        "coco-captions": damage.CAPTIONS,
        "vqa-questions": damage.QUESTIONS,
        "llava-chat": damage.DIALOGUES,
    }
    assert len({kind for kinds in found.values() for kind in kinds}) >= 35
    wanted = {
        (source, row) for source, kinds in found.items() for kind, rows in kinds.items() if KINDS[kind] == ERROR for row in rows
    }
    assert {(entry["source"], entry["row"]) for entry in entries} == wanted and len(entries) == len(wanted)
    by_row = {(entry["source"], entry["row"]): entry for entry in entries}
    truncated = by_row["coco-captions", "13#0"]
    assert truncated["image"].endswith("images/13.jpg") and truncated["reason"].startswith(
        f"truncated picture: {damaged}/images/13.jpg: the picture does"
    )
    assert "questions[2]: question 2 has no annotation" in by_row["vqa-questions", "questions[2]"]["reason"]
    printed = capsys.readouterr().out
    assert "\ncoco-captions: 40 rows, 24 pictures" in printed and "error   truncated picture" in printed
    assert (
        f"--config.run.quarantine={tmp_path}/quarantine.jsonl" in printed and "\ud800" not in printed and "\x07" not in printed
    )


def test_a_clean_folder_gives_nothing(clean, tmp_path, capsys):
    evaluation = json.dumps({"kind": "coco", "annotations": f"{clean}/evaluation.json", "images": f"{clean}/images"})
    for kind in ("coco", "vqa", "llava"):
        code, found, entries = run(clean, tmp_path, "--against", evaluation, kinds=(kind,))
        assert (code, [dict(kinds) for kinds in found.values()], entries) == (0, [{}], [])
    assert "nothing found" in capsys.readouterr().out


def test_the_list_lets_a_reader_pass(damaged, tmp_path):
    """Without the list the first faulty row is an error; with it the rest is there, under the ids that it had."""
    from vlax.data.readers.faults import Faults

    run(damaged, tmp_path)
    quarantine = read_quarantine(str(tmp_path / "quarantine.jsonl"))
    for text, rows in zip(specs(damaged), (32, 3, 5), strict=True):
        with pytest.raises(VlaxError):
            open_source(json.loads(text))
        faults = Faults(quarantine)
        source = open_source(json.loads(text), faults=faults)
        tolerant = open_source(json.loads(text), faults=Faults(collect=True))
        assert len(source) == rows and faults.passed_over[source.name] > 0
        assert [row.id for row in tolerant] == [row.id for row in source] and tolerant.fingerprint == source.fingerprint
        good = [row for row in source if not quarantine.covers(source.name, row.id)]
        assert good and all(row.picture is None or row.picture.open() for row in good)


def test_overlap_with_an_evaluation_set(damaged, tmp_path):
    code, found, entries = run(damaged, tmp_path, *against(damaged), kinds=("coco",))
    images = {
        kind: {row.split("#")[0] for row in rows} for kind, rows in found["coco-captions"].items() if kind in damage.OVERLAP
    }
    images["same picture as in an evaluation set"].discard("26")  # a copy of p0.jpg
    # 27 is a near copy of p1.jpg, of which the evaluation set has the name alone
    assert code == 1 and images == damage.OVERLAP
    dropped = {entry["row"].split("#")[0] for entry in entries if "evaluation" in entry["reason"]}
    assert dropped == {"0", "1", "26"}
    _, _, entries = run(damaged, tmp_path, *against(damaged), "--drop-near-duplicates", kinds=("coco",))
    assert {entry["row"].split("#")[0] for entry in entries if "near duplicate" in entry["reason"]} == {"2"}


@pytest.mark.parametrize("change", ("resized", "squashed", "recompressed", "webp"))
def test_the_hash_survives_copies(change):
    images = [damage.picture(seed, (96, 80)) for seed in range(40)]
    how = {
        "resized": lambda image: image.resize((48, 40)),
        "squashed": lambda image: image.resize((64, 64)),
        "recompressed": lambda image: Image.open(io.BytesIO(damage.encoded(image, quality=40))),
        "webp": lambda image: Image.open(io.BytesIO(damage.encoded(image, "WEBP", quality=60))),
    }[change]
    mine, others = prints(images), prints([how(image).convert("RGB") for image in images])
    assert phash.nearest(*others, *mine, 4).tolist() == list(range(40))


def prints(images):
    hashes, colours = zip(*map(phash.fingerprint, images), strict=True)
    return np.array(hashes, np.uint64), np.array(colours)


def test_other_pictures_are_not_near():
    images = [damage.picture(seed) for seed in range(120)]
    assert (phash.nearest(*prints(images) * 2, 4, earlier=True) == -1).all()
    red, blue = (Image.new("RGB", (64, 64), "white") for _ in "ab")
    red.paste((220, 40, 40), (16, 16, 48, 48))
    blue.paste((40, 40, 220), (16, 16, 48, 48))
    (_, colours), (_, others) = phash.fingerprint(red), phash.fingerprint(blue)
    alike = np.array([7], np.uint64)
    assert phash.nearest(alike, colours[None], alike, others[None], 4).tolist() == [-1]
    assert phash.nearest(alike, colours[None], alike, colours[None], 4).tolist() == [0]


@pytest.mark.parametrize("within", (0, 1, 4, 7))
def test_the_search_equals_comparing_all(within):
    rng = np.random.default_rng(0)
    base = rng.integers(0, 1 << 63, 60).astype(np.uint64)
    flips = np.array([sum(1 << int(b) for b in rng.choice(64, n, replace=False)) for n in rng.integers(0, 10, 300)], np.uint64)
    hashes = base[rng.integers(0, 60, 300)] ^ flips
    colours = np.zeros((300, 48), np.uint8)
    bits = np.array([[phash.distance(int(a), int(b)) for b in base] for a in hashes])
    want = np.where(bits.min(1) <= within, bits.argmin(1), -1)
    np.testing.assert_array_equal(phash.nearest(hashes, colours, base, np.zeros((60, 48), np.uint8), within), want)
    both = np.array(
        [[phash.distance(int(a), int(b)) if j < i else 99 for j, b in enumerate(hashes)] for i, a in enumerate(hashes)]
    )
    want = np.where(both.min(1) <= within, both.argmin(1), -1)
    np.testing.assert_array_equal(phash.nearest(hashes, colours, hashes, colours, within, earlier=True), want)


class Rows(list):
    """Any source."""

    name, fingerprint = "rows", "f"


def row(key, answer="a dog", task="caption", question="", image=None):
    opener = functools.partial(decode_picture, io.BytesIO(image), "shard.tar: a.jpg", key) if image is not None else None
    return Row(key, key, task, (Turn(question, answer),), Picture(f"shard.tar: {key}", opener) if opener else None)


def test_any_source_and_what_only_containers_have():
    """Pictures out of a container, rows with equal ids, rows that cannot be read at all."""

    class Lazy(Rows):
        def __getitem__(self, index):
            if index == 5:
                raise VlaxError("shard.tar: record 5 is broken")
            return super().__getitem__(index)

    jpeg = damage.encoded(damage.picture(3))
    rows = [row("a", image=jpeg), row("b", image=jpeg[:300]), row("c", image=b""), row("t"), row("t", "a cat"), row("x")]
    result = scan.scan(Lazy(rows), Limits(), 2, progress=False)
    found = {(finding.kind, finding.rows) for finding in result.findings}
    assert found == {
        ("truncated picture", ("b",)),
        ("not a picture", ("c",)),
        ("duplicate row id", ("t",)),
        ("row refused", ("[5]",)),
    }


def test_findings_lie_beside_the_data(damaged, clean, tmp_path, monkeypatch, capsys):
    """Not in the folder that one happens to stand in; and a folder that has them is still recognised by its rows."""
    shutil.copytree(clean, tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    assert doctor.main(parser.parse_args(["pets/captions.json", "--workers=1"])) == 0
    assert {path.name for path in (tmp_path / "pets" / "doctor-captions").iterdir()} == {"doctor.json", "quarantine.jsonl"}
    assert [path.name for path in tmp_path.iterdir()] == ["pets"]
    assert recognise.recognise("pets/doctor-captions/../captions.json").what == "COCO captions"
    with pytest.raises(VlaxError, match=r"not recognised|nothing|holds"):
        recognise.recognise("pets/doctor-captions")
    where = {source: doctor.beside(source, ".") for source in ("pets", "a/b.json", "a/{00..09}.tar", "a/x-*.parquet")}
    assert where == {"pets": "doctor-pets", "a/b.json": "a/doctor-b", "a/{00..09}.tar": "a/doctor-00..09",
                     "a/x-*.parquet": "a/doctor-x"}  # fmt: skip
    assert doctor.beside('{"kind": "scenes", "split": "train"}', "") == "runs/doctor"
    assert doctor.beside('{"kind": "coco", "annotations": "a/b.json"}', "/data") == "/data/a/doctor-b"


def test_files_are_recognised(damaged, clean, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    files = [str(clean / name) for name in ("captions.json", "questions.json", "chat.json")]
    assert doctor.main(parser.parse_args([*files, f"--images={clean}/images", f"--out={tmp_path}"])) == 0
    assert {source["source"]: source["rows"] for source in json.loads((tmp_path / "doctor.json").read_text())} == {
        "coco-captions": 6, "vqa-questions": 6, "llava-chat": 6,
    }  # fmt: skip
    assert "captions.json: COCO captions" in capsys.readouterr().out


def test_the_report_moves_no_cursor(tmp_path):
    result = scan.Scan("a\x1b[2J.json", Limits(), rows=1)
    result.add("one colour", ["7"], "b\n.png", "\x1b]0;c")
    printed = doctor.report([result], [], tmp_path)
    assert r"a\x1b[2J.json: 1 rows" in printed and r"7: \x1b]0;c" in printed and "\x1b" not in printed


def test_an_embedded_source_has_no_errors():
    source = open_source({"kind": "scenes", "split": "train", "style": "questions", "size": 12})
    result = scan.scan(source, Limits(), 2, progress=False)
    assert len(result.pictures) == 12 and not [finding for finding in result.findings if finding.severity == ERROR]


@pytest.mark.parametrize(
    ("text", "task", "kinds"),
    [
        ("a dog runs", "caption", []),
        ("none", "question", []),
        ("None", "caption", ["placeholder text"]),
        ("[image]", "describe", ["placeholder text"]),
        ("a < b and b > a, R&D; <person> waves", "caption", []),
        ("a<br/>b", "caption", ["HTML in the text"]),
        ("tom &amp; jerry", "caption", ["HTML in the text"]),
        ('<a href="x">y</a>', "caption", ["HTML in the text"]),
        ("tab\tand\nline ends are fine, so are emoji \U0001f600 and n\u0303", "caption", []),
        ("a\u202edog", "caption", ["control characters"]),
        ("look: <image>", "caption", ["image token in the text"]),
        ("  ", "caption", ["empty text"]),
    ],
)
def test_texts(text, task, kinds):
    asked = row("r", text, task, "what?" if task == "question" else "")
    assert [kind for kind, _ in checks.text_findings(asked, Limits())] == kinds


def test_long_texts():
    limits = Limits(max_words=5)
    assert checks.text_findings(row("r", "a b c d e"), limits) == []
    assert checks.text_findings(row("r", "a b c d e f"), limits) == [("long text", "6 words, limit 5")]
    tokens = Limits(text_length=3, tokens=lambda row: len(row.turns[0].answer))
    assert checks.text_findings(row("r", "abcd"), tokens) == [("long text", "4 tokens, limit 3")]
    assert checks.text_findings(row("r", "abc"), tokens) == []


def test_sizes():
    limits = Limits()
    wanted = {(16, 16): [], (15, 99): ["too small"], (10_000, 500): [], (10_001, 900): ["too large"], (421, 21): [],
              (441, 21): ["extreme aspect ratio"], (420, 21): []}  # fmt: skip
    wanted[421, 21] = ["extreme aspect ratio"]
    assert {size: [kind for kind, _ in picture_checks.shape(size, limits)] for size in wanted} == wanted


def test_decoders_that_raise_anything(monkeypatch, tmp_path):
    """A broken AVIF raises RuntimeError, a broken GIF IndexError: the examination goes on."""
    (tmp_path / "a.jpg").write_bytes(damage.encoded(damage.picture(1)))

    def broken(self):
        raise IndexError("index out of range")

    monkeypatch.setattr(Image.Image, "load", broken)
    path = str(tmp_path / "a.jpg")
    picture = Picture(path, functools.partial(open_picture, path, "a"), path)
    seen = picture_checks.look(Row("a", "a", "caption", (), picture), Limits())
    assert [kind for kind, _ in seen.findings] == ["corrupt picture"] and "index out of range" in seen.findings[0][1]


def test_words_of_pictures():
    assert scan.words_of(scan.Picture("shard.tar: train/a.jpg", "7", 0)) == ["a.jpg"]
    assert scan.words_of(scan.Picture("scene test/8 (rendered)", "scene-test-8", 0)) == ["scene-test-8"]
    assert scan.words_of(scan.Picture("images/17.png", "17.png", 0)) == []


def test_equal_numbers_of_two_sets_are_not_one_picture(tmp_path):
    """Drawings of one colour, which have no hash, and photographs: numbers alone quarantine nothing."""
    for name, kind in (("mine", "photo"), ("theirs", "drawing")):
        (tmp_path / name).mkdir()
        for n in range(6):
            image = Image.new("RGB", (64, 64), (40 * n, 10, 10)) if kind == "drawing" else damage.picture(n, (64, 64))
            image.save(tmp_path / name / f"{n}.png")
        rows = [{"image": f"{n}.png", "image_id": n, "question": "red?", "answer": "no"} for n in range(6)]
        (tmp_path / name / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    for mine, theirs in (("mine", "theirs"), ("theirs", "mine")):
        flags = ["--against", str(tmp_path / theirs / "rows.jsonl"), f"--out={tmp_path / 'out'}"]
        assert doctor.main(parser.parse_args([str(tmp_path / mine / "rows.jsonl"), *flags])) == 0


@pytest.mark.parametrize("turned", (False, True))
def test_real_sets_of_other_makers_share_no_picture(tmp_path, turned):
    """easy-VQA counts its pictures and DAQUAR its own: equal numbers, two pictures."""
    root, parser = REPO.parent / "shared" / "data", argparse.ArgumentParser()
    if not root.exists():
        pytest.skip("development data is not here")
    parts = ("questions", "annotations")
    specs = [
        {"kind": "vqa", **{part: str(root / name / "annotations" / f"{part}_train.json") for part in parts},
         "images": str(root / name / "images"), "limit": 600}
        for name in ("easy_vqa", "daquar")
    ]  # fmt: skip
    mine, theirs = map(json.dumps, reversed(specs) if turned else specs)
    doctor.add_arguments(parser)
    doctor.main(parser.parse_args([mine, "--against", theirs, f"--out={tmp_path / 'out'}"]))
    entries = (tmp_path / "out" / "quarantine.jsonl").read_text()
    assert "evaluation" not in entries


def test_names_of_coco_pictures_meet():
    old = leaks.keys("train2014/COCO_train2014_000000000042.jpg", "42")
    new = leaks.keys("/data/train2017/000000000042.jpg", "train2017/000000000042.jpg")
    assert leaks.meetings([{"?/7"}, old], [{"x"}, new]) == [-1, 1]


def test_unreadable_sources_and_flags(tmp_path, damaged):
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)

    def main(*flags):
        return doctor.main(parser.parse_args([*flags, f"--out={tmp_path}"]))

    assert main(str(tmp_path / "none.json"), "--kind=coco", f"--images={tmp_path}") == 1
    [source] = json.loads((tmp_path / "doctor.json").read_text())
    assert source["findings"][0]["kind"] == "unreadable source" and "there is no file" in source["findings"][0]["detail"]
    assert (tmp_path / "quarantine.jsonl").read_text() == ""
    with pytest.raises(VlaxError, match="--text-length says how many tokens are too many; add --tokenizer"):
        main("x.json", "--text-length=9")
    with pytest.raises(VlaxError, match="--distance=17"):
        main("x.json", "--distance=17")
    assert main("{oops") == main(str(tmp_path / "none.jsonl")) == 1
    with pytest.raises(VlaxError, match="there is no file"):
        main(specs(damaged)[0], "--against", json.dumps({"kind": "coco", "annotations": "/none.json", "images": "/"}))


def test_texts_that_spell_out_special_tokens_are_counted(tmp_path, capsys):
    train_bpe(["the tag ends it and fills a green square"], 300).save_pretrained(str(tmp_path / "tokenizer"))
    rows = [{"image": "p.png", "text": text} for text in ("the tag <eos> ends it and <pad> fills", "a green square")]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    Image.fromarray(np.arange(3072, dtype=np.uint8).reshape(32, 32, 3)).save(tmp_path / "p.png")
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    flags = [str(tmp_path / "rows.jsonl"), f"--images={tmp_path}", f"--out={tmp_path}", f"--tokenizer={tmp_path / 'tokenizer'}"]
    assert doctor.main(parser.parse_args(flags)) == 0
    [source] = json.loads((tmp_path / "doctor.json").read_text())
    [found] = [x for x in source["findings"] if x["kind"] == "special token in the text"]
    assert (found["severity"], len(found["rows"])) == ("note", 1) and found["detail"] == "<eos>, which is tokenised as text"


def test_kinds_that_readers_name_are_known():
    """The second argument of every RowFault and the first of every finding."""
    used = set(TOKEN_FAULTS.values())
    for path in (REPO / "vlax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("RowFault", "result.add"):
                at = int(ast.unparse(node.func) == "RowFault")
                used |= {kind.value for kind in node.args[at : at + 1] if isinstance(kind, ast.Constant)}
    assert used <= set(KINDS) and {"unlisted image", "missing field", "empty text", "duplicate row"} <= used


COCO = {"kind": "coco", "annotations": "annotations/captions_val.json"}
VQA = {"kind": "vqa", "questions": "annotations/questions_val.json", "annotations": "annotations/annotations_val.json"}


@pytest.mark.parametrize(("folder", "spec"), [("flickr8k_dev", COCO), ("easy_vqa", VQA)])
def test_real_data_have_no_errors(folder, spec):
    root = REPO.parent / "shared" / "data" / folder
    if not root.exists():
        pytest.skip(f"development data {folder} is not here")
    source = open_source({**spec, "images": "images", "limit": 40}, str(root), train=True)
    result = scan.scan(source, Limits(), 2, progress=False)
    assert result.pictures and not [finding for finding in result.findings if finding.severity == ERROR]


def test_splits_of_one_folder_are_compared_with_each_other(tmp_path):
    """--split alone would compare the training split with itself."""
    for split, numbers in (("train", range(5)), ("test", (4, 9))):
        pictures = [{"bytes": damage.encoded(damage.picture(n), "PNG"), "path": None} for n in numbers]
        folder = tmp_path / "set"
        folder.mkdir(exist_ok=True)
        table = pa.table({"image": pictures, "text": [f"picture {n}" for n in numbers]})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    rows = {}
    for flags in ((), ("--against-split=test",)):
        parser = argparse.ArgumentParser()
        doctor.add_arguments(parser)
        out = tmp_path / f"out{len(flags)}"
        args = [f"{tmp_path}/set", "--split=train", "--against", f"{tmp_path}/set", f"--out={out}", *flags]
        assert doctor.main(parser.parse_args(args)) == 1
        rows[flags] = [json.loads(line)["row"] for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [len(found) for found in rows.values()] == [5, 1] and rows["--against-split=test",] == ["train-00000-of-00001:4#0"]
