"""The tokenizer of a checkpoint, with a pad token that is not its EOS token.

Why that matters: training frameworks that mask the pad id out of the loss then mask EOS with it, and the model never learns to
stop (lmms-finetune#47). vlax masks by segment, so its loss is safe either way, but an export is used by others. What is done:

    the tokenizer has a pad token other than EOS          it is kept
    its vocabulary has one of PAD_TOKENS                  that becomes the pad token
    the embedding table has a row that no token uses      a new token "<|pad|>" takes it
    the table is full (GPT-2, Llama 2)                    refused, unless the table is made larger: `vocab_size`
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from vlax.errors import VlaxError
from vlax.models.decoder import DecoderConfig
from vlax.storage import state
from vlax.storage.hub import local_directory, read_json

PAD_TOKENS = ("<|pad|>", "<pad>", "[PAD]", "<|finetune_right_pad_id|>", "<|padding|>")
FLAG = "--config.run.decoder=DIR"


class Tokenizer(Protocol):
    """What is asked of a Hugging Face fast tokenizer, whose own types don't say it.

    `Encoder` refuses one without EOS or pad token, so that nobody else has to look.
    """

    eos_token: str
    eos_token_id: int
    pad_token_id: int
    bos_token: str | None
    bos_token_id: int | None
    chat_template: str | None
    special_tokens_map: Mapping[str, Any]
    name_or_path: str
    backend_tokenizer: Any

    def __call__(self, text: str, *, add_special_tokens: bool) -> Mapping[str, list[int]]: ...

    def decode(
        self, ids: Sequence[int], *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> str: ...

    def get_vocab(self) -> dict[str, int]: ...

    def add_special_tokens(self, tokens: Mapping[str, str], /) -> int: ...

    def save_pretrained(self, directory: str, /) -> object: ...


def load_tokenizer(directory: str | Path, vocab_size: int, flag: str = FLAG) -> Tokenizer:
    """transformers' tokenizer of a local directory or hub id, its pad token mended as above.

    vocab_size: rows of the decoder's embedding table. flag: what the error about a bad directory tells to pass.
    VlaxError: no tokenizer files, no EOS token, a full table, or a tokenizer
    with more tokens than the table has rows.
    """
    tokenizer = _read(local_directory(directory, flag=flag, weights=False))
    if tokenizer.eos_token_id is None:
        raise VlaxError(f"the tokenizer of {directory} has no EOS token; add eos_token to its tokenizer_config.json")
    check_size(tokenizer, vocab_size, directory)
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return tokenizer
    known = [token for token in PAD_TOKENS if token in tokenizer.get_vocab()]
    if not known and size(tokenizer) >= vocab_size:
        raise VlaxError(
            f"the tokenizer of {directory} has no pad token besides EOS and its {vocab_size} embedding rows are all taken; "
            f"load the decoder with vocab_size={-(-(vocab_size + 1) // 64) * 64} to make room for one"
        )
    tokenizer.add_special_tokens({"pad_token": known[0] if known else PAD_TOKENS[0]})
    return tokenizer


def size(tokenizer: Tokenizer) -> int:
    """Highest token id + 1: how many embedding rows it needs."""
    return max(tokenizer.get_vocab().values()) + 1


def check_size(tokenizer: Tokenizer, vocab_size: int, source: str | Path) -> None:
    if size(tokenizer) > vocab_size:
        raise VlaxError(
            f"the tokenizer of {source} has {size(tokenizer)} tokens, the decoder only {vocab_size} embedding rows; use the "
            f"tokenizer that the decoder was trained with"
        )


def check_vocabulary(config: DecoderConfig, tokenizer: Tokenizer) -> None:
    """Raises VlaxError if the tokenizer has ids beyond the embedding table; unused rows are fine."""
    check_size(tokenizer, config.vocab_size, tokenizer.name_or_path or "this run")


@contextlib.contextmanager
def no_panic() -> Iterator[None]:
    """Around calls of `tokenizers`, which is written in Rust: its panics are no Exceptions to Python, and here ValueErrors."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"tokenizers gave up: {error}") from None


def open_tokenizer(directory: str | Path, kind: Any = None) -> Tokenizer:
    """The tokenizer of a local folder, by transformers' class `kind` (AutoTokenizer): the one place that opens one.

    Code that a folder brings along (auto_map) is never run, and nobody is asked whether it should be; VlaxError names it.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file = Path(directory) / "tokenizer_config.json"
    foreign = read_json(file).get("auto_map") if file.is_file() else None
    if foreign and not (Path(directory) / "tokenizer.json").is_file():
        raise VlaxError(f"{file} has its tokenizer made by code of its own (auto_map: {foreign}), which vlax does not run; "
                        "save it as a tokenizer.json, or take another tokenizer")  # fmt: skip
    # What tokenizer.json says can be read without that code.
    kind = PreTrainedTokenizerFast if foreign else kind or AutoTokenizer
    try:
        with no_panic():
            opened: Tokenizer = kind.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers and tokenizers raise many kinds, with the reason in the text
        reason = " ".join(str(error).split())[:200]
        raise VlaxError(f"cannot read the tokenizer of {directory} ({reason}); download its files again") from None
    return opened


def save(tokenizer: Tokenizer, directory: str | Path) -> bool:
    """Writes a tokenizer in the form in which AutoTokenizer reads back the one that it is; returns whether it does.

    transformers forgets what a class was made with (LlamaTokenizer's `legacy`) and builds the class's usual pipeline in place
    of the one in tokenizer.json, so that the same text has other ids. Such a tokenizer is saved as the generic class, which
    takes tokenizer.json as it is. Beside the config.json of some families (Qwen2) even that is overruled: False.
    """
    tokenizer.save_pretrained(str(directory))
    if _pipeline(open_tokenizer(directory)) == (mine := _pipeline(tokenizer)):
        return True
    file = Path(directory) / "tokenizer_config.json"
    state.write_json(file, read_json(file) | {"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2, end="\n")
    return _pipeline(open_tokenizer(directory)) == mine


def read_saved(directory: str | Path) -> Tokenizer:
    """The tokenizer that vlax has saved: what its tokenizer.json says, whichever class AutoTokenizer makes of it."""
    from tokenizers import Tokenizer as Backend
    from transformers import PreTrainedTokenizerFast

    opened, file = open_tokenizer(directory), Path(directory) / "tokenizer.json"
    if not file.is_file():
        return opened
    with no_panic():
        said = _pipeline(Backend.from_file(str(file)))
    return opened if _pipeline(opened) == said else open_tokenizer(directory, PreTrainedTokenizerFast)


def _pipeline(tokenizer: Any) -> dict[str, Any]:
    """How a text becomes ids. Truncation and padding are states of calls."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    said: dict[str, Any] = state.load_json("the tokenizer", backend.to_str())
    return said | {"truncation": None, "padding": None}


def _read(directory: Path) -> Tokenizer:
    from transformers import GPT2Tokenizer, PreTrainedTokenizerFast

    described = any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"))
    if not described and not (directory / "vocab.json").is_file():
        raise VlaxError(
            f"{directory} has no tokenizer (tokenizer.json, tokenizer.model or vocab.json + merges.txt); add its files"
        )
    # AutoTokenizer goes by the model type first: beside a Qwen2 model it would cut text by Qwen2's rules, whatever
    # tokenizer.json says. A generic class means that tokenizer.json says it all.
    file = directory / "tokenizer_config.json"
    generic = file.is_file() and read_json(file).get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
    # AutoTokenizer refuses a bare vocab.json + merges.txt; it is GPT-2's format.
    return open_tokenizer(directory, PreTrainedTokenizerFast if generic else None if described else GPT2Tokenizer)
