"""Opens the data source that a config names.

open_source({"kind": "scenes", "split": "train", "style": "ai"})
open_source({"kind": "coco", "annotations": "captions_train.json", "images": "images"}, data_root, train=True)
open_source({"kind": "vqa", "questions": "q.json", "annotations": "a.json", "images": "images"}, data_root, train=True)
open_source({"kind": "karpathy", "annotations": "dataset_coco.json", "images": "images", "split": "train+restval"}, data_root)
open_source({"path": "mine.jsonl"}, data_root)      without a kind, the file is looked at (`recognise.py`)
"""

from collections.abc import Collection, Mapping

from vlax.data import parts
from vlax.data.readers.faults import STRICT, Faults
from vlax.data.readers.files import Reading
from vlax.data.readers.kinds import KINDS, PATHS
from vlax.data.recognise.recognise import recognise
from vlax.errors import VlaxError
from vlax.rows import Source
from vlax.storage.paths import rooted
from vlax.storage.state import understood


def open_source(
    spec: Mapping, data_root: str = "", *, train: bool = True, drop_image_ids: Collection[str] = (), faults: Faults = STRICT
) -> Source:
    """The source of one spec; VlaxError for an unknown kind, field, split or style and for files that don't fit.

    spec            "kind" and the fields of that kind (`kinds.py`); or "path" and any of them: the kind is recognised then;
                    "part" of a file source, which holds pictures out (`parts.py`)
    data_root       what the paths of a file source are relative to; any path that epath opens (gs:// too)
    train           whether a file source yields rows to train on, where its spec does not say
    drop_image_ids  pictures whose rows a file source leaves out (leak filter); the embedded splits are disjoint already
    faults          what becomes of rows that a reader cannot take (`faults.py`)
    """
    data_root = str(data_root or "")
    fields = {key: _plain(value) for key, value in dict(spec).items() if value is not None}
    if "kind" not in fields and "path" in fields:
        fields = _recognised(fields, data_root)
    kind, part = fields.pop("kind", None), fields.pop("part", "")
    _check_fields(kind, fields)
    base = _base(kind, fields, data_root)
    reader = KINDS[kind].load()
    named = ", ".join(str(fields[name]) for name in PATHS[:3] if fields.get(name))
    if "train" not in KINDS[kind].fields:  # drawn by vlax itself: no file, and no row to leave out
        if part:
            raise VlaxError(f"data source {kind} has splits; leave part={part!r} out")
        return reader(**fields)
    train, limit = fields.pop("train", train), fields.pop("limit", None)
    with understood(f"data source {kind}: {named}", "fetch or export it again"):
        if part:
            whole = reader(**fields, reading=Reading(kind, train, None, base, (), Faults(collect=True)))
            drop_image_ids = {*drop_image_ids, *parts.left_out(whole.pictures(), part, whole.name)}
        source: Source = reader(**fields, reading=Reading(kind, train, limit, base, drop_image_ids, faults))
    return source


def _plain(value):
    """A mapping (ml_collections' too, which is no Mapping) as a dict; anything else as it is."""
    return dict(value) if isinstance(value, Mapping) or hasattr(value, "to_dict") else value


def _recognised(fields: dict, data_root: str) -> dict:
    """The fields of a spec with a path and no kind, as what lies there asks for; what the spec says itself stays."""
    base = _base("by path", fields, data_root)
    found = recognise(fields["path"], fields.get("images", ""), base=base)
    own = {key: value for key, value in fields.items() if key != "path"}
    return {**found.spec, **own}


def _check_fields(kind, fields: dict) -> None:
    if kind not in KINDS:
        raise VlaxError(f"data source: there is no kind {kind!r}; the kinds are {', '.join(KINDS)}")
    needed, optional = KINDS[kind].needed, KINDS[kind].optional
    valid = f"{kind} has the fields {', '.join(needed)} and, if wanted, {', '.join(optional)}"
    for name, value in fields.items():
        expected = KINDS[kind].fields.get(name)
        if expected is None:
            raise VlaxError(f"data source {kind}: there is no field {name!r}; {valid}")
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            raise VlaxError(f"data source {kind}: {name} is {value!r}; it should be of type {expected.__name__}")
    for name in needed:
        if name not in fields:
            if (kind, name) == ("vqa", "annotations"):
                valid = f"questions without answers (test, test-dev) are nothing to learn from or to score on. {valid}"
            raise VlaxError(f"data source {kind}: {name} is missing; {valid}")


def _base(kind: str, fields: dict, data_root: str) -> str:
    """`data_root`, which may be empty only where no path is relative to it."""
    paths = [fields[name] for name in PATHS if fields.get(name)]
    relative = [path for path in paths if not rooted(str(path))]
    if relative and not data_root:
        raise VlaxError(
            f"data source {kind} reads {relative[0]} from the data root, which is not set; pass --config.run.data_root=DIR"
        )
    return data_root
