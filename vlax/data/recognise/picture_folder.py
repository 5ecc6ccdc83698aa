"""What lies beside an annotations file: the folder of its pictures, and the other half of VQAv2's pair of files.

picture_folder(coco/annotations/captions.json, ["a.jpg", ...])     Pictures(folder=coco/images, strip="", found=8, of=8)
picture_folder(demo/rows.json, ["data/pics/1.jpg", ...])           Pictures(folder=demo, strip="data/", found=3, of=3)
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from etils import epath

from vlax.data.readers import pictures
from vlax.data.readers.picture_values import ENDING
from vlax.errors import VlaxError
from vlax.storage.paths import read_file
from vlax.storage.state import load_json

SAMPLE = 8  # file names that are looked for
FOLDERS = 200  # folders that are looked into
_PICTURES = re.compile(r"image|img|photo|picture|train|val|test|data|coco|flickr|\d{4}", re.IGNORECASE)


class Pictures(NamedTuple):
    """A folder, what file names lose before they are looked for there, and how many of the sample are there."""

    folder: epath.Path
    strip: str
    found: int
    of: int


def sample(listed: Sequence, count: int = SAMPLE) -> list:
    """Up to `count` of a sequence, evenly spaced from its first on."""
    step = max(1, -(-len(listed) // count))
    return list(listed[::step])


def picture_folder(file: epath.Path, names: Sequence[str], given: epath.Path | None = None) -> Pictures:
    """The folder near `file` with most of the named pictures; `found` is 0 where there is none.

    file   the annotations file: its own folder is looked into, two folders deep, then its parent's
    given  a folder that is to be taken; then only `strip` is found out
    """
    near = file.parent
    names = [name for name in names if name]
    best = Pictures(given or near, "", 0, len(names))
    places = [[given]] if given is not None else [list(_folders(near)), list(_folders(near.parent))]
    for strip, folders in itertools.product(_prefixes(names), places):
        for folder in folders:
            found = sum(epath.Path(pictures.found(str(folder / name.removeprefix(strip)))).exists() for name in names)
            if found > best.found:
                best = Pictures(folder, strip, found, len(names))
            if names and found == len(names):
                return best
        if best.found:  # some of them: another data set's folder may well have files of the same names
            return best
    return best


def _prefixes(names: list[str]) -> list[str]:
    """`["a/b/1.jpg", "a/b/2.jpg"] -> ["", "a/", "a/b/"]`: the folders that all names begin with."""
    split = [name.split("/")[:-1] for name in names]
    common = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*split, strict=False))]
    return ["/".join(common[:count]) + "/" * bool(count) for count in range(len(common) + 1)]


def _folders(top: epath.Path) -> Iterable[epath.Path]:
    """Folders that may hold pictures: this one, those in it, and those in these that sound like pictures."""
    inner = subfolders(top)
    deeper = (folder for one in inner if _PICTURES.search(one.name) for folder in subfolders(one))
    return itertools.islice(itertools.chain([top], inner, deeper), FOLDERS)


def subfolders(folder: epath.Path) -> list[epath.Path]:
    """Folders in a folder, those that sound like pictures first. Names with a file's ending are not even asked about."""
    try:
        inner = sorted(folder.iterdir(), key=lambda path: (not _PICTURES.search(path.name), path.name))
        plain = [path for path in inner if not re.search(r"\.[A-Za-z]\w{1,4}$", path.name) and not path.name.startswith(".")]
        return [path for path in plain[:FOLDERS] if path.is_dir()]
    except OSError:  # a folder above that is not ours to read
        return []


def vqa_partner(path: epath.Path, data: dict) -> tuple[epath.Path, dict]:
    """(file, its JSON) that belongs to VQAv2 questions, or to VQAv2 annotations: by the usual names, then by question ids.

        v2_OpenEnded_mscoco_val2014_questions.json     v2_mscoco_val2014_annotations.json
        questions_val.json                             annotations_val.json

    VlaxError where no file beside it has the question ids.
    """
    mine, other = ("questions", "annotations") if "questions" in data else ("annotations", "questions")
    wanted = {str(row.get("question_id")) for row in sample([row for row in data[mine] if isinstance(row, dict)])}
    looked = []
    for file in _candidates(path, mine, other):
        looked.append(file.name)
        try:
            there = load_json(file, read_file(file))
        except VlaxError:
            continue
        rows = there.get(other) if isinstance(there, dict) else None
        if isinstance(rows, list) and wanted <= {str(row.get("question_id")) for row in rows if isinstance(row, dict)}:
            return file, there
    why = (
        "questions without answers (test, test-dev) are nothing to learn from or to score on" if other == "annotations" else ""
    )
    raise VlaxError(
        f"{path} holds VQAv2 {mine}, and no file beside it the {other} to their question ids (looked at: "
        f"{', '.join(looked) or 'none is named so'}); {why or f'put the {other} file there'}"
    )


def _candidates(path: epath.Path, mine: str, other: str) -> list[epath.Path]:
    """JSON files that may be the other half: with the usual name, with a name that says so, then others in the same folder."""
    words = {"annotations": r"annot|answer|ans\b", "questions": r"quest|ques\b"}
    usual = re.sub(r"(OpenEnded|MultipleChoice)_", "", path.name)
    if path.name.startswith("v2_mscoco"):
        usual = path.name.replace("v2_", "v2_OpenEnded_", 1)
    usual = usual.replace(mine, other).replace(mine.title(), other.title())
    folders = [path.parent, *subfolders(path.parent), *(f for f in subfolders(path.parent.parent) if f != path.parent)]
    listed = [file for folder in folders[:20] for file in _files(folder, words[other]) if file != path]
    named = {str(file) for file in listed}
    rest = [file for file in _files(path.parent, "") if file != path and str(file) not in named]
    return [*sorted(listed, key=lambda file: file.name != usual), *rest][:8]


def beside_texts(folder: epath.Path) -> bool:
    """Whether most pictures of a folder (or of the first folder in it that has any) have a text of their name."""
    for one in (folder, *subfolders(folder)[:8]):
        names = [path.name for path in itertools.islice(one.iterdir(), 2000)]
        pictures = [re.sub(ENDING, "", name) for name in names if re.search(ENDING, name)]
        if pictures:
            return 2 * len({*pictures} & {re.sub(r"\.(txt|json|caption)$", "", name) for name in names}) > len(pictures)
    return False


def files(folder: epath.Path) -> list[epath.Path]:
    """The files in a folder and in the folders in it, by name; a folder's own come first. Nothing else is asked of them."""
    inner = subfolders(folder)
    skip = {str(one) for one in inner}
    return [path for one in (folder, *inner) for path in sorted(one.iterdir()) if str(path) not in skip]


def _files(folder: epath.Path, words: str) -> list[epath.Path]:
    """JSON files of a folder with one of the words (a pattern) in their names."""
    try:
        return sorted(p for p in folder.iterdir() if p.suffix == ".json" and re.search(words, p.name, re.IGNORECASE))
    except OSError:
        return []
