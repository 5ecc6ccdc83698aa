"""A folder of pictures with a text beside each, as people collect them by hand and as tools for image models keep them.

dogs/a.jpg + dogs/a.txt                                 Row(id="dogs/a#0", image_id="dogs/a.jpg", task="caption", ...)
b.png + b.json {"question": "...", "answer": "..."}     Row(id="b", image_id="b.png", task="question", ...)
"""

import re
from collections.abc import Generator, Iterable

from etils import epath

from vlax.data.readers import shards
from vlax.data.readers.faults import Faults
from vlax.data.readers.files import Facts, sha256
from vlax.data.readers.item_table import Item
from vlax.data.readers.picture_values import ENDING
from vlax.data.readers.record_source import RecordSource
from vlax.data.readers.webdataset import sample_values
from vlax.rows import RowFault
from vlax.storage.paths import join, read_file

TEXTS = r"\.(txt|caption|json)$"


class PictureFolder(RecordSource):
    """The pictures of a folder, and of folders in it, that have a text of the same name: KEY.txt (or KEY.caption) is a caption,
    KEY.json a record as `columns.NAMES` has them. A picture without a text is a faulty row."""

    def find(self) -> Iterable[epath.Path]:
        self._pictures = shards.listed(self.reading.base, self.path, ENDING.pattern, "picture")
        listed = shards.listed(self.reading.base, self.path, TEXTS, "text").items()
        self._texts = {re.sub(TEXTS, "", name): (name, file) for name, file in listed}
        return [*self._pictures.values(), *(file for _, file in self._texts.values())]

    def pictures_in(self, images: str) -> str:
        return self.path

    def read(self, faults: Faults) -> Generator[Item, None, Facts]:
        top = join(self.reading.base, self.path)
        name = self.reading.name(top.name, self.split)
        made = self.records(name, faults, columns={"image": "", **self.columns})
        for picture in self._pictures:
            key, where = ENDING.sub("", picture), f"{top}: {picture}"
            found: list[Item] = []
            with faults.row(name, where):
                if key not in self._texts:
                    raise RowFault(f"{where} has no text ({key}.txt) beside it; write one, or move it away", "empty text")
                values = sample_values(where, self._sample(*self._texts[key]))
                made.digested(picture, values)
                items = made.items(where, key, values)
                found = [item._replace(image_id=picture, file_name=picture) for item in items]
            yield from found
        settings = {"split": self.split, "columns": sorted(self.columns.items())}
        return self.facts(name, made, settings, [sha256(made.digest)])

    def _sample(self, name: str, file: epath.Path) -> dict[str, bytes]:
        return {"json" if name.endswith(".json") else "txt": read_file(file)}
