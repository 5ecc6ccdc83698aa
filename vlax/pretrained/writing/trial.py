"""The text that a card tells receivers to type, tried on the written files through transformers' own processor or tokenizer.

What the model was trained on are ids; which text a stock processor turns into them depends on the tokenizer (a leading blank,
BOS) and on the layout's processor (PaliGemma's puts BOS and a newline there by itself). So the texts that may be right are
tried, and the card has one that is, or says that there is none.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vlax.errors import VlaxError
from vlax.pretrained.writing.wording import Wording, around
from vlax.rows import TASKS
from vlax.text import sandbox
from vlax.text.prompts import Encoder
from vlax.text.tokenizer import open_tokenizer

IMAGE = "<image>"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a stock processor (or, of a decoder alone, AutoTokenizer) gets to the ids of training.

    before, after  what the text has around the prompt, image token and BOS included
    cut            ids at the end that the processor added, and which the model has never seen
    templated      whether the processor's chat template writes that very text
    """

    before: str
    after: str
    cut: int = 0
    templated: bool = False


def prompts(encoder: Encoder) -> list[tuple[str, str]]:
    """(what a user says, the prompt that it becomes), one a task."""
    question = "how many dogs are there?"
    return [
        (encoder.prompts[task].replace("{question}", question), encoder.prompt_text(task, question)) for task in sorted(TASKS)
    ]


def check_tokenizer(directory: Path, said: Wording, encoder: Encoder) -> None:
    """VlaxError where the tokenizer that was written gives a prompt other ids than training had."""
    from transformers import PreTrainedTokenizerFast

    written: Any = open_tokenizer(directory, PreTrainedTokenizerFast)
    before, after = around(said)
    for text, prompt in prompts(encoder):
        have = [*said["start"], *written(before + text + after, add_special_tokens=False)["input_ids"]]
        if have != (want := encoder.typed(prompt)):
            raise VlaxError(
                f"the tokenizer that was written to {directory} turns {text!r} into {have}, and training had {want}: nothing "
                "was exported; please report the tokenizer_config.json"
            )


def recipe(directory: Path, layout: str, said: Wording, encoder: Encoder, images: int, size: int) -> Recipe | None:
    """A text that a stock processor turns into the ids of training; None where no text was found.

    images: tokens of a picture, 0 for a decoder alone; size: pixels a side.
    """
    ids = _asking(directory, layout, images, size)
    said_and_meant = [(text, encoder.typed(prompt)) for text, prompt in prompts(encoder)]
    for before, cut in _candidates(layout, said, encoder.tokenizer.bos_token or ""):
        found = Recipe(before, around(said)[1], cut)
        if all(_same(ids(before + text + found.after), want, images, cut) for text, want in said_and_meant):
            return dataclasses.replace(found, templated=_templated(directory, found, encoder, images))
    return None


def _candidates(layout: str, said: Wording, bos: str) -> list[tuple[str, int]]:
    """(text before the prompt, ids to be cut off)"""
    image = IMAGE if layout in ("llava", "paligemma") else ""
    own = around(said)[0]
    start = bos * len(said["start"])
    if layout == "paligemma":  # its processor writes BOS
        start, own = "", own.removeprefix(bos)
    # SentencePiece writes a blank before what stands first in a sequence, and in newer files before nothing else.
    return [(image + start + lead + own, cut) for cut in ((1,) if layout == "paligemma" else (0,)) for lead in ("", " ")]


def _same(have: Sequence[int] | None, want: Sequence[int], images: int, cut: int) -> bool:
    return have is not None and list(have[images : len(have) - cut]) == list(want)


def _asking(directory: Path, layout: str, images: int, size: int) -> Any:
    """text -> ids, as a receiver gets them; None where the processor fails."""
    if layout not in ("llava", "paligemma"):
        tokenizer: Any = open_tokenizer(directory)
        return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(directory, local_files_only=True)
    picture, more = Image.new("RGB", (size, size)), {} if layout == "paligemma" else {"add_special_tokens": False}

    def ids(text: str) -> list[int] | None:
        try:
            found = processor(images=picture, text=text, return_tensors="np", **more)["input_ids"][0].tolist()
        except TypeError:  # PaliGemma's around a tokenizer without BOS
            return None
        return found if found[:images] == [processor.image_token_id] * images else None

    return ids


def _templated(directory: Path, found: Recipe, encoder: Encoder, images: int) -> bool:
    """Whether apply_chat_template gives the same text: not where it writes the date, or leaves a think block out."""
    if not encoder.is_chat:
        return False
    tokenizer: Any = open_tokenizer(directory)
    asked: Any = [{"type": "image"}, {"type": "text", "text": "is it red?"}] if images else "is it red?"
    messages: list[dict[str, Any]] = [{"role": "user", "content": asked}]
    if encoder.settings.system:
        messages.insert(0, {"role": "system", "content": encoder.settings.system})
    try:
        text = sandbox.render(tokenizer.chat_template, messages, tokenizer.special_tokens_map, generate=True)
    except VlaxError:
        return False
    return text == found.before + "is it red?" + found.after
