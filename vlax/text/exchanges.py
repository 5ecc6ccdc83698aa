"""The texts of a row: prompts by the templates of a set, and answers."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping

from vlax.errors import VlaxError
from vlax.rows import TASKS, Row, RowFault
from vlax.text import places
from vlax.text.templates import template

CHARACTERS = 1 << 20  # of one exchange: no text_length has room for more, and tokenizers take minutes for 20 MB


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


def exchanges(
    row: Row, prompts: str | Mapping[str, str], literal: Callable[[str], str] = str, interleaved: bool = False
) -> list[tuple[str, str]]:
    """(prompt text, answer) by turn; interleaved: with marks where pictures stand (`places.py`). RowFault when an answer is
    empty (its loss would be the EOS alone) or holds half a surrogate pair, which no tokenizer takes."""
    out, prompts = [], template(prompts) if isinstance(prompts, str) else prompts
    for number, turn in enumerate(row.turns):
        if re.search("[\ud800-\udfff]", turn.question + turn.answer):
            raise RowFault(f"row {row.id}: the text has half a surrogate pair; mend or remove the row", "invalid unicode")
        if (count := len(turn.question) + len(turn.answer)) > CHARACTERS:
            raise RowFault(
                f"row {row.id}: an exchange has {count:,} characters, limit {CHARACTERS:,}; remove the row", "long text"
            )
        if not turn.answer.strip():
            raise RowFault(f"row {row.id}: the answer is empty; remove the row or fill it in", "empty text")
        task, own, put = turn.task or row.task, prompts, literal
        if interleaved and task in prompts:
            shape, put = places.within([at for of, at in row.places if of == number], prompts[task], literal)
            own = {task: shape}
        out.append((prompt_text(task, turn.question, own, put), literal(turn.answer.strip())))
    return out


def spans(row: Row, prompts: str | Mapping[str, str]) -> list[tuple[str, bool]]:
    """(text, supervised) in order, for every template set but "chat"."""
    return [span for prompt, answer in exchanges(row, prompts) for span in ((prompt, False), (" " + answer, True))]
