"""Hugging Face `datasets` on disk: parquet files, and the arrow files of `save_to_disk`.

HfTable("pathvqa", split="train")[0]     Row(id="data/train-00000-of-00002:0", task="question", answer_type="yes/no", ...)
HfTable("flickr/train.parquet")[1]       Row(id="train:0#1", task="caption", image_id="a.jpg", ...)

Text is read at once, by column, and pictures never with it. A picture in a parquet file can only be had with its whole row
group (100 rows in the files of `datasets`, tens of MB): read in order, each group is read once; read in random order, as
training does, nearly every picture costs a group. So prepare such data before training on it. Arrow files are mapped into
memory, where a picture costs its own bytes.
"""

import functools
import hashlib
import io
import json
from collections.abc import Generator, Mapping

from etils import epath
from PIL import Image

from vlax.data.readers import records, shards
from vlax.data.readers.faults import Faults
from vlax.data.readers.files import Facts, FileSource, Reading, sha256
from vlax.data.readers.item_table import NOWHERE, Item, Place
from vlax.data.readers.pictures import decode_picture, open_picture
from vlax.data.readers.table_file import TableFile
from vlax.errors import VlaxError
from vlax.rows import Picture, RowFault
from vlax.storage.paths import join


class HfTable(FileSource):
    """Rows of one parquet or arrow file, of a folder of them, or of a glob.

    path     a folder as `datasets` writes it (data/train-00000-of-00002.parquet, train/data-00000-of-00001.arrow), or a file
    images   folder of the pictures where the image column holds paths, and not the pictures themselves
    split    picks the files by their names; needed where a folder holds several splits
    columns  {part: column} where a column is not called as in `records.NAMES`, e.g. {"text": "caption_0"}

    Rows share an image id where an `image_id` column or the path inside the image struct says so; to evaluate on, else by the
    picture's bytes, for which all pictures are read once (the published PathVQA has no paths). The fingerprint covers the
    names, sizes, schema and text of the files, not the bytes of the pictures.
    """

    def __init__(self, path: str, images: str = "", task: str = "", *, columns: Mapping | None = None, split: str = "",
                 reading: Reading):  # fmt: skip
        files = shards.of_split(shards.listed(reading.base, path, r"\.(parquet|arrow)$", "parquet or arrow"), split, path)
        self._named, self._files = files, [TableFile(str(file)) for file in files.values()]
        self._path, self._columns, self._task, self._split, self._reading = path, columns, task, split, reading
        self._root = str(join(reading.base, images))
        given = {"path": path, "task": task, "columns": columns, "split": split}
        super().__init__(reading, images, files.values(), given)

    def read(self, faults: Faults) -> Generator[Item, None, Facts]:
        first, schema = self._files[0], self._files[0].schema
        fields = records.choose(schema.names, self._columns, first.path, picture=True)
        task = records.task_of(fields, self._task, self._path)
        embedded = bool(fields.image) and first.embeds(fields.image)
        name, digests = self._reading.name(epath.Path(self._path).stem, self._split), []
        for at, (called, file) in enumerate(self._named.items()):
            names = self._files[at].schema.names
            if names != schema.names:
                raise VlaxError(f"{file} has the columns {', '.join(names)}, {first.path} has others; give files of one table")
            digest = yield from self._file(called, at, fields, embedded, functools.partial(faults.row, name))
            digests.append(sha256(json.dumps([called, file.stat().length, str(schema.remove_metadata()), digest])))
        kept = {"image": fields.image, "embedded": embedded}
        return Facts(name, task, {"split": self._split, "fields": fields}, digests, kept, numbered=True)

    def _file(self, called: str, at: int, fields: records.Fields, embedded: bool, guard) -> Generator[Item, None, str]:
        """The Items of one file; returns a digest of all its text."""
        digest, row, file = hashlib.sha256(), 0, self._files[at]
        top = file.path.removesuffix(called).rstrip("/")
        same = None if self._reading.train or not embedded else file.digests(fields.image)
        for batch in file.texts(fields.texts, fields.image, embedded):
            rows = batch.to_pylist()
            digest.update(json.dumps(rows, default=str).encode())
            for values in rows:
                name, picture = f"{called.rpartition('.')[0]}:{row}", (values.get(fields.image) or "") if fields.image else ""
                image_id = picture or (next(same) if same else "") or (name if embedded else "")
                file_name, place = (name, Place(at, row)) if embedded else (picture, NOWHERE)
                where, made = f"{top}: {called} row {row}", list[Item]()
                with guard(where):
                    made = records.items(where, name, image_id, file_name, values, fields, self._reading.train, place)
                yield from made
                row += 1
        return digest.hexdigest()

    def picture(self, item: Item) -> Picture | None:
        if not self.kept["embedded"]:
            return super().picture(item)
        file, row = self._files[item.place.number], item.place.at
        opener = functools.partial(open_embedded, file, self.kept["image"], row, (self._root, self._roots), item.id)
        return Picture(f"{file.path}: row {row}", opener)


def open_embedded(file: "TableFile", column: str, row: int, within: tuple, row_id: str) -> Image.Image:
    """The picture in a row's image column; where that holds a path alone, its file (within: its folder, and read_picture's)."""
    try:
        value = file.cell(column, row)
    except (OSError, ValueError) as error:  # pyarrow's are among them
        reason = str(error).splitlines()[0]
        text = f"row {row_id}: {file.path}: row {row} cannot be read ({reason}); fetch the file again"
        raise RowFault(text, "corrupt picture") from None
    value = value if isinstance(value, dict) else {"bytes": value}
    if value.get("bytes") is None and value.get("path"):
        return open_picture(str(join(within[0], value["path"])), row_id, within[1])
    if not value.get("bytes"):
        text = f"row {row_id}: {file.path}: row {row} has no picture; remove the row, or name another image column"
        raise RowFault(text, "missing picture")
    return decode_picture(io.BytesIO(value["bytes"]), f"{file.path}: row {row}", row_id)
