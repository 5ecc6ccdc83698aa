"""The rows of a prepared set, as columns: `rows-00000-of-00012.arrow` and `rows.npy` (`item_table.py`), with the number of a
row's picture as its place. Sets of format 1 have one JSON object a row, in ArrayRecord files, and go through the cache.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from vlax.data.readers import item_batches, row_cache, shards
from vlax.data.readers.item_table import NARROW, NOWHERE, SCHEMA, Item, ItemTable, Mapped, Place
from vlax.errors import VlaxError
from vlax.rows import TASKS, Row, Turn
from vlax.storage import seal, state
from vlax.storage.paths import local_file, read_file

AGAIN = "copy or prepare the set again"
TABLE = "rows.npy"


def item(row: Row, picture: int, name: str, also: tuple[str, ...] = (), more: Sequence[tuple[int, str]] = ()) -> Item:
    """A row as it is kept. picture: its number, -1 for a row of text; name: what the source calls it; also: what else; more:
    number and name of its other pictures."""
    first = row.turns[0]
    # A first turn that says more than its texts, or has none, is kept where turns have all their fields.
    whole = bool(first.task) or not (first.question or first.answer)
    return Item(
        row.id, row.image_id, name, "" if whole else first.question, "" if whole else first.answer, tuple(row.references),
        row.answer_type, row.turns[0 if whole else 1 :], row.task, Place(at=picture) if picture >= 0 else NOWHERE,
        also=also if picture >= 0 else (), more=tuple(f"{number} {name}" for number, name in more),
        stands=tuple(f"{turn}:{at}" for turn, at in row.places),
    )  # fmt: skip


def others(more: Sequence[str]) -> list[tuple[int, str]]:
    """(number, name) of a row's pictures after the first one."""
    return [(int(number), name) for number, _, name in (one.partition(" ") for one in more)]


def row(item: Item, task: str) -> Row:
    """The row that `item` was, without its picture. task: of captions, where it is another."""
    first = (Turn(item.question, item.answer),) if item.question or item.answer else ()
    own = task if task and item.task in TASKS[:2] else item.task
    places = tuple((int(turn), int(at)) for turn, at in (one.split(":") for one in item.stands))
    return Row(item.id, item.image_id, own, (*first, *item.later), None, item.references, item.answer_type, places=places)


def opened(folder: epath.Path, manifest: Mapping[str, Any], files: Sequence[str]) -> tuple[ItemTable, bool, str]:
    """(the rows, whether there are captions among them, their key in the cache). files: the shards of rows."""
    if manifest["format"] == "vlax prepared 1":
        return _first_format(folder, files)
    seal.check(folder, TABLE, way_out=AGAIN)
    table = np.load(io.BytesIO(read_file(folder / TABLE)), allow_pickle=False)
    whole = table.dtype == np.int64 and table.ndim == 2 and table.shape[1] == 5 and len(table) and table[0, 0] == 0
    if not whole or (np.diff(table[:, 0]) <= 0).any() or table[-1, 0] != manifest["counts"]["rows"]:
        raise VlaxError(f"{folder / TABLE} does not say where {manifest['counts']['rows']} rows are; {AGAIN}")
    large = sum(entry["bytes"] for entry in manifest["shards"] if entry["file"] in files) >= row_cache.SMALL
    key = row_cache.derived("prepared", manifest) if large else ""
    schema = SCHEMA if manifest.get("several") else NARROW
    return ItemTable(Mapped(str(folder), table, files, schema, AGAIN)), bool(manifest["captions"]), key


def _first_format(folder: epath.Path, files: Sequence[str]) -> tuple[ItemTable, bool, str]:
    def made() -> row_cache.Made:
        seal.check(folder, *files, way_out=AGAIN)
        captions = False
        lines = (line for file in files for line in shards.Reader(local_file(folder / file)).records())
        for block in item_batches.blocks(map(_of_line, lines)):
            tasks = block.column("task").unique().to_pylist()
            captions = captions or any(task in TASKS[:2] for task in tasks)
            yield block
        return {"captions": captions}

    key = row_cache.key([folder / name for name in ("manifest.json", *files)], "prepared 1")
    blocks, known = row_cache.kept(key, SCHEMA, made)
    return ItemTable(blocks), bool(known["captions"]), key


def _of_line(line: bytes) -> Item:
    values = state.load_line("a row", line, AGAIN)
    made = Row(values["id"], values.get("image_id", ""), values["task"], tuple(Turn(*turn) for turn in values["turns"]), None,
               tuple(values.get("references", ())), values.get("answer_type", ""))  # fmt: skip
    return item(made, values.get("picture", -1), values.get("name", ""))
