"""Which format JSON, JSON lines or a CSV header is, by its keys.

{"images": [{"id", "file_name"}], "annotations": [{"caption"}]}    Shape("coco", "COCO captions", names=["a.jpg", ...])
[{"image": "a.jpg", "conversations": [...]}]                        Shape("llava", "LLaVA conversations", ...)
[{"file": "a.jpg", "text": "a dog"}]    Shape("table", "a table of captions", ..., fields={"columns": {"image": "file"}})
"""

import collections
from typing import NamedTuple

from vlax.data.readers.annotations import FORMATS
from vlax.data.recognise.picture_folder import sample

# What the columns of a table may be called; ours first.
ALIASES = {
    "image": ("image", "image_path", "image_file", "img", "file_name", "filename", "file", "path", "picture"),
    "text": ("text", "caption", "description", "sentence"),
    "question": ("question", "query"),
    "answer": ("answer", "response"),
    "answers": ("answers",),
    "id": ("id", "question_id"),
    "answer_type": ("answer_type",),
}
LOOKED_FOR = (
    "COCO captions, Karpathy, LLaVA or ShareGPT conversations, VQAv2, GQA, TextVQA, LXMERT, JSON lines or CSV with image and "
    "text or question and answer, parquet, arrow, tar shards, ArrayRecord, a prepared folder, a TFDS folder"
)


class Shape(NamedTuple):
    """kind: of `kinds.KINDS`; names: some of the pictures' file names; fields: what the spec needs besides."""

    kind: str
    what: str
    names: list[str]
    fields: dict = {}  # noqa: RUF012  (never changed)


def of_object(data: dict) -> Shape | None:
    """The format of a JSON object, None for an unknown one. VQAv2's halves come back as "vqa", without file names."""
    images, annotations, questions = (_first(data.get(key)) for key in ("images", "annotations", "questions"))
    if isinstance(images.get("sentences"), list):
        return _karpathy(data["images"])
    if "caption" in annotations and images:
        return Shape("coco", "COCO captions", [str(row.get("file_name") or "") for row in sample(_objects(data["images"]))])
    if {"question_id", "question"} <= questions.keys():
        return Shape("vqa", "VQAv2 questions and annotations", [])
    if "question_id" in annotations and annotations.keys() & {"answers", "multiple_choice_answer"}:
        return Shape("vqa", "VQAv2 questions and annotations", [])
    for kind, form in FORMATS.items():
        entries = data.get(form.rows, []) if form.rows else list(data.values())
        if form.what and {form.id, form.image, "question"} - {""} <= _first(entries).keys():
            return Shape(kind, form.what, [f"{row.get(form.image)}.jpg" for row in sample(_objects(entries))])
    return None


def of_rows(rows: list) -> Shape | None:
    """The format of a list of rows: of a JSON list, JSON lines or CSV. None for an unknown one."""
    rows = _objects(rows)
    first = rows[0] if rows else {}
    if {"img_id", "sentf", "labelf"} <= first.keys():
        asked = [row for row in rows if isinstance(row.get("sentf"), dict) and any(row["sentf"].values())]
        return Shape("lxmert", "LXMERT questions", [f"{row.get('img_id')}.jpg" for row in sample(asked)])
    messages = first.get("messages", first.get("conversations"))
    if isinstance(messages, list):
        plain = "messages" not in first and "images" not in first and "from" in _first(messages)
        kind, what = ("llava", "LLaVA conversations") if plain else ("sharegpt", "ShareGPT conversations")
        return Shape(kind, what, sample([name for row in rows for name in as_names(row.get("images") or row.get("image"))]))
    return _table(rows, first)


def _table(rows: list[dict], first: dict) -> Shape | None:
    columns = {part: next((name for name in names if name in first), "") for part, names in ALIASES.items()}
    asks = columns["question"] and (columns["answer"] or columns["answers"])
    if not asks and not columns["text"]:
        return None
    what = "questions and answers" if asks else "captions" if columns["image"] else "texts"
    renamed = {part: name for part, name in columns.items() if name and name != part}
    if "id" in renamed and not asks:
        del renamed["id"]
    names = [str(row.get(columns["image"]) or "") for row in rows if row.get(columns["image"])]
    return Shape("table", f"a table of {what}", sample(names), {"columns": renamed} if renamed else {})


def _karpathy(images: list) -> Shape:
    rows = _objects(images)
    splits = collections.Counter(str(row.get("split")) for row in rows)
    split = "+".join(name for name in ("train", "restval") if name in splits) or next(iter(splits))  # restval: to train on, too
    mine = sample([row for row in rows if str(row.get("split")) in split.split("+")])
    names = ["/".join(str(row[key]) for key in ("filepath", "filename") if row.get(key)) for row in mine]
    there = ", ".join(f"{name} {count:,}" for name, count in splits.items())
    return Shape("karpathy", f"Karpathy's splits (pictures: {there})", names, {"split": split})


def of_dataset_info(data: dict) -> list[tuple[str, dict]]:
    """(file, columns) of the entries of a LLaMA-Factory dataset_info.json that describe ShareGPT-style files."""
    usual = {"messages": "messages", "images": "images", "role_tag": "role", "content_tag": "content",
             "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}  # fmt: skip
    found = []
    for entry in data.values():
        if isinstance(entry, dict) and entry.get("formatting") == "sharegpt" and isinstance(entry.get("file_name"), str):
            named = {**(entry.get("columns") or {}), **(entry.get("tags") or {})}
            found.append((entry["file_name"], {k: v for k, v in named.items() if k in usual and usual[k] != v}))
    return found


def holds(data) -> str:
    """What an error says that a file holds: `"an object with the keys info (object), images (list of: id, url)"`."""
    if isinstance(data, dict):
        listed = [f"{key} ({_kind(value)})" for key, value in list(data.items())[:12]]
        more = ", ..." if len(data) > 12 else ""
        return f"an object with the keys {', '.join(listed)}{more}" if listed else "an empty object"
    return f"a {_kind(data)}"


def _kind(value) -> str:
    if isinstance(value, list):
        inner = _first(value)
        return f"list of objects with {', '.join(map(str, list(inner)[:12]))}" if inner else f"list of {len(value)}"
    return "object" if isinstance(value, dict) else type(value).__name__


def _objects(rows: list) -> list[dict]:
    return [row for row in rows if isinstance(row, dict)]


def _first(value) -> dict:
    """The first object of a list, {} where there is none."""
    return value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}


def as_names(value) -> list[str]:
    """The file names in what a row says of its pictures: a name, a list of them, or nothing."""
    return [name for name in (value if isinstance(value, list) else [value]) if name and isinstance(name, str)][:1]
