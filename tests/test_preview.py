"""python -m vlax data preview: what it prints, to the letter for two formats, and its one-line errors."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from vlax.commands import front
from vlax.commands.data.preview import evenly
from vlax.data.sources import open_source
from vlax.text.bpe import train_bpe

REPO = Path(__file__).resolve().parent.parent
COCO = {
    "images": [{"id": 17, "file_name": "a.png"}, {"id": 18, "file_name": "b.png"}],
    "annotations": [
        {"image_id": 17, "caption": "a dog runs"},
        {"image_id": 17, "caption": "a dog"},
        {"image_id": 18, "caption": "a cat"},
    ],
}
TALK = [
    {"from": "human", "value": "<image>\nWhat is it?"},
    {"from": "gpt", "value": "A dog.\nIt runs."},
    {"from": "human", "value": "Is it red?"},
    {"from": "gpt", "value": "No."},
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (6, 4)).save("images/a.png")
    Path("coco.json").write_text(json.dumps(COCO))
    Path("llava.json").write_text(json.dumps([{"id": "7", "image": "a.png", "conversations": TALK}]))
    return tmp_path


def preview(capsys, *args):
    assert front.main(["data", "preview", *args]) == 0
    return capsys.readouterr().out


def test_captions(folder, capsys):
    assert preview(capsys, "coco.json") == (
        f"""\
COCO captions (kind coco)
  annotations coco.json
  images      images (1 of 2 file names looked for are there)
  rows        3 (3 caption)
  pictures    2
  captions    3, of 2.3 words

row 1 of 3: 17#0 (caption)
  picture     images/a.png, 6 x 4 pixels
  text        caption:« a dog runs<eos>»

row 2 of 3: 17#1 (caption)
  picture     images/a.png, 6 x 4 pixels
  text        caption:« a dog<eos>»

row 3 of 3: 18#0 (caption)
  picture     images/b.png, missing
  text        caption:« a cat<eos>»

as a source in a config (stage.mixture, or a suite's data):
{{
    "kind": "coco",
    "annotations": "{folder}/coco.json",
    "images": "{folder}/images",
}}

to go on:
  python -m vlax data doctor coco.json
  python -m vlax data prepare coco.json OUT
  python -m vlax train --config=finetune --config.run.model=MODEL --config.stage.data=coco.json --workdir=runs/mine
"""
    )


def test_paths_are_relative_to_the_data_root(folder, capsys, monkeypatch):
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    out = preview(capsys, "coco.json", "--data-root=..")
    assert "  annotations coco.json\n" in out and "a.png, 6 x 4 pixels" in out
    assert f'"annotations": "{folder}/coco.json",' in out and "vlax data doctor coco.json --data-root=..\n" in out
    assert "--config.run.model=MODEL --config.stage.data=../coco.json --workdir=" in out


def test_conversations_with_a_tokenizer_and_another_template(folder, capsys):
    tokenizer = train_bpe(["User: What is it?\nAssistant: A dog."] * 4, 300)
    tokenizer.save_pretrained("tokenizer")
    out = preview(capsys, "llava.json", "--tokenizer=tokenizer", "--templates=instruct", "--images=images")
    assert out.startswith(
        """\
LLaVA conversations (kind llava)
  annotations llava.json
  images      images (1 of 1 file names looked for are there)
  rows        1 (1 chat)
  pictures    1
  questions   2, of 3.0 words
  answers     2, of 2.5 words

row 1 of 1: 7#0 (chat)
  picture     images/a.png, 6 x 4 pixels
  text        User: What is it?\\nAssistant:« A dog.\\nIt runs.<eos>»User: Is it red?\\nAssistant:« No.<eos>»
  tokens      """
    )
    prompt, learned = (int(text.split()[0]) for text in out.split("tokens      ")[1].split("\n")[0].split(", "))
    ids = [len(tokenizer(text)["input_ids"]) for text in (" A dog.\nIt runs.", " No.")]
    assert learned == sum(ids) + 2 and prompt > 10
    assert "doctor llava.json --images=images\n" in out


def test_the_printed_spec_opens_and_the_output_is_the_same_again(folder, capsys, monkeypatch):
    out = preview(capsys, "coco.json")
    assert preview(capsys, "coco.json") == out
    spec = ast.literal_eval(out[out.index("{") : out.index("}") + 1])
    monkeypatch.chdir(REPO)
    assert [open_source(spec)[at].id for at in range(3)] == ["17#0", "17#1", "18#0"]


def test_evaluation_rows_show_their_references(folder, capsys):
    out = preview(capsys, "coco.json", "--evaluation", "--rows=1")
    assert "rows        2 (2 caption)" in out and "captions    3, of 2.3 words" in out
    assert "  references  a dog runs | a dog\n" in out and "row 2" not in out


def test_a_terminal_gets_colours_and_nothing_else_that_moves_it(folder, capsys, monkeypatch):
    Path("evil.csv").write_text("image,text\na.png,a \x1b[2Jdog\n")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    out = preview(capsys, "evil.csv")
    assert "caption:\x1b[32m a \\x1b[2Jdog\x1b[1;32m<eos>\x1b[0m\n" in out and "«" not in out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "caption:« a \\x1b[2Jdog<eos>»\n" in preview(capsys, "evil.csv")


def test_splits_text_alone_long_texts_and_refused_rows(folder, capsys):
    images = [{"filename": "a.png", "split": name, "sentences": [{"raw": "x"}]} for name in ("train", "test")]
    Path("k.json").write_text(json.dumps({"images": images}))
    out = preview(capsys, "k.json", "--split=test")
    assert "Karpathy's splits (pictures: train 1, test 1) (kind karpathy)" in out and "  split       test\n" in out
    assert "doctor k.json --split=test\n" in out and "prepare k.json OUT --split=test\n" in out
    rows = [{"text": "w " * 900}, {"text": ""}, {"text": "fine"}]
    Path("t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = preview(capsys, "t.jsonl")
    assert "  refused     1 rows, first: t.jsonl: line 2: \"text\" is ''" in out and "  picture     none: text alone\n" in out
    assert "w w[... 1,200 characters ...] w w" in out and "  pictures    0, and rows of text alone\n" in out


def test_a_picture_that_does_not_decode_is_said_to_be_broken(folder, capsys):
    Path("images/b.png").write_bytes(b"not a picture")
    assert "  picture     broken: row 18#0: images/b.png: the picture does not decode" in preview(capsys, "coco.json")


def test_evenly():
    assert (evenly(1500, 4), evenly(3, 5), evenly(9, 1)) == ([0, 499, 999, 1499], [0, 1, 2], [0])


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["preview", "none.json"], "there is no file or folder none.json; mend the path"),
        (["preview"], "the following arguments are required: PATH. See python -m vlax data preview --help"),
        (
            ["preview", "coco.json", "--row=3"],
            "Unknown command line flag 'row'. Did you mean: rows? See python -m vlax",
        ),
        (["preview", "coco.json", "--rows=0"], "--rows=0: show at least one row"),
        (["preview", "coco.json", "--split=val"], "--split=val: COCO captions in coco.json know no splits"),
        (["preview", "coco.json", "--templates=plian"], "unknown prompt template 'plian'; there are plain"),
        (["preview", "coco.json", "--templates=chat"], "--templates=chat renders by the tokenizer's own template; add"),
        (["preview", "empty.csv"], "empty.csv: line 2: \"text\" is '', not a text"),
        (["previe", "coco.json"], "there is no command 'previe'; the commands are preview"),
    ],
)
def test_errors_are_one_line(folder, capsys, args, text):
    Path("empty.csv").write_text("image,text\na.png,\n")
    assert front.main(["data", *args]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"vlax: error: {text}") and err.count("\n") == 1


def test_as_a_program():
    command = [sys.executable, "-m", "vlax", "data"]
    run = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0 and run.stderr == ""
    assert "  python -m vlax data preview  " in run.stdout and "vlax train" not in run.stdout
