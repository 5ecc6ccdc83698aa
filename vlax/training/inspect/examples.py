"""A batch taken apart again, for `train.py --inspect`: its examples, their tokens as text, and what must hold of every batch.

Everything is read from the batch's arrays and from `masks.py`, as the train step does: nothing is derived a second time from
the rows, so what is shown is what is trained on. The rows are asked only for names and for why something is missing.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vlax import masks
from vlax.text.pieces import pieces
from vlax.training.session import Session

ORDERS = ("image tokens come first, and all text of their example sees them",
          "image tokens come where their pictures stand, and all later text of their example sees them")  # fmt: skip
Batch = dict[str, np.ndarray]  # the contract of `data/batches/pipeline.py`


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One example of a batch row: n text tokens side by side, and its picture."""

    at: int  # the batch row
    number: int  # 1..N, its example id
    row: int  # global row id
    begin: int  # of its first token in the text
    tokens: np.ndarray  # int32[n]
    answer: np.ndarray  # bool[n]: segment 2
    loss: np.ndarray  # bool[n]: a loss falls here, its target is the next token
    learned: np.ndarray  # bool[n]: is the target of the position before it
    images: tuple[np.ndarray, ...]  # uint8[H,W,3] each, as the model sees them
    before: tuple[int, ...]  # its text tokens that come before each of them

    @property
    def end(self) -> int:
        return self.begin + len(self.tokens)


@dataclasses.dataclass(frozen=True)
class Check:
    """A sentence about the batch, and where it does not hold."""

    holds: str
    faults: tuple[str, ...] = ()


def flat(batch: Batch) -> Batch:
    """The arrays as [B,...], whether or not a step scans over micro-batches of them ([k,B/k,...])."""
    extra = batch["tokens"].ndim - 2
    return {key: value.reshape(-1, *value.shape[1 + extra :]) for key, value in batch.items()}


def examples(batch: Batch) -> list[list[Example]]:
    """The examples of each batch row; an empty list for filler."""
    loss = np.asarray(masks.loss_mask(jnp.asarray(batch["segment"]), jnp.asarray(batch["example"])))
    learned = np.pad(loss, ((0, 0), (1, 0)))[:, :-1]
    out = []
    for at, ids in enumerate(batch["example"]):
        found = []
        for number in (int(n) for n in np.unique(ids[ids > 0])):
            mine = np.flatnonzero(ids == number)
            span = slice(int(mine[0]), int(mine[-1]) + 1)
            slots = np.flatnonzero(batch["has_image"][at] & (batch["owner"][at] == number))
            shown = tuple(batch["image"][at, slots]), tuple(batch["before"][at, slots].tolist())
            answer = batch["segment"][at, span] == masks.ANSWER
            found.append(Example(at, number, int(batch["row"][at, number - 1]), span.start, batch["tokens"][at, span], answer,
                                 loss[at, span], learned[at, span], *shown))  # fmt: skip
        out.append(sorted(found, key=lambda example: example.begin))
    return out


def checks(batch: Batch, rows: list[list[Example]], session: Session) -> list[Check]:
    """What must hold of a batch before it is trained on, with the faults found."""
    every = [example for row in rows for example in row]
    text = [
        Check("every answer ends with a supervised EOS", _faults(_eos_fault, every, session)),
        Check("every example has a supervised token", _faults(_nothing_learned, every, session)),
        Check("the answers are supervised, prompts and pads are not", _faults(_span_fault, every, session)),
        Check("every picture is shown to the model", _faults(_picture_fault, every, session)),
    ]
    found: dict[str, list[str]] = {
        ORDERS[session.encoder.settings.interleaved]: [],
        "no position sees a pad or another example": [],
        "no position sees the token that it is to predict": [],
    }
    for at, row in enumerate(rows):
        seen = attention(batch, at, session.config.tokens_per_image, session.config.mask)
        told = _mask_faults(row, *seen, batch["tokens"].shape[1], session.config.tokens_per_image)
        for sentence, fault in zip(found, told, strict=True):
            found[sentence] += [f"row {at}: {fault}"] if fault else []
    return text + [Check(sentence, tuple(faults)) for sentence, faults in found.items()]


def attention(batch: Batch, at: int, tokens_per_image: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(bool[S,S] who sees whom, int32[S] example ids, int32[S] positions) of one batch row, from masks.py."""
    one = [batch[key][at : at + 1] for key in ("segment", "example", "has_image", "owner", "before")]
    one.append(batch["shown"][at : at + 1] if "shown" in batch else np.full_like(one[-1], tokens_per_image))
    seen, ids, positions = (np.asarray(array[0]) for array in _attention(*one, tokens_per_image, kind))
    return seen, ids, positions


@functools.partial(jax.jit, static_argnums=(6, 7))
def _attention(
    segment: jax.Array, example: jax.Array, has_image: jax.Array, owner: jax.Array, before: jax.Array, shown: jax.Array,
    tokens: int, kind: str,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    return (
        masks.attention_mask(segment, example, has_image, tokens, kind, owner, before, shown),
        masks.sequence_examples(example, has_image, tokens, owner, shown),
        masks.positions(example, has_image, tokens, owner, before, shown),
    )


def _faults(fault: Callable[[Example, Session], str], every: list[Example], session: Session) -> tuple[str, ...]:
    told = ((example, fault(example, session)) for example in every)
    return tuple(f"row {e.at}, {session.batches.collate.mixture.name(e.row)}: {text}" for e, text in told if text)


def answer_ends(example: Example) -> list[int]:
    """The last token of each answer: answers T T F T -> [1, 3]."""
    following = np.append(example.answer[1:], False)
    return np.flatnonzero(example.answer & ~following).tolist()


def _eos_fault(example: Example, session: Session) -> str:
    stops = session.encoder.stops
    for end in answer_ends(example):
        if example.tokens[end] not in stops:
            last = pieces(session.encoder.tokenizer, example.tokens[: end + 1])[-1]
            cut = was_cut(example, session)
            return f"an answer ends with {last!r} and has no EOS{cut}: the model would not learn to stop there"
        if not example.learned[end]:
            return "the EOS of an answer is not supervised"
    return ""


def _nothing_learned(example: Example, session: Session) -> str:
    return "" if example.learned.any() else f"all of its {len(example.tokens)} tokens are prompt{was_cut(example, session)}"


def _span_fault(example: Example, session: Session) -> str:
    odd = np.flatnonzero(example.answer != example.learned)
    if not odd.size:
        return ""
    what = "an answer token without loss" if example.answer[odd[0]] else "a supervised prompt token"
    return f"{what}, {pieces(session.encoder.tokenizer, example.tokens)[odd[0]]!r} at {example.begin + odd[0]}"


def _picture_fault(example: Example, session: Session) -> str:
    wanted = 0 if session.config.vision is None else len(session.batches.collate.mixture.row(example.row).pictures)
    missing = max(wanted - len(example.images), 0)
    if missing and wanted > 1 and example.images:
        return f"{missing} of its {wanted} pictures are not in the batch{was_cut(example, session)}"
    return "its picture is not in the batch" if missing else ""


def was_cut(example: Example, session: Session) -> str:
    """ " (cut from 57 to 40 tokens: stage.overlong=cut)", or nothing."""
    whole = len(session.encoder.encode(session.batches.collate.mixture.row(example.row))[0])
    if whole == len(example.tokens):
        return ""
    return f" (cut from {whole} to {len(example.tokens)} tokens: stage.overlong={session.plan.stage.overlong})"


def _blocks(images: np.ndarray, tokens_per_image: int) -> list[np.ndarray]:
    """Places of image tokens, by slot; one empty block where there are none."""
    slots = images // max(tokens_per_image, 1)
    return np.split(images, np.flatnonzero(np.diff(slots)) + 1)


def _mask_faults(
    row: list[Example], mask: np.ndarray, ids: np.ndarray, positions: np.ndarray, text_length: int, tokens_per_image: int
) -> tuple[str, str, str]:
    """What is wrong with one batch row under the three sentences about masks; "" where nothing is."""
    first = stranger = ahead = ""
    before = len(ids) - text_length  # image tokens of the row
    for e in row:
        text, images = slice(before + e.begin, before + e.end), np.flatnonzero(ids[:before] == e.number)
        blocks, stands = _blocks(images, tokens_per_image), np.array(e.before or (0,))
        sizes = np.array([len(block) for block in blocks])
        place, whole = np.arange(len(e.tokens)), max(stands, default=0) == 0
        came = ((stands[None, :] <= place[:, None]) * sizes).sum(1)  # image tokens before each of the text
        after = [mask[text][place >= at][:, block].all() for at, block in zip(stands, blocks, strict=True)]
        if not all(after) or (positions[text] != came + place).any():
            which = "its" if whole else "those before it of"
            first = first or f"the text of example {e.number} does not follow {which} {len(images)} image tokens"
        begins = stands + np.cumsum(sizes) - sizes
        if any((positions[block] != at + np.arange(len(block))).any() for at, block in zip(begins, blocks, strict=True)):
            where = f"at positions 0..{len(images) - 1}" if whole else "where they stand"
            first = first or f"the image tokens of example {e.number} are not {where}"
        queries = before + e.begin + np.flatnonzero(e.loss)
        if mask[queries, queries + 1].any():
            ahead = ahead or f"a token of example {e.number} sees the next one, which it is to predict"
    others = mask & ((ids[:, None] != ids[None, :]) | (ids == 0)[None, :]) & ~np.eye(len(ids), dtype=bool)
    if others.any():
        query, key = np.argwhere(others)[0]
        stranger = f"position {query} (example {ids[query]}) sees position {key} (example {ids[key]}; 0 is a pad)"
    return first, stranger, ahead
