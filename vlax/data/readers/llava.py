"""Rows from conversations as LLaVA and ShareGPT write them: several exchanges about at most one picture, loss on every answer.

    [{"id": "7", "image": "a.jpg", "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"},
                                                     {"from": "gpt", "value": "A dog."}]}]
    ->  Row(id="7#0", image_id="a.jpg", task="chat", turns=(Turn("What is it?", "A dog."),), ...)

    [{"messages": [{"role": "user", "content": "<image>Who is he?"}, {"role": "assistant", "content": "Thomas Muller."}],
      "images": ["data/1.jpg"]}]
    ->  Row(id="row#0", image_id="data/1.jpg", task="chat", turns=(Turn("Who is he?", "Thomas Muller."),), ...)

Either kind reads both. Other names are given by `columns`, whose keys are those that a `dataset_info.json` has under "columns"
and "tags":

    columns={"messages": "dialogue", "images": "pictures", "role_tag": "speaker", "content_tag": "says",
             "user_tag": "visitor", "assistant_tag": "guide"}

With task="caption" or "describe" the instruction of a single exchange gives way to vlax's own prompt, which is what the
alignment stages want of LLaVA-Pretrain, whose instructions are paraphrases of one another.
"""

from collections.abc import Generator

from vlax.data.readers.annotation_file import File, known_columns
from vlax.data.readers.faults import Faults
from vlax.data.readers.files import Facts, FileSource, Reading
from vlax.data.readers.item_table import Item
from vlax.errors import VlaxError
from vlax.rows import TASKS, RowFault, Turn
from vlax.storage.paths import join

SHAPES = {
    "llava": 'LLaVA rows are {"id", "image", "conversations": [{"from": "human", "value"}, {"from": "gpt", "value"}, ...]}',
    "sharegpt": 'ShareGPT rows are {"messages": [{"role": "user", "content"}, {"role": "assistant", "content"}, ...], '
    '"images": [FILE]}',
}
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag")
TOKEN_FAULTS = {0: "no image token", 1: "image token without a picture", 2: "several image tokens"}
COLUMNS = ("messages", "images", "system", *TAGS)  # what `columns` may name


class Conversations(FileSource):
    """One row a conversation (a JSON list or JSON lines); a row without a picture is text only.

    strip             what the file names in the rows begin with and the folder `images` does not have: "data/"
    skip_multi_image  leave out rows with several pictures (counted in `skipped`); otherwise such a row is an error
    columns           names of columns and tags that differ from LLaVA's and ShareGPT's

    The <image> placeholders go, since the picture always comes first; `faults` notes rows whose placeholders are not as many
    as their pictures. A system message goes before the first question, with a line end: it conditions the
    answers and is not learned. VlaxError names the row whose roles do not alternate.
    """

    def __init__(self, annotations, images, task="chat", *, columns=None, strip="", skip_multi_image=False, reading: Reading):
        if task not in TASKS or task == "question":
            raise VlaxError(f"{annotations}: conversations have no task {task!r}; the tasks are caption, describe, chat")
        self._columns, self._path, self._task = (
            known_columns(annotations, columns, COLUMNS),
            join(reading.base, annotations),
            task,
        )
        self._strip, self._skip, self._reading = strip, skip_multi_image, reading
        given = {"task": task, "columns": columns, "strip": strip, "skip_multi_image": skip_multi_image}
        super().__init__(reading, str(images), [self._path], given)
        self.skipped = self.kept["skipped"]

    def read(self, faults: Faults) -> Generator[Item, None, Facts]:
        name, skipped, columns, task = self._reading.name(self._path.stem), 0, self._columns, self._task
        file = File(self._path, SHAPES[self._reading.kind], name, faults)
        for at, where, row in file.listed():
            item = None
            with file.guard(where):
                pictures = _pictures(where, row, columns)
                if len(pictures) > 1 and self._skip:
                    skipped += 1
                    continue
                if len(pictures) > 1:
                    way_out = "vlax takes one a row; remove the row or set skip_multi_image=True"
                    raise VlaxError(f"{where} has {len(pictures)} pictures ({pictures[0]}, ...); {way_out}")
                turns, placeholders = _turns(file, where, row, columns)
                if task != "chat" and len(turns) > 1:
                    raise VlaxError(f"{where} has {len(turns)} exchanges; task={task!r} takes single ones. Use task=chat")
                image = pictures[0] if pictures else ""
                first = Turn("", turns[0].answer) if task != "chat" else turns[0]
                # Row ids end in an index because ids recur in published files (LLaVA-Instruct has several rows a picture).
                key = f"{row.get('id', 'row')}#{at}"
                item = Item(key, image, image.removeprefix(self._strip), first.question, first.answer,
                            (turns[-1].answer,), "", tuple(turns[1:]))  # fmt: skip
                if placeholders != len(pictures):
                    kind = TOKEN_FAULTS[min(placeholders, 2) if pictures else 1]
                    file.faults.note(name, key, kind, f"{where}: {placeholders} <image> for {len(pictures)} pictures")
            if item:
                yield item
        extra = {"columns": columns, "strip": self._strip, "skip_multi_image": self._skip}
        settings = {key: value for key, value in extra.items() if value}
        return Facts(name, task, settings, [file.digest], {"skipped": skipped})


def _pictures(where: str, row: dict, columns: dict) -> list[str]:
    """File names of a row: `"image": "a.jpg"`, `"image": None` and `"images": ["a.jpg"]` are all met."""
    key = columns.get("images") or ("images" if row.get("images") is not None else "image")
    value = row.get(key)
    names = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(name, str) for name in names):
        raise VlaxError(f'{where}: "{key}" is {value!r}, not a file name or a list of them; mend or remove the row')
    return [name for name in names if name]


def _turns(file: File, where: str, row: dict, columns: dict) -> tuple[list[Turn], int]:
    """(turns of alternating user and assistant messages, how many <image> there were)."""
    key = columns.get("messages") or ("messages" if row.get("messages") is not None else "conversations")
    shape, messages = file.shape, file.field(where, row, key)
    if not isinstance(messages, list):
        raise VlaxError(f'{where}: "{key}" is a {type(messages).__name__}, not a list of messages; {shape}')
    said = [_message(f"{where}, message {at}", message, columns, shape) for at, message in enumerate(messages)]
    system = [str(row.get(columns.get("system") or "system") or "")]
    while said and said[0][0] == "system":
        system.append(said.pop(0)[1])
    for at, (role, _, _) in enumerate(said):
        if role != ("user", "assistant")[at % 2]:
            ours = "human and gpt (user and assistant) alternate, human first, a system message before them"
            reason = f"{where}: message {at + len(messages) - len(said)} is from {role!r}; {ours}. {shape}"
            raise RowFault(reason, "roles out of order")
    if not said or len(said) % 2:
        raise VlaxError(f"{where}: a conversation is a list of question and answer pairs, not of {len(said)} messages; {shape}")
    texts = [text for _, text, _ in said]
    texts[0] = "\n".join(text for text in (*system, texts[0]) if text)
    turns = [Turn(question, answer) for question, answer in zip(texts[::2], texts[1::2], strict=True)]
    return turns, sum(placeholders for _, _, placeholders in said)


def _message(where: str, message, columns: dict, shape: str) -> tuple[str, str, int]:
    """(role, text, how many <image> were in it); the text may come in parts: [{"type": "image"}, {"type": "text", "text"}]."""
    if not isinstance(message, dict):
        raise VlaxError(f"{where} is a {type(message).__name__}, not an object; {shape}")
    role = message.get(columns.get("role_tag") or ("role" if "role" in message else "from"))
    value = message.get(columns.get("content_tag") or ("content" if "content" in message else "value"))
    named = {columns[tag]: tag.removesuffix("_tag") for tag in TAGS[2:] if columns.get(tag)}
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        parts = ["<image>" if part.get("type") == "image" else part.get("text") for part in value]
        value = "".join(parts) if all(isinstance(part, str) for part in parts) else None
    if not isinstance(value, str):
        raise VlaxError(f"{where} has no text; {shape}")
    return {**ROLES, **named}.get(str(role), str(role)), value.replace("<image>", "").strip(), value.count("<image>")
