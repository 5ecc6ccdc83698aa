"""Stand-ins of what the full-size recipe reads: its data sets in the layout of their publishers, a few rows each, and its two
backbones in Hugging Face layout, with the layer shapes of the real ones and random weights."""

import io
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vlax.models.build import abstract_part
from vlax.models.decoder import Decoder
from vlax.models.vision import VisionTower
from vlax.pretrained.families import known
from vlax.pretrained.families.rules import Family
from vlax.pretrained.writing.writer import write_decoder, write_vision
from vlax.storage.hub import read_config
from vlax.text.bpe import train_bpe

ROWS = 24
COLOURS = ("red", "green", "blue", "grey", "white", "black")
THINGS = ("kite", "boat", "lamp", "bench")
# config.json of google/siglip-so400m-patch14-224 and of Qwen/Qwen2.5-0.5B, as far as shapes follow from them
TOWER: dict[str, Any] = {
    "model_type": "siglip_vision_model", "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
    "num_attention_heads": 16, "patch_size": 14, "image_size": 224, "vision_use_head": False,
}  # fmt: skip
DECODER: dict[str, Any] = {
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "vocab_size": 151936, "rope_theta": 1e6, "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 32768, "hidden_act": "silu",
}  # fmt: skip


def _thing(number: int) -> str:
    return f"{COLOURS[number % 6]} {THINGS[number % 4]}"


def _jpeg(number: int) -> bytes:
    out = io.BytesIO()
    blocks = np.random.default_rng(number).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    Image.fromarray(blocks).resize((80, 60), Image.Resampling.NEAREST).save(out, "JPEG")
    return out.getvalue()


def _put(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content) if isinstance(content, bytes) else file.write_text(json.dumps(content))


def _turns(asked: str, answer: str, more: bool = False) -> list[dict]:
    texts = [f"{asked}\n<image>", answer, *(["Is there a dog?", "No."] if more else [])]
    return [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(texts)]


def write_data(root: Path) -> None:
    """Every file that `configs/*.py:0.9b` name below run.data_root. No picture is in two sets."""
    long = [f"A {_thing(n)} stands alone before a plain wall. " * (1 + n % 9) for n in range(ROWS)]
    for file, images, name, first, talk in (
        ("llava_pretrain/blip_laion_cc_sbu_558k", "llava_pretrain/images", "00000/{:09d}.jpg", 0,
         lambda n: _turns("Say it.", f"a {_thing(n)}")),
        ("sharegpt4v/share-captioner_coco_lcs_sam_1246k_1107", "sharegpt4v/images", "sam/images/sa_{}.jpg", 100,
         lambda n: _turns("Describe it.", long[n])),
        ("llava_instruct/llava_instruct_150k", "coco/train2017", "{:012d}.jpg", 300,
         lambda n: _turns("What is there?", f"A {_thing(n)}.", more=True)),
    ):  # fmt: skip
        talks = [{"id": f"{first + n:09d}", "image": name.format(first + n), "conversations": talk(n)} for n in range(ROWS)]
        for n in range(ROWS):
            _put(root / images / name.format(first + n), _jpeg(first + n))
        _put(root / f"{file}.json", talks)
    _coco(root)
    for split, first in (("train", 1000), ("val", 2000)):
        _vqav2(root / "vqav2", split, first)
    _karpathy(root / "flickr30k/dataset_flickr30k.json", "flickr30k", root / "flickr30k/shown", "{}.jpg", 3000)
    for part, first in (("train", 4000), ("validation", 4100), ("test", 4200)):
        rows = [(_jpeg(first + n), f"what colour is part {n}?", COLOURS[n % 6]) for n in range(ROWS)]
        shown = [{"bytes": image, "path": None} for image, _, _ in rows]
        table = pa.table({"image": shown, "question": [row[1] for row in rows], "answer": [row[2] for row in rows]})
        (root / "pathvqa/data").mkdir(parents=True, exist_ok=True)
        pq.write_table(table, root / f"pathvqa/data/{part}-00000-of-00001.parquet")


def _coco(root: Path) -> None:
    names = {1000 + n: f"COCO_train2014_{1000 + n:012d}.jpg" for n in range(ROWS)}
    for number, name in names.items():
        _put(root / "coco/train2014" / name, _jpeg(number))
    images = [{"license": 1, "file_name": name, "height": 60, "width": 80, "id": n} for n, name in names.items()]
    said = [{"image_id": n, "id": 10 * n + k, "caption": f"{('A', 'One')[k]} {_thing(n)}."} for n in names for k in range(2)]
    file = {"info": {"year": 2014}, "licenses": [], "images": images, "annotations": said}
    _put(root / "coco/annotations/captions_train2014.json", file)
    _karpathy(root / "coco/dataset_coco.json", "coco", root / "coco/val2014", "COCO_val2014_{:012d}.jpg", 2000)


def _karpathy(file: Path, dataset: str, folder: Path, pattern: str, first: int) -> None:
    images = []
    for n in range(first, first + ROWS):
        name, texts = pattern.format(n), [f"a {_thing(n)}", f"there is a {_thing(n)} here"]
        sentences = [{"tokens": text.split(), "raw": text, "imgid": n, "sentid": 5 * n + k} for k, text in enumerate(texts)]
        row = {
            "filename": name,
            "imgid": n,
            "split": ("val", "test")[n % 2],
            "sentences": sentences,
            "sentids": [5 * n, 5 * n + 1],
        }
        images.append(row | ({"filepath": folder.name, "cocoid": n} if dataset == "coco" else {}))
        _put(folder / name, _jpeg(n))
    _put(file, {"images": images, "dataset": dataset})


def _vqav2(folder: Path, split: str, first: int) -> None:
    about = {"info": {"year": 2017}, "data_type": "mscoco", "data_subtype": f"{split}2014", "license": {}}
    asked, answered = [], []
    for n in range(first, first + ROWS):
        ids, colour = {"image_id": n, "question_id": 1000 * n}, COLOURS[n % 6]
        asked.append({**ids, "question": "What colour is it?"})
        said = [{"answer": colour, "answer_confidence": "yes", "answer_id": k + 1} for k in range(10)]
        answered.append({**ids, "question_type": "what color is", "multiple_choice_answer": colour, "answers": said,
                         "answer_type": "other"})  # fmt: skip
    _put(folder / f"v2_OpenEnded_mscoco_{split}2014_questions.json", {**about, "task_type": "Open-Ended", "questions": asked})
    _put(folder / f"v2_mscoco_{split}2014_annotations.json", {**about, "annotations": answered})


def write_backbones(root: Path, layers: int = 0, vocab: int = 0) -> tuple[str, str]:
    """(tower, decoder), directories: as deep as the real ones or cut to so many layers each, with so many rows of vocabulary or
    all; weights are random, in bfloat16 as they are published."""
    rng = np.random.default_rng(0)
    out: list[str] = []
    for part, values in (("vision", TOWER), ("decoder", DECODER)):
        cut = {**values, **({"num_hidden_layers": layers} if layers else {})}
        if vocab and part == "decoder":
            cut["vocab_size"] = vocab
        where = root / f"{part}_config"
        _put(where / "config.json", cut)
        family: Family[Any] = (known.VISION if part == "vision" else known.DECODER)[values["model_type"]]
        made = family.config(read_config(where, [values["model_type"]]))
        kind = VisionTower if part == "vision" else Decoder
        params = {f"{part}/{path}": _drawn(rng, path, shape) for path, shape in abstract_part(kind, made).items()}
        if part == "vision":
            write_vision(root / part, made, params)
        else:
            text = [f"{_thing(n)} stands alone before a plain wall. What colour is it? No." for n in range(ROWS)]
            write_decoder(root / part, made, params, train_bpe(text * 4, 400))
        out.append(str(root / part))
    return out[0], out[1]


def _drawn(rng: np.random.Generator, path: str, shape: jax.ShapeDtypeStruct) -> np.ndarray:
    if path.endswith("scale"):
        return np.ones(shape.shape, jax.numpy.bfloat16)
    values = rng.standard_normal(shape.shape, np.float32)
    return np.asarray(0.02 * values, jax.numpy.bfloat16)
