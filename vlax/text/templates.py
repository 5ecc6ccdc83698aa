"""Prompt templates: sets that come with vlax, by name, and a user's own, in a TOML file.

like = "instruct"                         # the set that gives what is not said here; "plain" if left out
system = "You describe pictures."         # said before every prompt
chat_template = "{% for m in messages %}..."   # Jinja, in place of the tokenizer's own; with it, or like = "chat", a chat set
[prompts]
caption = "What is to be seen?"
question = "{question} Answer:"
"""

import tomllib
from pathlib import Path
from typing import Any

from vlax.errors import VlaxError
from vlax.rows import TASKS
from vlax.text.settings import Settings

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
FIELDS = {"like": str, "system": str, "chat_template": str, "prompts": dict}


def template(name: str) -> dict[str, str]:
    """The prompts of a template set; VlaxError names the sets there are."""
    if name not in TEMPLATES:
        raise VlaxError(f"unknown prompt template {name!r}; there are {', '.join(TEMPLATES)}, and files: --config."
                        "run.templates=FILE.toml")  # fmt: skip
    return TEMPLATES[name]


def named(templates: str, system: str = "") -> tuple[str, Settings, str]:
    """(name, Settings of a new run, chat template or "") of run.templates, a name or a TOML file, and run.system."""
    if not templates.endswith(".toml"):
        template(templates)
        return templates, Settings(system=system.strip()), ""
    values = _read(Path(templates))
    like = values.get("like", "plain")
    prompts = {**template(like), **values.get("prompts", {})}
    jinja = values.get("chat_template", "")
    system = system.strip() or values.get("system", "").strip()
    return Path(templates).stem, Settings(system=system, prompts=prompts, chat=bool(jinja) or like == "chat"), jinja


def _read(file: Path) -> dict[str, Any]:
    """The content of a templates file, checked. VlaxError names the file and what is odd about it."""
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise VlaxError(f"cannot read the templates of {file} ({error}); vlax/text/templates.py shows how one looks") from None
    for key, value in values.items():
        if key not in FIELDS or not isinstance(value, FIELDS[key]):
            raise VlaxError(
                f"{file}: {key} = {value!r}; a templates file has the texts like, system, chat_template, and [prompts]"
            )
    for task, prompt in values.get("prompts", {}).items():
        if task not in TASKS or not isinstance(prompt, str) or not prompt.strip():
            raise VlaxError(f"{file}: [prompts] has one text each for {', '.join(TASKS)}, not {task} = {prompt!r}")
        if task in ("question", "chat") and "{question}" not in prompt:
            raise VlaxError(f"{file}: the prompt of {task} leaves the question out; write {{question}} where it belongs")
    return values
