"""From a row to token ids: templates, spans and segments. The loss mask is decided here and nowhere else.

A row becomes spans, and each span is tokenised once, by itself. The mask therefore follows from the template: no piece is
ever found again in a longer token sequence, and the prompt has the very ids at training that it has at inference.

    Row(task="caption", turns=(Turn("", "a dog"),))            ->  [("caption:", False), (" a dog", True)]
    Row(task="question", turns=(Turn("is it red?", "no"),))    ->  [("question: is it red? answer:", False), (" no", True)]

Ids are [BOS, if the tokenizer has one | prompt | answer | EOS]; segment 1 up to the prompt's end, 2 from the answer on. Every
answer ends with a supervised EOS, so that the model learns to stop.
"""

import copy
import dataclasses
import functools
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from vlax.errors import VlaxError
from vlax.masks import ANSWER, PROMPT
from vlax.rows import Row
from vlax.text import chat, places
from vlax.text.codec import FRONT, ONE_IN_FRONT, PLACE, Codec, Rendered, shown
from vlax.text.exchanges import exchanges, prompt_text, template_hash
from vlax.text.places import Encoded
from vlax.text.settings import Around, Settings
from vlax.text.templates import named, template
from vlax.text.tokenizer import Tokenizer

RECURRING = 80  # characters of a span that is worth remembering


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """Rows to ids with one tokenizer and one template set; settings: what else decides about ids."""

    tokenizer: Tokenizer
    templates: str
    settings: Settings = dataclasses.field(default_factory=Settings)

    def __post_init__(self) -> None:
        if self.settings.prompts is None:
            template(self.templates)
        told = self.is_chat and "strftime_now" in (self.tokenizer.chat_template or "")
        object.__setattr__(self, "settings", self.settings.dated() if told else dataclasses.replace(self.settings, date=""))
        t = self.tokenizer
        if t.eos_token_id is None:
            raise VlaxError("the tokenizer has no EOS token: the model could never learn to stop. Set one before training")
        if t.pad_token_id is None or t.pad_token_id == t.eos_token_id:
            raise VlaxError(
                "the tokenizer's pad token is missing or is its EOS: masking pads would mask EOS and answers would never stop. "
                "Add a pad token of its own (tokenizer.add_special_tokens({'pad_token': '<pad>'}))"
            )

    @property
    def is_chat(self) -> bool:
        """Whether the tokenizer's chat template goes around prompts and answers."""
        return self.settings.chat if self.settings.prompts is not None else self.templates == "chat"

    @property
    def prompts(self) -> Mapping[str, str]:
        """By task."""
        return template(self.templates) if self.settings.prompts is None else self.settings.prompts

    def says(self, system: str) -> "Encoder":
        """The same with another system prompt."""
        return dataclasses.replace(self, settings=dataclasses.replace(self.settings, system=system.strip()))

    @functools.cached_property
    def codec(self) -> Codec:
        template, around = (self.tokenizer.chat_template or "") if self.is_chat else "", self.settings.picture or {}
        return Codec(self.tokenizer, template, self.settings.version, "".join(around.values()))

    @functools.cached_property
    def digest(self) -> str:
        """Of the templates and of how they are tokenised: `template_hash`, where both versions give the same ids."""
        plain, more = template_hash(self.prompts), []
        if self.codec.contextual:
            more.append(str(self.settings.version))
        if self.settings.system or self.settings.chat:
            more += [self.settings.system, str(self.is_chat)]
        if self.settings.picture:
            more.append(json.dumps(dict(self.settings.picture), sort_keys=True))
        return hashlib.sha256(" ".join([plain, *more]).encode()).hexdigest()[:12] if more else plain

    @functools.cached_property
    def _cached(self) -> Callable[[str], tuple[int, ...]]:
        return functools.lru_cache(maxsize=1 << 16)(lambda text: tuple(self.codec.ids(text)))

    @functools.cached_property
    def _shapes(self) -> Callable[..., tuple[chat.Shape, ...]]:
        def made(*full: bool) -> tuple[chat.Shape, ...]:
            image = self.settings.picture["token"] if self.settings.picture else ""
            return chat.shapes(self.codec, full, bool(self.settings.system), self.settings.date, "{row}", image)

        return functools.lru_cache(maxsize=1 << 10)(made)

    def ids(self, text: str) -> list[int]:
        """Token ids of a span; special tokens in it are special, but between marks (`codec.py`). The last 65,536 distinct short
        spans are remembered: prompts and short answers recur, long ones would only take memory."""
        return list(self._cached(text) if len(text) <= RECURRING else self.codec.ids(text))

    def prompt_text(self, task: str, question: str) -> Rendered:
        """The prompt of a task under this template set."""
        return Rendered(self._pieces("prompt", [(prompt_text(task, question, self.prompts, self.literal), "answer")])[0][0])

    def dialogue(
        self, turns: Sequence[tuple[str, str]], question: str, pictures: Sequence[tuple[int, int]] = (),
        tasks: Sequence[str] = (),
    ) -> Encoded:  # fmt: skip
        """A conversation up to where the next answer begins. turns: what was asked and answered before; pictures: where they
        stand, as `Row.places`; tasks: of each question the task by whose prompt it is asked; () is "chat" for all."""
        literal, asked, front = self.codec.literal, [], places.in_front(pictures, self.settings)
        tasks = tasks or ["chat"] * (len(turns) + 1)
        for number, ((text, answer), task) in enumerate(zip([*turns, (question, "answer")], tasks, strict=True)):
            stand = [] if front else [at for turn, at in pictures if turn == number]
            shape, put = places.within(stand, self.prompts[task], literal)
            asked.append((prompt_text(task, text, {task: shape}, put), literal(answer.strip())))
        return self._encoded(self._pieces("conversation", asked, len(pictures))[:-1], len(pictures))

    def prompt(self, task: str, question: str) -> list[int]:
        """Ids of a prompt as generation meets them."""
        return self.typed(self.prompt_text(task, question))

    def typed(self, prompt: str) -> list[int]:
        """Ids of a whole prompt: what `prompt_text` gave, or whatever a user typed, which is text."""
        return self.asked(prompt).tokens

    def asked(self, prompt: str, pictures: int | None = None) -> Encoded:
        """`typed`, with so many pictures: in front, or where an interleaved model is shown <image>. None: as many as it says.

        VlaxError where it says another number.
        """
        text = prompt if isinstance(prompt, Rendered) else self.literal(prompt)
        if (found := text.count(PLACE)) and pictures not in (None, found):
            prompt = shown(prompt)[:80]
            raise VlaxError(f"the prompt {prompt!r} has {found} <image> and {pictures} pictures; give as many of both")
        text = text if found or FRONT in text or not self.settings.picture else ONE_IN_FRONT + text
        return self._encoded([(places.wrapped(text, pictures or 0, self.settings), False)], found or pictures or 0)

    def literal(self, text: str) -> str:
        """What a user typed, to be put into a prompt."""
        return places.told(text, self.codec.literal) if self.settings.interleaved else self.codec.literal(text)

    def answer(self, answer: str, prompt: str = "") -> list[int]:
        """Ids of an answer as it follows a prompt, by default that of a caption, with what ends it. One of nothing but spaces
        is the end alone."""
        text = self.codec.literal(answer.strip())
        before = places.wrapped(prompt or self.prompt_text("caption", ""), 1, self.settings)
        if not self.is_chat:
            return [*(self.ids(self.codec.after(before, " " + text)) if text else []), self.tokenizer.eos_token_id]
        shape = self._turns("answer", [("question", "answer")])[0]
        if not text:
            return [self.stops[-1]]
        return self.ids(self.codec.after(before, shape.lead + text + shape.end))

    @functools.cached_property
    def stops(self) -> tuple[int, ...]:
        """Where an answer may end: EOS, and what else ends a turn of the chat template."""
        eos = self.tokenizer.eos_token_id
        if not self.is_chat:
            return (eos,)
        stop = self._turns("prompt", [("question", "answer")])[0].stop
        return tuple(dict.fromkeys((eos, self.codec.special[stop] if stop != self.tokenizer.eos_token else eos)))

    @property
    def start(self) -> list[int]:
        """What a sequence begins with: BOS, if there is one and no chat template writes it."""
        bos = self.tokenizer.bos_token_id
        return [] if bos is None or self.is_chat else [bos]

    def pieces(self, row: Row) -> tuple[list[tuple[str, bool]], list[int]]:
        """([(text, supervised), ...], the ids that follow each supervised one): what a row is tokenised in, after `start`."""
        return places.cut(self._said(row), self.codec.after)[0], self._end

    def _said(self, row: Row) -> list[tuple[str, bool]]:
        within = not places.in_front(row.places, self.settings)
        return self._pieces(row.id, exchanges(row, self.prompts, self.codec.literal, within), len(row.pictures))

    @property
    def _end(self) -> list[int]:
        return [] if self.is_chat else [self.tokenizer.eos_token_id]  # a chat's text has its end

    def _pieces(self, name: str, said: Sequence[tuple[str, str]], pictures: int | None = None) -> list[tuple[str, bool]]:
        """(text, supervised) of exchanges, marked. name: the row's, for errors; pictures: how many, None if not known yet."""
        after, system = self.codec.after, [self.codec.literal(self.settings.system)] if self.settings.system else []
        out: list[tuple[str, bool]] = []
        in_front = 0 if pictures and any(PLACE in prompt for prompt, _ in said) else pictures
        wrapped, end = functools.partial(places.wrapped, pictures=in_front, settings=self.settings), ""
        if not self.is_chat:
            for prompt, answer in said:
                prompt = "\n".join([*system, prompt]) if not out else prompt
                prompt = wrapped(ONE_IN_FRONT + prompt if self.settings.picture and not out else prompt)
                out += [(after(end, prompt), False), (after(prompt, " " + answer), True)]
                end = self.tokenizer.eos_token
            return out
        contents = [*system, *(text for exchange in said for text in exchange)]
        for shape, (_, answer) in zip(self._turns(name, said), said, strict=True):
            prompt = wrapped(chat.fill(shape.prompt, contents))
            out += [(after(end, prompt), False), (after(prompt, shape.lead + answer + shape.end), True)]
            end = shape.stop
        return out

    def _turns(self, name: str, said: Sequence[tuple[str, str]]) -> tuple[chat.Shape, ...]:
        try:
            return self._shapes(*(bool(text) for exchange in said for text in exchange))
        except VlaxError as error:
            raise VlaxError(str(error).replace("{row}", name)) from None

    def counts(self, texts: Sequence[str]) -> list[int]:
        """How many ids `ids` gives of each, many at once."""
        return self.codec.counts(texts)

    def encode(self, row: Row) -> tuple[list[int], list[int]]:
        """(token ids, segments) of a whole row."""
        return self.placed(row)[:2]

    def placed(self, row: Row) -> Encoded:
        """The same, and where its pictures stand."""
        return self._encoded(self._said(row), len(row.pictures))

    def _encoded(self, pieces: Sequence[tuple[str, bool]], pictures: int) -> Encoded:
        tokens, (pieces, stands) = self.start, places.cut(pieces, self.codec.after)
        segments, begins = [PROMPT] * len(tokens), []
        for text, supervised in pieces:
            begins.append(len(tokens))
            ids = self.ids(text) + (self._end if supervised else [])
            tokens += ids
            segments += [ANSWER if supervised else PROMPT] * len(ids)
        before = [[*begins, len(tokens)][piece] for piece in stands] if len(stands) == pictures else [0] * pictures
        return Encoded(tokens, segments, places.settled(before, segments))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of generated ids, up to where the answer ends."""
        kept = [int(token) for token in itertools.takewhile(lambda token: token not in self.stops, ids)]
        return self.tokenizer.decode(kept, skip_special_tokens=True).strip()


def make(tokenizer: Tokenizer, templates: str, system: str = "", interleaved: bool = False, picture: Around = None) -> Encoder:
    """The Encoder of a new run. templates: a set's name or a TOML file (`templates.py`); system: its system prompt, if any;
    interleaved: pictures stand where the text has them; picture: as in Settings."""
    name, settings, jinja = named(templates, system)
    settings = dataclasses.replace(settings, interleaved=interleaved, picture=picture)
    if jinja:
        tokenizer = copy.deepcopy(tokenizer)  # which others share
        tokenizer.chat_template = jinja
    return Encoder(tokenizer, name, settings)
