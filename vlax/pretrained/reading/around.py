"""What a whole model was trained to see around a picture, as `Settings.picture` holds it."""

from pathlib import Path

import tokenizers

from vlax.errors import VlaxError
from vlax.pretrained.families.known import WHOLE
from vlax.storage.hub import local_directory, read_config


def pictures(where: str | Path, tokenizer: tokenizers.Tokenizer) -> dict[str, str] | None:
    """{"token", "before", "after"}; None of a kind that has its pictures in front of all text, with nothing around them.

    VlaxError where the tokenizer lacks a token of those.
    """
    hf = read_config(local_directory(where, flag="--config.run.model=DIR", weights=False), WHOLE)
    made = WHOLE[hf["model_type"]].picture

    def token(name: int | str) -> str:
        there = isinstance(name, int) or tokenizer.token_to_id(name) is not None
        found = tokenizer.id_to_token(name) if isinstance(name, int) else name
        if not there or not found:
            raise VlaxError(
                f"{where}: its tokenizer has no token {name}, which this kind of model has for pictures; download it again, "
                "config and tokenizer"
            )
        return str(found)

    return None if made is None else made(hf, token)
