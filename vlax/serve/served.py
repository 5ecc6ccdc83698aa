"""A model that is served: what its own settings are, what may be changed for one request, and requests as jobs."""

import collections
import dataclasses
import functools
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from vlax.decoding.options import DecodeConfig
from vlax.decoding.predict import Request
from vlax.decoding.seen import Kept, Seen, looking
from vlax.errors import VlaxError
from vlax.masks import KINDS
from vlax.model.api import Model
from vlax.models.build import abstract_model
from vlax.models.decoder import check_length
from vlax.serve.asking import RAW, Ask
from vlax.serve.engine import CHUNK, Job, Lane, News, Program
from vlax.serve.limits import Limits, Refusal, refused
from vlax.text.places import Encoded
from vlax.text.prompts import Encoder
from vlax.text.templates import TEMPLATES

PROGRAMS = 16  # compiled and kept
SHORTEST = 32  # slots of a prompt; longer ones have the next power of two


@dataclasses.dataclass(frozen=True, eq=False)
class Served:
    """name: what requests call it; where: it was loaded from; batch_size: rows of its physical batch."""

    name: str
    where: str
    model: Model
    batch_size: int
    limits: Limits

    @functools.cached_property
    def tasks(self) -> tuple[str, ...]:
        """Those that it was trained in; () where nobody knows."""
        return tuple(self.model.manifest.get("tasks", ()))

    @functools.cached_property
    def templates(self) -> tuple[str, ...]:
        """Prompt templates that its tokenizer can write."""
        return tuple(name for name in TEMPLATES if self._encoder(name) is not None)

    @property
    def talks(self) -> bool:
        """Whether it knows dialogues, as far as anybody knows."""
        return "chat" in self.tasks or not self.tasks

    @functools.cached_property
    def _variants(self) -> dict[tuple[str, str], Model]:
        return {("", ""): self.model}

    @functools.cached_property
    def _programs(self) -> "collections.OrderedDict[tuple[Any, ...], Program]":
        return collections.OrderedDict()

    @functools.cached_property
    def _kept(self) -> Kept:
        """What was made of pictures, for later requests about them; for the engine's thread alone."""
        return Kept(self.limits.kept)

    @functools.cached_property
    def _looking(self) -> dict[str, Seen | None]:
        return {}

    @functools.cached_property
    def _lock(self) -> threading.Lock:
        return threading.Lock()

    def variant(self, mask: str, templates: str) -> Model:
        """The model under another mask kind or other prompts; its parameters are the same ones."""
        mask = "" if mask == self.model.config.mask else mask
        templates = "" if templates == self.model.encoder.templates and not self.model.encoder.settings.prompts else templates
        with self._lock:
            if (mask, templates) not in self._variants:
                config, graphdef = self.model.config, self.model.graphdef
                if mask:
                    config = dataclasses.replace(config, mask=mask)
                    floating = next(x.dtype for x in self.model.params.values() if jnp.issubdtype(x.dtype, jnp.floating))
                    graphdef = abstract_model(config, floating)[0]
                encoder = self._encoder(templates) if templates else self.model.encoder
                if encoder is None:
                    raise refused("templates", f"{self.name} has no chat template; take another one")
                self._variants[mask, templates] = dataclasses.replace(
                    self.model, config=config, graphdef=graphdef, encoder=encoder
                )
            return self._variants[mask, templates]

    def _encoder(self, templates: str) -> Encoder | None:
        own = self.model.encoder
        settings = dataclasses.replace(own.settings, prompts=None, chat=False)
        try:
            encoder = Encoder(own.tokenizer, templates, settings)
            encoder.prompt("caption", "")
        except VlaxError:
            return None
        return encoder

    def program(self, model: Model, room: int, beams: int) -> Program:
        """The compiled decoding; those that were not asked for in a long time are forgotten."""
        key = (model.config.mask, model.encoder.stops, room, beams)
        with self._lock:
            if model.config.mask not in self._looking:
                self._looking[model.config.mask] = looking(
                    model.graphdef, model.config, model.encoder, model.mesh, self.batch_size, self._kept
                )
            seen = self._looking[model.config.mask]
            decode = DecodeConfig(room, beams, kv_cache=self.limits.kv_cache, chunk=CHUNK)
            made = self._programs.pop(key, None) or Program(model, decode, self.batch_size, seen)
            self._programs[key] = made
            while len(self._programs) > PROGRAMS:
                self._programs.popitem(last=False)
            return made

    def job(self, ask: Ask, tell: Callable[[News | Exception], None]) -> tuple[Job, Encoder]:
        """(what the engine takes, what its ids are read by). Refusal where the request does not fit this model."""
        model = self.variant(ask.mask, ask.templates)
        encoder = model.encoder if ask.said.system is None else model.encoder.says(ask.said.system)
        asked = self.encoded(encoder, ask)
        if len(asked.tokens) > self.limits.prompt:
            raise refused("messages", f"{len(asked.tokens):,} tokens of text, limit {self.limits.prompt:,}; make them shorter")
        alone = len(ask.said.images) == 1
        shown = [model.views(image, alone) for image in ask.said.images] if model.config.vision else []
        before = [at for at, views in zip(asked.before, shown, strict=False) for _ in views]
        request = Request(asked.tokens, [view for views in shown for view in views], 0, before)
        length = self._length(model, len(asked.tokens))
        slots = model.config.views * max(1, len(shown))
        room = self._room(model, length + slots * model.config.tokens_per_image, ask)
        lane = Lane(self.program(model, room, ask.beams), length, slots)
        seed = random.getrandbits(31) if ask.seed is None else ask.seed
        explain = bool(ask.top)
        return Job(lane, request, ask.limit, tell, ask.temperature, ask.top_p, seed, explain), encoder

    @staticmethod
    def _length(model: Model, size: int) -> int:
        """Slots of a prompt: few lengths, so that few programs are compiled, but where positions are scarce."""
        return -(-size // 16) * 16 if model.config.decoder.rope_theta is None else _power(size, SHORTEST)

    def _room(self, model: Model, prefix: int, ask: Ask) -> int:
        """Slots for an answer: a search takes what it is told, since its end is a part of it."""
        room = ask.limit if ask.beams > 1 else _power(ask.limit, SHORTEST)
        decoder = model.config.decoder
        if decoder.rope_theta is None:
            room = min(room, decoder.max_positions - prefix + 1)
        if room < ask.limit:
            raise refused(
                "max_tokens",
                f"{ask.limit} and {prefix} slots of pictures and prompt are more than the {decoder.max_positions} positions of "
                f"{self.name}; lower it or shorten the prompt",
            )
        try:
            check_length(decoder, prefix + room)
        except VlaxError as error:
            raise Refusal(400, str(error), "messages") from None
        return room

    def encoded(self, encoder: Encoder, ask: Ask) -> Encoded:
        """The ids of what is asked, by the prompts of the tasks that the model knows."""
        said = ask.said
        if ask.task == RAW:
            if said.turns or said.system is not None:
                raise refused("task", "raw is one text, as generate takes it; leave earlier turns and the system message out")
            return encoder.asked(said.question, len(said.images))
        texts = [question for question, _ in said.turns]
        tasks = [*(self.task(text, ask.task) for text in texts), ask.task or self.task(said.question)]
        return encoder.dialogue(said.turns, said.question, said.places, tasks)

    def task(self, text: str, wanted: str = "") -> str:
        """By whose prompt a turn is asked: without a text, a caption; else what the model was trained in. wanted: of the last
        turn."""
        if not text:
            return "describe" if "describe" in self.tasks and "caption" not in self.tasks else "caption"
        if wanted in ("question", "chat"):
            return wanted
        return "question" if "question" in self.tasks and "chat" not in self.tasks else "chat"

    def about(self) -> Mapping[str, Any]:
        """What the page says of it."""
        model, config = self.model, self.model.config
        own = model.encoder
        frame = config.tower.preprocess if config.vision else None
        return {
            "name": self.name, "where": self.where, "stage": model.manifest.get("stage", ""),
            "parameters": sum(value.size for value in model.params.values()),
            "mask": config.mask, "masks": list(KINDS), "templates": list(self.templates),
            "own_templates": own.templates, "system": own.settings.system, "tasks": list(self.tasks), "talks": self.talks,
            "sees": frame is not None,
            "frame": frame and {"mode": frame.mode, "size": frame.size, "margin": (frame.edge or frame.size) / frame.size},
            "limits": dataclasses.asdict(self.limits),
        }  # fmt: skip


def _power(size: int, least: int) -> int:
    """The power of two, at least `least`, that has room for `size`."""
    return max(least, 1 << (size - 1).bit_length())


def named(models: Sequence[tuple[str, Model]], batch_size: int, limits: Limits) -> dict[str, Served]:
    """{name: Served} of (where from, model): the last folders of a path, a hub id whole, with a number where two are alike."""
    out: dict[str, Served] = {}
    for where, model in models:
        parts = [part for part in where.rstrip("/").split("/") if part not in ("", ".", "..")]
        parts = parts[:-1] if parts[-1:] == ["export"] and len(parts) > 1 else parts
        base = name = "/".join(parts[-2:]) or "model"
        number = 2
        while name in out:
            name, number = f"{base}-{number}", number + 1
        out[name] = Served(name, where, model, batch_size, limits)
    return out
