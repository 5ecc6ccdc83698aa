"""What the columns of pictures in a parquet or arrow file hold of each row.

Shown(TableFile("t.parquet"), ["left_image", "right_image"], False).next("t:0", Place(0, 0), ["a.jpg", ""])
->  Held("t:0", Place(0, 0), "t:0", 2, ("a.jpg",))
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from vlax.data.readers import called
from vlax.data.readers.held import Held
from vlax.data.readers.item_table import Place
from vlax.data.readers.table_file import AT_ONCE, TableFile


class Shown:
    """Tells of one row after the other. told: whether pictures without a path are told apart by their bytes."""

    def __init__(self, file: TableFile, columns: Sequence[str], told: bool):
        self._counts = [_counts(file, name) for name in columns]
        self._same = [_digests(file, name) if told else itertools.repeat("") for name in columns]
        self._listed = [called.listed_paths(file, name) or itertools.repeat(()) for name in columns]

    def next(self, name: str, place: Place, paths: Sequence[str]) -> Held | None:
        """None of a row without a picture. paths: in each of the columns."""
        counts = [next(count) for count in self._counts]
        ids = [path or next(same) for path, same in zip(paths, self._same, strict=True)]
        shown = [one for one, count in zip(ids, counts, strict=True) if count]
        also = [path for listed in self._listed for path in next(listed)]
        also += filter(None, paths) if len(paths) > 1 else ()
        return Held(name, place, " ".join(shown) if all(shown) else name, sum(counts), tuple(also)) if shown else None


def contents(file: TableFile, columns: Iterable[str]) -> dict[str, Any]:
    """The first picture in each of some columns, of their first rows; None where these have none."""
    found = {name: (value for value in itertools.islice(file.values(name), AT_ONCE) if count(value)) for name in columns}
    return {name: next(values, None) for name, values in found.items()}


def _counts(file: TableFile, column: str) -> Iterator[int]:
    """How many pictures each row has. In a parquet file that costs a look at all pictures, where its statistics do not say
    that none is missing."""
    if file.is_parquet:
        leaves = [at for at in range(file.metadata.num_columns) if _holds(file.metadata.schema.column(at).path, column)]
        groups = [file.metadata.row_group(at) for at in range(file.metadata.num_row_groups)]
        said = [group.column(leaf).statistics for group in groups for leaf in leaves]
        if "list" not in str(file.schema.field(column).type) and all(one and one.null_count == 0 for one in said):
            return itertools.repeat(1)
    return (count(value) for value in file.values(column))


def _digests(file: TableFile, column: str) -> Iterator[str]:
    """Of each row that has no path of its own, what its picture's bytes say; asked for only where there is none."""
    for value in file.values(column):
        content, path = picture_of(value)
        if not path or isinstance(value, list):
            yield hashlib.sha256(content).hexdigest()[:20] if content else ""


def picture_of(value: Any, number: int = 0) -> tuple[bytes | None, str]:
    """(bytes, path) of a picture column's value. number: which one of a list."""
    if isinstance(value, list):
        value = next(itertools.islice((one for one in value if count(one)), number, None), None)
    if isinstance(value, dict):
        return value.get("bytes"), value.get("path") or ""
    return value, ""


def count(value: Any) -> int:
    """How many pictures a column's value has."""
    if isinstance(value, list):
        return sum(count(one) for one in value)
    return int(bool(value.get("bytes") or value.get("path")) if isinstance(value, dict) else bool(value))


def _holds(leaf: str, column: str) -> bool:
    """Whether a leaf of a parquet schema holds the bytes of a picture column."""
    return leaf == column or (leaf.startswith(f"{column}.") and not leaf.endswith(".path"))
