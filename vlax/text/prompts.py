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
from vlax.text.tokenizer import Tokenizer, no_panic

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


def prompt_text(task: str, question: str, name: str) -> str:
    """prompt_text("question", "is it red?", "plain") == "question: is it red? answer:" """
    if task not in TASKS:
        raise VlaxError(f"unknown task {task!r}; the tasks are {', '.join(TASKS)}")
    return template(name)[task].replace("{question}", question.strip())


def exchanges(row: Row, name: str) -> list[tuple[str, str]]:
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
        out.append((prompt_text(turn.task or row.task, turn.question, name), turn.answer.strip()))
    return out


def spans(row: Row, name: str) -> list[tuple[str, bool]]:
    """(text, supervised) in order, for every template set but "chat"."""
    return [span for prompt, answer in exchanges(row, name) for span in ((prompt, False), (" " + answer, True))]


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """Rows to ids with one tokenizer and one template set."""

    tokenizer: Tokenizer
    templates: str

    def __post_init__(self) -> None:
        template(self.templates)
        t = self.tokenizer
        if t.eos_token_id is None:
            raise VlaxError("the tokenizer has no EOS token: the model could never learn to stop. Set one before training")
        if t.pad_token_id is None or t.pad_token_id == t.eos_token_id:
            raise VlaxError(
                "the tokenizer's pad token is missing or is its EOS: masking pads would mask EOS and answers would never "
                "stop. Add a pad token of its own (tokenizer.add_special_tokens({'pad_token': '<pad>'}))"
            )

    @functools.cached_property
    def _cached(self) -> Callable[[str], tuple[int, ...]]:
        return functools.lru_cache(maxsize=1 << 16)(self._tokenize)

    def _tokenize(self, text: str) -> tuple[int, ...]:
        with no_panic():
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def ids(self, text: str) -> list[int]:
        """Token ids of a span. The last 65,536 distinct short spans are remembered: prompts and short answers recur, long ones
        would only take memory."""
        return list(self._cached(text) if len(text) <= RECURRING else self._tokenize(text))

    def prompt_text(self, task: str, question: str) -> str:
        """The prompt of a task under this template set."""
        text = prompt_text(task, question, self.templates)
        return chat.prompt(text, self.tokenizer) if self.templates == "chat" else text

    def prompt(self, task: str, question: str) -> list[int]:
        """Ids of a prompt as generation meets them."""
        return [*self.start, *self.ids(self.prompt_text(task, question))]

    @property
    def start(self) -> list[int]:
        """What a sequence begins with: BOS, if there is one and no chat template writes it."""
        bos = self.tokenizer.bos_token_id
        return [] if bos is None or self.templates == "chat" else [bos]

    def pieces(self, row: Row) -> tuple[list[tuple[str, bool]], list[int]]:
        """([(text, supervised), ...], the ids that follow each supervised one): what a row is tokenised in, after `start`."""
        if self.templates == "chat":
            return chat.spans(exchanges(row, "chat"), self.tokenizer, row.id), []  # the text has its EOS
        return spans(row, self.templates), [self.tokenizer.eos_token_id]

    def counts(self, texts: Sequence[str]) -> list[int]:
        """How many ids `ids` gives of each. Many at once, in Rust: other threads of Python run on meanwhile."""
        self.ids("")  # transformers switches truncation and padding off at the first call
        with no_panic():
            return [len(found) for found in self.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

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
        """The text of generated ids, up to the first EOS."""
        kept = []
        for token in ids:
            if token == self.tokenizer.eos_token_id:
                break
            kept.append(int(token))
        return self.tokenizer.decode(kept, skip_special_tokens=True).strip()
