"""What the sources of records have in common: the fields of their specs, and how their rows are numbered and named."""

import json
from collections.abc import Iterable, Mapping

from etils import epath

from vlax.data.readers import shards
from vlax.data.readers.faults import Faults
from vlax.data.readers.files import Facts, FileSource, Reading, sha256
from vlax.data.readers.numbers import MAYBE_COCO
from vlax.data.readers.records import Records


class RecordSource(FileSource):
    """A file, a folder or shards of records (`records.py`).

    path     where they are
    images   the folder of pictures that records name
    task     what captions are for ("caption", "describe"), questions ("question", "chat") or dialogues ("chat", or single
             exchanges as captions); "": what each row looks like
    columns  {part: its name in the file} (`columns.NAMES`, and the tags of messages); "left+right" of pictures in two fields
    split    of files by their names, or of rows by a column `split`
    choices  what is learned of a question with choices: "text" (that of the answer) or "letter", with the options asked
    strip    what file names in the records begin with and the folder `images` does not have
    skip_multi_image  leave out rows with several pictures (counted in `skipped`); otherwise such a row is an error
    """

    def __init__(
        self, path: str = "", images: str = "", task: str = "", *, annotations: str = "", columns: Mapping | None = None,
        split: str = "", choices: str = "", strip: str = "", skip_multi_image: bool = False, reading: Reading,
    ):  # fmt: skip
        self.path, self.reading, self.split = str(path or annotations), reading, split
        self.columns, self.strip = dict(columns or {}), strip
        self._spec = {"columns": self.columns, "task": task, "split": split, "choices": choices, "strip": strip,
                      "skip_multi_image": skip_multi_image}  # fmt: skip
        folder = self.pictures_in(str(images))
        super().__init__(reading, folder, self.find(), {"path": self.path, **self._spec})

    def find(self) -> Iterable[epath.Path]:
        """The files that are read, looked for before anything is."""
        raise NotImplementedError

    def shards(self, kind: str, what: str) -> Iterable[epath.Path]:
        """The files of the source's split, which `named` ({name: file}) and `files` keep. kind, what: as in `shards.listed`."""
        self.named = shards.of_split(shards.listed(self.reading.base, self.path, kind, what), self.split, self.path)
        self.files = [str(file) for file in self.named.values()]
        return self.named.values()

    def pictures_in(self, images: str) -> str:
        """The folder of the pictures."""
        return images

    @property
    def skipped(self) -> int:
        """Rows with several pictures that were left out."""
        return int(self.kept.get("skipped", 0))

    def records(self, name: str, faults: Faults, **more) -> Records:
        """What makes Items of this source's records. name: the source's; more: as in `Records`."""
        return Records(self.path, self.reading.train, faults, name, **{**self._spec, **more})

    def shard_facts(self, name: str, made: Records) -> Facts:
        """`facts` of `shards`: the fingerprint covers their names, their sizes and the records."""
        sizes = [[called, file.stat().length] for called, file in self.named.items()]
        settings = {"split": self.split, "columns": sorted(self.columns.items())}
        return self.facts(name, made, settings, [sha256(json.dumps([sizes, made.digest]))])

    def facts(self, name: str, made: Records, settings: dict, digests: list[str] | None = None, **kept) -> Facts:
        """For the end of `read`. digests: of what was read, where it is not the records themselves; kept: as in `Facts`."""
        made.check()
        space = {"space": MAYBE_COCO} if made.called.as_vqa else {}
        kept = {**space, **kept, **({"skipped": made.skipped} if made.skipped else {})}
        return Facts(name, made.first_task, {**settings, **made.settings}, digests or [], kept, numbered=True)
