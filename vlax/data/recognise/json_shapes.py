"""Which format JSON, JSON lines or a CSV header is, by its keys.

{"images": [{"id", "file_name"}], "annotations": [{"caption"}]}    Shape("coco", "COCO captions", names=["a.jpg", ...])
[{"image": "a.jpg", "conversations": [...]}]                        Shape("llava", "LLaVA conversations", ...)
[{"file": "a.jpg", "text": "a dog"}]    Shape("table", "a table of captions", ..., fields={"columns": {"image": "file"}})
"""

import collections
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from vlax.data.readers import columns as naming
from vlax.data.readers import picture_values
from vlax.data.readers.annotations import FORMATS
from vlax.data.readers.shards import same_split
from vlax.data.readers.table import inside
from vlax.data.readers.unfold import unfolded
from vlax.data.recognise.picture_folder import sample
from vlax.errors import VlaxError

LOOKED_FOR = (
    "COCO captions, Karpathy, LLaVA or ShareGPT conversations, VQAv2, GQA, TextVQA, LXMERT, JSON lines or CSV with image and "
    "text, question and answer or messages, Flickr8k tokens, parquet, arrow, tar shards, ArrayRecord, pictures with "
    "a text beside each, a prepared folder, a TFDS folder"
)


class Shape(NamedTuple):
    """kind: of `kinds.KINDS`; names: some of the pictures' file names; fields: what the spec needs besides; held: whether rows
    hold their pictures themselves."""

    kind: str
    what: str
    names: list[str]
    fields: dict = {}  # noqa: RUF012  (never changed)
    held: bool = False


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
    try:
        return of_rows(inside("the file", data))
    except VlaxError:
        return None


def of_rows(rows: list, columns: Mapping[str, str] | None = None) -> Shape | None:
    """The format of a list of rows: of a JSON list, JSON lines or CSV. None where there is no row.

    columns: {part: name} as the user has it. VlaxError, with what comes nearest, for rows of which no part is known.
    """
    rows = _objects(rows)
    first = rows[0] if rows else {}
    if {"img_id", "sentf", "labelf"} <= first.keys():
        asked = [row for row in rows if isinstance(row.get("sentf"), dict) and any(row["sentf"].values())]
        return Shape("lxmert", "LXMERT questions", [f"{row.get('img_id')}.jpg" for row in sample(asked)])
    if not rows:
        return None
    own = {part: name for part, name in (columns or {}).items() if part in naming.NAMES}
    first = dict(unfolded(first)[0])
    fields = naming.choose(first, own, "the first row", first, listed=True)
    names = [name for row in rows for said in _said(row, own) for name in as_names(said)]
    held = any(holds_picture(said) for row in sample(rows) for said in _said(row, own))
    if fields.messages and fields.messages in ("messages", "conversations") and not isinstance(first[fields.messages], str):
        kind, what = "sharegpt", "ShareGPT conversations"
        if "messages" not in first and "images" not in first and "from" in _first(first[fields.messages]):
            kind, what = "llava", "LLaVA conversations"
        return Shape(kind, what, sample(names), _splits(rows, fields), held)
    return _table(rows, first, fields, names)._replace(held=held)


def _table(rows: list[dict], first: dict, fields: naming.Fields, names: list[str]) -> Shape:
    captions = "captions" if names or fields.image else "texts"
    what = "dialogues" if fields.messages else "questions and answers" if fields.asks else captions
    parts = ("image", "text", "question", "answer", "answers", "answer_type", *(("id",) if fields.asks else ()))
    # Of several pictures rows may have more, or fewer, than the first one: the reader finds them in each.
    shown = {**fields._asdict(), "image": "" if fields.others else fields.image}
    for part in ("text",) if fields.asks else ("answer", "answers", "question", "answer_type"):
        shown[part] = ""
    renamed = {part: shown[part] for part in parts if shown[part] and shown[part] != part} if not fields.messages else {}
    spec = {"columns": renamed} if renamed else {}
    return Shape("table", f"a table of {what}", sample(names), {**spec, **_splits(rows, fields)})


def _said(row: dict, columns: Mapping[str, str]) -> Iterator[object]:
    """What a row says of its pictures, in a field of its own or else inside its messages."""
    fields = naming.images(row, columns, row) or ([] if "image" in columns else [naming.named(row, "image_id")])
    talk = row.get(columns.get("messages") or naming.named(row, "messages"))
    if any(row.get(field) for field in fields) or not isinstance(talk, list):
        yield from (row.get(field) for field in fields)
        return
    for message in talk:
        parts = message.get("content") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and "image" in str(part.get("type")):
                yield from (value for key, value in part.items() if key != "type")


def _splits(rows: list[dict], fields: naming.Fields) -> dict:
    """The split to take, where the rows are of several."""
    there = list(dict.fromkeys(str(row[fields.split]) for row in rows if row.get(fields.split))) if fields.split else []
    named = next((name for name in there if same_split(name, "train")), there[0] if there else "")
    return {"split": named} if len(there) > 1 else {}


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
    """The first file name in what a row says of its pictures; none where it says none, or holds the picture itself."""
    if holds_picture(value):
        return []
    try:
        return [one.name for one in picture_values.pictures("", value) if not one.content][:1]
    except VlaxError:
        return []


def holds_picture(value) -> bool:
    """Whether what a row says of its pictures is one, in base64."""
    value = value[0] if isinstance(value, list) and value else value
    value = value.get("url") if isinstance(value, dict) else value
    return isinstance(value, str) and picture_values.encoded(value)
