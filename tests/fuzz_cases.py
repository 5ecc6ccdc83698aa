"""Parsers of files that others may have written, with real files for each, and what is done to those: `faults/test_fuzz.py`
meets them with hypothesis, `benchmarks/fuzz.py` with atheris."""

import base64
import dataclasses
import io
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from damage import picture
from etils import epath
from format_cases import WRITERS
from PIL import Image

from vlax.data.batches.quarantine import read_quarantine
from vlax.data.readers.faults import Faults
from vlax.data.readers.pictures import open_picture
from vlax.data.recognise.recognise import recognise
from vlax.data.sources import open_source
from vlax.errors import VlaxError
from vlax.evaluation import compare, made, predictions
from vlax.evaluation.runs import page, survey
from vlax.images import Preprocess
from vlax.model import exports
from vlax.pretrained.reading import loader, tensors
from vlax.rows import Row, Turn, making
from vlax.serve import asking
from vlax.serve.limits import Limits
from vlax.storage import jsonl, seal
from vlax.suites import protocol
from vlax.text import sandbox
from vlax.text.bpe import train_bpe
from vlax.text.tokenizer import load_tokenizer

TINY = Preprocess(8)
IMAGES = {"png": "PNG", "jpg": "JPEG", "gif": "GIF", "webp": "WEBP", "tiff": "TIFF", "bmp": "BMP", "jp2": "JPEG2000",
          "ppm": "PPM", "tga": "TGA", "pcx": "PCX", "ico": "ICO", "dds": "DDS", "im": "IM", "sgi": "SGI"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Parser:
    """write: a folder -> the real files in it; read: the folder -> what the files say; files: which of them are mutated."""

    write: Callable[[Path], object]
    read: Callable[[Path], object]
    files: tuple[str, ...] = ("*",)
    examples: int = 25


# --- what reads them


def rows(kind: str, name: str = ""):
    """As preview, the doctor and training do: recognised, read with faulty rows passed over (by what the sound file was
    recognised as, whatever it is taken for now), then opened."""
    specs: dict[Path, dict] = {}

    def read(folder: Path):
        if name and folder not in specs:
            specs[folder] = recognise(name, base=str(folder)).spec
        elif name:
            attempt(lambda: open_source(recognise(name, base=str(folder)).spec, str(folder), train=False))
        faults = Faults(collect=True)
        source = open_source(specs.get(folder, {"kind": kind, "path": "."}), str(folder), faults=faults)
        out: list = [one_line(VlaxError(fault.text)) for fault in faults.found]
        for index in range(len(source)):
            try:
                with making(f"[{index}]"):  # as all of them do
                    row = source[index]
                pixels = row.picture.pixels(TINY) if row.picture and index < 3 else None
            except VlaxError as error:
                one_line(error)
                continue
            out.append((row.id, row.turns, row.references, None if pixels is None else pixels.tobytes()))
        return out

    return read


def format_case(name: str, *files: str, named: str = "") -> Parser:
    def write(folder: Path) -> None:
        path = WRITERS[name](folder)[0]
        if name == "prepared":  # without the seal, which would find them all
            for file in (folder / "out").glob("*"):
                if file.name != "seal.json":
                    file.rename(folder / file.name)
            shutil.rmtree(folder / "out")
        assert named or Path(path).exists() or name in ("webdataset", "prepared")

    return Parser(write, rows(name, named), files)


def rows_of_tfds(folder: Path):
    spec = {"kind": "tfds", "path": "tiny_pairs/1.0.0", "split": "train"}
    source = open_source(spec, str(folder), faults=Faults(collect=True))
    found = [source[index] for index in range(3)]
    return [(row.id, row.turns, attempt(lambda row=row: row.picture.pixels(TINY).tobytes())) for row in found]


TSV = "image\tquestion\tanswer\tanswers\n" + "".join(f'{n}.png\tis it "{n}"?\tno\t["no", "yes"]\n' for n in range(4))


def write_tsv(folder: Path) -> None:
    (folder / "rows.tsv").write_text(TSV)


LLAMA = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
         "vocab_size": 64, "rope_scaling": None, "tie_word_embeddings": True}  # fmt: skip


def write_weights(folder: Path) -> None:
    from safetensors.numpy import save_file

    rng, prefix = np.random.default_rng(0), "model.layers.0."
    shapes = {"model.embed_tokens.weight": (64, 16), "model.norm.weight": (16,), f"{prefix}input_layernorm.weight": (16,),
              f"{prefix}post_attention_layernorm.weight": (16,)}  # fmt: skip
    shapes |= {f"{prefix}self_attn.{name}_proj.weight": (16, 16) for name in "qkvo"}
    shapes |= {f"{prefix}mlp.{name}_proj.weight": (16, 16) for name in ("gate", "up", "down")}
    parts = list(shapes)[:4], list(shapes)[4:]
    named = {}
    for at, names in enumerate(parts):
        save_file({n: rng.standard_normal(shapes[n]).astype(np.float32) for n in names}, folder / f"model-{at}.safetensors")
        named |= dict.fromkeys(names, f"model-{at}.safetensors")
    (folder / tensors.INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": named}))
    (folder / "config.json").write_text(json.dumps(LLAMA))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3}))


def read_weights(folder: Path):
    return [tensor.read().tobytes() for tensor in tensors.headers(folder).values()]


def read_model(folder: Path):
    return sorted(loader.load_decoder(folder)[1])


def write_tower(folder: Path) -> None:
    config = {"model_type": "siglip_vision_model", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "intermediate_size": 16, "image_size": 32, "patch_size": 16}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    values = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3,
              "rescale_factor": 1 / 255, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


def read_tower(folder: Path):
    settings = loader.preprocess(folder)
    return settings.apply(Image.new("RGB", (20, 10), "red")).shape


def write_tokenizer(folder: Path) -> None:
    tokenizer = train_bpe(["is it red? no"] * 3, 280)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(str(folder))


def read_tokenizer(folder: Path):
    tokenizer = load_tokenizer(folder, 1_000)
    return tokenizer("is it red?", add_special_tokens=False)["input_ids"]


TEMPLATE = ("{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m['content'] | trim }}{{ eos_token }}\n"
            "{% else %}{{ raise_exception('odd') if loop.index > 9 }}<|bot|>{{ m.content.strip() * 1 }}"
            "{% endif %}{% endfor %}")  # fmt: skip


def read_template(folder: Path):
    text = (folder / "chat_template.jinja").read_bytes().decode("utf-8", "surrogateescape")
    return sandbox.render(text, [{"role": "user", "content": "hi "}] * 3, {"eos_token": "</s>"}, generate=True)


ROWS = [Row(f"q{n}", str(n), "question", (Turn("what?", "no"),), None, ("no",), "other") for n in range(4)]


def write_predictions(folder: Path) -> None:
    (folder / "theirs.json").write_text(json.dumps([{"question_id": f"q{n}", "answer": "no"} for n in range(4)]))
    (folder / "ours.jsonl").write_bytes(jsonl.lines([predictions.line("r", "s", row, "no") for row in ROWS]))
    proto = {"hash": "0f", "metrics": ["vqav2@official"], "post_processing": ["x"], "decoded": {}}
    scores = {"title": "t", "runs": {"s": "r"}, "sets": {"s": {"rows": 4}}, "protocol": {"hash": "1", "sets": {"s": proto}},
              "where": {"sets": {"s": {"test": {"kind": "cells", "split": "test"}}}}}  # fmt: skip
    (folder / "scores.json").write_text(json.dumps(scores))
    shutil.copy(folder / "ours.jsonl", folder / "predictions.jsonl")


def read_predictions(folder: Path):
    found = [
        attempt(lambda name=name: predictions.external(str(folder / name), ROWS, "s")) for name in ("theirs.json", "ours.jsonl")
    ]
    return found, compare.load(folder).lines


def write_state(folder: Path) -> None:
    entries = [{"source": "a", "row": str(n), "image": "a.jpg", "reason": "empty text: ''"} for n in range(3)]
    (folder / "quarantine.jsonl").write_bytes(jsonl.lines(entries))
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "mask": "causal", "template_name": "plain"}))
    decoder = {"vocab_size": 64, "width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_dim": 16}
    (folder / "config.json").write_text(json.dumps({"mask": "causal", "decoder": decoder, "vision": None}))
    (folder / "sealed").mkdir()
    (folder / "sealed" / "a").write_text("a")
    seal.write(epath.Path(folder / "sealed"))


def read_state(folder: Path):
    return [
        attempt(lambda: len(read_quarantine(str(folder / "quarantine.jsonl")))),
        attempt(lambda: list(jsonl.read(epath.Path(folder / "quarantine.jsonl")))),
        attempt(lambda: exports.read_manifest(folder)),
        attempt(lambda: exports.read_config(folder)),
        attempt(lambda: seal.check(folder / "sealed", way_out="copy it again")),
    ]


def write_pictures(folder: Path) -> None:
    for suffix, form in IMAGES.items():
        picture(3, (16, 12)).save(folder / f"a.{suffix}", form)
    picture(4).save(folder / "b.jpg", quality=90, progressive=True, exif=bytes(Image.Exif().tobytes() or b""))
    picture(4).convert("CMYK").save(folder / "c.tiff", compression="tiff_lzw")
    picture(4).save(folder / "d.gif", save_all=True, append_images=[picture(5)])


def read_pictures(folder: Path):
    return [attempt(lambda path=path: TINY.apply(open_picture(str(path), "7")).tobytes()) for path in sorted(folder.iterdir())]


def write_runs(folder: Path) -> None:
    stage = folder / "runs" / "mine" / "stage1"
    (stage / "export").mkdir(parents=True)
    (stage / "eval").mkdir()
    written = {
        "config.json": {"run": {"seed": 0}, "stage": {"name": "stage1", "steps": 8, "accumulate": 2}},
        "length.json": {"micro_steps": 16, "per_update": 2},
        "export/manifest.json": {"format": 1, "stage": "stage1", "micro_steps": 16},
        "eval/scores.json": {"sets": {"captions": {"CIDEr": {"score": 1.5, "interval": [0.95, 1.25, 1.75]}, "rows": 4}}},
        "eval/made.json": {"model": "runs/mine", "date": "2026-11-29"},
    }
    for name, values in written.items():
        (stage / name).write_text(json.dumps(values))
    lines = [{"step": n, "kind": kind, "loss": 1 / n, "tokens_per_s": 9.5} for n in (4, 8) for kind in ("train", "validation")]
    (stage / "metrics.jsonl").write_bytes(jsonl.lines(lines))


def read_runs(folder: Path):
    runs = survey.find(folder / "runs")
    shown = attempt(lambda: made.read(epath.Path(folder / "runs/mine/stage1/eval")))
    return survey.text(runs).replace(str(folder), ""), page.page("runs", runs).replace(str(folder), ""), shown


SUITE = """about = "a few"
task = "question"
prompt = "q: {question}"
metrics = ["vqav2@official", "exact_match"]
post_processing = ["first_line"]
answers = ["yes", "no"]
answers_by = "trie"
physical_batch = 4
[decoding]
max_new_tokens = 4
[data.test]
kind = "cells"
split = "test"
"""


def read_suite(folder: Path):
    (suite,) = protocol.suites({}, [str(folder / "mine.toml")])
    return suite, suite.finish("yes\n"), open_source(dict(suite.data["test"]), str(folder))[0].id


def write_request(folder: Path) -> None:
    picture(3, (16, 12)).save(buffer := io.BytesIO(), "PNG")
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    parts = [{"type": "text", "text": "is it red?"}, {"type": "image_url", "image_url": {"url": uri}}]
    said = [{"role": "system", "content": "short"}, {"role": "user", "content": parts}]
    said += [{"role": "assistant", "content": "no"}, {"role": "user", "content": "why?"}]
    body = {"model": "m", "messages": said, "max_tokens": 8, "temperature": 0.5, "top_p": 0.9, "seed": 1, "stop": ["."],
            "logprobs": True, "top_logprobs": 2, "stream": True, "stream_options": {"include_usage": True}, "n": 1}  # fmt: skip
    (folder / "body.json").write_text(json.dumps(body))


def read_request(folder: Path):
    return repr(asking.read((folder / "body.json").read_bytes(), Limits(pixels=1 << 20), 16)).partition("<PIL")[0]


def attempt(read: Callable[[], object]):
    """For parsers that are tried together: what one says, or its VlaxError."""
    try:
        return read()
    except VlaxError as error:
        return one_line(error)


def one_line(error: VlaxError) -> str:
    text = str(error)
    assert text and "\n" not in text, text
    return text


JSON_FILES = {name: "*.json" for name in ("coco", "karpathy", "llava", "sharegpt", "vqa", "lxmert", "gqa", "textvqa")}
PARSERS = {
    **{name: format_case(name, files, named=".") for name, files in JSON_FILES.items()},
    "jsonl": format_case("jsonl", "rows.jsonl", named="rows.jsonl"),
    "csv": format_case("csv", "rows.csv", named="rows.csv"),
    "tsv": Parser(write_tsv, rows("table", "rows.tsv")),
    "parquet": format_case("parquet", "data/train-*", named="data/train*.parquet"),
    "arrow": format_case("arrow", "train/*.arrow", named="."),
    "webdataset": format_case("webdataset", "*.tar", named="."),
    "arrayrecord": format_case("arrayrecord", "*.array_record", named="."),
    "prepared": format_case("prepared", "manifest.json", "*.npy", "*.arrow", "*.array_record", "dropped.jsonl"),
    "weights": Parser(write_weights, read_weights, ("*.safetensors", tensors.INDEX)),
    "model": Parser(write_weights, read_model, ("config.json", tensors.INDEX), 8),
    "tower": Parser(write_tower, read_tower),
    "tokenizer": Parser(write_tokenizer, read_tokenizer),
    "template": Parser(lambda folder: (folder / "chat_template.jinja").write_text(TEMPLATE), read_template),
    "predictions": Parser(write_predictions, read_predictions),
    "state": Parser(write_state, read_state, ("*.json*", "sealed/*")),
    "tfds": Parser(lambda folder: WRITERS["tfds"](folder), rows_of_tfds, ("*/*/*",)),
    "runs": Parser(write_runs, read_runs, ("**/*.json*",)),
    "suite": Parser(lambda folder: (folder / "mine.toml").write_text(SUITE), read_suite),
    "request": Parser(write_request, read_request),
    "pictures": Parser(write_pictures, read_pictures),
}


# --- what is done to them

TOKENS = (b"\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"-1", b"1e999", b"99999999999999999999", b"NaN",
          b'"', b"[" * 3_000, b"{", b"}", b",", b"\n", b"\r", b"\xed\xa0\x80", b"\xef\xbb\xbf",
          b"../", b"/", b"<image>", b"{{", b"%}")  # fmt: skip
DEEP: list = []
for _ in range(400):
    DEEP = [DEEP]
NONSENSE = (
    None, True, False, -1, 0, 1, 10**9, -(10**30), 10**400, 0.5, math.inf,
    math.nan, "", " ", "a\0b", "\ud800", "../../../outside.png",
    "/etc/passwd", "x" * 300, "NaN", [], {}, [[]], [None], [{}], {"": {}}, ["a", 1], {"text": []}, DEEP,
)  # fmt: skip


def changed(content: bytes, change: tuple) -> bytes:
    """One mutation; "value" is of JSON and leaves other files as they are."""
    what, share, given_ = change
    at = share * len(content) >> 20
    if what == "value":
        return revalued(content, share, given_)
    if what == "flip":
        return content[:at] + bytes([content[at] ^ given_]) + content[at + 1 :] if content else content
    if what == "cut":
        return content[:at] + content[at + given_ :]
    if what == "end":
        return content[:at]
    if what == "double":
        return content[: at + given_] + content[at:]
    return content[:at] + given_ + content[at + (len(given_) if what == "write" else 0) :]


def revalued(content: bytes, share: int, given_) -> bytes:
    try:
        lines = [json.loads(content)]
    except (ValueError, RecursionError):
        try:
            lines = [json.loads(line) for line in content.split(b"\n") if line.strip()]
        except (ValueError, RecursionError):
            return content
    places: list[tuple] = []
    waiting: list = [lines]
    while waiting:
        node = waiting.pop()
        for key in range(len(node)) if isinstance(node, list) else list(node):
            places.append((node, key))
            if isinstance(node[key], list | dict) and len(places) < 5_000:
                waiting.append(node[key])
    if not places:
        return content
    node, key = places[share * len(places) >> 20]
    if given_ == "remove":
        del node[key]
    elif given_ == "twice" and isinstance(node, list):
        node.insert(key, node[key])
    else:
        node[key] = given_
    return b"\n".join(json.dumps(line).encode() for line in lines)
