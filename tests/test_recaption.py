"""examples/recaption.py: people's captions of some photos and a model's of the same ones, as files that vlax reads."""

import json
import runpy
import sys

import pytest
from conftest import REPO
from PIL import Image

from vlax.data.sources import open_source

SHARED = REPO.parent / "shared" / "data"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recaption")
    (folder / "images").mkdir()
    photos = [{"id": 10 * i, "file_name": f"{i}.png"} for i in range(1, 5)]
    for i, photo in enumerate(photos):
        Image.new("RGB", (20, 20), (60 * i, 90, 200)).save(folder / "images" / photo["file_name"])
    captions = [{"image_id": photo["id"], "caption": f"caption {k} of {photo['id']}"} for photo in photos for k in range(2)]
    (folder / "captions.json").write_text(json.dumps({"images": photos, "annotations": captions}))
    return folder


def run(monkeypatch, *flags: object) -> None:
    monkeypatch.setattr(sys, "argv", ["recaption.py", *map(str, flags)])
    runpy.run_path(str(REPO / "examples" / "recaption.py"), run_name="__main__")


def test_two_files_of_the_same_photos(folder, trained, monkeypatch, capsys):
    export = trained[1] / "stage3" / "export"
    out = folder / "made"
    run(monkeypatch, folder / "captions.json", out, "--photos=1:3", f"--model={export}", f"--images={folder / 'images'}",
        "--temperature=1")  # fmt: skip
    said = capsys.readouterr().out
    assert "human.json: 4 captions of 2 photos, 4 different, of 6 words" in said and "ai.json: 4 captions of 2 photos" in said
    rows = {}
    for kind in ("human", "ai"):
        spec = {"kind": "coco", "annotations": str(out / f"{kind}.json"), "images": str(folder / "images")}
        rows[kind] = [source for source in open_source(spec)]
    assert [row.image_id for row in rows["human"]] == [row.image_id for row in rows["ai"]] == ["20", "20", "30", "30"]
    assert [row.turns[0].answer for row in rows["human"]][:2] == ["caption 0 of 20", "caption 1 of 20"]
    assert not {row.turns[0].answer for row in rows["human"]} & {row.turns[0].answer for row in rows["ai"]}


def test_of_photographs_with_real_captions(trained, tmp_path, monkeypatch, capsys):
    real = SHARED / "flickr8k_dev"
    if not real.exists():
        pytest.skip(f"{real} is not there")
    export = trained[1] / "stage3" / "export"
    flags = ("--photos=298:", f"--model={export}", f"--images={real / 'images'}")
    for _ in range(2):  # the second run writes the same
        run(monkeypatch, real / "annotations" / "captions_val.json", tmp_path, *flags)
        said = capsys.readouterr().out
        written = [(tmp_path / f"{kind}.json").read_bytes() for kind in ("human", "ai")]
        assert "human.json: 10 captions of 2 photos" in said and "ai.json: 10 captions of 2 photos" in said
    human, ai = map(json.loads, written)
    assert [(row["id"], row["image_id"]) for row in human["annotations"]] == [
        (r["id"], r["image_id"]) for r in ai["annotations"]
    ]
    assert (
        human["images"] == ai["images"] == json.loads((real / "annotations" / "captions_val.json").read_text())["images"][298:]
    )


@pytest.mark.parametrize(
    ("content", "flags", "said"),
    [
        ("<html>", (), r"c\.json is not JSON .*; give a file of COCO captions"),
        (
            '{"images": [{"filename": "a.jpg"}]}',
            (),
            r"c\.json does not hold what it should \(KeyError: 'id'\); give a file of COCO",
        ),
        ('{"images": [], "annotations": []}', (), "no captions of these photos; it has 0 photos"),
        ("{}", ("--photos=a:b",), ""),
    ],
)
def test_what_is_no_file_of_captions(content, flags, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(SystemExit, match=f"^recaption: error: .*{said}" if said else "2"):
        run(monkeypatch, tmp_path / "c.json", tmp_path / "out", *flags)
    assert said or "argument --photos: invalid span value: 'a:b'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_a_model_people_s_alone(folder, monkeypatch, capsys):
    run(monkeypatch, folder / "captions.json", folder / "half", "--photos=:2")
    assert [each.name for each in (folder / "half").iterdir()] == ["human.json"]
    with pytest.raises(SystemExit):
        run(monkeypatch, folder / "captions.json", folder / "half", "--model=somewhere")
    assert "--model and --images go together" in capsys.readouterr().err
