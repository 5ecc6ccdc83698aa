"""From a row to token ids: templates, spans and segments. The loss mask is decided here and nowhere else.

A row becomes spans, and each span is tokenised once, by itself. The mask therefore follows from the template: no piece is
ever found again in a longer token sequence, and the prompt has the very ids at training that it has at inference.

    Row(task="caption", turns=(Turn("", "a dog"),))            ->  [("caption:", False), (" a dog", True)]
    Row(task="question", turns=(Turn("is it red?", "no"),))    ->  [("question: is it red? answer:", False), (" no", True)]

Ids are [BOS, if the tokenizer has one | prompt | answer | EOS]; segment 1 up to the prompt's end, 2 from the answer on. Every
answer ends with a supervised EOS, so that the model learns to stop.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence

from vlax.errors import VlaxError
from vlax.masks import ANSWER, PROMPT
from vlax.rows import TASKS, Row, RowFault
from vlax.text import chat
from vlax.text.codec import Codec, Rendered
from vlax.text.settings import Settings
from vlax.text.tokenizer import Tokenizer

CHARACTERS = 1 << 20  # of one exchange: no text_length has room for more, and tokenizers take minutes for 20 MB
RECURRING = 80  # characters of a span that is worth remembering

# name -> task -> prompt. An answer follows its prompt after one space.
TEMPLATES: dict[str, dict[str, str]] = {
    "plain": {
        "caption": "caption:",
        "describe": "describe:",
        "question": "question: {question} answer:",
        "chat": "user: {question} assistant:",
    },
    "instruct": {
        "caption": "Write a short caption of the image.\nCaption:",
        "describe": "Describe the image in detail.\nDescription:",
        "question": "{question}\nAnswer the question in a word or a short phrase.\nAnswer:",
        "chat": "User: {question}\nAssistant:",
    },
    # what a user says to a chat model; the tokenizer's own template goes around it (`chat.py`)
    "chat": {
        "caption": "Write a short caption of the image.",
        "describe": "Describe the image in detail.",
        "question": "{question}\nAnswer the question in a word or a short phrase.",
        "chat": "{question}",
    },
}


def template(name: str) -> dict[str, str]:
    """The prompts of a template set; VlaxError names the sets there are."""
    if name not in TEMPLATES:
        raise VlaxError(f"unknown prompt template {name!r}; there are {', '.join(TEMPLATES)}")
    return TEMPLATES[name]


def template_hash(name: str) -> str:
    """Short digest of a template set: scores and manifests carry it."""
    return hashlib.sha256(json.dumps(template(name), sort_keys=True).encode()).hexdigest()[:12]


def prompt_text(task: str, question: str, name: str, literal: Callable[[str], str] = str) -> str:
    """prompt_text("question", "is it red?", "plain") == "question: is it red? answer:"; literal: what marks a user's text."""
    if task not in TASKS:
        raise VlaxError(f"unknown task {task!r}; the tasks are {', '.join(TASKS)}")
    return template(name)[task].replace("{question}", literal(question.strip()))


def exchanges(row: Row, name: str, literal: Callable[[str], str] = str) -> list[tuple[str, str]]:
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
        out.append((prompt_text(turn.task or row.task, turn.question, name, literal), literal(turn.answer.strip())))
    return out


def spans(row: Row, name: str) -> list[tuple[str, bool]]:
    """(text, supervised) in order, for every template set but "chat"."""
    return [span for prompt, answer in exchanges(row, name) for span in ((prompt, False), (" " + answer, True))]


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """Rows to ids with one tokenizer and one template set; settings: what else decides about ids."""

    tokenizer: Tokenizer
    templates: str
    settings: Settings = dataclasses.field(default_factory=Settings)

    def __post_init__(self) -> None:
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
        return self.templates == "chat"

    @functools.cached_property
    def codec(self) -> Codec:
        return Codec(self.tokenizer, (self.tokenizer.chat_template or "") if self.is_chat else "", self.settings.version)

    @functools.cached_property
    def digest(self) -> str:
        """Of the templates and of how they are tokenised: `template_hash`, where both versions give the same ids."""
        plain = template_hash(self.templates)
        return hashlib.sha256(f"{plain} {self.settings.version}".encode()).hexdigest()[:12] if self.codec.contextual else plain

    @functools.cached_property
    def _cached(self) -> Callable[[str], tuple[int, ...]]:
        return functools.lru_cache(maxsize=1 << 16)(lambda text: tuple(self.codec.ids(text)))

    @functools.cached_property
    def _shapes(self) -> Callable[..., tuple[chat.Shape, ...]]:
        return functools.lru_cache(maxsize=1 << 10)(
            lambda *full: chat.shapes(self.codec, full, False, self.settings.date, "{row}")
        )

    def ids(self, text: str) -> list[int]:
        """Token ids of a span; special tokens in it are special, but between marks (`codec.py`). The last 65,536 distinct short
        spans are remembered: prompts and short answers recur, long ones would only take memory."""
        return list(self._cached(text) if len(text) <= RECURRING else self.codec.ids(text))

    def prompt_text(self, task: str, question: str) -> Rendered:
        """The prompt of a task under this template set."""
        text = prompt_text(task, question, self.templates, self.codec.literal)
        if not self.is_chat:
            return Rendered(text)
        return Rendered(chat.fill(self._turns("prompt", [(text, "answer")])[0].prompt, [text]))

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
        said, after = exchanges(row, self.templates, self.codec.literal), self.codec.after
        out: list[tuple[str, bool]] = []
        end, eos = "", self.tokenizer.eos_token
        if not self.is_chat:
            for prompt, answer in said:
                out += [(after(end, prompt), False), (after(prompt, " " + answer), True)]
                end = eos
            return out, [self.tokenizer.eos_token_id]
        contents = [text for exchange in said for text in exchange]
        for shape, answer in zip(self._turns(row.id, said), contents[1::2], strict=True):
            prompt = chat.fill(shape.prompt, contents)
            out += [(after(end, prompt), False), (after(prompt, shape.lead + answer + shape.end), True)]
            end = shape.stop
        return out, []  # the text has its end

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
