"""Spans by the tokenizer's own chat template, for decoders that were tuned on one.

With a template that writes "<|user|>Q<|end|>\n<|bot|>A<|end|>\n" and EOS "<|end|>", two turns become

    ("<|user|>is it red?<|end|>\n<|bot|>", False)   ("no<|end|>", True)
    ("\n<|user|>is it blue?<|end|>\n<|bot|>", False)  ("yes<|end|>", True)

The template renders the dialogue once for each turn, and the spans are where those texts grow: nothing is searched for.
"""

from collections.abc import Mapping, Sequence

from vlax.errors import VlaxError
from vlax.text import sandbox
from vlax.text.tokenizer import Tokenizer


def spans(turns: Sequence[tuple[str, str]], tokenizer: Tokenizer, row: str) -> list[tuple[str, bool]]:
    """(text, supervised) of (user, assistant) turns, every answer with its EOS. Special tokens are part of the text.

    row: its name, for errors. VlaxError when the tokenizer has no template, or one that does not end an answer with EOS.
    """
    out: list[tuple[str, bool]] = []
    messages: list[dict[str, str]] = []
    shown = ""
    for user, assistant in turns:
        messages.append({"role": "user", "content": user})
        opened = render(tokenizer, messages, row, generate=True)
        messages.append({"role": "assistant", "content": assistant})
        closed = render(tokenizer, messages, row, generate=False)
        answer = assistant + tokenizer.eos_token
        if not opened.startswith(shown) or not closed.startswith(opened + answer):
            raise VlaxError(
                f"row {row}: the chat template does not write an answer as prompt + answer + {tokenizer.eos_token}; "
                "use --config.run.templates=instruct"
            )
        out += [(opened[len(shown) :], False), (answer, True)]
        shown = opened + answer
    return out


def prompt(user: str, tokenizer: Tokenizer) -> str:
    """The text of one question, up to where the answer begins."""
    return render(tokenizer, [{"role": "user", "content": user}], "prompt", generate=True)


def render(tokenizer: Tokenizer, messages: Sequence[Mapping[str, str]], row: str, *, generate: bool) -> str:
    if not tokenizer.chat_template:
        raise VlaxError(
            f"row {row}: --config.run.templates=chat, but the tokenizer has no chat template; use templates=instruct or plain"
        )
    try:
        return sandbox.render(tokenizer.chat_template, messages, tokenizer.special_tokens_map, generate=generate)
    except VlaxError as error:
        raise VlaxError(f"row {row}: {error}") from None
