"""TensorFlow Datasets: a builder prepared as array_record, read without TensorFlow.

    TfdsSource("coco_captions/2014/1.1.0", split="val")[0]    Row(id="train:17#0", image_id="17", task="caption", ...)

The folder is the one that holds dataset_info.json and features.json. One prepared as tfrecord, the default of `tfds build`,
knows no random access and is refused.
"""

import functools
import io
import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from etils import epath
from PIL import Image

from vlax.data.readers import called, shards
from vlax.data.readers import columns as naming
from vlax.data.readers.faults import Faults
from vlax.data.readers.files import Facts, sha256
from vlax.data.readers.held import Held
from vlax.data.readers.item_table import Item, Place
from vlax.data.readers.numbers import MAYBE_COCO
from vlax.data.readers.pictures import decode_picture
from vlax.data.readers.record_source import RecordSource
from vlax.errors import VlaxError
from vlax.rows import Picture
from vlax.storage.paths import join


class TfdsSource(RecordSource):
    """Rows of one split of a prepared builder, whose features are an image, several or a sequence of them, and texts named
    as in `columns.NAMES`: {"image", "captions": [{"text"}]} of coco_captions, {"left_image", "right_image", "text", "label"}.

    split    any that tfds reads ("train", "train[:1000]"); may be left out where there is one
    columns  {part: feature} for features of other names

    An example has no columns: finding the texts reads the split once from end to end (in parallel; pictures stay encoded). For
    sets of many GB use `prepare`, which keeps pictures and texts apart. The fingerprint covers the builder's name, version and
    features, and the texts.
    """

    def find(self) -> Iterable[epath.Path]:
        self._folder = str(join(self.reading.base, self.path))
        self._examples = shards.Kept(_examples)
        return epath.Path(self._folder).glob("*")

    def read(self, faults: Faults) -> Generator[Item, None, Facts]:
        info = _info(self._folder)
        splits = list(info.splits)
        if not self.split and len(splits) != 1:
            raise VlaxError(f"{self._folder} holds the splits {', '.join(splits)}; name one: split={splits[0]!r}")
        split = self.split or splits[0]
        name = self.reading.name(info.name, split)
        made = self.records(name, faults, split="")
        first = self._examples(self._folder, split)[0]
        first = {name: _pictures(first, [name]) if _has_images(info.features[name]) else _plain(first[name]) for name in first}
        fields = naming.choose(info.features, made.columns, self._folder, first)
        naming.check_image(info.features, fields, self.columns, self._folder, first)
        if other := next((name for name in fields.images if not _has_images(info.features[name])), ""):
            kind = type(info.features[other]).__name__
            way_out = "name the image feature: columns={'image': NAME}"
            raise VlaxError(f"{self._folder}: the feature {other!r} is no image but a {kind}; {way_out}")
        besides = [name for name in called.fields(info.features) if name not in (*fields.texts, *fields.images)]
        made.called.as_vqa = called.as_vqa(info.features)
        for at, (values, more, count) in enumerate(self._texts(split, fields, list(info.features), besides)):
            where, of = f"{self._folder}: {split}:{at}", f"{split}:{at}"
            items: list[Item] = []
            with faults.row(name, where):
                held = Held(of, Place(0, at), count=count) if count else None
                made.digested(of if fields.image else "", values)
                items = made.items(where, of, {**values, **more}, held)
            yield from items
        names = [info.name, str(info.version), str(info.features), split]
        settings = {"columns": sorted(self.columns.items())}
        content = [sha256(json.dumps([*names, made.digest]))]
        space = {"space": MAYBE_COCO} if info.name.startswith("coco") else {}
        return self.facts(name, made, settings, content, split=split, images=fields.images, **space)

    def _texts(self, split: str, fields: naming.Fields, features: list[str], names: list[str]):
        """(the text features, those that name the picture besides, pictures) of every example in order; the others are left
        encoded and let go."""
        examples = self._examples(self._folder, split)
        # Every feature's name stays, so that the parts are found again; the pictures' bytes do not.
        others = dict.fromkeys(name for name in features if name not in fields.texts)

        def read(begin: int) -> list[tuple[dict, dict, int]]:
            chosen = (examples[at] for at in range(begin, min(begin + 64, len(examples))))
            return [
                (
                    others | {name: _plain(example[name]) for name in fields.texts},
                    {name: _plain(example[name]) for name in names},
                    len(_pictures(example, fields.images)),
                )
                for example in chosen
            ]

        with ThreadPoolExecutor(4) as pool:
            for part in pool.map(read, range(0, len(examples), 64)):
                yield from part

    def contained(self, item: Item, number: int = 0) -> Picture:
        at = item.place.at
        name = f"{self._folder}: {item.file_name}{f', picture {number + 1}' if number else ''}"
        where, images = (self._folder, self.kept["split"]), self.kept["images"]
        return Picture(name, functools.partial(open_example, self._examples, where, images, at, name, item.id, number))


def open_example(
    examples: shards.Kept, where: tuple[str, str], images: Sequence[str], at: int, name: str, row_id: str, number: int = 0
) -> Image.Image:
    return decode_picture(io.BytesIO(_pictures(examples(*where)[at], images)[number]), name, row_id)


def _pictures(example: Mapping, images: Iterable[str]) -> list[bytes]:
    """The encoded pictures of an example in some features, of which a sequence has any number."""
    values = (example[name] for name in images)
    return [one for value in values for one in ([value] if isinstance(value, bytes) else value)]


def _builder(folder: str):
    """The prepared builder of a folder; VlaxError, with the way to one, for what is none or knows no random access."""
    try:
        import tensorflow_datasets as tfds  # here, because few runs need it
    except ImportError as error:
        raise VlaxError(
            f"{folder}: tensorflow_datasets cannot be imported ({error}); pip install tensorflow-datasets"
        ) from None
    if not (epath.Path(folder) / "dataset_info.json").exists():
        below = [str(p.parent) for p in sorted(epath.Path(folder).glob("*/dataset_info.json"))]
        below += [str(p.parent) for p in sorted(epath.Path(folder).glob("*/*/dataset_info.json"))]
        way_out = f"perhaps {below[-1]}" if below else "give NAME/VERSION or NAME/CONFIG/VERSION below the tfds data_dir"
        raise VlaxError(f"{folder} is no prepared tfds builder (it has no dataset_info.json); {way_out}")
    try:
        return tfds.builder_from_directory(folder)
    except (ValueError, KeyError, OSError) as error:
        raise VlaxError(f"{folder}: tfds cannot read this builder ({str(error).splitlines()[0]}); prepare it again") from None


def _info(folder: str):
    info = _builder(folder).info
    if info.file_format is None or info.file_format.value not in ("array_record", "parquet"):
        name = info.file_format.value if info.file_format else "an unknown format"
        way_out = (
            f"prepare it again: tfds build {info.name} --file_format=array_record (most builders need tensorflow-cpu for that)"
        )
        raise VlaxError(f"{folder} is prepared as {name}, which has no random access; {way_out}")
    return info


def _examples(folder: str, split: str):
    """Random access to the examples of a split, pictures encoded; shared by threads."""
    from tensorflow_datasets.core import decode

    info = _info(folder)

    class Encoded(decode.SkipDecoding):
        def decode_batch_example_np(self, example: np.ndarray) -> np.ndarray:  # of a sequence: SkipDecoding needs TensorFlow
            return example

    features = info.features
    skip = {name: Encoded() for name in features if _has_images(features[name])}
    try:
        return _builder(folder).as_data_source(split, decoders=skip or None)
    except (ValueError, KeyError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise VlaxError(f"{folder} has no split {split!r} ({reason}); it holds {', '.join(info.splits)}") from None


def _has_images(feature) -> bool:
    """Whether a feature is an image or a sequence of them, and no video."""
    kind = type(feature).__name__
    return kind == "Image" or (kind == "Sequence" and type(getattr(feature, "feature", None)).__name__ == "Image")


def _plain(value):
    """numpy's and bytes as Python's own: texts, numbers, lists and dictionaries."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value.item() if isinstance(value, np.generic) else value
