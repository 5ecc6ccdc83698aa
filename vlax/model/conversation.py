"""Conversations in the form that users of Hugging Face know.

    [{"role": "system", "content": "Be brief."},
     {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "what is it?"}]},
     {"role": "assistant", "content": "a cat"},
     {"role": "user", "content": "of which colour?"}]

A picture stands under "image", "path" or "url" (file://); it is in front of all text, wherever it is named. One a conversation.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlparse

from vlax.errors import VlaxError

PICTURE = ("image", "path", "url")
WAY_OUT = 'a message is {"role": "user", "content": "..."}, or its content a list of {"type": "text", "text": "..."} and ' + (
    '{"type": "image", "image": picture}'
)


@dataclasses.dataclass(frozen=True)
class Conversation:
    """system: None where no message says; turns: asked and answered before; image: None without one."""

    system: str | None
    turns: tuple[tuple[str, str], ...]
    question: str
    image: Any


def understood(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """The Conversation of messages; VlaxError for roles out of order, several pictures, and what is no text or picture."""
    if isinstance(messages, Mapping) or not all(isinstance(m, Mapping) and "role" in m and "content" in m for m in messages):
        raise VlaxError(f"a conversation is a list of messages; {WAY_OUT}")
    said, images = [], []
    for number, message in enumerate(messages):
        text, found = _content(message["content"], f"message {number}")
        if found and message["role"] != "user":
            raise VlaxError(f"message {number} is the {message['role']}'s and has a picture; only the user shows some")
        said.append((message["role"], text))
        images += found
    if len(images) > 1:
        raise VlaxError(f"the conversation has {len(images)} pictures, and a model takes one; ask about each by itself")
    system = said.pop(0)[1] if said and said[0][0] == "system" else None
    roles = [role for role, _ in said]
    if len(said) % 2 == 0 or roles != ["user", "assistant"] * (len(said) // 2) + ["user"]:
        raise VlaxError(f"the roles are {', '.join(roles) or 'none'}; user and assistant take turns, and the user is last")
    texts = [text for _, text in said]
    return Conversation(system, tuple(zip(texts[:-1:2], texts[1::2], strict=True)), texts[-1], next(iter(images), None))


def _content(content: Any, where: str) -> tuple[str, list[Any]]:
    """(text, pictures) of a message's content."""
    if isinstance(content, str):
        return content, []
    texts, images = [], []
    for part in content if isinstance(content, Sequence) else [content]:
        values = part if isinstance(part, Mapping) else {}
        kind = values.get("type")
        named = [values[key] for key in PICTURE if key in values] if kind == "image" else []
        if kind == "text" and isinstance(values.get("text"), str):
            texts.append(values["text"])
        elif len(named) == 1:
            images.append(_local(named[0], where))
        else:
            raise VlaxError(f"{where}: {str(part)[:80]} is no text and no picture; {WAY_OUT}")
    return "".join(texts), images


def _local(image: Any, where: str) -> Any:
    """The picture; a file:// URL as its path."""
    if not isinstance(image, str) or "://" not in image:
        return image
    url = urlparse(image)
    if url.scheme != "file":
        raise VlaxError(f"{where}: {image[:80]} is on the web, and vlax downloads no pictures; fetch it, and give its path")
    return unquote(url.path)
