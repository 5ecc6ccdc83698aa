"""The leak filter: pictures that a score is computed on never train the model. What a row's picture is called, as keys.

    picture_key("COCO_val2014_000000391895.jpg")   ->  "coco/391895"     one picture, whatever COCO release names it
    picture_key("coco/train2017/391895.jpg")       ->  "coco/391895"
    picture_key("flickr30k/images/1000092795.jpg") ->  "1000092795"      a name that no other data set gives by chance
    picture_key("1000092795_693b08cb0e.jpg")       ->  "1000092795"      the same photo, as Flickr8k calls it
    picture_key("VG_100K_2/2354786.jpg")           ->  "vg/2354786"
    picture_key("mine/a.jpg")                      ->  ""                a name that says nothing beyond its folder

    keys("/data/17.jpg", ["391895"], space="coco")  ->  {"/data/17.jpg", "coco/391895", "coco/17"}
    keys("/data/17.jpg")                            ->  {"/data/17.jpg", "?/17", "file?/17"}

Every name and id of a row counts. A number counts within one namespace: that which its name or folder says, else the one that
its source declares, else an unknown one, "?", of which `numbers.py` decides for a whole source whose it is. A row is dropped
when a key of its picture, or its picture's whole path, is that of an evaluation row.
"""

import itertools
import re
import zlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlax.data.readers.numbers import ANY, FILE, MAYBE_COCO, VQA, Survey, is_photo, taken
from vlax.rows import Source

SCHEMA = pa.schema([("keys", pa.list_(pa.uint32()))])
BLOCK = 1 << 16  # rows of a record batch
KEY = "key:"  # what a name that is a key already begins with

_COCO = re.compile(r"coco_[a-z]+\d{4}_(\d{1,12})|(\d{12})")
_PHOTO = re.compile(r"([1-9]\d{7,})(?:_[0-9a-f]{8,10}(?:_[a-z])?)?")  # Flickr's number, with or without its secret
# Open Images' ids, and counters that their data sets name after themselves. A bare counter or a word tells nothing.
_DISTINCTIVE = re.compile(
    r"(?=.*[a-f])[0-9a-f]{12,}|vizwiz_(?:train|val|test)_\d{8}|clevr_(?:train|val|test)[ab]?_\d{6}|gcc_(?:train|val)_\d{6,}"
    r"|ade_(?:train|val)_\d{8}|ilsvrc2012_(?:train|val|test)_\d{8}|synpic\d{3,}|sa_\d{3,}"
)
_FOLDERS = {
    **dict.fromkeys(("coco", "mscoco"), "coco"),
    **{f"{part}{year}": "coco" for part in ("train", "val", "test", "unlabeled") for year in (2014, 2015, 2017)},
    **dict.fromkeys(("vg", "gqa", "gqa/images", "vg_100k", "vg_100k_2", "visual_genome"), "vg"),
    **dict.fromkeys(("flickr30k", "flickr30k/images", "flickr30k-images", "flickr30k_images"), "flickr"),
}  # whose pictures the folder holds in which a file lies


def picture_key(name: str) -> str:
    """What a name says about the picture by itself; "" where it says nothing."""
    if len(name) < 8 and name.isdecimal():  # most ids: nothing by themselves
        return ""
    folders, stem, _ = _parts(name)
    folder = folders[-1] if folders else ""
    if coco := _COCO.fullmatch(stem):
        return f"coco/{int(coco[1] or coco[2])}"
    if photo := _PHOTO.fullmatch(stem):
        # img2dataset counts 0000, 0001, ... in folders of that number: 00012/000120007.jpg
        return "" if folder.isdigit() and stem.startswith(folder) else photo[1]
    if stem.isdecimal() and (space := _FOLDERS.get(folder) or _FOLDERS.get("/".join(folders[-2:]))):
        return _number_key(space, int(stem))
    return stem if not stem.isdecimal() and _DISTINCTIVE.fullmatch(stem) else ""


class Called(NamedTuple):
    """What one picture is called.

    path   its file, "" within a container
    names  whatever else its row calls it: ids, names of files
    place  where a container has it, e.g. "/data/a.parquet: row 7"
    space  whose numbers its source says that it has ("coco"); MAYBE_COCO where its form says that; "" where nothing does
    row    the row's id: VQA counts its questions by picture, and some sets name rows after its file
    """

    path: str
    names: str | Iterable[str] = ()
    place: str = ""
    space: str = ""
    row: str = ""


def keys(path: str, names: str | Iterable[str] = (), place: str = "", space: str = "", row: str = "") -> set[str]:
    """The keys of one picture: what its names say, and where it lies (`Called`)."""
    called = [path, *([names] if isinstance(names, str) else names)]
    made = {name.removeprefix(KEY) for name in called if name.startswith(KEY)}
    called = [name for name in dict.fromkeys(called) if name and not name.startswith(KEY)]
    called = [name for name in called if not path.endswith(f"/{name}")]  # the path says it already
    found = made | {key for name in [*called, *([row] if _is_file(row) else [])] if (key := picture_key(name))}
    # Beside such a name a bare number is mostly a count: Karpathy's imgid, the img_id of Flickr30k.
    if not made and not any(key.startswith("coco/") or is_photo(key) for key in found):
        found |= _numbers(called, space, row)
    return (found | {path, place}) - {""}


def names(called: Called) -> tuple[str, ...]:
    """The keys of a picture but for where it lies, as names that another source may give it."""
    return tuple(sorted(f"{KEY}{key}" for key in keys(*called) - {called.path, called.place}))


def _numbers(called: Iterable[str], space: str, row: str) -> set[str]:
    """Keys of names that are bare numbers."""
    found, asked = set(), row.partition("@")[0]
    for name in called:
        _, stem, is_file = _parts(name)
        if not stem.isdecimal() or len(stem) > 18:
            continue
        number = int(stem)
        if space and space != MAYBE_COCO:
            found.add(_number_key(space, number))
            continue
        found |= {f"{ANY}{number}", *([f"{FILE}{number}"] if is_file else [])}
        if space or (asked.isdecimal() and _asks(int(asked), number)):
            found.add(VQA)
    return found


def _asks(question: int, picture: int) -> bool:
    """Whether a question's number is one that VQA gave to questions about a picture: 391895007, or 3918952 in its first version
    and in OK-VQA."""
    return picture > 0 and (question // 1000 == picture or (question // 10 == picture and question % 10 in (0, 1, 2, 5)))


def _is_file(row: str) -> bool:
    return row.lower().startswith("coco_") or ("." in row and _parts(row)[2])


def _number_key(space: str, number: int) -> str:
    return str(number) if space == "flickr" and number >= 10**7 else f"{space}/{number}"


def _parts(name: str) -> tuple[list[str], str, bool]:
    """(its last folders, its stem, whether it is a file's) in small letters."""
    if "://" in name:
        name = re.split(r"[?#]", name)[0]
    *folders, base = name.lower().replace("\\", "/").rsplit("/", 3)
    stem, dot, ending = base.rpartition(".")
    return folders, stem if dot else base, bool(dot) and not ending.isdecimal()


def evaluation_pictures(sources: Iterable[Source]) -> frozenset[str]:
    """Keys of all pictures of evaluation sources. Embedded sources have none: their splits are disjoint."""
    found: set[str] = set()
    for source in sources:
        listed = getattr(source, "pictures", None)
        found |= set().union(*resolved([keys(*picture) for picture in listed()] if listed else []))
    return frozenset(found)


def resolved(pictures: Sequence[Collection[str]]) -> list[set[str]]:
    """The keys of a source's pictures, with the namespaces of their numbers; one whose namespace stays unknown is no key."""
    survey = Survey()
    for one in pictures:
        survey.add(one)
    return [survey.resolved(one) for one in pictures]


def as_certain(key: str) -> str:
    """A key whose number was found to count."""
    return key.replace(FILE, "flickr/") if key.startswith(FILE) else key.replace(ANY, "coco/")


def meetings(mine: Sequence[Collection[str]], theirs: Sequence[Collection[str]]) -> list[int]:
    """For each picture of one source, by its keys, the first of another that is the same by name; -1 where none is."""
    survey, other, first = Survey(), Survey(), dict[str, int]()
    for keys in mine:
        survey.add(keys)
    for keys in theirs:
        other.add(keys)
    for at, keys in enumerate(theirs):
        for key in other.resolved(keys):
            first.setdefault(key, at)
    bare = survey.candidates(first)
    met = taken(survey, bare, [keys for keys in mine if not bare.isdisjoint(keys)])
    first |= {key: first[as_certain(key)] for key in met}
    return [min((first[key] for key in keys if key in first), default=-1) for keys in mine]


def columns(keys: Iterable[Collection[str]]) -> Generator[pa.RecordBatch, None, dict[str, Any]]:
    """The keys of rows as numbers, which are 4 bytes each and may meet: record batches of SCHEMA. Returns what there is to know
    of the bare numbers among them (`Survey.known`)."""
    keys, survey = iter(keys), Survey()
    while part := list(itertools.islice(keys, BLOCK)):
        for one in part:
            survey.add(one)
        ends = np.array([0, *itertools.accumulate(map(len, part))], np.int32)
        numbers = pa.array(map(_crc, itertools.chain.from_iterable(part)), pa.uint32())
        yield pa.RecordBatch.from_arrays([pa.ListArray.from_arrays(pa.array(ends), numbers)], schema=SCHEMA)
    return {"numbers": survey.known}


def dropped(
    blocks: Iterable[pa.RecordBatch], drop: frozenset[str], keys: Callable[[int], Collection[str]],
    known: dict[str, Any] | None = None,
) -> Sequence[int]:  # fmt: skip
    """The rows that have a key in `drop`, in order. blocks: of `columns`; keys: those of a row; known: what `columns` returned,
    for rows whose bare numbers count."""
    survey = Survey(known["numbers"]) if known else Survey()
    bare = survey.candidates(drop)
    found = {row: keys(row) for row in _meeting(blocks, drop | bare)}
    more = taken(survey, bare, found.values())
    return [row for row, own in found.items() if not (drop | more).isdisjoint(own)]


def _meeting(blocks: Iterable[pa.RecordBatch], drop: frozenset[str]) -> Iterator[int]:
    """The rows of which a key has the number of one of `drop`."""
    wanted, begin = pa.array(sorted({_crc(key) for key in drop}), pa.uint32()), 0
    for block in blocks:
        column = block.column("keys")
        hits = np.flatnonzero(pc.is_in(column.values, wanted).to_numpy(zero_copy_only=False))
        yield from (np.unique(np.searchsorted(column.offsets.to_numpy(), hits, "right") - 1) + begin).tolist()
        begin += len(block)


def _crc(key: str) -> int:
    return zlib.crc32(key.encode("utf-8", "surrogatepass"))
