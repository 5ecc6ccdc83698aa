"""WebDataset: tar shards whose members belong together by their names up to the first dot.

    00012.jpg + 00012.txt                                       ->  Row(id="pairs-000/00012#0", task="caption", ...)
    00012.jpg + 00012.json {"question": "...", "answer": "..."}  ->  Row(id="pairs-000/00012", task="question", ...)
    00012.0.jpg + 00012.1.jpg + 00012.json {...}                 ->  a row of two pictures (`sample_pictures.py`)

A shard's headers and texts are scanned once, shards in parallel; a picture is then read from its place in the tar.
"""

import functools
import io
import tarfile
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from etils import epath
from PIL import Image

from vlax.data.readers import columns as naming
from vlax.data.readers import dialogue, sample_pictures, unfold
from vlax.data.readers.faults import Faults
from vlax.data.readers.files import Facts
from vlax.data.readers.held import Held
from vlax.data.readers.item_table import Item, Place
from vlax.data.readers.pictures import PICTURE_BYTES, decode_picture
from vlax.data.readers.record_source import RecordSource
from vlax.data.readers.records import Records
from vlax.data.readers.sample_pictures import Inside
from vlax.errors import VlaxError
from vlax.rows import Picture
from vlax.storage.state import LINE_BYTES, load_line

TEXTS = ("txt", "json", "cls")
VIDEOS = ("mp4", "webm", "avi", "mov", "mkv")
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
HEADER_BYTES = 1 << 20  # of names and attributes that go before a member
SHAPE = "a sample is KEY.jpg (jpeg, png, webp) with KEY.txt (a caption) or KEY.json (caption, or question and answer)"


class WebDataset(RecordSource):
    """Rows of one tar, of a folder of them, or of a range "pairs-{000..010}.tar".

    The text is that of KEY.json where there is one, with its fields named as in `columns.NAMES` or by `columns`, else of
    KEY.txt, else the class in KEY.cls. A sample without a picture is a row of text. `columns` may name members as pictures,
    {"image": "jpg"} or "left.jpg+right.jpg". The fingerprint covers names, sizes and text of the shards.
    """

    def find(self) -> Iterable[epath.Path]:
        return self.shards(r"\.(tar(\.\w+)?|tgz)$", "tar")

    def read(self, faults: Faults) -> Generator[Item, None, Facts]:
        name = self.reading.name(epath.Path(self.path).stem, self.split)
        given = sample_pictures.endings(self.columns)
        fields = {part: field for part, field in self.columns.items() if not given or part not in ("image", "images")}
        found = self.records(name, faults, columns=fields)
        with ThreadPoolExecutor(8) as pool:
            for at, (called, samples) in enumerate(zip(self.named, pool.map(scan, self.files), strict=True)):
                top = self.files[at].removesuffix(called).rstrip("/")
                for key, sample in samples.items():
                    where, of = f"{top}: {called} {key}", f"{called.removesuffix('.tar')}/{key}"
                    made: list[Item] = []
                    with faults.row(name, where):
                        values = sample_values(where, sample)
                        held = _held(where, of, at, key, sample, values, found, given)
                        found.digested(" ".join(held.names) or held.name if held else "", values)
                        made = found.items(where, of, values, held)
                    yield from made
        return self.shard_facts(name, found)

    def contained(self, item: Item, number: int = 0) -> Picture:
        file, offset, size = self.files[item.place.number], item.place.at, item.place.size
        called = (item.file_name, *item.more)[number]
        name = f"{file}: {called}"
        if not item.more:
            return Picture(name, functools.partial(open_member, file, offset, size, name, item.id))
        member = called.removeprefix(list(self.named)[item.place.number].removesuffix(".tar") + "/")
        return Picture(name, functools.partial(sample_pictures.open_among, file, offset, size, member, name, item.id, Member))


def _held(
    where: str, of: str, tar: int, key: str, sample: dict, values: dict, found: Records, given: Sequence[str]
) -> Held | None:
    """The pictures of a sample that are its row's; None where it has none. of: what the sample is called."""
    if not sample.get("") and (moving := sample.get("video")):
        raise dialogue.moving(where, moving)
    said = found.fields(unfold.unfolded(values)[0], where, True).pictures(values) if sample.get("") else None
    pictures = sample_pictures.chosen(where, sample.get("", ()), sample_pictures.listed(said), given)
    if len(pictures) < 2:
        return Held(of, Place(tar, pictures[0].at, pictures[0].size)) if pictures else None
    names = tuple(of.removesuffix(key) + one.name for one in pictures)
    return Held(of, Place(tar, *sample_pictures.span(pictures)), count=len(pictures), names=names)


def open_member(file: str, offset: int, size: int, name: str, row_id: str) -> Image.Image:
    with epath.Path(file).open("rb") as tar:
        tar.seek(offset)
        return decode_picture(io.BytesIO(tar.read(size)), name, row_id)


def scan(file: str) -> dict[str, dict]:
    """The samples of a tar in order: {key: {"txt": bytes, "json": bytes, "": [Inside of each picture], "video": its name}}.

    VlaxError for a compressed tar, in which no picture can be found without unpacking all before it, and for one that is cut
    off: Python's tarfile takes a damaged header for the end.
    """
    samples: dict[str, dict] = {}
    with epath.Path(file).open("rb") as opened:
        start = opened.read(8)
        for magic, tool in COMPRESSED.items():
            if start.startswith(magic):
                way_out = f"unpack the tar itself ({tool} {epath.Path(file).name}): its pictures are compressed already"
                raise VlaxError(f"{file} is compressed, and pictures cannot be read from the middle of it; {way_out}")
        opened.seek(0)
        end = 0
        try:
            with tarfile.open(fileobj=opened, mode="r:", tarinfo=Member) as tar:
                size = opened.seek(0, 2)
                for member in tar:
                    before, end = end, member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                    _check(file, member, before, end, size)
                    folder, _, name = member.name.rpartition("/")
                    stem, _, extension = name.partition(".")
                    if not member.isfile() or not stem:
                        continue
                    sample = samples.setdefault(f"{folder}/{stem}".removeprefix("./").lstrip("/"), {})
                    kind = extension.lower()
                    part, _, ending = kind.rpartition(".")
                    if ending in sample_pictures.ENDINGS:
                        whole = member.name.removeprefix("./").lstrip("/")
                        one = Inside(whole, part, member.offset, member.offset_data, member.size)
                        sample.setdefault("", []).append(one)
                    elif ending in VIDEOS:
                        sample["video"] = member.name
                    elif kind in TEXTS and (text := tar.extractfile(member)):
                        sample[kind] = text.read()
        except (tarfile.TarError, OSError, ValueError, RecursionError) as error:
            raise VlaxError(f"{file} is not a whole tar ({error}); fetch it again") from None
        opened.seek(end)
        if any(opened.read(2 * tarfile.BLOCKSIZE)):
            raise VlaxError(f"{file} is damaged or cut off at byte {end}; fetch it again")
    samples = {key: sample for key, sample in samples.items() if sample}
    if not samples:
        raise VlaxError(f"{file} holds no samples; {SHAPE}")
    return samples


class Member(tarfile.TarInfo):
    """A header of a tar, refused by its stated size before anything of its content is read."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        made = super().frombuf(buf, encoding, errors)
        most = PICTURE_BYTES if made.type in tarfile.REGULAR_TYPES else HEADER_BYTES if made.type in EXTENDED else -1
        if made.size < 0 or 0 <= most < made.size:
            raise tarfile.ReadError(f"its member {made.name[:80]!r} has {made.size:,} bytes, limit {most:,}")
        return made


def _check(file: str, member: tarfile.TarInfo, before: int, end: int, size: int) -> None:
    """VlaxError for a member that a tar of samples has no use for. before, end: of the one before it and its own, in bytes."""
    kind = member.name.rpartition(".")[2].lower()
    parts = member.name.split("/")
    fault = (
        "is sparse" if member.sparse is not None
        else f"has {member.size:,} bytes" if not 0 <= member.size <= (LINE_BYTES if kind in TEXTS else PICTURE_BYTES)
        else "ends where the one before it does" if end <= before
        else f"ends at byte {end:,} of {size:,}: the tar is cut off" if end > size
        else "has an absolute name" if member.name.startswith("/")
        else "leads out of the tar" if ".." in parts
        else ""
    )  # fmt: skip
    if fault:
        raise VlaxError(f"{file} is not a whole tar of samples: its member {member.name[:80]!r} {fault}; fetch it again")


def sample_values(where: str, sample: dict) -> dict:
    """The fields of a sample: of its JSON, else its caption, else its class."""
    try:
        if "json" in sample:
            values = load_line(f"{where}.json", sample["json"], "mend or remove the sample")
            if not isinstance(values, dict):
                raise VlaxError(f"{where}.json holds a {type(values).__name__}, not an object; {SHAPE}")
            has_text = any(naming.named(values, part) for part in ("text", "question", "messages"))
            return values if has_text or "txt" not in sample else {**values, "caption": sample["txt"].decode()}
        for kind in ("txt", "cls"):
            if kind in sample:
                return {"caption": sample[kind].decode()}
    except ValueError as error:
        raise VlaxError(f"{where}: its text is not UTF-8 ({error}); mend or remove the sample") from None
    raise VlaxError(f"{where} has no text; {SHAPE}")
