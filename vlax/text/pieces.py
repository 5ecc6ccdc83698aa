"""Token by token, for people."""

from collections.abc import Iterable

from vlax.text.tokenizer import Tokenizer


def pieces(tokenizer: Tokenizer, tokens: Iterable[int]) -> list[str]:
    """The text of each token, spaces and special tokens included. A character of several tokens is shown with its last one.

    pieces(tokenizer, [257, 300, 2])  ->  ["caption", " dog", "<eos>"]
    """
    ids = [int(token) for token in tokens]
    out: list[str] = []
    before = begin = 0

    def decode(low: int, high: int) -> str:
        return tokenizer.decode(ids[low:high], skip_special_tokens=False, clean_up_tokenization_spaces=False)

    for end in range(1, len(ids) + 1):
        # With the token before it: some tokenizers drop the space of whatever comes first.
        text = decode(before, end)[len(decode(before, begin)) :]
        if text.endswith("\ufffd") and end - begin < 4 and end < len(ids):
            out.append("")
            continue
        out.append(text)
        before, begin = begin, end
    return out
