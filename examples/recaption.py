"""Writes a model's captions of photographs beside people's, as two COCO files: what `vlax findings data` compares.

    python -m examples.recaption CAPTIONS.json OUT --photos=0:1000        # OUT/human.json: people's, of these photos
    python -m examples.recaption CAPTIONS.json OUT --photos=1000:2000 --model=EXPORT --images=DIR     # and OUT/ai.json

A photo gets as many captions of the model as it has of people, drawn from softmax(logits / --temperature): alike where the
model is sure. --photos counts them in the order of the file; the model must not have been trained on them, or its captions
are people's own again.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import vlax


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--photos", default=":", metavar="FROM:TO")
    parser.add_argument("--model", default="")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    if bool(flags.model) != bool(flags.images):
        parser.error("--model and --images go together")
    whole = json.loads(flags.captions.read_text())
    begin, _, end = flags.photos.partition(":")
    photos = whole["images"][slice(*(int(each) if each else None for each in (begin, end)))]
    names = {photo["id"]: photo["file_name"] for photo in photos}
    people = [each for each in whole["annotations"] if each["image_id"] in names]
    flags.out.mkdir(parents=True, exist_ok=True)
    made = {"human": [each["caption"] for each in people]}
    if flags.model:
        shown = [flags.images / names[each["image_id"]] for each in people]
        options = {"max_new_tokens": 24, "temperature": flags.temperature, "seed": flags.seed, "batch_size": 50}
        made["ai"] = vlax.load(flags.model).caption(shown, **options)
    for name, captions in made.items():
        rows = [{**each, "caption": caption} for each, caption in zip(people, captions, strict=True)]
        (flags.out / f"{name}.json").write_text(json.dumps({"images": photos, "annotations": rows}))
        words = Counter(word for caption in captions for word in caption.lower().split())
        print(f"{flags.out / name}.json: {len(rows):,} captions of {len(photos):,} photos, {len(set(captions)):,} different, "
              f"of {len(words):,} words")  # fmt: skip


if __name__ == "__main__":
    main()
