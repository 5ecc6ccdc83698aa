"""The text and JSON formats: each small file through open_source to a row and its tokens, and the text of every error."""

import json
from pathlib import Path

import pytest
from PIL import Image

from vlax.data.readers.faults import Faults
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.masks import ANSWER
from vlax.text.bpe import train_bpe
from vlax.text.exchanges import spans
from vlax.text.prompts import Encoder

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def message(role, content):
    return {"role": role, "content": content}


def said(*texts):
    return [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(texts)]


KARPATHY = {
    "dataset": "coco",
    "images": [
        {"filename": "a.jpg", "filepath": "val2014", "cocoid": 42, "imgid": 0, "split": "restval",
         "sentences": [{"raw": "A dog\nruns."}, {"raw": "A dog."}]},
        {"filename": "b.jpg", "filepath": "train2014", "cocoid": 43, "split": "train", "sentences": [{"raw": "A cat."}]},
        {"filename": "c.jpg", "filepath": "val2014", "cocoid": 44, "split": "test", "sentences": [{"raw": "An ox."}]},
    ],
}  # fmt: skip
GQA = {
    "0293": {"question": "Is the sky dark?", "imageId": "2354786", "answer": "yes", "types": {"structural": "verify"}},
    "0294": {"question": "What is it?", "imageId": "n1", "answer": "pipe"},
}
TEXTVQA = {
    "data": [
        {"question_id": 34602, "question": "what brand?", "image_id": "003a", "answers": ["one", "dakota", "", "dakota"]},
        {"question_id": 34603, "question": "what?", "image_id": "003b", "answers": ["a"]},
    ]
}
LXMERT = [
    {"img_id": "train_0000", "sentf": {"pvqa": []}, "labelf": {"pvqa": []}},
    {"img_id": "train_0001", "sentf": {"pvqa": ["What is shown?", "Is it benign?"]},
     "labelf": {"pvqa": [{"tumor": 0.3, "carcinoid": 1}, {"No": 1}]}},
    {"img_id": "train_0002", "sentf": {"pvqa": ["Where?"]}, "labelf": {"pvqa": [{"here": 1}]}},
]  # fmt: skip
LLAVA = [
    {"id": "7", "image": "a.jpg", "conversations": said("<image>\nWhat is it?", "A dog.", "Is it red?", "No.")},
    {"id": "8", "conversations": said("Say hi.", "Hi.")},
]
SHAREGPT = [
    {"messages": [message("system", "Be brief."), message("user", "Who is<image> he?"), message("assistant", "Thomas.")],
     "images": ["data/1.jpg"]},
    {"messages": [message("user", [{"type": "image"}, {"type": "text", "text": "Why?"}]), message("assistant", "He slides.")],
     "images": ["data/2.jpg"]},
]  # fmt: skip
TABLE = [
    {"image": "a.jpg", "text": "a dog runs"},
    {"image": "a.jpg", "text": "a  dog"},
    {"image": "", "text": "dogs run"},
    {"id": "q4", "image": "b.jpg", "question": "where?", "answers": ["here", "there", "there"], "answer_type": "place"},
    {"image": "b.jpg", "question": "how many?", "answer": 3, "task": "chat"},
]


@pytest.fixture(scope="module")
def encoder():
    return Encoder(train_bpe(["caption: a dog question: what is it? answer: user: assistant:"] * 4, 300), "plain")


def opened(folder, kind, content, *, train=True, faults=None, **fields):
    """The source of a file that is written first: JSON, or text as it is."""
    (folder / "file").write_text(content if isinstance(content, str) else json.dumps(content))
    if kind == "table":
        spec = {"kind": kind, "path": "file", **fields}
    else:
        spec = {"kind": kind, "annotations": "file", "images": "images", **fields}
    return open_source(spec, str(folder), train=train, **({"faults": faults} if faults else {}))


def rows(source):
    return [source[at] for at in range(len(source))]


def texts(row):
    return [(turn.question, turn.answer) for turn in row.turns]


def test_karpathy(tmp_path):
    source = opened(tmp_path, "karpathy", KARPATHY, split="train+restval")
    assert [(r.id, r.image_id, texts(r)) for r in rows(source)] == [
        ("42#0", "42", [("", "A dog runs.")]), ("42#1", "42", [("", "A dog.")]), ("43#0", "43", [("", "A cat.")]),
    ]  # fmt: skip
    assert source[0].image_name == str(tmp_path / "images" / "val2014" / "a.jpg")
    row = opened(tmp_path, "karpathy", KARPATHY, train=False, split="restval", task="describe")[0]
    assert (row.id, row.task, row.references) == ("42", "describe", ("A dog runs.", "A dog."))
    flickr = [{"filename": "a.jpg", "imgid": 0, "split": "train", "sentences": [{"raw": "A dog."}]}]
    assert opened(tmp_path, "karpathy", {"images": flickr}, split="train")[0].id == "a.jpg#0"


def test_gqa(tmp_path):
    one, two = rows(opened(tmp_path, "gqa", GQA))
    assert (one.id, one.image_id, one.answer_type, one.references) == ("0293", "2354786", "verify", ("yes",))
    assert one.image_name.endswith("images/2354786.jpg") and texts(one) == [("Is the sky dark?", "yes")]
    assert (two.answer_type, two.image_name[-6:]) == ("other", "n1.jpg")


def test_textvqa(tmp_path):
    row = opened(tmp_path, "textvqa", TEXTVQA)[0]
    assert (row.id, row.image_id, texts(row)) == ("34602", "003a", [("what brand?", "dakota")])
    assert row.references == ("one", "dakota", "", "dakota") and row.image_name.endswith("images/003a.jpg")


def test_lxmert(tmp_path):
    one, two, three = rows(opened(tmp_path, "lxmert", LXMERT))
    assert (one.id, one.image_id, texts(one)) == ("train_0001#0", "train_0001", [("What is shown?", "carcinoid")])
    assert (one.references, one.answer_type) == (("carcinoid", "tumor"), "open")
    assert (two.id, two.references, two.answer_type) == ("train_0001#1", ("No",), "yes/no")
    assert three.image_name == str(tmp_path / "images" / "train_0002.jpg")


def test_llava(tmp_path):
    one, two = rows(opened(tmp_path, "llava", LLAVA))
    assert (one.id, one.image_id, one.task) == ("7#0", "a.jpg", "chat")
    assert texts(one) == [("What is it?", "A dog."), ("Is it red?", "No.")]
    assert (two.picture, two.image_id) == (None, "")
    lines = "\n".join(map(json.dumps, LLAVA)) + "\n"
    assert [r.id for r in rows(opened(tmp_path, "llava", lines))] == ["7#0", "8#1"]


def test_sharegpt(tmp_path):
    one, two = rows(opened(tmp_path, "sharegpt", SHAREGPT, strip="data/"))
    assert texts(one) == [("Be brief.\nWho is he?", "Thomas.")] and texts(two) == [("Why?", "He slides.")]
    assert (one.image_id, one.image_name) == ("data/1.jpg", str(tmp_path / "images" / "1.jpg"))
    theirs = [{"says": [{"who": "me", "what": "Hi?"}, {"who": "it", "what": "Hi."}], "pics": "a.jpg", "rules": "Be kind."}]
    columns = {"messages": "says", "images": "pics", "system": "rules", "role_tag": "who", "content_tag": "what",
               "user_tag": "me", "assistant_tag": "it"}  # fmt: skip
    row = opened(tmp_path, "sharegpt", theirs, columns=columns)[0]
    assert (texts(row), row.image_id) == ([("Be kind.\nHi?", "Hi.")], "a.jpg")


def test_several_pictures_in_a_row(tmp_path):
    content = [{**SHAREGPT[0], "images": ["a.jpg", "b.jpg"]}, SHAREGPT[1]]
    both, one = rows(opened(tmp_path, "sharegpt", content))
    names = [str(tmp_path / "images" / name) for name in ("a.jpg", "b.jpg")]
    assert ([p.path for p in both.pictures], both.image_id, len(one.pictures)) == (names, "a.jpg b.jpg", 1)
    source = opened(tmp_path, "sharegpt", content, skip_multi_image=True)
    assert ([r.id for r in rows(source)], source.skipped) == (["row#1"], 1)


def test_table(tmp_path):
    lines = "\n".join(map(json.dumps, TABLE))
    source = opened(tmp_path, "table", lines)
    assert [(r.id, r.image_id, r.task, texts(r), r.references, r.answer_type) for r in rows(source)] == [
        ("0", "a.jpg", "caption", [("", "a dog runs")], (), ""),
        ("1", "a.jpg", "caption", [("", "a dog")], (), ""),
        ("2", "", "caption", [("", "dogs run")], (), ""),
        ("q4", "b.jpg", "question", [("where?", "there")], ("here", "there", "there"), "place"),
        ("4", "b.jpg", "chat", [("how many?", "3")], ("3",), "other"),
    ]
    assert source[0].image_name == str(tmp_path / "a.jpg") and source[2].picture is None
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "rows.jsonl").write_text(lines)
    beside = open_source({"kind": "table", "path": "deeper/rows.jsonl"}, str(tmp_path))
    assert beside[0].image_name == str(tmp_path / "deeper" / "a.jpg")
    evaluated = rows(opened(tmp_path, "table", TABLE, train=False, images="pictures"))
    assert [(r.id, r.references) for r in evaluated] == [
        ("0", ("a dog runs", "a dog")), ("2", ("dogs run",)), ("q4", ("here", "there", "there")), ("4", ("3",)),
    ]  # fmt: skip
    assert evaluated[0].image_name == str(tmp_path / "pictures" / "a.jpg")


@pytest.mark.parametrize("cell", ",\t;")
def test_csv(tmp_path, cell):
    content = f'file{cell}says{cell}answers\na.jpg{cell}"a dog, a{cell}cat\nand ""I"""{cell}\n{cell}only text{cell}\n'
    source = opened(tmp_path, "table", "\ufeff" + content, columns={"image": "file", "text": "says"})
    assert [texts(r) for r in rows(source)] == [
        [("", f'a dog, a{" " if cell == chr(9) else cell}cat and "I"')],
        [("", "only text")],
    ]
    assert [r.image_id for r in rows(source)] == ["a.jpg", ""]
    asked = 'image,question,answers\na.jpg,what?,"[""red"", ""blue"", ""red""]"\n'
    row = opened(tmp_path, "table", asked)[0]
    assert (texts(row), row.references) == ([("what?", "red")], ("red", "blue", "red"))


CASES = {
    "karpathy": ({"split": "train+restval"}, KARPATHY),
    "gqa": ({}, GQA),
    "textvqa": ({}, TEXTVQA),
    "lxmert": ({}, LXMERT),
    "llava": ({}, LLAVA),
    "sharegpt": ({"strip": "data/"}, SHAREGPT),
    "table": ({}, TABLE),
}


@pytest.mark.parametrize("kind", CASES)
def test_every_format_reaches_the_model_and_keeps_the_contract_of_sources(tmp_path, encoder, kind):
    """Tokens with loss on every answer and its EOS; pictures; limit, leak filter and a fingerprint that travels."""
    fields, content = CASES[kind]
    source = opened(tmp_path, kind, content, **fields)
    eos = encoder.tokenizer.eos_token_id
    for row in rows(source):
        tokens, segments = encoder.encode(row)
        learned = [token for token, segment in zip(tokens, segments, strict=True) if segment == ANSWER]
        assert learned == [t for text, own in spans(row, "plain") if own for t in (*encoder.ids(text), eos)]
        assert learned.count(eos) == len(row.turns)
    assert len({row.id for row in rows(source)}) == len(source)
    path = Path(source[0].image_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (5, 3)).save(path.with_suffix(".png"))
    path.with_suffix(".png").rename(path)
    assert (source[0].picture.open().size, source[0].picture.open().mode) == ((5, 3), "RGB")
    assert len(opened(tmp_path, kind, content, limit=1, **fields)) == 1
    spec = {"kind": kind, "path" if kind == "table" else "annotations": "file", "images": "images", **fields}
    gone = open_source(spec, str(tmp_path), drop_image_ids=[source[0].image_id])
    assert gone.dropped and all(row.image_id != source[0].image_id for row in rows(gone))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert opened(elsewhere, kind, content, **fields).fingerprint == source.fingerprint
    prints = {opened(tmp_path, kind, content, **fields, **more).fingerprint for more in ({}, {"limit": 1}, {"train": False})}
    assert len(prints) == 3 and gone.fingerprint not in prints


def without(content, at, key):
    copy = json.loads(json.dumps(content))
    del copy[at][key]
    return copy


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        ("karpathy", {"images": KARPATHY["images"][2:]}, r"file has no split 'train'; it has test \(1 pictures\)"),
        ("karpathy", {"images": KARPATHY["images"][1:2] * 2}, r"images\[1\]: picture 43 occurs twice"),
        ("karpathy", {"images": without(KARPATHY["images"], 1, "sentences")}, r'images\[1\] has no list "sentences"'),
        ("karpathy", {"annotations": []}, r'file has no list "images" \(it has: annotations\); Karpathy files are'),
        ("gqa", without(GQA, "0294", "answer"), r'question 0294 has no "answer": a test or challenge file has none'),
        ("gqa", {"questions": []}, "question questions is a list, not an object; GQA questions are"),
        ("textvqa", {"data": TEXTVQA["data"] * 2}, r"data\[2\]: question_id 34602 occurs twice"),
        ("textvqa", {"data": without(TEXTVQA["data"], 0, "answers")}, r'data\[0\] has no "answers": the test file'),
        ("textvqa", {"data": [{**TEXTVQA["data"][0], "answers": [""]}]}, r'data\[0\]: "answers" is \[\'\'\], not a list of'),
        ("lxmert", without(LXMERT, 1, "labelf"), r'row 1 \(train_0001\) has no "labelf"; LXMERT rows are'),
        ("lxmert", [{**LXMERT[1], "labelf": {"pvqa": [{"a": 1}]}}], "sentf.pvqa and labelf.pvqa are not lists of the same"),
        ("lxmert", [{**LXMERT[1], "labelf": {"pvqa": [{}, {"a": 1}]}}], r"row 0 \(train_0001\), question 0 has no answer"),
        ("lxmert", {"img_id": 3}, r'line 1 \(3\) has no "sentf"'),
        ("llava", [{"conversations": said("a")}], "row 0: a conversation is a list of question and answer pairs, not of 1"),
        ("llava", [{"conversations": said("a", "b")[::-1]}], "row 0: message 0 is from 'assistant'; human and gpt"),
        ("llava", [{"conversations": [{"from": "human"}]}], "row 0, message 0 has no text; LLaVA rows are"),
        ("sharegpt", [{"messages": [message("tool", "x")]}], "row 0: message 0 is from 'tool'.*ShareGPT rows are"),
        ("sharegpt", [LLAVA[1], 3], "row 1 is a int, not an object"),
        ("sharegpt", [{**SHAREGPT[0], "images": [3]}], r'row 0: "images" is \[3\], not a file name'),
        ("sharegpt", '{"messages": []}\n{oops\n', r"line 2 is not JSON .* one whole object a line"),
        ("table", [{"image": "a.jpg"}], r"row 0 has image; looked for question with answer .*columns=\{'text': 'NAME'\}"),
        ("table", [{"image": "a.jpg", "question": "what?"}], "row 0 .*: questions without answers .*columns=.'answer': NAME"),
        ("table", [{"id": 1, "text": "a"}, {"id": "1", "text": "b"}], "row 1: the id 1 occurs twice.*'id': ''"),
        ("table", [{"text": "a", "task": "question"}], "'question' does not fit a row without a question; use caption"),
        ("table", [{"text": [{"a": 1}]}], r'row 0: "text" is \[\{.a.: 1\}\], not a text; its columns are text'),
        ("table", [{"image": "https://a.org/b.jpg", "text": "a"}], r"row 0: .image.: its picture is the address https://a.org/b"),
        ("table", [{"image": "data:image/png;base64,!!", "text": "a"}], "row 0: .image.: its picture is no base64"),
        ("table", [{"pixels": "a/b.jpg", "text": "a"}], "row 0: its field 'pixels' looks like a picture, and nothing reads it"),
        ("table", [{"video": "a.mp4", "text": "a"}], "row 0 has video: vlax sees single pictures"),
        ("llava", [{"conversations": said("<video>\nwhat?", "a")}], "row 0, message 0 has video"),
        ("llava", [{"conversations": said("<image>\nwhat?", "a")}], "row 0: 1 <image> for 0 pictures; mend or remove"),
        ("llava", [{"image": "a.jpg", "conversations": said("<image><image>x", "a")}], "row 0: 2 <image> for 1 pictures"),
        ("table", "image,text\na.jpg,a dog, a cat\n", "line 2 has 3 cells under 2 column names; put texts with commas"),
        ("table", "image,question,answers\na.jpg,what?,[red\n", r'line 2: "answers" is not JSON .*; in CSV it is a JSON list'),
    ],
)  # fmt: skip
def test_errors_name_file_row_and_shape(tmp_path, kind, content, text):
    with pytest.raises(VlaxError, match=text) as caught:
        opened(tmp_path, kind, content, **({"split": "train"} if kind == "karpathy" else {}))
    assert "\n" not in str(caught.value) and str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        ("karpathy", {"split": "train", "task": "question"}, "captions have no task 'question'"),
        ("llava", {"task": "question"}, "conversations have no task 'question'"),
        ("llava", {"task": "caption"}, "row 0 has 2 exchanges; task='caption' takes single ones"),
        ("sharegpt", {"columns": {"message": "x"}}, "columns names no part 'message'; the parts are image, text"),
        ("table", {"columns": {"txt": "x"}}, "columns names no part 'txt'; the parts are image, text"),
        ("table", {"columns": {"text": "says"}}, r"file: row 0 has no column 'says' \(it has: image, text\); mend `columns`"),
        ("table", {"task": "sing"}, "there is no task 'sing'"),
    ],
)
def test_wrong_fields(tmp_path, kind, fields, text):
    with pytest.raises(VlaxError, match=text):
        opened(tmp_path, kind, CASES[kind][1], **fields)


@pytest.mark.parametrize(
    ("kind", "content", "place", "left"),
    [
        ("karpathy", {"images": [{"split": "train", "filename": "x"}, KARPATHY["images"][1]]}, "images[0]", ["43#0"]),
        ("gqa", without(GQA, "0293", "question"), "question 0293", ["0294"]),
        ("textvqa", {"data": [{}, *TEXTVQA["data"]]}, "data[0]", ["34602", "34603"]),
        ("lxmert", [{"img_id": "x"}, *LXMERT], "row 0", ["train_0001#0", "train_0001#1", "train_0002#0"]),
        ("llava", [{}, *LLAVA], "row 0", ["7#1", "8#2"]),
        ("table", [{"text": ""}, *TABLE[:2]], "row 0", ["1", "2"]),
        ("table", [TABLE[0], 3, TABLE[1]], "row 1", ["0", "2"]),
        ("table", "image,text\na.jpg,a dog, a cat\na.jpg,a dog\n", "line 2", ["1"]),
        ("llava", json.dumps(LLAVA[0]) + "\n{oops\n" + json.dumps(LLAVA[1]), "line 2", ["7#0", "8#2"]),
    ],
)
def test_faulty_rows_are_collected_and_the_others_keep_their_names(tmp_path, kind, content, place, left):
    faults = Faults(collect=True)
    source = opened(tmp_path, kind, content, faults=faults, **({"split": "train"} if kind == "karpathy" else {}))
    assert [row.id for row in rows(source)] == left
    assert [(fault.source, fault.row) for fault in faults.found] == [(source.name, place)]


def test_an_image_token_that_is_spoken_of_stays(tmp_path):
    asked = "What does <image> do in SVG?"
    (row,) = rows(opened(tmp_path, "llava", [{"conversations": said(asked, "<image> shows one.")}]))
    assert texts(row) == [(asked, "<image> shows one.")]
    content = [{"image": "a.jpg", "conversations": said("<image>\nWhat?", "A dog.", "Spell the tag.", "<image>")}]
    assert texts(opened(tmp_path, "llava", content)[0]) == [("What?", "A dog."), ("Spell the tag.", "<image>")]


def test_image_tokens_that_do_not_match_are_noted(tmp_path):
    content = [LLAVA[0], {"image": "b.jpg", "conversations": said("x", "y")}, {"conversations": said("<image>", "y")},
               {"image": "c.jpg", "conversations": said("<image><image>x", "y")}]  # fmt: skip
    faults = Faults(collect=True, notes=True)
    assert len(opened(tmp_path, "llava", content, faults=faults)) == 2
    assert [(note.row, note.kind) for note in faults.notes] == [("row 1", "no image token")]
    assert [(fault.row, fault.kind) for fault in faults.found] == [
        ("row 2", "image token without a picture"), ("row 3", "several image tokens"),
    ]  # fmt: skip


def shared(name):
    if not (SHARED / name).exists():
        pytest.skip(f"development data {name} is not here")
    return str(SHARED)


def test_real_karpathy():
    spec = {"kind": "karpathy", "annotations": "formats/karpathy/dataset_flickr8k.json", "images": "flickr8k_dev/images"}
    source = open_source({**spec, "split": "test"}, shared("formats/karpathy"), train=False)
    assert len(source) == 1000 and all(len(row.references) == 5 for row in rows(source))
    assert len(open_source({**spec, "split": "val"}, str(SHARED))) == 5000


def test_real_lxmert_has_the_counts_of_the_paper():
    folder = shared("formats/pathvqa_lxmert")
    sizes = []
    for split in ("train", "val", "test"):
        spec = {"kind": "lxmert", "annotations": f"formats/pathvqa_lxmert/pvqa_{split}.json", "images": split}
        source = open_source(spec, folder)
        sizes.append((len(source), sum(source[at].answer_type == "yes/no" for at in range(len(source)))))
    assert sizes == [(19755, 9806), (6279, 3135), (6761, 3391)] and sum(size for size, _ in sizes) == 32795


@pytest.mark.parametrize("name", ["mllm_demo", "mllm_pt_demo"])
def test_real_sharegpt(encoder, name):
    spec = {"kind": "sharegpt", "annotations": f"formats/sharegpt/{name}.json", "images": "formats/sharegpt", "strip": "data/"}
    for row in rows(open_source(spec, shared("formats/sharegpt"))):
        assert row.picture.open().size[0] == 300 and "<image>" not in str(row.turns)
        assert encoder.encode(row)[0].count(encoder.tokenizer.eos_token_id) == len(row.turns)


def test_real_llava():
    file = "formats/llava/caption_dev_val_llava_DERIVED.json"
    spec = {"kind": "llava", "annotations": file, "images": "flickr8k_dev/images", "task": "caption"}
    source = open_source(spec, shared("formats/llava"))
    assert len(source) == 300 and source[0].turns[0].question == "" and min(source[0].picture.open().size) == 224
