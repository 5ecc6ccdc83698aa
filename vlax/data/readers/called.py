"""What records call their pictures, in whatever field: for the leak filter (`leaks.py`), whatever the picture is read from.

Called()({"image": "a.jpg", "cocoid": 391895, "img_id": "17", "caption": "a dog"})  ->  ["a.jpg", "key:coco/391895", "17"]
"""

from collections.abc import Iterable, Iterator, Mapping

from vlax.data.readers import values
from vlax.data.readers.columns import PICTURED, plain
from vlax.data.readers.leaks import KEY
from vlax.data.readers.table_file import TableFile

FIELDS = {*PICTURED, "image/filename", "coco_url", "flickr_url", "url"}
COCO = {"cocoid", "coco_id"}
VQA = {"multiple_choice_answer", "image_id"}  # VQAv2's own
LONGEST = 512  # characters of a name: what is longer is a picture


def fields(names: Iterable) -> list[str]:
    """Those of a record's fields that name its picture."""
    return [name for name in names if isinstance(name, str) and plain(name) in FIELDS]


def as_vqa(names: Iterable) -> bool:
    """Whether a record has VQAv2's own fields."""
    return {plain(name) for name in names if isinstance(name, str)} >= VQA


class Called:
    """Reads the names of one source's records. as_vqa: whether any had VQAv2's own fields."""

    def __init__(self) -> None:
        self._fields: dict[tuple, list[tuple[str, bool]]] = {}
        self.as_vqa = False

    def __call__(self, record: Mapping) -> list[str]:
        key = tuple(record)
        if key not in self._fields:
            self._fields[key] = [(name, plain(name) in COCO) for name in fields(key)]
            self.as_vqa = self.as_vqa or as_vqa(key)
        found = []
        for name, is_coco in self._fields[key]:
            text = values.text(record[name])
            if 0 < len(text) <= LONGEST:
                found.append(f"{KEY}coco/{text}" if is_coco and text.isdecimal() else text)
        return found


def listed_paths(file: TableFile, column: str) -> Iterator[tuple[str, ...]] | None:
    """Of each row of a table, the paths in an image column of lists; None for other columns. No picture is read."""
    import pyarrow.types as types

    kind = file.schema.field(column).type
    of = kind.value_type if types.is_list(kind) or types.is_large_list(kind) else None
    if of is None or not types.is_struct(of) or of.get_field_index("path") < 0:
        return None
    return _paths(file, column)


def _paths(file: TableFile, column: str) -> Iterator[tuple[str, ...]]:
    import pyarrow.compute as pc

    if file.is_parquet:
        leaves = (file.metadata.schema.column(at).path for at in range(file.metadata.num_columns))
        wanted = [leaf for leaf in leaves if leaf.startswith(f"{column}.") and leaf.endswith(".path")]
        chunks = (batch.column(column) for batch in file.parquet().iter_batches(4096, columns=wanted))
    else:
        chunks = iter(file.table.column(column).chunks)
    for chunk in chunks:
        found: list[list[str]] = [[] for _ in range(len(chunk))]
        paths = pc.struct_field(pc.list_flatten(chunk), "path").to_pylist()
        for row, path in zip(pc.list_parent_indices(chunk).to_pylist(), paths, strict=True):
            found[row] += [path] if path else []
        yield from map(tuple, found)
