"""What kind of data lies at a path, told by its content; names of files are hints only.

recognise("coco/annotations/captions_val2014.json")
->  Recognised(spec={"kind": "coco", "annotations": "coco/annotations/captions_val2014.json", "images": "coco/val2014"},
               what="COCO captions", also=(), note="8 of 8 file names looked for are there")

recognise("easy_vqa")     looks for such a file in the folder and in the folders in it; `also` names the others there are
"""

import dataclasses
import re
from collections.abc import Mapping

from etils import epath

from vlax.data.readers import shards
from vlax.data.readers.annotation_file import usual_name
from vlax.data.readers.kinds import KINDS
from vlax.data.recognise import containers, heads, json_shapes, picture_folder
from vlax.errors import VlaxError
from vlax.storage.paths import check_regular, join, read_file
from vlax.storage.state import load_json, understood

PACKED = {
    b"PK": " (a zip: unpack it; of a spreadsheet, save it as CSV)", b"\x1f\x8b": " (gzip: gunzip it first)",
    b"\x28\xb5\x2f\xfd": " (zstd: unzstd it first)", b"\xfd7zXZ": " (xz: unxz it first)", b"BZh": " (bzip2: bunzip2 it first)",
    b"Rar!": " (a rar: unpack it)", b"7z\xbc\xaf": " (a 7z: unpack it)",
}  # fmt: skip
DATA = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")  # files that say that they hold rows
DOCTORED = ("doctor.json", "quarantine.jsonl")  # what the doctor found in rows, which are elsewhere
TRIES = 12  # files that are read in a folder
_ODD = {"instances", "keypoints", "person", "panoptic", "stuff", "license", "licence", "vocab", "config", "ans", "tokenizer"}


@dataclasses.dataclass(frozen=True)
class Recognised:
    """spec: for `open_source`; what: the format in words; also: further files there, not read; note: on the pictures."""

    spec: dict
    what: str
    also: tuple[str, ...] = ()
    note: str = ""


def recognise(
    path: str, images: str = "", *, base: str = "", kind: str = "", columns: Mapping[str, str] | None = None
) -> Recognised:
    """What lies at `path`: a file, a folder, or shards by a glob or {000..010}.

    images  the folder of the pictures; "": it is looked for nearby
    base    what relative paths are relative to, also those in the spec
    kind    one of `kinds.KINDS`; "": it is found out. VlaxError says what was looked for and what is there instead.
    columns {part: name} where the columns of rows have names that vlax does not know
    """
    if kind and kind not in KINDS:
        raise VlaxError(f"{path}: there is no kind {kind!r}; the kinds are {', '.join(KINDS)}")
    with understood(path, "name it with kind, and its reader says what is wrong with it"):
        found = _recognised(path, images, base, kind, columns)
    if not columns:
        return found
    if "columns" not in KINDS[found.spec["kind"]].fields:
        raise VlaxError(f"{path}: {found.what} have no columns to name; leave --columns out")
    return dataclasses.replace(found, spec={**found.spec, "columns": {**found.spec.get("columns", {}), **columns}})


def _recognised(path: str, images: str, base: str, kind: str, columns: Mapping[str, str] | None) -> Recognised:
    where = join(base, path)
    given = join(base, images) if images else None
    if re.search(r"[*?\[{]", str(path)):
        of_files = containers.of_files(where, shards.listed(base, str(path), r".", "data"))
        found = Recognised(*of_files) if of_files else None
    elif not where.exists():
        raise VlaxError(f"there is no file or folder {where}; mend the path")
    elif where.is_dir():
        found = _folder(where, given, columns)
    else:
        found = _file(where, given, columns)
    if kind and (found is None or found.spec["kind"] != kind):
        found = _named(where, given, kind)
    if found is None:
        raise _unknown(where)
    spec = {key: _relative(value, base) if isinstance(value, epath.Path) else value for key, value in found.spec.items()}
    if given is not None and "images" not in spec and "images" in KINDS[spec["kind"]].fields:
        spec["images"] = _relative(given, base)
    return dataclasses.replace(found, spec=spec, also=tuple(_relative(epath.Path(p), base) for p in found.also))


def _relative(path: epath.Path, base: str) -> str:
    """The path below `base`, so that a spec stays true where the data root moves."""
    text, top = str(path), str(base).rstrip("/") + "/"
    return text.removeprefix(top) if base and text != top[:-1] else "." if base else text


def _file(path: epath.Path, given: epath.Path | None, columns: Mapping[str, str] | None = None) -> Recognised | None:
    """None for an unknown file; VlaxError for one that is known and lacks its other half, and for a FIFO or a device."""
    check_regular(path, "name another")
    if found := containers.of_files(path, {path.name: path}):
        return Recognised(*found)
    with path.open("rb") as file:
        head = heads.of(file)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text[:1] in (b"{", b"["):
        rows = heads.lines(head, columns, sure=path.suffix.lower() in (".jsonl", ".ndjson"))
        if rows is None:
            return _json(path, given, columns)
        shape = _of_rows(path, rows, columns)
    else:
        shape = _of_rows(path, heads.cells_of(head), columns)
    return shape and _with_pictures(path, shape, given)


def _of_rows(path: epath.Path, rows: list, columns: Mapping[str, str] | None) -> json_shapes.Shape | None:
    """None where there is no row; VlaxError, with columns to try, for rows of which nothing is known."""
    try:
        return json_shapes.of_rows(rows, columns)
    except VlaxError as error:
        if path.suffix.lower() not in DATA:
            return None
        way_out = f"try it: python -m vlax data preview {path} --columns image=NAME,text=NAME"
        raise VlaxError(f"{path} is not recognised: {error}; {way_out}") from None


def _json(path: epath.Path, given: epath.Path | None, columns: Mapping[str, str] | None) -> Recognised | None:
    data = load_json(path, read_file(path), "it is no JSON lines either; fetch or export it again")
    if isinstance(data, list):
        shape = _of_rows(path, data, columns)
    elif described := json_shapes.of_dataset_info(data):
        return _described(path, described, given)
    else:
        shape = json_shapes.of_object(data)
    if shape is None:
        raise _unknown(path, json_shapes.holds(data))
    return _vqa(path, data, shape, given) if shape.kind == "vqa" else _with_pictures(path, shape, given)


def _with_pictures(path: epath.Path, shape: json_shapes.Shape, given: epath.Path | None) -> Recognised:
    file = {"table": "path"}.get(shape.kind, "annotations")
    found = picture_folder.picture_folder(path, shape.names, given)
    spec = {"kind": shape.kind, file: path, "images": found.folder, **shape.fields}
    if found.strip and "strip" in KINDS[shape.kind].fields:
        spec["strip"] = found.strip
    return Recognised(spec, shape.what, note="rows hold their pictures" if shape.held else _note(found, shape.names))


def _note(found: picture_folder.Pictures, names: list[str]) -> str:
    if not found.of:
        return "no row names a picture"
    if found.found:
        return f"{found.found} of {found.of} file names looked for are there"
    return f"no folder nearby has {next(name for name in names if name)} or another of {found.of} names; say --images DIR"


def _vqa(path: epath.Path, data: dict, shape: json_shapes.Shape, given: epath.Path | None) -> Recognised:
    other, there = picture_folder.vqa_partner(path, data)
    questions, annotations = (path, other) if "questions" in data else (other, path)
    asked, answered = (data, there) if "questions" in data else (there, data)
    images = [row for row in asked.get("images") or () if isinstance(row, dict)]
    listed = {str(row.get("id")): str(row.get("file_name") or "") for row in images}
    rows = [row for row in asked["questions"] if isinstance(row, dict)]
    ids = [str(row.get("image_id")) for row in picture_folder.sample(rows)]
    names = [listed.get(i, "") if listed else usual_name({**answered, **asked}, i) for i in ids]
    found = picture_folder.picture_folder(path, names, given)
    spec = {"kind": "vqa", "questions": questions, "annotations": annotations, "images": found.folder}
    return Recognised(spec, shape.what, note=_note(found, names))


def _described(path: epath.Path, described: list, given: epath.Path | None) -> Recognised:
    """The first file of a dataset_info.json that is there, with the column names that it says."""
    there = [(path.parent / name, columns) for name, columns in described if (path.parent / name).exists()]
    if not there:
        raise VlaxError(f"{path} describes {', '.join(name for name, _ in described)}, and none of these is beside it")
    file, columns = there[0]
    found = None if columns else _file(file, given)
    if found is None:
        key = columns.get("images", "images")
        rows = [row for row in load_json(file, read_file(file)) if isinstance(row, dict)]
        names = [name for row in picture_folder.sample(rows) for name in json_shapes.as_names(row.get(key))]
        shape = json_shapes.Shape("sharegpt", "ShareGPT conversations", names, {"columns": columns})
        found = _with_pictures(file, shape, given)
    return dataclasses.replace(found, also=tuple(str(file) for file, _ in there[1:]))


def _folder(path: epath.Path, given: epath.Path | None, columns: Mapping[str, str] | None) -> Recognised | None:
    if built := containers.of_builder(path):
        return Recognised(*built)
    if picture_folder.beside_texts(path):
        return Recognised({"kind": "folder", "path": path}, "pictures with a text beside each")
    files = sorted((file for file in picture_folder.files(path) if _is_text(file)), key=lambda file: _order(file, path))
    refusals = []
    for at, file in enumerate(files[:TRIES]):
        try:
            found = _file(file, given, columns)
        except VlaxError as error:
            refusals.append(str(error))
            continue
        if found is not None:
            more = [str(other) for other in files[at + 1 :] if not any(_order(other, path)[1:3])]
            return dataclasses.replace(found, also=found.also or tuple(more))
    if packed := containers.of_shards(path):  # after the annotations: the tars beside these may hold their pictures
        return Recognised(*packed)
    if len(refusals) == 1:
        raise VlaxError(refusals[0])
    return None


def _is_text(file: epath.Path) -> bool:
    return file.suffix.lower() in (*DATA, ".txt") and not file.name.startswith(".") and file.name not in DOCTORED


def _order(file: epath.Path, top: epath.Path) -> tuple:
    """Which file of a folder is looked at first: descriptions, then train before val before test; halves of pairs last."""
    name = file.stem.lower()
    words = set(re.findall(r"[a-z]+", name))
    split = next((at for at, part in enumerate(("train", "val", "dev", "test")) if part in name), 0)
    half = "annotations" in words  # VQAv2's, found by its questions
    return file.name != "dataset_info.json", bool(words & _ODD), half, split, len(file.parts) - len(top.parts), str(file)


def _named(path: epath.Path, given: epath.Path | None, kind: str) -> Recognised | None:
    """A spec of a kind that the user names; the content does not look like it, and its reader will say why."""
    named = KINDS[kind]
    if kind == "vqa":
        return _vqa(path, load_json(path, read_file(path)), json_shapes.Shape(kind, "VQAv2", []), given)
    file = next((name for name in ("annotations", "path") if name in named.needed), None)
    if file is None:
        raise VlaxError(f"{path}: {kind} is made by vlax and reads no file; leave the kind out")
    spec = {"kind": kind, file: path, **({"split": "train"} if kind == "karpathy" else {})}
    if "images" in named.needed:
        spec["images"] = given or path.parent
    return Recognised(spec, f"{kind}, as it was named")


def _unknown(path: epath.Path, holds: str = "") -> VlaxError:
    if not holds and path.is_dir():
        names = sorted(file.name for file in path.iterdir())
        holds = f"{len(names)} entries ({', '.join(names[:6])}{', ...' if len(names) > 6 else ''})"
    elif not holds:
        with path.open("rb") as file:
            head = file.read(16)
        packed = next((what for magic, what in PACKED.items() if head.startswith(magic)), "")
        holds = f"the first bytes {head!r}{packed}"
    return VlaxError(f"{path} is not recognised: it holds {holds}; looked for {json_shapes.LOOKED_FOR}. Name it with kind")
