"""Exchanges between a user and an assistant, in all the ways that people write them, with the pictures that stand in them.

[{"from": "human", "value": "<image>\\nwhat?"}, {"from": "gpt", "value": "a dog"}]            LLaVA
[{"role": "user", "content": "<image>what?"}, {"role": "assistant", "content": "a dog"}]      ShareGPT, TRL
[{"role": "user", "content": [{"type": "image", "image": "a.jpg"}, {"type": "text", "text": "what?"}]}, ...]     Qwen
[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.jpg"}}, ...]}, ...]                  OpenAI
[{"user": "what?", "assistant": "a dog"}], [{"question": "what?", "answer": "a dog"}]         The Cauldron
->  Dialogue(turns=[Turn("what?", "a dog")], ...)
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from vlax.data.readers import picture_values
from vlax.errors import VlaxError
from vlax.rows import RowFault, Turn
from vlax.storage.state import load_line

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system", "bot": "assistant",
         "model": "assistant", "chatgpt": "assistant", "developer": "system"}  # fmt: skip
TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag")
PAIRS = (("user", "assistant"), ("question", "answer"), ("human", "gpt"), ("human", "assistant"), ("user", "bot"),
         ("instruction", "output"), ("input", "output"), ("query", "response"), ("prompt", "response"), ("q", "a"))  # fmt: skip
TOKEN = "<image>"
TOKEN_FAULTS = {0: "no image token", 1: "image token without a picture", 2: "several image tokens"}
UNSEEN = re.compile(r"(?:^|\n)\s*<(video|audio)>|<(video|audio)>\s*(?:\n|$)")
TAGGED = re.compile(r"(?:Picture \d+:\s*)?<img>([^<>]+)</img>\n?")
ALONE = re.compile(rf"(?:^|\n)\s*{TOKEN}|{TOKEN}\s*(?:\n|$)")  # where it stands for a picture, and is not spoken of


class Dialogue(NamedTuple):
    """turns; pictures: that stand inside messages; system: what goes before the first question; unanswered: whether the last
    question was left out, for want of an answer. The texts still have their <image>."""

    turns: list[Turn]
    pictures: list[picture_values.Named]
    system: list[str]
    unanswered: bool


class Message(NamedTuple):
    role: str
    text: str
    pictures: list[picture_values.Named]


def read(where: str, key: str, value: Any, tags: Mapping[str, str], shape: str) -> Dialogue:
    """The turns of one row. RowFault where roles do not alternate or something moves (video, audio); VlaxError for what is no
    dialogue. shape: what an error says that was looked for."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        value = load_line(f'{where}: "{key}"', value, shape)
    if not isinstance(value, list | tuple):
        raise VlaxError(f'{where}: "{key}" is a {type(value).__name__}, not a list of messages; {shape}')
    said = [one for at, message in enumerate(value) for one in _messages(f"{where}, message {at}", message, tags, shape)]
    total, system = len(said), []
    while said and said[0].role == "system":
        system.append(said.pop(0).text.strip())
    for at, message in enumerate(said):
        if message.role != ("user", "assistant")[at % 2]:
            ours = "human and gpt (user and assistant) alternate, human first, a system message before them"
            reason = f"{where}: message {at + total - len(said)} is from {message.role!r}; {ours}. {shape}"
            raise RowFault(reason, "roles out of order")
    if len(said) < 2:
        raise VlaxError(f"{where}: a conversation is a list of question and answer pairs, not of {len(said)} messages; {shape}")
    pairs = zip(said[::2], said[1::2], strict=False)
    turns = [Turn(question.text, answer.text) for question, answer in pairs]
    return Dialogue(turns, [one for message in said for one in message.pictures], system, len(said) % 2 == 1)


def together(named: list[picture_values.Named], talk: Dialogue | None) -> list[picture_values.Named]:
    """All pictures of a row: those that it names, and those that stand in its messages. One may be named in both; one that is
    named twice is there twice where there are <image> for that."""
    if talk is None:
        return [*dict.fromkeys(named)]
    every = [*named, *(one for one in talk.pictures if one not in named)]
    found = sum(turn.question.count(TOKEN) for turn in talk.turns)
    return every if found == len(every) else [*dict.fromkeys(every)]


def without_tokens(where: str, turns: list[Turn], pictures: int) -> tuple[list[Turn], str, list[tuple[int, int]]]:
    """(turns whose questions have lost as many <image> as there are pictures, what is odd about their number or "", where the
    pictures stood: turn and characters before each; none where there are fewer <image> than pictures).

    RowFault where a question has more of them: a row that says that it has a picture is never learned as text.
    """
    found = sum(turn.question.count(TOKEN) for turn in turns)
    alone = sum(len(ALONE.findall(turn.question)) for turn in turns) if found else 0
    if (found > pictures > 0) or (alone and not pictures):
        kind = TOKEN_FAULTS[2 if pictures else 1]
        raise RowFault(f"{where}: {found} {TOKEN} for {pictures} pictures; mend or remove the row", kind)
    cut, left, places = [], pictures, list[tuple[int, int]]()
    for number, turn in enumerate(turns):
        parts = turn.question.split(TOKEN, left) if left and TOKEN in turn.question else [turn.question]
        left -= len(parts) - 1
        whole = "".join(parts)
        question = whole.strip()
        skipped, before = len(whole) - len(whole.lstrip()), 0
        for part in parts[:-1]:
            before += len(part)
            places.append((number, min(max(before - skipped, 0), len(question))))
        cut.append(Turn(question, turn.answer.strip(), turn.task))
    note = f"{where}: {found} {TOKEN} for {pictures} pictures" if found < pictures else ""
    return cut, note, places if len(places) == pictures else []


def stands(places: list[tuple[int, int]], before: int = 0) -> tuple[str, ...]:
    """Places as an Item keeps them. before: characters that go before the first question."""
    return tuple(f"{turn}:{at + before * (turn == 0)}" for turn, at in places)


def _messages(where: str, message: Any, tags: Mapping[str, str], shape: str) -> list[Message]:
    """One message, or the two of a pair."""
    if isinstance(message, list | tuple) and len(message) == 2:
        message = {"user": message[0], "assistant": message[1]}
    if not isinstance(message, Mapping):
        raise VlaxError(f"{where} is a {type(message).__name__}, not an object; {shape}")
    usual = ("from", "value") if "value" in message else ("role", "content")
    if not tags and isinstance(said := message.get(usual[1]), str) and "<" not in said and usual[0] in message:
        return [Message(ROLES.get(message[usual[0]], str(message[usual[0]])), said, [])]  # nearly all there are
    if tags:
        named = {tags[tag]: tag.removesuffix("_tag") for tag in TAGS[2:] if tags.get(tag)}
        roles: Mapping[str, str] = {**ROLES, **named}
    else:
        roles = ROLES
        if "role" not in message and "from" not in message:
            for asks, answers in PAIRS:
                if asks in message and answers in message:
                    pair = ("user", message[asks]), ("assistant", message[answers])
                    return [Message(role, *_content(where, value, shape)) for role, value in pair]
    role = message.get(tags.get("role_tag") or next((key for key in ("role", "from", "speaker") if key in message), "role"))
    key = tags.get("content_tag") or next((key for key in ("content", "value", "text") if key in message), "content")
    return [Message(roles.get(str(role), str(role)), *_content(where, message.get(key), shape))]


def _content(where: str, value: Any, shape: str) -> tuple[str, list[picture_values.Named]]:
    """(text, pictures) of a message; the text may come in parts, and a part may be a picture."""
    if isinstance(value, str) and "<" not in value:
        return value, []
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(part, Mapping | str) for part in value):
        if not isinstance(value, str):
            raise VlaxError(f"{where} has no text; {shape}")
        check_still(where, value)
        return _tagged(where, value)
    said, pictures = [], []
    for part in value:
        kind = "text" if isinstance(part, str) else str(part.get("type") or "text")
        if "video" in kind or "audio" in kind:
            raise moving(where, kind)
        if "image" not in kind:
            said.append(part if isinstance(part, str) else part.get("text") or part.get("content"))
            continue
        there = [one for key, own in part.items() if key != "type" for one in _part(where, key, own)]
        pictures += there
        said.append(TOKEN)
    if not all(isinstance(one, str) for one in said):
        raise VlaxError(f"{where} has no text; {shape}")
    whole = "".join(one for one in said if isinstance(one, str))
    check_still(where, whole)
    return whole, pictures


def _tagged(where: str, text: str) -> tuple[str, list[picture_values.Named]]:
    """A text in which pictures stand between tags, as Qwen-VL has them; other tags of that name are its own."""
    if "</img>" not in text:
        return text, []
    found = [name.strip() for name in TAGGED.findall(text) if picture_values.like_a_picture("img", name.strip())]
    pictures = [one for name in found for one in picture_values.pictures(where, name)]
    return TAGGED.sub(lambda match: TOKEN if match[1].strip() in found else match[0], text), pictures


def _part(where: str, key: str, value: Any) -> list[picture_values.Named]:
    """The picture in one member of an image part; members of other names (detail, resized_height) say other things."""
    known = (*picture_values.PLACES, *picture_values.HELD)
    return picture_values.pictures(where, {key: value}) if key in known and value else []


def check_still(where: str, text: str) -> None:
    """RowFault for a placeholder of what vlax does not see."""
    if ("<video>" in text or "<audio>" in text) and (
        found := re.search(r"(?:^|\n)\s*<(video|audio)>|<(video|audio)>\s*(?:\n|$)", text)
    ):
        raise moving(where, found[1] or found[2])


def moving(where: str, kind: str) -> RowFault:
    return RowFault(f"{where} has {kind}: vlax sees single pictures; take frames out of it, or remove the row", "not a picture")
