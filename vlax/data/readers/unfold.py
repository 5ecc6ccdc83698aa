"""Records that hold one exchange or several in a form of their own, brought into the usual one.

{"query": "and now?", "response": "a cat", "history": [["what?", "a dog"]]}         messages of four, as ms-swift has them
{"prompt": [{"role": "user", ...}], "completion": [{"role": "assistant", ...}]}     messages of two, as TRL has them
{"instruction": "Name it.", "input": "A or B?", "output": "A"}                      the question "Name it. A or B?" (Alpaca)
{"caption_1": "a dog", "caption_2": "a black dog"}                                  two captions
{"questions": ["red?", "big?"], "answers": ["no", "yes"]}                           two records of a question each (OCR-VQA)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from vlax.data.readers import values
from vlax.data.readers.columns import FOLDED, NUMBERED, named


def unfolded(record: Mapping) -> Sequence[Mapping]:
    """The records that one stands for: itself where it is of a usual form."""
    if not any(name in record for name in FOLDED):
        return _numbered(record)
    for change in (_history, _completion, _input, _parallel):
        if changed := change(record):
            return changed
    return (record,)


def _numbered(record: Mapping) -> Sequence[Mapping]:
    several = [name for name in record if isinstance(name, str) and NUMBERED.fullmatch(name)]
    if len(several) < 2 or named(record, "text"):
        return (record,)
    return ({**_without(record, *several), "captions": [record[name] for name in several]},)


def _history(record: Mapping) -> Sequence[Mapping] | None:
    past, asks, answers = record.get("history"), named(record, "question"), named(record, "answer")
    if not isinstance(past, list | tuple) or not asks or not answers or not all(_pair(one) for one in past):
        return None
    said = [text for pair in (*past, (record[asks], record[answers])) for text in pair]
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]
    return ({**_without(record, "history", asks, answers), "messages": messages},) if past else None


def _pair(one: Any) -> bool:
    return isinstance(one, list | tuple) and len(one) == 2 and all(isinstance(text, str) for text in one)


def _completion(record: Mapping) -> Sequence[Mapping] | None:
    prompt, completion = record.get("prompt"), record.get("completion")
    if isinstance(prompt, list) and isinstance(completion, list):
        return ({**_without(record, "prompt", "completion"), "messages": [*prompt, *completion]},)
    return None


def _input(record: Mapping) -> Sequence[Mapping] | None:
    more = next((name for name in ("input", "inputs") if isinstance(record.get(name), str)), "")
    if "instruction" not in record or not more or not values.text(record["instruction"]):
        return None
    asked = " ".join(text for text in (values.text(record["instruction"]), values.text(record[more])) if text)
    return ({**_without(record, more), "instruction": asked},)


def _parallel(record: Mapping) -> Sequence[Mapping] | None:
    asked, said = record.get("questions"), record.get("answers")
    if not isinstance(asked, list | tuple) or not isinstance(said, list | tuple) or len(asked) != len(said):
        return None
    rest = _without(record, "questions", "answers")
    return [{**rest, "question": question, "answer": answer} for question, answer in zip(asked, said, strict=True)]


def _without(record: Mapping, *names: str) -> dict:
    return {name: value for name, value in record.items() if name not in names}
