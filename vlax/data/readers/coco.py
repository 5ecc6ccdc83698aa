"""COCO captions JSON.

CocoCaptions("captions_train.json", "images", train=True)[1]   Row(id="17#1", image_id="17", task="caption", ...)
CocoCaptions("captions_val.json", "images", train=False)[0]    Row(id="17", references=("a dog runs", ...), ...)
"""

from vlax.data.readers.faults import STRICT
from vlax.data.readers.files import FileSource, Item
from vlax.data.readers.reading import field, file_names, parse, rows, text
from vlax.errors import VlaxError
from vlax.rows import TASKS, RowFault
from vlax.storage.paths import join, read_file

SHAPE = 'COCO captions are {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}'


class CocoCaptions(FileSource):
    """COCO captions: one row per caption to train on, one per picture with all references to evaluate on."""

    def __init__(self, annotations, images, train: bool, task="caption", *, base="", drop_image_ids=(), limit=None,
                 faults=STRICT):  # fmt: skip
        if task not in TASKS[:2]:
            raise VlaxError(f"{annotations}: captions have no task {task!r}; the tasks are {', '.join(TASKS[:2])}")
        path = join(base, annotations)
        name, content = f"coco-{path.stem}", read_file(path)
        data = parse(path, content, SHAPE)
        names = file_names(path, data, SHAPE, name, faults)
        captions: dict[str, list[str | None]] = {image_id: [] for image_id in names}
        for at, row in enumerate(rows(path, data, "annotations", SHAPE)):
            where = f"{path}: annotations[{at}]"
            with faults.row(name, where):
                image_id = str(field(where, row, "image_id", SHAPE))
                if image_id not in names:
                    way_out = "add it there or remove the row"
                    raise RowFault(f"{where} names image {image_id}, which `images` does not list; {way_out}", "unlisted image")
                said = captions[image_id]
                said.append(None)  # a faulty caption keeps its number: the others' row ids stay what they are
                said[-1] = text(where, row, "caption", SHAPE)
        if train:
            items = [Item(f"{i}#{k}", i, names[i], "", c) for i, said in captions.items() for k, c in enumerate(said) if c]
        else:
            whole = {i: tuple(c for c in said if c) for i, said in captions.items()}
            items = [Item(i, i, names[i], "", said[0], said) for i, said in whole.items() if said]
        settings = {"kind": "coco", "train": train}
        super().__init__(name, task, str(images), base, settings, [content], items, drop_image_ids, limit)
