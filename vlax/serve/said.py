"""OpenAI's messages as a `Conversation`, their pictures open. Whoever sends them is a stranger."""

import base64
import binascii
import io
import re
from typing import Any

from PIL import Image

from vlax.data.readers.pictures import decode_picture, formats
from vlax.errors import VlaxError
from vlax.model.conversation import Conversation, understood
from vlax.serve.limits import Limits, Refusal, refused

TEXT = '{"type": "text", "text": ...}'
PICTURE = '{"type": "image_url", "image_url": {"url": "data:image/..."}}'
_URI = re.compile(r"data:image/[\w.+-]+;base64,")


def conversation(messages: Any, limits: Limits) -> Conversation:
    """The Conversation of OpenAI's messages. Pictures stand in them as data URIs, and nowhere else: nothing is fetched."""
    if not isinstance(messages, list) or not messages:
        raise refused("messages", 'a list such as [{"role": "user", "content": "what is it?"}]')
    parts = [part for message in messages for part in _parts(message)]
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    if any(re.search("[\ud800-\udfff]", text) for text in texts):
        raise refused("messages", "a text has half a surrogate pair, which is no character")
    if (size := sum(map(len, texts))) > limits.characters:
        raise refused("messages", f"{size:,} characters of text, limit {limits.characters:,}; make them shorter")
    if sum(part.get("type") == "image_url" for part in parts) > limits.pictures:
        raise refused("messages", f"more than {limits.pictures} pictures; leave some out")
    made = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise refused("messages", f'number {number} is no message: {{"role": "user", "content": "..."}}')
        content = message.get("content")
        if isinstance(content, list):
            content = [_part(part, f"messages[{number}]", limits) for part in content]
        role = "system" if message["role"] == "developer" else message["role"]
        made.append({"role": role, "content": "" if content is None else content})
    try:
        return understood(made)
    except VlaxError as error:
        raise refused("messages", str(error)) from None


def _parts(message: Any) -> list[dict[str, Any]]:
    """Those parts of a message that are looked at: nothing is opened here."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _part(part: Any, where: str, limits: Limits) -> dict[str, Any]:
    """A part of a message as `conversation.understood` takes it, its picture open."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    url = part.get("image_url") if kind == "image_url" else None
    url = url.get("url") if isinstance(url, dict) else url
    if not isinstance(url, str):
        raise refused("messages", f"{where} has a part that is neither {TEXT} nor {PICTURE}")
    return {"type": "image", "image": picture(url, where, limits)}


def picture(uri: str, where: str, limits: Limits) -> Image.Image:
    """The picture of a data URI, its size looked at before it is decoded."""
    if not (head := _URI.match(uri)):
        what = (
            f"{uri[:60]!r} is no picture in the request"
            if not uri.startswith("data:")
            else f"{uri[:40]!r} is no base64 picture"
        )
        raise refused("messages", f"{where}: {what}; vlax fetches nothing: send data:image/png;base64,...")
    try:
        content = base64.b64decode(uri[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise refused("messages", f"{where}: the picture is no base64 ({error})") from None
    try:
        width, height = Image.open(io.BytesIO(content), formats=formats()).size
        if width * height > limits.pixels:
            raise refused(
                "messages", f"{where}: the picture has {width} x {height} pixels, limit {limits.pixels:,}; make it smaller"
            )
        return decode_picture(io.BytesIO(content), f"{where}, the picture", "")
    except Refusal:
        raise
    except VlaxError as error:
        raise refused("messages", str(error)) from None
    except Exception as error:  # Pillow raises all kinds where a header is broken
        what = "it is of no format that Pillow knows" if "identify" in str(error) else str(error)[:120]
        raise refused("messages", f"{where}: the picture does not decode ({what})") from None
