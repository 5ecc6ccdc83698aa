"""Rows from LLaVA's conversation JSON: several exchanges about at most one picture, loss on every answer.

    [{"id": "7", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"},
                                                     {"from": "gpt", "value": "A dog."}]}]
    ->  Row(id="7", image_id="a.jpg", task="chat", turns=(Turn("What is it?", "A dog."),), ...)

With task="caption" or "describe" the instruction of a single exchange gives way to vlax's own prompt, which is what the
alignment stages want of LLaVA-Pretrain, whose instructions are paraphrases of one another.
"""

import json

from vlax.data.files import FileSource, Item
from vlax.data.reading import field, join, read_file
from vlax.data.rows import TASKS, Turn
from vlax.errors import VlaxError

SHAPE = 'LLaVA rows are {"id", "image", "conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}, ...]}'
ROLES = {"human": 0, "user": 0, "gpt": 1, "assistant": 1}


class Conversations(FileSource):
    """One row a conversation; a row without "image" is text only. VlaxError names the row whose roles do not alternate."""

    def __init__(self, annotations, images, train: bool, task="chat", *, base="", drop_image_ids=(), limit=None):
        if task not in TASKS or task == "question":
            raise VlaxError(f"{annotations}: conversations have no task {task!r}; the tasks are caption, describe, chat")
        path = join(base, annotations)
        content = read_file(path)
        try:
            rows = json.loads(content)
        except ValueError as error:
            raise VlaxError(f"{path} is not JSON ({error}); fetch or export it again") from None
        if not isinstance(rows, list):
            raise VlaxError(f"{path} holds a {type(rows).__name__}, not a list; {SHAPE}")
        items = []
        for at, row in enumerate(rows):
            where = f"{path}: row {at}"
            if not isinstance(row, dict):
                raise VlaxError(f"{where} is a {type(row).__name__}, not an object; {SHAPE}")
            turns = exchanges(where, field(where, row, "conversations", SHAPE))
            if task != "chat" and len(turns) > 1:
                raise VlaxError(f"{where} has {len(turns)} exchanges; task={task!r} takes single ones. Use task=chat")
            image = str(row.get("image") or "")
            first = Turn("", turns[0].answer) if task != "chat" else turns[0]
            # File names end in an index because ids recur in published files (LLaVA-Instruct has several rows a picture).
            items.append(Item(f"{row.get('id', 'row')}#{at}", image, image, first.question, first.answer,
                              (turns[-1].answer,), "", tuple(turns[1:])))  # fmt: skip
        settings = {"kind": "llava", "train": train}
        super().__init__(f"llava-{path.stem}", task, str(images), base, settings, [content], items, drop_image_ids, limit)


def exchanges(where: str, messages) -> list[Turn]:
    """Turns of alternating human and assistant messages; the <image> placeholder goes, since the picture always comes first."""
    if not isinstance(messages, list) or not messages or len(messages) % 2:
        raise VlaxError(f"{where}: a conversation is a list of question and answer pairs; {SHAPE}")
    texts = []
    for at, message in enumerate(messages):
        role, value = (message.get("from"), message.get("value")) if isinstance(message, dict) else (None, None)
        if ROLES.get(role) != at % 2 or not isinstance(value, str):
            raise VlaxError(f"{where}: message {at} is from {role!r}; human and gpt alternate, human first. {SHAPE}")
        texts.append(value.replace("<image>", "").strip())
    return [Turn(question, answer) for question, answer in zip(texts[::2], texts[1::2], strict=True)]
