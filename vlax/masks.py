"""The masking library: the only place that knows who may see whom, where positions start and where loss falls.

The sequence of a row is [N*I image tokens | T text tokens]: N slots, each with room for one picture. It is described by

    segment  int32[B,T]  0 pad, 1 prompt, 2 answer (its EOS included)
    example  int32[B,T]  1..N, 0 pad
    owner    int32[B,N]  the example that a slot's picture belongs to; 0 hidden. Left out, slot n belongs to example n + 1
    before   int32[B,N]  how many of its example's text tokens come before the picture. Left out, none: pictures come first
    shown    int32[B,N]  how many of a slot's I tokens its picture has, the first ones; those after them are pads. Left out, all

Slots lie where they lie: what comes before what, in attention, positions and sliding windows, is a matter of positions alone.
One example, two image tokens (i), two prompt tokens (p), two answer tokens (a), one pad (-). A row is a query, a column a key,
`1` means "sees":

    kind            causal       image_bidirectional   prefix_lm    image_sees_prompt
                    iippaa-      iippaa-               iippaa-      iippaa-
    i               1000000      1100000               1111000      1111000
    i               1100000      1100000               1111000      1111000
    p               1110000      1110000               1111000      1110000
    p               1111000      1111000               1111000      1111000
    a               1111100      1111100               1111100      1111100
    a               1111110      1111110               1111110      1111110
    -               0000001      0000001               0000001      0000001

Pads are seen by nobody; a pad row keeps its own diagonal, so that no softmax runs over nothing. Without an image the image
columns are pads too. `image_bidirectional` is the paper's "no mask on visual inputs" (arXiv 2503.19508) in our reconstruction;
`prefix_lm` is PaliGemma's (arXiv 2407.07726).

Two pictures (i, j) first, and two exchanges (p a, q b). Causal order holds between pictures: what a picture is depends on those
that came before it and on no later one, so that one more picture changes nothing of those that are there. Only a prefix, which
is read as a whole before anything is answered, is bidirectional throughout:

                    iijjpaqb     iijjpaqb              iijjpaqb     iijjpaqb
    i               10000000     11000000              11111000     11001000
    i               11000000     11000000              11111000     11001000
    j               11100000     11110000              11111000     11111000
    j               11110000     11110000              11111000     11111000
    p               11111000     11111000              11111000     11111000
    a               11111100     11111100              11111100     11111100
    q               11111110     11111110              11111110     11111110
    b               11111111     11111111              11111111     11111111

The same where `before` is 1 for i and 3 for j, drawn in the order of positions. A picture that comes after the first answer (j)
is no prefix, as a later question is none: nothing before it may see it, since there it was not known yet.

                    piiaqjjrb    piiaqjjrb             piiaqjjrb    piiaqjjrb
    p               100000000    100000000             111000000    100000000
    i               110000000    111000000             111000000    111000000
    i               111000000    111000000             111000000    111000000
    a               111100000    111100000             111100000    111100000
    q               111110000    111110000             111110000    111110000
    j               111111000    111111100             111111100    111111100
    j               111111100    111111100             111111100    111111100
    r               111111110    111111110             111111110    111111110
    b               111111111    111111111             111111111    111111111

Two slots of three tokens whose pictures have two (i) and one (j), `shown` [[2, 1]], and an exchange; positions 0 1 - 2 - - 3 4:

                    ii-j--pa     ii-j--pa
    i               10000000     11000000
    i               11000000     11000000
    -               00100000     00100000
    j               11010000     11010000
    -               00001000     00001000
    -               00000100     00000100
    p               11010010     11010010
    a               11010011     11010011

Axis letters: B batch, N slots a row, I image tokens, T text, S = N*I + T.
"""

import jax
import jax.numpy as jnp

from vlax.errors import VlaxError

KINDS = ("causal", "image_bidirectional", "prefix_lm", "image_sees_prompt")
PAD, PROMPT, ANSWER = 0, 1, 2


def check_kind(kind: str) -> str:
    """Returns `kind`; raises VlaxError, naming the four, when it is none of them."""
    if kind not in KINDS:
        raise VlaxError(f"unknown mask kind {kind!r}; the kinds are {', '.join(KINDS)}")
    return kind


def blind_to_text(kind: str) -> bool:
    """Whether pictures that come before all text see none of it: what becomes of them then depends on nothing else."""
    return check_kind(kind) in ("causal", "image_bidirectional")


def slot_examples(has_image: jax.Array, owner: jax.Array | None = None) -> jax.Array:
    """int32[B,N]: the example of each slot that shows a picture, 0 of a hidden one."""
    own = 1 + jnp.arange(has_image.shape[1], dtype=jnp.int32) if owner is None else owner
    return jnp.where(has_image, own, 0)


def sequence_examples(
    example: jax.Array, has_image: jax.Array, tokens_per_image: int, owner: jax.Array | None = None,
    shown: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """Example id of every token of the sequence; 0 is a pad, hidden images included.

    tokens_per_image 2, has_image [[True]], example [[1, 1, 0]]  ->  [[1, 1, 1, 1, 0]]
    """
    images = jnp.repeat(slot_examples(has_image, owner), tokens_per_image, axis=1)
    if shown is not None:
        there = jnp.arange(tokens_per_image, dtype=jnp.int32) < shown[:, :, None]
        images = jnp.where(there.reshape(images.shape), images, 0)
    return jnp.concatenate([images, example], axis=1)


def prefix(segment: jax.Array, example: jax.Array) -> jax.Array:
    """bool[B,T]: prompt tokens before their example's first answer token. A later question of a dialogue is no prefix.

    segment [[1, 1, 2, 1, 2]], one example  ->  [[True, True, False, False, False]]
    """
    later_of_same = (example[:, :, None] == example[:, None, :]) & jnp.tril(jnp.ones((segment.shape[1],) * 2, bool), -1)
    answered = (later_of_same & (segment == ANSWER)[:, None, :]).any(-1)
    return (segment == PROMPT) & ~answered


def _places(example: jax.Array) -> jax.Array:
    """int32[B,T]: 0, 1, ... from the first text token of each example on."""
    index = jnp.arange(example.shape[1], dtype=jnp.int32)
    starts = jnp.where(example != jnp.pad(example, ((0, 0), (1, 0)), constant_values=-1)[:, :-1], index, 0)
    return index - jax.lax.cummax(starts, axis=1)


def attention_mask(
    segment: jax.Array, example: jax.Array, has_image: jax.Array, tokens_per_image: int, kind: str,
    owner: jax.Array | None = None, before: jax.Array | None = None, shown: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """Who sees whom, as the tables above say: bool[B,S,S], [query, key].

    segment, example: int32[B,T]; has_image: bool[B,N]; kind: one of KINDS (VlaxError otherwise); owner, before, shown:
    int32[B,N].
    """
    check_kind(kind)
    ids, slots = sequence_examples(example, has_image, tokens_per_image, owner, shown), slot_examples(has_image, owner)
    at = positions(example, has_image, tokens_per_image, owner, before, shown)
    size, images = ids.shape[1], has_image.shape[1] * tokens_per_image
    same = (ids[:, :, None] == ids[:, None, :]) & (ids > 0)[:, None, :]
    sees = at[:, :, None] >= at[:, None, :]
    is_image = jnp.arange(size) < images
    if kind != "causal":
        picture = jnp.where(is_image, jnp.arange(size) // max(tokens_per_image, 1), -1)
        sees = sees | ((picture[:, None] == picture[None, :]) & is_image)
    if kind in ("prefix_lm", "image_sees_prompt"):
        prompt = jnp.pad(prefix(segment, example), ((0, 0), (images, 0)))
        early = jnp.ones(slots.shape, bool)
        if before is not None:
            answers = (slots[:, :, None] == example[:, None, :]) & (segment == ANSWER)[:, None, :]
            early = ~(answers & (_places(example)[:, None, :] < before[:, :, None])).any(-1)
        image = jnp.pad(jnp.repeat(early, tokens_per_image, axis=1), ((0, 0), (0, size - images)))
        from_prefix = prompt | image if kind == "prefix_lm" else image
        to_prefix = prompt | image if kind == "prefix_lm" else prompt
        sees = sees | (from_prefix[:, :, None] & to_prefix[:, None, :])
    return (same & sees) | ((ids == 0)[:, :, None] & jnp.eye(size, dtype=bool))


def positions(
    example: jax.Array, has_image: jax.Array, tokens_per_image: int,
    owner: jax.Array | None = None, before: jax.Array | None = None, shown: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """int32[B,S]: 0, 1, ... within each example, over its text and its pictures, these in the order of `before`, then of
    slots. Hidden slots count from 0, a slot's pads go on counting, others get 0.

    tokens_per_image 2, has_image [[True, False]], example [[1, 1, 2, 2, 0]]  ->  [[0, 1, 0, 1, 2, 3, 0, 1, 0]]
    """
    slots, place = slot_examples(has_image, owner), _places(example)
    number = jnp.arange(slots.shape[1], dtype=jnp.int32)
    comes = jnp.zeros_like(slots) if before is None else before.astype(jnp.int32)
    mine = (slots[:, :, None] == slots[:, None, :]) & (slots > 0)[:, :, None]  # [slot, another of the same example]
    earlier = (comes[:, None, :] < comes[:, :, None]) | (
        (comes[:, None, :] == comes[:, :, None]) & (number[None, :] < number[:, None])
    )

    def tokens(which: jax.Array) -> jax.Array:
        """int32[B,X]: image tokens of the slots bool[B,X,N]."""
        if shown is None:
            return tokens_per_image * which.sum(-1, dtype=jnp.int32)
        return (which * shown.astype(jnp.int32)[:, None, :]).sum(-1, dtype=jnp.int32)

    first = jnp.where(slots > 0, comes + tokens(mine & earlier), 0)
    image = (first[:, :, None] + jnp.arange(tokens_per_image, dtype=jnp.int32)).reshape(len(slots), -1)
    there = (example[:, :, None] == slots[:, None, :]) & (slots > 0)[:, None, :] & (comes[:, None, :] <= place[:, :, None])
    text = jnp.where(example > 0, place + tokens(there), 0)
    return jnp.concatenate([image, text], axis=1)


def targets(tokens: jax.Array) -> jax.Array:
    """int32[B,T]: what position t is to predict, the token at t + 1 (0 at the end, where no loss falls)."""
    return jnp.pad(tokens[:, 1:], ((0, 0), (0, 1)))


def loss_mask(segment: jax.Array, example: jax.Array) -> jax.Array:
    """bool[B,T]: positions whose *next* token is an answer token of the same example.

    segment [[1, 1, 2, 2, 0]], example [[1, 1, 1, 1, 0]]  ->  [[False, True, True, False, False]]
    """
    following = jnp.pad(segment[:, 1:], ((0, 0), (0, 1)))
    same = jnp.pad(example[:, 1:], ((0, 0), (0, 1))) == example
    return (following == ANSWER) & same & (example > 0)
