"""What an export says of its text, for those who run it without vlax: the entry "vlax" of config.json or projector.json.

    {"mask": "causal", "image_tokens": 16, "templates": "chat", "text": {"version": 2, "date": ""}, "start": [],
     "around": ["<|user|>", "<|end|>\n<|bot|>"], "stops": [2, 7], "prompts": {"caption": "Write a ...", ...}}

A sequence is [image tokens | start | around[0] + prompt + around[1], tokenised as one text | answer | one of stops]. If a model
has words around its pictures (`text.picture`), those in front go where <image> is in around[0], each between the two texts of
`picture`. The logit check, the card and generate.py go by these; `vlax.load` by `templates` and `text`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vlax.errors import VlaxError
from vlax.rows import TASKS
from vlax.text.codec import FRONT, HERE, MARK, Rendered, front
from vlax.text.places import TOKEN
from vlax.text.prompts import Encoder

Wording = Mapping[str, Any]
_HOLE = "\ufdd8"  # a noncharacter, as the codec's marks are

# In front of a chat template for texts: contents may be lists of parts, and pictures come before everything else.
PICTURES_FIRST = (
    "{%- set plain = namespace(messages=[]) -%}{%- for message in messages -%}{%- set said = namespace(text='') -%}"
    "{%- if message['content'] is string -%}{%- set said.text = message['content'] -%}"
    "{%- else -%}{%- for part in message['content'] -%}{%- if part['type'] == 'image' -%}{{ '<image>' }}"
    "{%- elif part['type'] == 'text' -%}{%- set said.text = said.text + part['text'] -%}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{%- set plain.messages = plain.messages + [dict(message, content=said.text)] -%}"
    "{%- endfor -%}{%- set messages = plain.messages -%}"
)


def wording(encoder: Encoder) -> dict[str, Any]:
    """The entry, but for what the pictures need. VlaxError for a system prompt that names special tokens."""
    settings = dataclasses.replace(encoder.settings, prompts=dict.fromkeys(TASKS, _HOLE), chat=encoder.is_chat)
    bare = dataclasses.replace(encoder, settings=settings).prompt_text("caption", "")
    each = (
        f"{picture['before']}{TOKEN}{picture['after']}".join(front(bare).split(HERE)) if (picture := settings.picture) else ""
    )
    bare = Rendered(bare.replace(FRONT + front(bare) + FRONT, TOKEN))
    if MARK in bare:
        raise VlaxError(
            "the system prompt has a special token of the tokenizer in it, which vlax reads as text and stock tokenizers do "
            "not: this model runs with vlax alone"
        )
    before, _, after = bare.partition(_HOLE)
    return ({"picture": each.split(TOKEN)} if each else {}) | {
        "templates": encoder.templates,
        "text": encoder.settings.to_dict(),
        "start": [int(token) for token in encoder.start],
        "around": [before, after],
        "stops": [int(token) for token in encoder.stops],
        "prompts": dict(encoder.prompts),
    }


def around(wording: Wording) -> tuple[str, str]:
    """What stands around a prompt without pictures."""
    before, after = wording["around"]
    return before.replace(TOKEN, "") if wording["text"].get("picture") else before, after


def token_ids(wording: Wording) -> dict[str, Any]:
    """What generation_config.json has in place of a single EOS, where an answer may end at several tokens."""
    return {"eos_token_id": list(wording["stops"])} if len(wording["stops"]) > 1 else {}


def pictures_first(template: str) -> str:
    """A chat template that takes pictures, too."""
    return template if template.startswith(PICTURES_FIRST) else PICTURES_FIRST + template
