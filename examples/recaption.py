"""Writes a model's captions of photographs beside people's, as two COCO files: what `vlax findings data` compares.

    python -m examples.recaption CAPTIONS.json OUT --photos=0:1000        # OUT/human.json: people's, of these photos
    python -m examples.recaption CAPTIONS.json OUT --photos=1000:2000 --model=EXPORT --images=DIR     # and OUT/ai.json

A photo gets as many captions of the model as it has of people, drawn from softmax(logits / --temperature): alike where the
model is sure. --photos counts them in the order of the file; the model must not have been trained on them, or its captions
are people's own again.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import vlax
from vlax.errors import VlaxError
from vlax.storage import state


def span(text: str) -> slice:
    """`"100:200" -> slice(100, 200)`, either end of which may be left out."""
    begin, _, end = text.partition(":")
    return slice(int(begin) if begin else None, int(end) if end else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--photos", type=span, default=":", metavar="FROM:TO")
    parser.add_argument("--model", default="")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    if bool(flags.model) != bool(flags.images):
        parser.error("--model and --images go together")
    way_out = "give a file of COCO captions, with images and annotations"
    with state.understood(f"{flags.captions}", way_out):
        whole = state.read(flags.captions, way_out)
        photos = whole["images"][flags.photos]
        names = {photo["id"]: photo["file_name"] for photo in photos}
        people = [each for each in whole["annotations"] if each["image_id"] in names]
    if not people:
        raise VlaxError(f"{flags.captions}: no captions of these photos; it has {len(whole['images']):,} photos")
    flags.out.mkdir(parents=True, exist_ok=True)
    made = {"human": [each["caption"] for each in people]}
    if flags.model:
        shown = [flags.images / names[each["image_id"]] for each in people]
        options = {"max_new_tokens": 24, "temperature": flags.temperature, "seed": flags.seed, "batch_size": 50}
        made["ai"] = vlax.load(flags.model).caption(shown, **options)
    for name, captions in made.items():
        rows = [{**each, "caption": caption} for each, caption in zip(people, captions, strict=True)]
        state.write_json(flags.out / f"{name}.json", {"images": photos, "annotations": rows})
        words = Counter(word for caption in captions for word in caption.lower().split())
        print(f"{flags.out / name}.json: {len(rows):,} captions of {len(photos):,} photos, {len(set(captions)):,} different, "
              f"of {len(words):,} words")  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except VlaxError as error:
        sys.exit(f"recaption: error: {error}")
