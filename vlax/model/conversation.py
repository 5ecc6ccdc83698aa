"""Conversations in the form that users of Hugging Face know.

    [{"role": "system", "content": "Be brief."},
     {"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "what is it?"}]},
     {"role": "assistant", "content": "a cat"},
     {"role": "user", "content": "of which colour?"}]

A picture stands under "image", "path" or "url" (file://). Pictures are in front of all text, wherever they are named, but for a
model that was trained with run.interleaved: it sees them where they are.
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
    """system: None where no message says; turns: asked and answered before; places: of the images, as `rows.Row` has them."""

    system: str | None
    turns: tuple[tuple[str, str], ...]
    question: str
    images: tuple[Any, ...]
    places: tuple[tuple[int, int], ...]


def understood(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """The Conversation of messages; VlaxError for roles out of order, and what is no text or picture."""
    if isinstance(messages, Mapping) or not all(isinstance(m, Mapping) and "role" in m and "content" in m for m in messages):
        raise VlaxError(f"a conversation is a list of messages; {WAY_OUT}")
    said: list[tuple[str, str]] = []
    images, places = list[Any](), list[tuple[int, int]]()
    for number, message in enumerate(messages):
        text, found = _content(message["content"], f"message {number}")
        if found and message["role"] != "user":
            raise VlaxError(f"message {number} is the {message['role']}'s and has a picture; only the user shows some")
        turn = sum(role == "user" for role, _ in said)
        said.append((message["role"], text.strip()))
        images += [image for image, _ in found]
        places += [(turn, max(at - len(text) + len(text.lstrip()), 0)) for _, at in found]
    system = said.pop(0)[1] if said and said[0][0] == "system" else None
    roles = [role for role, _ in said]
    if len(said) % 2 == 0 or roles != ["user", "assistant"] * (len(said) // 2) + ["user"]:
        raise VlaxError(f"the roles are {', '.join(roles) or 'none'}; user and assistant take turns, and the user is last")
    texts = [text for _, text in said]
    return Conversation(system, tuple(zip(texts[:-1:2], texts[1::2], strict=True)), texts[-1], tuple(images), tuple(places))


def _content(content: Any, where: str) -> tuple[str, list[tuple[Any, int]]]:
    """(text, pictures, each with the characters before it) of a message's content."""
    if isinstance(content, str):
        return content, []
    texts, images = list[str](), list[tuple[Any, int]]()
    for part in content if isinstance(content, Sequence) else [content]:
        values = part if isinstance(part, Mapping) else {}
        kind = values.get("type")
        named = [values[key] for key in PICTURE if key in values] if kind == "image" else []
        if kind == "text" and isinstance(values.get("text"), str):
            texts.append(values["text"])
        elif len(named) == 1:
            images.append((_local(named[0], where), sum(map(len, texts))))
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
