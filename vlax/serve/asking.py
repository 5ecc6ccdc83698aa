"""What may be asked, whoever asks: an `Ask`, checked."""

import dataclasses
import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from vlax import masks
from vlax.decoding.live import MOST
from vlax.errors import VlaxError
from vlax.model.conversation import Conversation
from vlax.rows import TASKS
from vlax.serve.limits import Limits, Refusal, refused
from vlax.serve.said import conversation
from vlax.storage import state
from vlax.text.templates import TEMPLATES

T = TypeVar("T")
RAW = "raw"
# Fields of OpenAI's that change nothing here, and those that are taken while they ask for nothing.
INERT = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "stream_options", "verbosity"}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,), "frequency_penalty": (0,), "presence_penalty": (0,), "logit_bias": ({},), "tools": ([],),
    "tool_choice": ("none",), "functions": ([],), "response_format": ({"type": "text"},), "modalities": (["text"],),
    "parallel_tool_calls": (True, False), "repetition_penalty": (1,),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Ask:
    """One request for an answer.

    said         system prompt, earlier turns, question, pictures
    task         by whose prompt it is asked: one of TASKS, "raw" (the text alone), or "" for what the model was trained in
    mask, templates  in place of the model's own; "" for those
    stop         texts before which the answer ends
    top          alternatives of each token; None: not even its own probability
    explain      where the model looked, and alternatives, at the end
    """

    model: str
    said: Conversation
    task: str = ""
    mask: str = ""
    templates: str = ""
    limit: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    beams: int = 1
    stop: tuple[str, ...] = ()
    top: int | None = None
    explain: bool = False
    stream: bool = False
    usage: bool = False


def read(body: bytes, limits: Limits, default: int) -> Ask:
    """The Ask of a body of /v1/chat/completions, beside whose fields there are num_beams, task, mask, templates and explain.

    default: tokens of an answer where max_tokens is not there. Refusal names the field and what it takes.
    """
    try:
        fields = state.load_json("the body", body, 'send {"model": ..., "messages": [...]}')
    except VlaxError as error:
        raise Refusal(400, str(error)) from None
    if not isinstance(fields, dict):
        raise Refusal(400, 'the body is an object: {"model": ..., "messages": [...]}')
    fields = {name: value for name, value in fields.items() if value is not None}
    _known(fields)
    take = _Fields(fields)
    name = "max_completion_tokens" if "max_completion_tokens" in fields else "max_tokens"
    length = take.number(name, default, 1, limits.answer, whole=True)
    beams = take.number("num_beams", 1, 1, limits.beams, whole=True)
    temperature, top_p = take.number("temperature", 0.0, 0, 100), take.number("top_p", 1.0, 0, 1)
    if beams > 1 and temperature > 0:
        raise refused("num_beams", f"{beams} searches and temperature={temperature} samples; take one of them")
    logprobs, top = take.flag("logprobs"), take.number("top_logprobs", 0, 0, MOST, whole=True)
    if beams > 1 and logprobs:
        raise refused("logprobs", "a search keeps none; take num_beams=1, or explain=true")
    if top and not logprobs:
        raise refused("top_logprobs", "logprobs=true goes with it")
    options = take.get("stream_options", dict, {})
    return Ask(
        model=take.get("model", str, ""),
        said=conversation(fields.get("messages"), limits),
        task=take.choice("task", (*TASKS, RAW)),
        mask=take.choice("mask", masks.KINDS),
        templates=take.choice("templates", tuple(TEMPLATES)),
        limit=int(length),
        temperature=temperature,
        top_p=top_p or 1e-9,  # the most probable token alone
        seed=int(take.number("seed", -1, 0, 2**31 - 1, whole=True)) if "seed" in fields else None,
        beams=int(beams),
        stop=take.texts("stop"),
        top=int(top) if logprobs else None,
        explain=take.flag("explain"),
        stream=take.flag("stream"),
        usage=bool(options.get("include_usage")),
    )


OURS = {"num_beams", "task", "mask", "templates", "explain"}
READ = {
    "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "stop", "logprobs",
    "top_logprobs", "stream", *OURS,
}  # fmt: skip


def _known(fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if name in NEUTRAL and value not in NEUTRAL[name]:
            raise refused(name, f"vlax has no {name}; leave it out")
        if name not in READ | INERT | NEUTRAL.keys():
            near = get_close_matches(name, READ, 1)
            raise refused(str(name)[:80], f"there is no such field{f'; did you mean {near[0]}?' if near else ''}")


class _Fields:
    """Values of a JSON object, each of its kind."""

    def __init__(self, fields: Mapping[str, Any]):
        self.fields = fields

    def get(self, name: str, kind: type[T], default: T) -> T:
        value = self.fields.get(name, default)
        if not isinstance(value, kind):
            raise refused(name, f"a {kind.__name__}, not {str(value)[:80]!r}")
        return value

    def flag(self, name: str) -> bool:
        value = self.fields.get(name, False)
        if not isinstance(value, bool):
            raise refused(name, f"true or false, not {str(value)[:80]!r}")
        return value

    def number(self, name: str, default: float, low: float, high: float, whole: bool = False) -> float:
        value: float = self.fields.get(name, default)
        if name not in self.fields:
            return value
        kinds = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or not low <= value <= high:
            raise refused(name, f"a {'whole ' if whole else ''}number from {low} to {high}, not {str(value)[:80]!r}")
        return value

    def choice(self, name: str, among: tuple[str, ...]) -> str:
        value = self.get(name, str, "")
        if value and value not in among:
            raise refused(name, f"one of {', '.join(among)}, not {value[:80]!r}")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.fields.get(name, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or len(value) > 16 or not all(isinstance(t, str) and 0 < len(t) <= 200 for t in value):
            raise refused(name, "a text of up to 200 characters, or a list of at most 16, none of them empty")
        return tuple(value)
