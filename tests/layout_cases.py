"""Small files in the layouts in which people publish and keep their data: the same four squares in each.

LAYOUTS[NAME](folder) -> what `preview` is given. `expected` says what each is read as.
"""

import base64
import csv
import io
import json
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200), "grey": (90, 90, 90)}
ASKED = "What colour is the square?"


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGB", (24, 16), COLOURS[colour])
    image.putpixel((0, 0), (1, 2, 3))
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _files(folder: Path, pattern: str = "images/{}.png") -> dict[str, str]:
    """{colour: the name of its picture below `folder`}."""
    names = {colour: pattern.format(colour, n=n) for n, colour in enumerate(COLOURS)}
    for colour, name in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(colour))
    return names


def _write(folder: Path, name: str, content) -> str:
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    elif name.endswith(".jsonl"):
        (folder / name).write_text("\n".join(map(json.dumps, content)))
    else:
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder / name)


def _parquet(folder: Path, columns: dict, name: str = "train.parquet") -> str:
    pq.write_table(pa.table(columns), folder / name)
    return str(folder / name)


def _held(path=None) -> list[dict]:
    return [{"bytes": png(colour), "path": path and path.format(n)} for n, colour in enumerate(COLOURS)]


def _chat(image, answer: str, ask: str = f"<image>\n{ASKED}") -> dict:
    return {"id": answer, "image": image, "conversations": [{"from": "human", "value": ask}, {"from": "gpt", "value": answer}]}


# Questions


def slake(folder):
    names = _files(folder, "imgs/xmlab{n}/source_{}.jpg")
    rows = [{"img_id": n, "img_name": name.removeprefix("imgs/"), "question": ASKED, "answer": colour, "q_lang": "en",
             "location": "Abdomen", "answer_type": "OPEN", "base_type": "vqa", "qid": n}
            for n, (colour, name) in enumerate(names.items())]  # fmt: skip
    return _write(folder, "train.json", rows)


def vqa_rad(folder):
    names = _files(folder, "VQA_RAD Image Folder/synpic{n}.jpg")
    rows = [{"qid": n, "phrase_type": "freeform", "image_name": Path(name).name, "image_organ": "HEAD", "question": ASKED,
             "question_type": "PRES", "answer": colour, "answer_type": "CLOSED"}
            for n, (colour, name) in enumerate(names.items())]  # fmt: skip
    return _write(folder, "trainset.json", rows)


def daquar(folder):
    names = _files(folder, "images/image{n}.png")
    lines = ["question,answer,image_id", *(f"{ASKED},{colour},{Path(name).stem}" for colour, name in names.items())]
    return _write(folder, "data_train.csv", "\n".join(lines))


def clevr(folder):
    names = _files(folder, "images/train/CLEVR_train_{n:06d}.png")
    rows = [{"split": "train", "image_index": n, "image_filename": Path(name).name, "question": ASKED, "answer": colour,
             "question_index": n, "program": [{"inputs": [], "function": "scene", "value_inputs": []}]}
            for n, (colour, name) in enumerate(names.items())]  # fmt: skip
    return _write(folder, "CLEVR_train_questions.json", {"info": {"split": "train"}, "questions": rows})


def vizwiz(folder):
    names = _files(folder, "train/VizWiz_train_{n:08d}.jpg")
    rows = [{"image": Path(name).name, "question": ASKED, "answer_type": "other", "answerable": 1,
             "answers": [{"answer": one, "answer_confidence": "yes"} for one in (colour, colour, "unsuitable")]}
            for colour, name in names.items()]  # fmt: skip
    return _write(folder, "train.json", rows)


def chartqa(folder):
    return _parquet(folder, {"image": _held(), "query": [ASKED] * 4, "label": [[colour] for colour in COLOURS],
                             "human_or_machine": [0] * 4})  # fmt: skip


def scienceqa(folder):
    picks = [["red", "green"], ["red", "green"], ["grey", "blue"], ["grey", "blue"]]
    return _parquet(folder, {"image": _held(), "question": [ASKED] * 4, "choices": picks, "answer": [0, 1, 1, 0],
                             "hint": [""] * 4, "task": ["closed choice"] * 4, "lecture": ["Colours."] * 4})  # fmt: skip


def aokvqa(folder):
    picks = [["red", "green"], ["red", "green"], ["grey", "blue"], ["grey", "blue"]]
    return _parquet(folder, {"image": _held(), "question_id": list("abcd"), "question": [ASKED] * 4, "choices": picks,
                             "correct_choice_idx": [0, 1, 1, 0], "rationales": [["so"]] * 4})  # fmt: skip


def vlmevalkit(folder):
    cells = [["index", "image", "question", "A", "B", "answer", "category"]]
    for n, colour in enumerate(COLOURS):
        cells.append([n, base64.b64encode(png(colour)).decode(), ASKED, "black", colour, "B", "colour"])
    with (folder / "MMBench.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(cells)
    return str(folder / "MMBench.tsv")


def paligemma(folder):
    rows = [{"image": name, "prefix": ASKED, "suffix": colour} for colour, name in _files(folder).items()]
    return _write(folder, "train.jsonl", rows)


def answers_with_holes(folder):
    """Integer answers beside nulls, as pandas writes them: floats."""
    return _parquet(folder, {"image": _held(), "question": ["how many?"] * 4, "answer": pa.array([1.0, 2.0, None, 3.0])})


def ids_with_endings(folder):
    names = _files(folder, "images/{n}.jpg")
    rows = [{"image_id": f"{n}.jpg", "question": ASKED, "answer": colour} for n, colour in enumerate(names)]
    return _write(folder, "rows.json", rows)


def vqav2_lmms(folder):
    given = [[{"answer": colour, "answer_confidence": "yes", "answer_id": n} for n in range(10)] for colour in COLOURS]
    return _parquet(folder, {"question_type": ["what"] * 4, "multiple_choice_answer": list(COLOURS), "answers": given,
                             "image_id": [7, 8, 9, 10], "answer_type": ["other"] * 4, "question_id": [70, 80, 90, 100],
                             "question": [ASKED] * 4, "image": _held()})  # fmt: skip


def docvqa(folder):
    names = _files(folder, "documents/{n}_1.png")
    rows = [{"questionId": n, "question": ASKED, "image": name, "docId": n, "answers": [colour, colour.title()],
             "data_split": "train"} for n, (colour, name) in enumerate(names.items())]  # fmt: skip
    return _write(folder, "train_v1.0.json", {"dataset_name": "docvqa", "dataset_split": "train", "data": rows})


def ocr_vqa(folder):
    return _parquet(folder, {"image": _held(), "image_id": list("wxyz"), "questions": [[ASKED]] * 4,
                             "answers": [[colour] for colour in COLOURS], "title": ["t"] * 4})  # fmt: skip


def mathvista(folder):
    """The name of a file beside the picture itself."""
    return _parquet(folder, {"pid": list("1234"), "question": [ASKED] * 4, "image": [f"images/{n}.jpg" for n in range(4)],
                             "decoded_image": _held(), "answer": list(COLOURS)})  # fmt: skip


def vqa_med(folder):
    names = _files(folder, "Train_images/synpic{n}.jpg")
    return _write(folder, "All_QA_Pairs_train.txt", "\n".join(f"{Path(n).name}|{ASKED}|{c}" for c, n in names.items()))


def keyed_by_id(folder):
    rows = {
        str(n): {"image": name, "question": ASKED, "answer": colour} for n, (colour, name) in enumerate(_files(folder).items())
    }
    return _write(folder, "rows.json", rows)


def swift(folder):
    rows = [{"query": ASKED, "response": colour, "images": [name]} for colour, name in _files(folder).items()]
    return _write(folder, "train.jsonl", rows)


# Dialogues


def qwen_vl(folder):
    rows = [{"id": colour, "conversations": [{"from": "user", "value": f"Picture 1: <img>{name}</img>\n{ASKED}"},
                                             {"from": "assistant", "value": colour}]}
            for colour, name in _files(folder).items()]  # fmt: skip
    return _write(folder, "train.json", rows)


def trl_completion(folder):
    rows = [{"prompt": [{"role": "user", "content": ASKED}], "completion": [{"role": "assistant", "content": colour}],
             "images": [name]} for colour, name in _files(folder).items()]  # fmt: skip
    return _write(folder, "train.jsonl", rows)


def pairs(folder):
    rows = [{"image": name, "conversation": [[ASKED, colour]]} for colour, name in _files(folder).items()]
    return _write(folder, "train.jsonl", rows)


def xtuner(folder):
    rows = [{"conversation": [{"input": f"<image>\n{ASKED}", "output": colour}], "image": name}
            for colour, name in _files(folder).items()]  # fmt: skip
    return _write(folder, "train.json", rows)


def cauldron(folder):
    texts = [[{"user": ASKED, "assistant": colour, "source": "own"}] for colour in COLOURS]
    return _parquet(folder, {"images": [[one] for one in _held()], "texts": texts})


def finevision(folder):
    texts = [[{"user": ASKED, "assistant": colour}] for colour in COLOURS]
    return _parquet(folder, {"images": [[one] for one in _held("{}.png")], "texts": texts, "source": ["own"] * 4,
                             "relevance_min": [5] * 4})  # fmt: skip


def trl(folder):
    said = [[{"role": "user", "content": f"<image>{ASKED}"}, {"role": "assistant", "content": colour}] for colour in COLOURS]
    return _parquet(folder, {"images": [[one] for one in _held()], "messages": said})


def trl_parts(folder):
    """TRL's conversational form: parts without the picture, which stands in a column."""
    said = [[{"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": ASKED}]},
             {"role": "assistant", "content": [{"type": "text", "text": colour}]}] for colour in COLOURS]  # fmt: skip
    return _parquet(folder, {"images": [[one] for one in _held()], "messages": said})


def onevision(folder):
    said = [_chat(None, colour)["conversations"] for colour in COLOURS]
    return _parquet(folder, {"id": list(COLOURS), "image": _held(), "conversations": said, "data_source": ["own"] * 4})


def _data_address(colour: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(colour)).decode()}"


def qwen(folder):
    rows = [{"messages": [{"role": "user", "content": [{"type": "image", "image": name}, {"type": "text", "text": ASKED}]},
                          {"role": "assistant", "content": [{"type": "text", "text": colour}]}]}
            for colour, name in _files(folder).items()]  # fmt: skip
    return _write(folder, "train.jsonl", rows)


def openai(folder):
    rows = [{"messages": [{"role": "system", "content": ""}, {"role": "user", "content": [
                {"type": "text", "text": ASKED},
                {"type": "image_url", "image_url": {"url": _data_address(colour)}}]},
             {"role": "assistant", "content": colour}]} for colour in COLOURS]  # fmt: skip
    return _write(folder, "train.jsonl", rows)


def llava_other_key(folder):
    rows = [{key if key != "image" else "image_path": value for key, value in _chat(name, colour).items()}
            for colour, name in _files(folder).items()]  # fmt: skip
    return _write(folder, "train.json", rows)


def llava_file_address(folder):
    rows = [_chat((folder / name).as_uri(), colour) for colour, name in _files(folder, "images/a {}.png").items()]
    return _write(folder, "train.json", rows)


def llava_thanks(folder):
    """The last word is the user's, and has no answer."""
    rows = [_chat(name, colour) for colour, name in _files(folder).items()]
    for row in rows:
        row["conversations"].append({"from": "human", "value": "thanks"})
    return _write(folder, "train.json", rows)


def json_in_a_column(folder):
    said = [json.dumps(_chat(None, colour)["conversations"]) for colour in COLOURS]
    return _parquet(folder, {"image": _held(), "conversations": said})


# Captions


def keyed_by_name(folder):
    return _write(folder, "captions.json", {name: [f"a {colour} square"] for colour, name in _files(folder).items()})


def coco_results(folder):
    """Captions as programs hand them in, with COCO's numbers alone."""
    names = _files(folder, "val2014/{n:012d}.jpg")
    return _write(folder, "results.json", [{"image_id": n, "caption": f"a {colour} square"} for n, colour in enumerate(names)])


def numbered_captions(folder):
    lines = [f"{name},a {colour} square,one {colour} square" for colour, name in _files(folder).items()]
    return _write(folder, "rows.csv", "\n".join(["Image Path,Caption 1,Caption 2", *lines]))


def headerless(folder):
    return _write(folder, "pairs.tsv", "\n".join(f"{name}\ta {colour} square" for colour, name in _files(folder).items()))


def flickr30k_hf(folder):
    said = [[f"a {colour} square"] for colour in COLOURS]
    names = [f"{n}.jpg" for n in range(4)]
    rows = {"image": _held(), "caption": said, "split": ["train"] * 4, "sentids": [["0"]] * 4, "img_id": list("0123"),
            "filename": names}  # fmt: skip
    other = rows | {"caption": [["never seen"]] * 4, "split": ["test", "val"] * 2}
    table = pa.concat_tables([pa.table(rows), pa.table(other)])
    pq.write_table(table, folder / "TEST-00000-of-00001.parquet")  # so its only file is called, with all splits in a column
    return str(folder)


def flickr8k_tokens(folder):
    names = _files(folder, "Images/{n}_0a1b.jpg")
    lines = [f'{Path(name).name}#{k}\tA {colour} "square , {k}' for colour, name in names.items() for k in range(2)]
    return _write(folder, "Flickr8k.token.txt", "\n".join(lines) + "\n")


def flickr30k_results(folder):
    names = _files(folder, "flickr30k_images/{n}000.jpg")
    lines = [f'{Path(name).name}| {k}| A {colour} "square , {k} .' for colour, name in names.items() for k in range(2)]
    return _write(folder, "results.csv", "\n".join(["image_name| comment_number| comment", *lines]))


def flickr8k_captions(folder):
    names = _files(folder, "Images/{n}_0a1b.jpg")
    lines = [f"{Path(name).name},A {colour} square" for colour, name in names.items()]
    return _write(folder, "captions.txt", "\n".join(["image,caption", *lines]))


def spreadsheet(folder):
    """UTF-16 with a byte order mark and semicolons, as spreadsheets of some languages export."""
    lines = [f"{name.replace('/', chr(92))};ein {colour} Quadrat, klein" for colour, name in _files(folder).items()]
    return _write(folder, "rows.csv", "\n".join(["image;caption", *lines]).encode("utf-16"))


def windows(folder):
    lines = [f"{name},un carré {colour}" for colour, name in _files(folder).items()]
    return _write(folder, "rows.csv", "\n".join(["image,caption", *lines]).encode("cp1252"))


def pandas_index(folder):
    lines = [f"{n},{name},a {colour} square" for n, (colour, name) in enumerate(_files(folder).items())]
    return _write(folder, "rows.csv", "\n".join([",image,caption", *lines]))


def beside(folder):
    for colour, name in _files(folder, "photos/{n}.jpg").items():
        (folder / name).with_suffix(".txt").write_text(f"a {colour} square\n")
    return str(folder / "photos")


def imagefolder(folder):
    names = _files(folder, "train/{}.png")
    rows = [{"file_name": Path(name).name, "text": f"a {colour} square"} for colour, name in names.items()]
    return _write(folder, "train/metadata.jsonl", rows)


def coco_floats(folder):
    names = _files(folder)
    images = [{"id": float(n), "file_name": name} for n, name in enumerate(names.values())]
    said = [{"id": n, "image_id": n, "caption": f"a {colour} square"} for n, colour in enumerate(names)]
    return _write(folder, "captions.json", {"images": images, "annotations": said})


def other_unicode(folder):
    """Names as a Mac writes them to a disk, and as a keyboard types them into a file."""
    names = _files(folder, unicodedata.normalize("NFD", "images/carré {}.png"))
    rows = [{"image": unicodedata.normalize("NFC", name), "text": f"a {c} square"} for c, name in names.items()]
    return _write(folder, "rows.jsonl", rows)


def captions_with_holes(folder):
    return _parquet(folder, {"image": _held(), "caption": [["", f"a {colour} square", None] for colour in COLOURS]})


def split_column(folder):
    held = _held() * 2
    texts = [f"a {colour} square" for colour in COLOURS] + ["never seen"] * 4
    return _parquet(folder, {"image": held, "caption": texts, "split": ["train"] * 4 + ["val", "test"] * 2}, "data.parquet")


def split_column_of_csv(folder):
    lines = [f"{name},a {colour} square,train\n{name},never seen,test" for colour, name in _files(folder).items()]
    return _write(folder, "rows.csv", "\n".join(["filename,title_caption,split", *lines]).replace("title_caption", "caption"))


def nocaps_like(folder):
    """Captions as a list in JSON lines."""
    rows = [
        {"image": name, "captions": [f"a {colour} square", f"one {colour} square"]} for colour, name in _files(folder).items()
    ]
    return _write(folder, "rows.jsonl", rows)


QUESTIONS = (slake, vqa_rad, daquar, clevr, vizwiz, chartqa, scienceqa, aokvqa, vlmevalkit, paligemma, ids_with_endings,
             vqav2_lmms, docvqa, ocr_vqa, mathvista, vqa_med, keyed_by_id, swift)  # fmt: skip
DIALOGUES = (cauldron, finevision, trl, trl_parts, onevision, qwen, openai, llava_other_key, llava_file_address, llava_thanks,
             json_in_a_column, qwen_vl, trl_completion, pairs, xtuner)  # fmt: skip
CAPTIONS = (flickr8k_tokens, flickr30k_results, flickr8k_captions, spreadsheet, windows, pandas_index, beside, imagefolder,
            coco_floats, other_unicode, captions_with_holes, split_column, split_column_of_csv, nocaps_like,
            keyed_by_name, coco_results, numbered_captions, headerless, flickr30k_hf)  # fmt: skip
TWICE = (numbered_captions, flickr8k_tokens, flickr30k_results, nocaps_like)  # two captions a picture
