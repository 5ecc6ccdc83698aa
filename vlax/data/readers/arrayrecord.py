r"""ArrayRecord files of one's own: each record a line of JSON and, after it, the encoded picture.

    writer.write(json.dumps({"id": "7", "image_id": "a", "caption": "a dog"}).encode() + b"\n" + jpeg)
    ->  Row(id="7#0", image_id="a", task="caption", ...)

Several pictures follow each other, and the JSON says how many bytes each has: "picture_bytes": [1200, 900]. The JSON has the
fields of `columns.NAMES`; without a picture after it, "image" may name a file below `images`, and without
either the row is text. tf.train.Example, msgpack, pickle and bare pictures are refused by name: a file of Examples is read
with its features by `kind: tfds`.
"""

import functools
import io
import itertools
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor

from etils import epath
from PIL import Image

from vlax.data.readers import shards
from vlax.data.readers.faults import Faults
from vlax.data.readers.files import Facts
from vlax.data.readers.held import Held
from vlax.data.readers.item_table import Item, Place
from vlax.data.readers.pictures import decode_picture
from vlax.data.readers.record_source import RecordSource
from vlax.errors import VlaxError
from vlax.rows import Picture, RowFault
from vlax.storage.paths import local_file
from vlax.storage.state import load_line

SHAPE = r"a record is one line of JSON, then \n and the encoded picture"
SEVERAL = 'of several, "picture_bytes" lists the bytes of each, as they follow each other'
OTHERS = (
    (b"\n", "tf.train.Example; if tensorflow_datasets wrote it, name its folder with kind: tfds"),
    (b"\x89PNG", "a bare PNG"),
    (b"\xff\xd8", "a bare JPEG"),
    *((bytes([0x80, n]), "a pickle") for n in range(2, 6)),
    *((bytes([n]), "msgpack") for n in (*range(0x80, 0x90), 0xDE, 0xDF)),
)


class ArrayRecords(RecordSource):
    """Rows of one file, of a folder of them, or of a range "data.array_record-{00000..00009}-of-00010".

    A record has no columns: finding the texts reads every file once from end to end, files in parallel. For sets of many GB
    use `prepare`, which keeps pictures and texts apart. The fingerprint covers names, sizes and text.
    """

    def find(self) -> Iterable[epath.Path]:
        self._opened = shards.Kept(shards.Reader)
        return self.shards(shards.ARRAY_RECORD, "ArrayRecord")

    def read(self, faults: Faults) -> Generator[Item, None, Facts]:
        name = self.reading.name(epath.Path(self.path).stem, self.split)
        found = self.records(name, faults)
        with ThreadPoolExecutor(4) as pool:
            read = pool.map(functools.partial(headers_of, self._opened), self.files)
            for at, (called, file, headers) in enumerate(zip(self.named, self.files, read, strict=True)):
                top = file.removesuffix(called).rstrip("/")
                for number, (values, size) in enumerate(headers):
                    where, of = f"{top}: {called} record {number}", f"{called}:{number}"
                    made: list[Item] = []
                    with faults.row(name, where):
                        listed = found.fields(values, where, size > 0).pictures(values)
                        named, count = str(listed or ""), len(sizes(where, values, size))
                        if count and isinstance(listed, list) and len(listed) != count:
                            raise RowFault(
                                f"{where} names {len(listed)} pictures and holds {count}; {SEVERAL}", "missing picture"
                            )
                        held = Held(of, Place(at, number), named, count) if count else None
                        found.digested(of if count else named, values)
                        made = found.items(where, of, values, held)
                    yield from made
        return self.shard_facts(name, found)

    def contained(self, item: Item, number: int = 0) -> Picture:
        file, record = self.files[item.place.number], item.place.at
        name = f"{file}: record {record}{f', picture {number + 1}' if number else ''}"
        which = number if item.more else None
        return Picture(name, functools.partial(open_record, self._opened, file, record, name, item.id, which))


def open_record(opened: shards.Kept, file: str, number: int, name: str, row_id: str, which: int | None = None) -> Image.Image:
    """The picture of a record; which: of several."""
    line, _, content = opened(local_file(epath.Path(file))).record(number).partition(b"\n")
    if which is not None:
        ends = list(itertools.accumulate(sizes(name, load_line(name, line, SHAPE), len(content)), initial=0))
        content = content[ends[which] : ends[which + 1]]
    return decode_picture(io.BytesIO(content), name, row_id)


def sizes(where: str, values: dict, size: int) -> list[int]:
    """Bytes of each picture of a record, which are `size` together. RowFault where the JSON says otherwise."""
    said = values.get("picture_bytes")
    if said is None:
        return [size] if size else []
    if not isinstance(said, list) or not all(type(one) is int and one > 0 for one in said) or sum(said) != size:
        raise RowFault(f"{where}: picture_bytes is {str(said)[:80]}, and {size} bytes follow; {SEVERAL}", "missing picture")
    return said


def headers_of(opened: shards.Kept, file: str) -> list[tuple[dict, int]]:
    """The JSON of every record of a file, and how many bytes follow it. VlaxError for records of another kind."""
    headers = []
    for number, content in enumerate(opened(local_file(epath.Path(file))).records()):
        other = next((what for start, what in OTHERS if content.startswith(start)), "")
        if other:
            raise VlaxError(f"{file}: record {number} is {other}; {SHAPE}")
        line, _, picture = content.partition(b"\n")
        values = load_line(f"{file}: record {number}", line, SHAPE)
        if not isinstance(values, dict):
            raise VlaxError(f"{file}: record {number} begins with a {type(values).__name__}, not an object; {SHAPE}")
        headers.append((values, len(picture)))
    return headers
