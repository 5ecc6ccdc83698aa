"""COCO's and Flickr30k's pictures in the containers in which people hold them, each in its real layout.

WRITERS[NAME](folder, numbers) -> the spec of a training source with a row or more about each of the numbered pictures
"""

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from format_cases import tfds_builder
from PIL import Image

ASKED, SAID = "what is it?", "a dog"
FILE = "COCO_{}2014_{:012d}.jpg"


def pixels(number: int, size=(32, 24)) -> np.ndarray:
    """uint8[24,32,3], slow waves that no other number has."""
    rng = np.random.default_rng(number)
    return np.asarray(Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC))


def encoded(number: int, kind: str = "PNG", size=(32, 24)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(number, size)).save(buffer, kind)
    return buffer.getvalue()


def write(folder, name: str, content) -> str:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


def files(folder, names) -> None:
    for number, name in names.items():
        write(folder, name, encoded(number, "JPEG"))


def karpathy(folder, tests, others=(), dataset="coco") -> dict:
    """Karpathy's file, of which `tests` are the test split."""
    images = []
    for n, number in enumerate([*tests, *others]):
        split = "test" if number in tests else "train"
        name = {"filename": f"{number}.jpg", "imgid": n}
        if dataset == "coco":
            name = {"filename": FILE.format("val", number), "filepath": "val2014", "cocoid": number, "imgid": n}
        images.append({**name, "split": split, "sentids": [n], "sentences": [{"raw": SAID, "imgid": n, "sentid": n}]})
    path = write(folder, f"dataset_{dataset}.json", {"images": images, "dataset": dataset})
    return {"kind": "karpathy", "annotations": path, "images": str(folder / dataset), "split": "test"}


def _parquet(folder, columns: dict, name: str = "data/train-00000-of-00001.parquet") -> dict:
    (folder / name).parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / name)
    return {"path": str(folder / name)}


def _held(numbers, path=None) -> list[dict]:
    return [{"bytes": encoded(n), "path": path and path.format(n)} for n in numbers]


def _talk(first="<image>\n") -> list[dict]:
    return [{"from": "human", "value": f"{first}{ASKED}"}, {"from": "gpt", "value": SAID}]


def coco_json(folder, numbers):
    """COCO 2017's captions, whose numbers have their own width in the list of pictures."""
    files(folder / "train2017", {n: f"{n:012d}.jpg" for n in numbers})
    listed = [{"id": n, "file_name": f"{n:012d}.jpg", "license": 3, "height": 24, "width": 32} for n in numbers]
    said = [{"id": 7 * n + k, "image_id": n, "caption": SAID} for n in numbers for k in range(2)]
    path = write(folder, "annotations/captions_train2017.json", {"info": {}, "images": listed, "annotations": said})
    return {"path": path, "images": str(folder / "train2017")}


def llava(folder, numbers):
    files(folder / "images", {n: f"coco/train2017/{n:012d}.jpg" for n in numbers})
    rows = [{"id": f"{n:012d}", "image": f"coco/train2017/{n:012d}.jpg", "conversations": _talk()} for n in numbers]
    return {"path": write(folder, "llava_instruct_150k.json", rows), "images": str(folder / "images")}


def sharegpt(folder, numbers):
    files(folder, {n: f"data/{n}/photo.jpg" for n in numbers})
    said = [{"role": "user", "content": f"<image>{ASKED}"}, {"role": "assistant", "content": SAID}]
    rows = [{"id": FILE.format("train", n), "images": [f"data/{n}/photo.jpg"], "messages": said} for n in numbers]
    return {"path": write(folder, "train.json", rows)}


def table_ids(folder, numbers):
    """JSON lines whose pictures go by files of one's own, and whose ids are COCO's; a hole made them floats."""
    files(folder, {n: f"images/p{at}.jpg" for at, n in enumerate(numbers)})
    rows = [{"image": f"images/p{at}.jpg", "image_id": float(n), "text": SAID} for at, n in enumerate(numbers)]
    return {"path": write(folder, "rows.jsonl", "\n".join(map(json.dumps, rows)))}


def csv_ids(folder, numbers):
    files(folder, {n: f"images/{n}.jpg" for n in numbers})
    lines = ["image_id,question,answer", *(f"{n},{ASKED},{SAID}" for n in numbers)]
    return {"path": write(folder, "rows.csv", "\n".join(lines)), "images": str(folder / "images")}


def own_folder(folder, numbers):
    """Pictures under their bare numbers with texts beside them."""
    for n in numbers:
        write(folder, f"pairs/{n}.jpg", encoded(n, "JPEG"))
        write(folder, f"pairs/{n}.txt", SAID)
    return {"path": str(folder / "pairs")}


def vqav2_parquet(folder, numbers):
    """lmms-lab/VQAv2: integers, and nothing that names a file."""
    given = [[{"answer": SAID, "answer_confidence": "yes", "answer_id": k} for k in range(10)] for _ in numbers]
    many = len(numbers)
    return _parquet(folder, {"question_type": ["what"] * many, "multiple_choice_answer": [SAID] * many, "answers": given,
                             "image_id": [*numbers], "answer_type": ["other"] * many,
                             "question_id": [n * 1000 + 2 for n in numbers], "question": [ASKED] * many,
                             "image": _held(numbers)})  # fmt: skip


def bare_parquet(folder, numbers):
    """Integers in a column, and nothing else that says of what."""
    many = len(numbers)
    return _parquet(folder, {"image": _held(numbers), "caption": [SAID] * many, "image_id": [*numbers]})


def karpathy_parquet(folder, numbers):
    """HuggingFaceM4/COCO: names, COCO's number, and Karpathy's own count in `imgid`, which is no number of COCO's."""
    many = len(numbers)
    return _parquet(folder, {"image": _held(numbers), "caption": [SAID] * many, "cocoid": [*numbers],
                             "imgid": list(range(many))})  # fmt: skip


def struct_path(folder, numbers):
    many = len(numbers)
    held = _held(numbers, "COCO_train2014_{:012d}.jpg")
    return _parquet(folder, {"image": held, "caption": [SAID] * many, "image_id": list(range(many))})


def listed_structs(folder, numbers):
    """The Cauldron: a list of pictures a row, and no other column that names them."""
    texts = [[{"user": ASKED, "assistant": SAID, "source": "vqav2"}] for _ in numbers]
    return _parquet(folder, {"images": [[one] for one in _held(numbers, "val2014/COCO_val2014_{:012d}.jpg")], "texts": texts})


def filename_column(folder, numbers):
    names = [FILE.format("val", n) for n in numbers]
    return _parquet(folder, {"image": _held(numbers, "image.png"), "caption": [[SAID] * 2 for _ in names], "filename": names})


def arrow_stream(folder, numbers):
    """`datasets.save_to_disk`."""
    (folder / "train").mkdir()
    table = pa.table({"image": _held(numbers), "caption": [SAID] * len(numbers), "coco_url": [
        f"http://images.cocodataset.org/val2014/{FILE.format('val', n)}" for n in numbers]})  # fmt: skip
    with pa.ipc.new_stream(str(folder / "train" / "data-00000-of-00001.arrow"), table.schema) as writer:
        writer.write_table(table)
    return {"path": str(folder)}


def webdataset(folder, numbers):
    with tarfile.open(folder / "pairs-000000.tar", "w") as file:
        for at, n in enumerate(numbers):
            texts = json.dumps({"caption": SAID, "filename": f"{n:012d}.jpg", "key": f"{at:09d}"}).encode()
            for name, content in ((f"{at:09d}.jpg", encoded(n, "JPEG")), (f"{at:09d}.json", texts)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
    return {"path": str(folder / "pairs-000000.tar")}


def arrayrecord(folder, numbers):
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(folder / "rows.array_record"), "group_size:1")
    for at, n in enumerate(numbers):
        line = json.dumps({"id": str(at), "image": f"{n:012d}.jpg", "image_id": at, "caption": SAID})
        writer.write(line.encode() + b"\n" + encoded(n, "JPEG"))
    writer.close()
    return {"path": str(folder / "rows.array_record")}


def tfds(folder, numbers):
    """coco_captions as tfds has it."""
    import tensorflow_datasets as tfds

    captions = tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()})
    features = {"image": tfds.features.Image(encoding_format="jpeg"), "image/filename": tfds.features.Text(),
                "image/id": np.int64, "captions": captions}  # fmt: skip
    examples = {
        at: {"image": io.BytesIO(encoded(n, "JPEG")), "image/filename": FILE.format("train", n), "image/id": at,
             "captions": [{"id": n, "text": SAID}]} for at, n in enumerate(numbers)
    }  # fmt: skip
    return {"kind": "tfds", "path": tfds_builder(folder, "OwnCaptions", features, {"train": examples}, "1.1.0")}


WRITERS = (vqav2_parquet, bare_parquet, karpathy_parquet, struct_path, listed_structs, filename_column, arrow_stream, coco_json,
           llava, sharegpt, table_ids, csv_ids, own_folder, webdataset, arrayrecord, tfds)  # fmt: skip


def flickr30k(folder, numbers):
    """nlphuji/flickr30k: `filename`, and a count in `img_id`."""
    names, many = [f"{n}.jpg" for n in numbers], len(numbers)
    return _parquet(folder, {"image": _held(numbers), "caption": [[SAID] * 5] * many, "sentids": [["0"]] * many,
                             "split": ["train"] * many, "img_id": list(map(str, range(many))), "filename": names},
                    "data/TEST-00000-of-00009.parquet")  # fmt: skip
