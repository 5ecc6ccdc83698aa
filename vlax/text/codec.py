"""Text to ids, where what users wrote is text and nothing else.

A tokenizer finds its special tokens anywhere in a string, so the caption "the tag <eos> ends it" would end there. Such a text
is marked when it is put into a prompt, and tokenised by a copy of the tokenizer whose special tokens have other names:

    codec.literal("the tag <eos> ends it")      the same between marks; text without a special token stays as it is
    codec.ids("caption: " + literal + "<eos>")  the first <eos> is "<", "e", "os", ">", the second one token
    codec.after("question:", " no")             " no" as it goes on after "question:", where that is not the same as alone

The marks are noncharacters, which no text meant for others has; one that has them all the same is marked as well.
"""

import functools
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import tokenizers

from vlax.storage.state import load_json
from vlax.text.tokenizer import Tokenizer, no_panic

MARK, BEGIN, END, AFTER, ITSELF = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3", "\ufdd6"  # a mark is MARK and one of the others
_MARKS = re.compile(f"{MARK}([{BEGIN}{END}{AFTER}{ITSELF}])")
PLACE = f"{MARK}\ufdd7"  # where a picture stands: texts are cut there (`places.py`) before they become ids
# Where the pictures of a prompt stand that does not place them itself: what is between two FRONTs is said once for each,
# with the picture HERE.
FRONT, HERE = f"{MARK}\ufdd9", f"{MARK}\ufdda"
ONE_IN_FRONT = FRONT + HERE + FRONT
_EACH = re.compile(f"{FRONT}(.*?){FRONT}", re.DOTALL)
_SALT = secrets.token_hex(8)  # in names that no text can be made to hold; ids don't depend on it
LONELY = "\x01"
TAIL = 64  # characters of what precedes a text that decide how it goes on


class Rendered(str):
    """A prompt in which special tokens outside the marks are meant: what a template made, not what a user typed."""


class Codec:
    """Ids of marked texts under one tokenizer. Thread-safe.

    template: a chat template; added tokens that it writes are special, whether or not the tokenizer calls them so, as are those
    of `more`, what is written around pictures.
    version: 1 is how vlax 0.x did it: nothing is marked, and every span is tokenised by itself.
    """

    def __init__(self, tokenizer: Tokenizer, template: str = "", version: int = 2, more: str = ""):
        self.tokenizer, self.version = tokenizer, version
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
        self.special = {x.content: i for i, x in added.items() if x.content and (x.special or x.content in template + more)}
        self._chat, self._written = bool(template), [token for token in self.special if token in template]
        self._first = {token[0] for token in self.special}
        longest_first = sorted(self.special, key=len, reverse=True)
        self._find = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def special_in(self, text: str) -> str:
        """The first special token that the tokenizer would find in a text; "" without any."""
        for form in self._forms(text):
            if not self._first.isdisjoint(form) and (found := self._find.search(form)):
                return found[0]
        return ""

    def _forms(self, text: str) -> Iterator[str]:
        yield text
        if (normalizer := self.tokenizer.backend_tokenizer.normalizer) is not None and not text.isascii():
            yield normalizer.normalize_str(text)  # NFKC makes "</s>" of full-width letters

    def special_at_start(self, text: str) -> str:
        found = self._find.match(text)
        return found[0] if found else ""

    def literal(self, text: str) -> str:
        """What a user wrote, to be put into a prompt."""
        if self.version == 1 or not (MARK in text or self.special_in(text)):
            return text
        return f"{MARK}{BEGIN}{text.replace(MARK, MARK + ITSELF)}{MARK}{END}"

    def after(self, before: str, text: str) -> str:
        """`text`, marked as going on after `before`, where the tokenizer writes it otherwise than by itself."""
        if PLACE in before:
            before = self.tokenizer.eos_token + before.rpartition(PLACE)[2]  # a picture is as good as a special token
        if not self.contextual or not before:
            return text
        tail = shown(before)
        begins = [found.start() for found in self._find.finditer(tail, max(0, len(tail) - 2 * TAIL))]
        # From the last special token on: nothing before it matters.
        at = begins[-1] if begins and len(tail) - begins[-1] <= TAIL else max(0, len(tail) - TAIL)
        return f"{tail[at:]}{MARK}{AFTER}{text}"

    @functools.cached_property
    def contextual(self) -> bool:
        """Whether a text in the middle may have other ids than by itself. SentencePiece writes a blank before what stands
        first; tokens may take up the white space beside them. Byte-level BPE does neither."""
        if self.version == 1:
            return False
        pairs = [(":", " a"), ("a", " b"), (self.tokenizer.eos_token, "a")]
        if self._chat:
            ends = dict.fromkeys([self.tokenizer.eos_token, *self._written])
            pairs += [("\n", "a"), *((token, text) for token in ends for text in ("a", " a", "\na"))]
        return any(self._whole(a + b) != self._whole(a) + self._whole(b) for a, b in pairs)

    def ids(self, text: str) -> list[int]:
        """The ids of a marked text, those of what it goes on from left out."""
        if MARK not in text:
            return self._whole(text)
        before, marked, rest = text.rpartition(MARK + AFTER)
        if not marked:
            return self._whole(text)
        encode = self._guarded if MARK in rest else self._whole
        # Where a token stretches over the border, the prompt has to keep the ids that it has without an answer, and the answer
        # goes on as after a character that is part of no other token.
        for context in (before, LONELY):
            head, whole = encode(context), encode(context + rest)
            if whole[: len(head)] == head:
                return whole[len(head) :]
        return encode(rest)

    def counts(self, texts: Sequence[str]) -> list[int]:
        """How many ids `ids` gives of each. Unmarked ones all at once, in Rust: other threads of Python run on meanwhile."""
        self._whole("")  # transformers switches truncation and padding off at the first call
        plain = [text for text in texts if MARK not in text]
        with no_panic():
            found = self.tokenizer.backend_tokenizer.encode_batch_fast(plain, add_special_tokens=False)
        known = {text: len(ids) for text, ids in zip(plain, found, strict=True)}
        return [known[text] if text in known else len(self.ids(text)) for text in texts]

    def _whole(self, text: str) -> list[int]:
        if MARK in text:
            return self._guarded(text)
        with no_panic():
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _guarded(self, text: str) -> list[int]:
        """The ids of a text in which special tokens between marks are text."""
        out, inside, at = [], False, 0
        for mark in [*_MARKS.finditer(text), None]:
            part = text[at : mark.start() if mark else None]
            out.append(part if inside else self._find.sub(lambda found: _name(self.special[found[0]]), part))
            if mark:
                at, inside = mark.end(), inside if mark[1] == ITSELF else mark[1] == BEGIN
                out += [MARK] if mark[1] == ITSELF else []
        with no_panic():
            return list(self._copy.encode("".join(out), add_special_tokens=False).ids)

    @functools.cached_property
    def _copy(self) -> tokenizers.Tokenizer:
        """The tokenizer with its special tokens renamed, in the vocabulary, too: Unigram finds any piece of it in a text, and
        merges of BPE may build one."""
        spec: dict[str, Any] = load_json("the tokenizer", self.tokenizer.backend_tokenizer.to_str())
        names = {token: _name(i) for token, i in self.special.items()}
        spec |= {"post_processor": None, "truncation": None, "padding": None}
        for token in spec["added_tokens"]:
            if token["content"] in names:
                token |= {"content": names[token["content"]], "normalized": False}
        model = spec["model"]
        if isinstance(vocab := model["vocab"], dict):
            model["vocab"] = {names.get(piece, piece): i for piece, i in vocab.items()}
        else:
            model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
        if model.get("merges"):
            pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
            model["merges"] = [[a, b] for a, b in pairs if names.keys().isdisjoint((a, b, a + b))]
        if model.get("unk_token"):
            model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
        return tokenizers.Tokenizer.from_str(json.dumps(spec))


def _name(token_id: int) -> str:
    return f"{MARK}{_SALT}:{token_id}{MARK}"


def front(text: str) -> str:
    """What a prompt says for each picture in front; "" where it has no place for them."""
    found = _EACH.search(text)
    return found[1] if found else ""


def in_front(text: str, pictures: int, picture: str) -> str:
    """A prompt with so many pictures where it has them in front; picture: what is written for one."""
    return _EACH.sub(lambda each: each[1].replace(HERE, picture) * pictures, text)


def shown(text: str) -> str:
    """A marked text for people: without its marks, and without what it goes on from."""
    text = in_front(text.rpartition(MARK + AFTER)[2], 0, "")
    return _MARKS.sub(lambda mark: MARK if mark[1] == ITSELF else "", text)
