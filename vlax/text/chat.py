"""Turns by the tokenizer's own chat template, for decoders that were tuned on one.

With a template that writes "<|user|>Q<|end|>\n<|bot|>A<|end|>\n" and EOS "<|end|>", two turns become

    ("<|user|>is it red?<|end|>\n<|bot|>", False)   ("no<|end|>", True)
    ("\n<|user|>is it blue?<|end|>\n<|bot|>", False)  ("yes<|end|>", True)

The template is rendered once for each number of turns, with placeholders into which the contents go: it never sees what users
wrote, and what they wrote is never taken for a part of it. Every turn has the prompt that it has as the last one, whatever the
template writes of turns that are over. What the traits of public templates become:

    the turn ends with a token that is not EOS (<end_of_turn>)      that token, supervised; decoding stops at it, too
    it ends with text that is no token of the tokenizer             EOS before that text, which begins the next prompt
    text between the generation prompt and the answer (a think block)   part of the prompt, here as at inference
    blanks before the answer ("[/INST] A </s>")                     part of the answer: tokenizers make one token of " A"
    blanks after it                                                 supervised: the model has to write them before it may stop
    strftime_now                                                    the encoder's date
    contents are lists of parts (SmolVLM)                           a list of one text
"""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlax.errors import VlaxError
from vlax.storage import state
from vlax.text import sandbox
from vlax.text.codec import FRONT, HERE, ONE_IN_FRONT, Codec
from vlax.text.tokenizer import Tokenizer

WAY_OUT = "use --config.run.templates=instruct"
# In front of a template that takes lists of parts alone: contents that are texts become such lists.
AS_PARTS = (
    "{%- set listed = namespace(messages=[]) -%}{%- for message in messages -%}"
    "{%- set said = [dict(type='text', text=message['content'])] if message['content'] is string else message['content'] -%}"
    "{%- set listed.messages = listed.messages + [dict(message, content=said)] -%}"
    "{%- endfor -%}{%- set messages = listed.messages -%}"
)
_HOLE = re.compile("\ufdd4([0-9]+)\ufdd5")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One turn of a rendered dialogue: [prompt, with holes | lead | the answer | end].

    end    blanks and the token that ends the turn; as EOS alone it may be none of the template's
    """

    prompt: str
    lead: str
    end: str
    stop: str


def _hole(number: int) -> str:
    return f"\ufdd4{number}\ufdd5"


def fill(text: str, contents: Sequence[str]) -> str:
    """The text with contents in its holes."""
    return _HOLE.sub(lambda hole: contents[int(hole[1])], text)


def shapes(codec: Codec, full: Sequence[bool], system: bool, date: str, row: str, image: str = "") -> tuple[Shape, ...]:
    """The turns of a dialogue. full: of each message, alternately the user's and the assistant's, whether it says anything.

    The system's message, if there is one, is content 0; the messages follow. row: a name, for errors. image: what the template
    writes for a picture: then what it writes for one stands between FRONTs in the first turn (`codec.py`); of a template that
    takes no pictures, they stand before the first content.
    VlaxError when the tokenizer has no template, or one that does not end an answer.
    """
    messages: list[dict[str, Any]] = [{"role": "system", "content": _hole(0)}] if system else []
    first, out, begin, each = len(messages), [], "", ""
    for at, said in enumerate(full):
        content = _hole(first + at) if said else ""
        messages.append({"role": ("user", "assistant")[at % 2], "content": content})
        if image and not at:
            messages[-1]["content"], each = _pictured(codec, messages, content, date, image)
        if at % 2:
            opened = _front(render(codec.tokenizer, messages[:-1], row, generate=True, date=date), each, image)
            closed = _front(render(codec.tokenizer, messages, row, generate=False, date=date), each, image)
            closed = _as_asked(opened, closed, content) if image else closed
            if system and _hole(0) not in closed.partition(content)[0]:
                raise VlaxError(f"row {row}: the chat template leaves the system prompt out; say it in the prompts instead")
            out.append(_turn(codec, opened, closed, content, begin, row))
            end = out[-1].end if out[-1].end != codec.tokenizer.eos_token or closed.count(content + out[-1].end) else ""
            begin = content + end
    return tuple(out)


def _pictured(codec: Codec, messages: list[dict[str, Any]], content: str, date: str, image: str) -> tuple[Any, str]:
    """(the content of the last message with a picture in front, what the template writes for it, "" if it takes none)"""
    text = [{"type": "text", "text": content}]

    def written(pictures: int) -> str:
        asked = messages[-1] | {"content": [{"type": "image"}] * pictures + text}
        return render(codec.tokenizer, [*messages[:-1], asked], "", generate=True, date=date)

    try:
        none, one, two = map(written, range(3))
    except VlaxError:
        none, one, two = "", "", ""
    at, more = one.find(image), len(one) - len(none)
    if at >= 0 and content in one:
        for begin in range(max(0, at + len(image) - more), at + 1):  # where one[begin : begin + more] is what a picture adds
            each = one[begin : begin + more]
            if one[:begin] + one[begin + more :] == none and one[:begin] + each + one[begin:] == two:
                return [{"type": "image"}, *text], each
    return ONE_IN_FRONT + content, ""


def _front(text: str, each: str, image: str) -> str:
    """What a template wrote, with marks around what it wrote for the picture in front."""
    return text.replace(each, FRONT + each.replace(image, HERE) + FRONT, 1) if each else text


def _as_asked(opened: str, closed: str, answer: str) -> str:
    """`closed`, with the blanks before an answer that the generation prompt has, where it has others (LLaVA-OneVision's)."""
    head, found, rest = closed.partition(answer or closed)
    return opened + found + rest if head.split() == opened.split() else closed


def _turn(codec: Codec, opened: str, closed: str, answer: str, begin: str, row: str) -> Shape:
    """The last turn of a dialogue.

    opened, closed: the texts up to where the answer begins and with it; begin: what ends the turn before.
    """
    eos = codec.tokenizer.eos_token
    if closed.count(answer) != 1 or closed.count(begin) < 1:
        raise VlaxError(f"row {row}: the chat template does not write an answer once and as it is; {WAY_OUT}")
    head, _, rest = closed.partition(answer)
    blank = rest[: len(rest) - len(rest.lstrip())]
    after = rest[len(blank) :]
    if not after:
        raise VlaxError(f"row {row}: the chat template does not write an answer as prompt + answer + {eos}; {WAY_OUT}")
    token = codec.special_at_start(after)
    # Where tokens may hold a blank and what follows, the blank is the answer's; elsewhere the generation prompt says whose.
    cut = len(head.rstrip(" "))
    if not codec.contextual and head.startswith(opened):
        cut = max(cut, len(opened))
    start = closed.index(begin) + len(begin) if begin else 0
    return Shape(head[start:cut], head[cut:], blank + token if token else eos, token or eos)


def render(tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], row: str, *, generate: bool, date: str = "") -> str:
    if not tokenizer.chat_template:
        raise VlaxError(
            f"row {row}: --config.run.templates=chat, but the tokenizer has no chat template; use templates=instruct or plain"
        )
    try:
        return sandbox.render(for_texts(tokenizer), messages, tokenizer.special_tokens_map, generate=generate, date=date)
    except VlaxError as error:
        raise VlaxError(f"row {row}: {error}") from None


def for_texts(tokenizer: Tokenizer) -> str:
    """The tokenizer's chat template, as one whose contents are texts; "" without one."""
    template = tokenizer.chat_template or ""
    return AS_PARTS + template if template and _takes_parts(template, json.dumps(tokenizer.special_tokens_map)) else template


@functools.lru_cache(maxsize=64)
def _takes_parts(template: str, special: str) -> bool:
    """Whether a template loses what is said as a text, and writes it where it is a list of parts."""

    def wrote(template: str) -> bool:
        try:
            text = sandbox.render(
                template, [{"role": "user", "content": _hole(0)}], state.load_json("special tokens", special), generate=True
            )
        except VlaxError:
            return False
        return _hole(0) in text

    return "content" in template and not wrote(template) and wrote(AS_PARTS + template)
