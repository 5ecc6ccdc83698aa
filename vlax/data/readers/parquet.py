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
from collections.abc import Generator, Iterable, Sequence

from etils import epath
from PIL import Image

from vlax.data.readers import called, shards
from vlax.data.readers import columns as naming
from vlax.data.readers.faults import Faults
from vlax.data.readers.files import Facts, sha256
from vlax.data.readers.item_table import Item, Place
from vlax.data.readers.picture_columns import Shown, contents, picture_of
from vlax.data.readers.pictures import decode_picture, open_picture
from vlax.data.readers.record_source import RecordSource
from vlax.data.readers.records import Records
from vlax.data.readers.table_file import TableFile
from vlax.data.readers.unfold import unfolded
from vlax.errors import VlaxError
from vlax.rows import Picture, RowFault
from vlax.storage.paths import join


class HfTable(RecordSource):
    """Rows of one parquet or arrow file, of a folder of them, or of a glob.

    path     a folder as `datasets` writes it (data/train-00000-of-00002.parquet, train/data-00000-of-00001.arrow), or a file
    images   folder of the pictures where the image column holds paths, and not the pictures themselves
    split    picks the files by their names; needed where a folder holds several splits
    columns  {part: column} where a column is not called as in `columns.NAMES`, e.g. {"text": "caption_0"}

    Rows share an image id where an `image_id` column or the path inside the image struct says so; to evaluate on, else by the
    picture's bytes, for which all pictures are read once (the published PathVQA has no paths). The fingerprint covers the
    names, sizes, schema and text of the files, not the bytes of the pictures.
    """

    def find(self) -> Iterable[epath.Path]:
        files = shards.listed(self.reading.base, self.path, r"\.(parquet|arrow)$", "parquet or arrow")
        try:
            self._named = shards.of_split(files, self.split, self.path) if any(map(shards.split_of, files)) else files
        except VlaxError:  # where no file is of that split, rows may be, by a column
            if not self.split or not naming.named(TableFile(str(next(iter(files.values())))).schema.names, "split"):
                raise
            self._named = files
        self._files = [TableFile(str(file)) for file in self._named.values()]
        self._root = str(join(self.reading.base, self._given))
        return self._named.values()

    def pictures_in(self, images: str) -> str:
        self._given = images
        return images

    def read(self, faults: Faults) -> Generator[Item, None, Facts]:
        first, schema = self._files[0], self._files[0].schema
        name = self.reading.name(epath.Path(self.path).stem, self.split)
        made, digests = self.records(name, faults), []
        made.called.as_vqa = called.as_vqa(schema.names)
        row = unfolded(first.first())[0]
        fields = naming.choose(row, made.columns, first.path, row)
        unread = [name for name in schema.names if name not in fields.images and first.holds(name)]
        naming.check_image(schema.names, fields, self.columns, first.path, {**row, **contents(first, unread)})
        if self.split and not fields.split:
            shards.of_split(self._named, self.split, self.path)  # nothing tells of splits
        embeds = {name: first.embeds(name) for name in fields.images}
        if len({*embeds.values()}) > 1:
            like = "+".join(name for name, own in embeds.items() if own)
            raise VlaxError(
                f"{first.path}: of its image columns {', '.join(embeds)} some hold pictures and some name files; give "
                f"those of one kind: columns={{'image': {like!r}}}"
            )
        if embedded := any(embeds.values()):
            made.taken(fields.images)
        for at, (inside, file) in enumerate(self._named.items()):
            names = self._files[at].schema.names
            if names != schema.names:
                raise VlaxError(f"{file} has the columns {', '.join(names)}, {first.path} has others; give files of one table")
            digest = yield from self._file(inside, at, fields, embedded, made)
            digests.append(sha256(json.dumps([inside, file.stat().length, str(schema.remove_metadata()), digest])))
        settings = {"split": self.split, "fields": fields.list()}
        return self.facts(name, made, settings, digests, images=fields.images, embedded=embedded)

    def _file(self, inside: str, at: int, fields: naming.Fields, embedded: bool, made: Records) -> Generator[Item, None, str]:
        """The Items of one file; returns a digest of all its text."""
        digest, row, file = hashlib.sha256(), 0, self._files[at]
        top = file.path.removesuffix(inside).rstrip("/")
        shown = Shown(file, fields.images, not self.reading.train) if embedded else None
        digested = {fields.image, *fields.others, *naming.Fields(*fields.list()[:8]).texts, fields.messages, fields.choices}
        for batch in file.texts(self._texts(fields), fields.images, embedded):
            rows = batch.to_pylist()
            old = [{name: value for name, value in values.items() if name in digested} for values in rows]
            digest.update(json.dumps(old, default=str).encode())
            for values in rows:
                name, where = f"{inside.rpartition('.')[0]}:{row}", f"{top}: {inside} row {row}"
                items, held = list[Item](), None
                if shown:
                    held = shown.next(name, Place(at, row), [values.pop(column, None) or "" for column in fields.images])
                with made.faults.row(made.source, where):
                    items = made.items(where, name, values, held)
                yield from items
                row += 1
        return digest.hexdigest()

    def _texts(self, fields: naming.Fields) -> list[str]:
        """The columns that are read with no picture: those that play a part, other names of the picture, single choices."""
        import pyarrow.types as types

        schema = self._files[0].schema
        names = called.fields(schema.names)
        names += [
            n for n in (*naming.LETTERS, *naming.MOVING) if n in schema.names and (fields.choices == "A" or n in naming.MOVING)
        ]
        kinds = {n: schema.field(n).type for n in names}
        more = [n for n, kind in kinds.items() if types.is_string(kind) or types.is_integer(kind) or types.is_floating(kind)]
        folded = [n for n in naming.FOLDED if n in schema.names]
        folded += [n for n in ("input", "inputs", "answers") if folded and n in schema.names]
        folded += [n for n in schema.names if naming.NUMBERED.fullmatch(n)]
        parts = [n for n in fields.texts if n in schema.names]
        return list(dict.fromkeys([*parts, *(n for n in (*more, *folded) if n not in fields.images)]))

    def contained(self, item: Item, number: int = 0) -> Picture:
        file, row = self._files[item.place.number], item.place.at
        opener = functools.partial(open_embedded, file, self.kept["images"], row, (self._root, self._roots), item.id, number)
        return Picture(f"{file.path}: row {row}{f', picture {number + 1}' if number else ''}", opener)


def open_embedded(
    file: TableFile, columns: Sequence[str], row: int, within: tuple, row_id: str, number: int = 0
) -> Image.Image:
    """A picture in a row's image columns; where they hold a path alone, its file (within: its folder, and read_picture's)."""
    try:
        cells = [file.cell(column, row) for column in columns]
    except (OSError, ValueError) as error:  # pyarrow's are among them
        reason = str(error).splitlines()[0]
        text = f"row {row_id}: {file.path}: row {row} cannot be read ({reason}); fetch the file again"
        raise RowFault(text, "corrupt picture") from None
    each = [one for cell in cells for one in (cell if isinstance(cell, list) else [cell])]
    content, path = picture_of(each if len(cells) > 1 else cells[0], number)
    if not content and path:
        return open_picture(str(join(within[0], path)), row_id, within[1])
    if not content:
        text = f"row {row_id}: {file.path}: row {row} has no picture; remove the row, or name another image column"
        raise RowFault(text, "missing picture")
    return decode_picture(io.BytesIO(content), f"{file.path}: row {row}", row_id)
