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
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from vlax.errors import VlaxError
from vlax.masks import ANSWER, PROMPT
from vlax.rows import TASKS, Row, RowFault
from vlax.text import chat
from vlax.text.codec import Codec, Rendered
from vlax.text.settings import Settings
from vlax.text.templates import named, template
from vlax.text.tokenizer import Tokenizer

CHARACTERS = 1 << 20  # of one exchange: no text_length has room for more, and tokenizers take minutes for 20 MB
RECURRING = 80  # characters of a span that is worth remembering


def template_hash(prompts: str | Mapping[str, str]) -> str:
    """Short digest of a template set, or of its prompts: scores and manifests carry it."""
    prompts = template(prompts) if isinstance(prompts, str) else prompts
    return hashlib.sha256(json.dumps(prompts, sort_keys=True).encode()).hexdigest()[:12]


def prompt_text(task: str, question: str, prompts: str | Mapping[str, str], literal: Callable[[str], str] = str) -> str:
    """prompt_text("question", "is it red?", "plain") == "question: is it red? answer:"; literal: what marks a user's text."""
    if task not in TASKS:
        raise VlaxError(f"unknown task {task!r}; the tasks are {', '.join(TASKS)}")
    prompts = template(prompts) if isinstance(prompts, str) else prompts
    return prompts[task].replace("{question}", literal(question.strip()))


def exchanges(row: Row, prompts: str | Mapping[str, str], literal: Callable[[str], str] = str) -> list[tuple[str, str]]:
    """(prompt text, answer) by turn. RowFault when an answer is empty (its loss would be the EOS alone) or holds half a
    surrogate pair, which no tokenizer takes."""
    out = []
    for turn in row.turns:
        if re.search("[\ud800-\udfff]", turn.question + turn.answer):
            raise RowFault(f"row {row.id}: the text has half a surrogate pair; mend or remove the row", "invalid unicode")
        if (count := len(turn.question) + len(turn.answer)) > CHARACTERS:
            raise RowFault(
                f"row {row.id}: an exchange has {count:,} characters, limit {CHARACTERS:,}; remove the row", "long text"
            )
        if not turn.answer.strip():
            raise RowFault(f"row {row.id}: the answer is empty; remove the row or fill it in", "empty text")
        out.append((prompt_text(turn.task or row.task, turn.question, prompts, literal), literal(turn.answer.strip())))
    return out


def spans(row: Row, prompts: str | Mapping[str, str]) -> list[tuple[str, bool]]:
    """(text, supervised) in order, for every template set but "chat"."""
    return [span for prompt, answer in exchanges(row, prompts) for span in ((prompt, False), (" " + answer, True))]


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
                "the tokenizer's pad token is missing or is its EOS: masking pads would mask EOS and answers would never "
                "stop. Add a pad token of its own (tokenizer.add_special_tokens({'pad_token': '<pad>'}))"
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
        return Codec(self.tokenizer, (self.tokenizer.chat_template or "") if self.is_chat else "", self.settings.version)

    @functools.cached_property
    def digest(self) -> str:
        """Of the templates and of how they are tokenised: `template_hash`, where both versions give the same ids."""
        plain, more = template_hash(self.prompts), []
        if self.codec.contextual:
            more.append(str(self.settings.version))
        if self.settings.system or self.settings.chat:
            more += [self.settings.system, str(self.is_chat)]
        return hashlib.sha256(" ".join([plain, *more]).encode()).hexdigest()[:12] if more else plain

    @functools.cached_property
    def _cached(self) -> Callable[[str], tuple[int, ...]]:
        return functools.lru_cache(maxsize=1 << 16)(lambda text: tuple(self.codec.ids(text)))

    @functools.cached_property
    def _shapes(self) -> Callable[..., tuple[chat.Shape, ...]]:
        def made(*full: bool) -> tuple[chat.Shape, ...]:
            return chat.shapes(self.codec, full, bool(self.settings.system), self.settings.date, "{row}")

        return functools.lru_cache(maxsize=1 << 10)(made)

    def ids(self, text: str) -> list[int]:
        """Token ids of a span; special tokens in it are special, but between marks (`codec.py`). The last 65,536 distinct short
        spans are remembered: prompts and short answers recur, long ones would only take memory."""
        return list(self._cached(text) if len(text) <= RECURRING else self.codec.ids(text))

    def prompt_text(self, task: str, question: str) -> Rendered:
        """The prompt of a task under this template set."""
        return Rendered(
            self._pieces("prompt", [(prompt_text(task, question, self.prompts, self.codec.literal), "answer")])[0][0]
        )

    def dialogue(self, turns: Sequence[tuple[str, str]], question: str) -> list[int]:
        """Ids of a conversation up to where the next answer begins. turns: what was asked and answered before."""
        literal = self.codec.literal
        said = [(prompt_text("chat", text, self.prompts, literal), literal(answer.strip())) for text, answer in turns]
        said.append((prompt_text("chat", question, self.prompts, literal), "answer"))
        tokens = self.start
        for text, supervised in self._pieces("conversation", said)[:-1]:
            tokens += self.ids(text) + ([self.tokenizer.eos_token_id] if supervised and not self.is_chat else [])
        return tokens

    def prompt(self, task: str, question: str) -> list[int]:
        """Ids of a prompt as generation meets them."""
        return self.typed(self.prompt_text(task, question))

    def typed(self, prompt: str) -> list[int]:
        """Ids of a whole prompt: what `prompt_text` gave, or whatever a user typed, which is text."""
        return [*self.start, *self.ids(prompt if isinstance(prompt, Rendered) else self.codec.literal(prompt))]

    def answer(self, answer: str, prompt: str = "") -> list[int]:
        """Ids of an answer as it follows a prompt, by default that of a caption, with what ends it. One of nothing but spaces
        is the end alone."""
        text = self.codec.literal(answer.strip())
        before = prompt or self.prompt_text("caption", "")
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
        pieces = self._pieces(row.id, exchanges(row, self.prompts, self.codec.literal))
        return pieces, [] if self.is_chat else [self.tokenizer.eos_token_id]  # a chat's text has its end

    def _pieces(self, name: str, said: Sequence[tuple[str, str]]) -> list[tuple[str, bool]]:
        """(text, supervised) of exchanges, marked. name: the row's, for errors."""
        after, system = self.codec.after, [self.codec.literal(self.settings.system)] if self.settings.system else []
        out: list[tuple[str, bool]] = []
        end = ""
        if not self.is_chat:
            for prompt, answer in said:
                prompt = "\n".join([*system, prompt]) if not out else prompt
                out += [(after(end, prompt), False), (after(prompt, " " + answer), True)]
                end = self.tokenizer.eos_token
            return out
        contents = [*system, *(text for exchange in said for text in exchange)]
        for shape, (_, answer) in zip(self._turns(name, said), said, strict=True):
            prompt = chat.fill(shape.prompt, contents)
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
        tokens = self.start
        segments = [PROMPT] * len(tokens)
        pieces, end = self.pieces(row)
        for text, supervised in pieces:
            ids = self.ids(text) + (end if supervised else [])
            tokens += ids
            segments += [ANSWER if supervised else PROMPT] * len(ids)
        return tokens, segments

    def decode(self, ids: Iterable[int]) -> str:
        """The text of generated ids, up to where the answer ends."""
        kept = []
        for token in ids:
            if token in self.stops:
                break
            kept.append(int(token))
        return self.tokenizer.decode(kept, skip_special_tokens=True).strip()


def make(tokenizer: Tokenizer, templates: str, system: str = "") -> Encoder:
    """The Encoder of a new run. templates: a set's name or a TOML file (`templates.py`); system: its system prompt, if any."""
    name, settings, jinja = named(templates, system)
    if jinja:
        tokenizer = copy.deepcopy(tokenizer)  # which others share
        tokenizer.chat_template = jinja
    return Encoder(tokenizer, name, settings)
