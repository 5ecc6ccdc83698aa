"""A folder of tiny data files with every kind of damage that the doctor knows, and one without any.

`write_damaged(folder)` writes captions.json (COCO), questions.json + annotations.json (VQAv2), chat.json (LLaVA), images/ and
an evaluation set (evaluation.json, evaluation/). CAPTIONS, QUESTIONS and DIALOGUES say what is to be found in which rows.
"""

import io
import json
import struct
import zlib

import numpy as np
from PIL import Image

GOOD = 6  # pictures p0.jpg ... that nothing is wrong with
# what is found in captions.json: kind -> rows. The id of a caption is IMAGE#NUMBER; a refused one has its place in the file
CAPTIONS = {
    "missing picture": {"10#0"},
    "empty file": {"11#0"},
    "not a picture": {"12#0"},
    "truncated picture": {"13#0"},
    "corrupt picture": {"14#0"},
    "too small": {"15#0"},
    "too large": {"16#0", "17#0"},
    "extreme aspect ratio": {"18#0"},
    "wrong extension": {"19#0"},
    "several frames": {"20#0"},
    "one colour": {"21#0"},
    "16-bit picture": {"22#0"},
    "unusual colours": {"23#0"},
    "transparency": {"24#0"},
    "turned by EXIF": {"25#0"},
    "duplicate picture": {"26#0"},
    "near-duplicate picture": {"27#0"},
    "empty text": {"annotations[24]", "annotations[25]"},
    "row refused": {"annotations[26]", "annotations[27]"},
    "missing field": {"annotations[28]", "images[24]"},
    "unlisted image": {"annotations[29]", "annotations[30]"},
    "control characters": {"0#3"},
    "replacement characters": {"0#4"},
    "invalid unicode": {"0#5"},
    "HTML in the text": {"0#6"},
    "placeholder text": {"0#7"},
    "image token in the text": {"0#8"},
    "long text": {"0#9"},
    "duplicate row": {"1#1"},
}
QUESTIONS = {
    "duplicate id": {"questions[1]"},
    "no annotation": {"questions[2]"},
    "empty text": {"questions[3]", "questions[4]"},
    "unlisted image": {"questions[5]"},
    "missing field": {"annotations[4]"},
    "missing picture": {"7"},
}
DIALOGUES = {
    "roles out of order": {"row 1"},
    "unanswered question": {"row 2"},
    "empty text": {"d#3"},
    "no image token": {"row 4"},
    "several image tokens": {"row 5"},
    "image token without a picture": {"row 6"},
    "missing field": {"row 7"},
    "truncated picture": {"d#8"},
}
# of captions.json against the evaluation set
OVERLAP = {
    "same picture as in an evaluation set": {"0"},
    "same name as in an evaluation set": {"1"},
    "near duplicate of an evaluation picture": {"2"},
    "same name as in an evaluation set, another picture": {"3"},
}


def picture(seed: int, size=(48, 40)) -> Image.Image:
    """A picture of soft colours, unlike that of any other seed."""
    colours = np.random.default_rng(seed).integers(30, 226, (9, 9, 3)).astype(np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def huge_png(side: int) -> bytes:
    """A PNG of a few bytes that says it has side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")


def damaged_pictures() -> dict[str, bytes | None]:
    """{file name: its bytes}, for the pictures 10, 11, ... of captions.json; None: there is no file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg, png = encoded(picture(12)), encoded(picture(13), "PNG")
    deep = Image.fromarray(np.linspace(0, 65535, 48 * 40).reshape(40, 48).astype(np.uint16))
    return {
        "10.jpg": None,
        "11.jpg": b"",
        "12.jpg": b"<html>404 Not Found</html>",
        "13.jpg": jpeg[: len(jpeg) // 2],
        "14.png": png[:100] + bytes(200) + png[300:],
        "15.png": encoded(picture(15, (4, 4)), "PNG"),
        "16.png": huge_png(12_000),
        "17.png": huge_png(60_000),  # beyond what Pillow opens
        "18.png": encoded(picture(18, (640, 20)), "PNG"),
        "19.jpg": encoded(picture(19), "PNG"),
        "20.gif": encoded(picture(20), "GIF", save_all=True, append_images=[picture(120)]),
        "21.jpg": encoded(Image.new("RGB", (32, 32), (200, 10, 10))),
        "22.png": encoded(deep, "PNG"),
        "23.jpg": encoded(picture(23).convert("CMYK")),
        "24.png": encoded(picture(24).convert("RGBA"), "PNG"),
        "25.jpg": encoded(picture(25), exif=exif),
        "26.jpg": encoded(picture(0)),
        "27.jpg": encoded(picture(1).resize((60, 64)), quality=60),
    }


def write(path, data) -> None:
    path.write_text(json.dumps(data))


def write_pictures(folder, files: dict[str, bytes | None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content)


def good_pictures() -> dict[str, bytes]:
    return {f"p{i}.jpg": encoded(picture(i)) for i in range(GOOD)}


def write_damaged(folder) -> None:
    """The damaged folder; the module's docstring says what is in it."""
    damaged = damaged_pictures()
    write_pictures(folder / "images", {**good_pictures(), **damaged})
    images = [{"id": i, "file_name": f"p{i}.jpg"} for i in range(GOOD)]
    images += [{"id": int(name[:2]), "file_name": name} for name in damaged]  # images[6] to [23]
    images.append({"id": 99})
    said = [{"image_id": image["id"], "caption": f"picture {image['id']}"} for image in images[:-1]]  # annotations[0] to [23]
    said += [
        {"image_id": 0, "caption": ""},
        {"image_id": 0, "caption": " \n"},
        {"image_id": 1, "caption": 17},  # annotations[26]
        ["not an object"],
        {"caption": "of no picture"},
        {"image_id": 98, "caption": "an unlisted picture"},
        {"image_id": 99, "caption": "a picture without a file name"},
    ]
    odd = ("a\x07dog", "caf\ufffd", "a \ud800 dog", "a <b>dog</b> &amp; a cat", "n/a", "<image>\na dog", "dog " * 600)
    said += [{"image_id": 0, "caption": text} for text in odd]
    said[26]["image_id"] = 5
    said.append({"image_id": 1, "caption": "picture 1"})
    write(folder / "captions.json", {"images": images, "annotations": said})
    _write_questions(folder)
    _write_dialogues(folder)
    evaluation = {"other0.png": encoded(picture(0).convert("RGB"), "JPEG"), "p3.jpg": encoded(picture(103)),
                  "other2.webp": encoded(picture(2).resize((33, 50)), "WEBP", quality=70)}  # fmt: skip
    write_pictures(folder / "evaluation", evaluation)
    files = {"e0": "other0.png", "e1": "p1.jpg", "e2": "other2.webp", "e3": "p3.jpg"}  # p1.jpg is known by name alone
    write(folder / "evaluation.json", {
        "images": [{"id": key, "file_name": name} for key, name in files.items()],
        "annotations": [{"image_id": key, "caption": "seen in evaluation only"} for key in files],
    })  # fmt: skip


def _write_questions(folder) -> None:
    def asked(key, text="is it red?", image=0):
        return {"question_id": key, "image_id": image, "question": text}

    questions = [
        asked(1),
        asked(1),
        asked(2),
        asked(3),
        asked(4, " "),
        asked(5, image=77),
        asked(6, "what is it?"),
        asked(7, image=10),
    ]
    answers = [{"question_id": key, "answers": [{"answer": "yes"}] * 3} for key in (1, 4, 5, 6, 7)]
    answers[-1:-1] = [{"answers": [{"answer": "no"}]}]
    answers.append({"question_id": 3, "answers": [{"answer": " "}]})
    images = [{"id": 0, "file_name": "p0.jpg"}, {"id": 10, "file_name": "10.jpg"}]
    write(folder / "questions.json", {"questions": questions, "images": images})
    write(folder / "annotations.json", {"annotations": answers})


def _write_dialogues(folder) -> None:
    def row(*texts, image="p2.jpg", roles=("human", "gpt")):
        said = [{"from": roles[at % 2], "value": text} for at, text in enumerate(texts)]
        return {"id": "d", "conversations": said, **({"image": image} if image else {})}

    rows = [
        row("<image>\nWhat is it?", "A dog.", "Of what colour?", "Brown."),
        row("<image>\nWhat?", "A dog.", roles=("gpt", "human")),
        row("<image>\nWhat is there?", "A cat.", "And there?"),
        row("<image>\nIs it?", " "),
        row("Where?", "There."),
        row("<image>\n<image>\nWhich one?", "The left one."),
        row("<image>\nWhat is here?", "A bird.", image=""),
        {"id": "d", "image": "p2.jpg"},
        row("<image>\nWhose is it?", "Mine.", image="13.jpg"),
    ]
    write(folder / "chat.json", rows)


def write_clean(folder) -> None:
    """COCO, VQAv2 and LLaVA files of which nothing is to be said, over pictures of their own, and an evaluation set."""
    write_pictures(folder / "images", {f"p{i}.jpg": encoded(picture(i)) for i in range(12)})
    captions = [{"image_id": i, "caption": f"picture {i}, where a < b"} for i in range(6)]
    write(
        folder / "captions.json", {"images": [{"id": i, "file_name": f"p{i}.jpg"} for i in range(6)], "annotations": captions}
    )
    said = [[{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"<person> {i}"}] for i in range(6)]
    rows = [{"id": f"{i}", "image": f"p{i}.jpg", "conversations": said[i]} for i in range(6)]
    write(folder / "chat.json", rows)
    questions = [{"question_id": i, "image_id": i, "question": "what does he hold?"} for i in range(6)]
    names = [{"id": i, "file_name": f"p{i}.jpg"} for i in range(6)]
    write(folder / "questions.json", {"questions": questions, "images": names})
    write(folder / "annotations.json", {"annotations": [{"question_id": i, "answers": [{"answer": "none"}]} for i in range(6)]})
    write(folder / "evaluation.json", {
        "images": [{"id": f"e{i}", "file_name": f"p{i}.jpg"} for i in range(6, 12)],
        "annotations": [{"image_id": f"e{i}", "caption": "another"} for i in range(6, 12)],
    })  # fmt: skip
