"""The masking library: the only place that knows who may see whom, where positions start and where loss falls.

The sequence of a row is [N*I image tokens | T text tokens]. Text is described by two integers a token:

    segment  0 pad, 1 prompt, 2 answer (its EOS included)
    example  1..N, 0 pad; image slot n belongs to example n + 1

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
`prefix_lm` is PaliGemma's (arXiv 2407.07726). Axis letters: B batch, N images a row, I image tokens, T text, S = N*I + T.
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


def sequence_examples(example: jax.Array, has_image: jax.Array, tokens_per_image: int) -> jax.Array:
    """Example id of every token of the sequence; 0 is a pad, hidden images included.

    tokens_per_image 2, has_image [[True]], example [[1, 1, 0]]  ->  [[1, 1, 1, 1, 0]]
    """
    slots = jnp.where(has_image, 1 + jnp.arange(has_image.shape[1], dtype=jnp.int32), 0)
    return jnp.concatenate([jnp.repeat(slots, tokens_per_image, axis=1), example], axis=1)


def prefix(segment: jax.Array, example: jax.Array) -> jax.Array:
    """bool[B,T]: prompt tokens before their example's first answer token. A later question of a dialogue is no prefix.

    segment [[1, 1, 2, 1, 2]], one example  ->  [[True, True, False, False, False]]
    """
    later_of_same = (example[:, :, None] == example[:, None, :]) & jnp.tril(jnp.ones((segment.shape[1],) * 2, bool), -1)
    answered = (later_of_same & (segment == ANSWER)[:, None, :]).any(-1)
    return (segment == PROMPT) & ~answered


def attention_mask(segment: jax.Array, example: jax.Array, has_image: jax.Array, tokens_per_image: int, kind: str) -> jax.Array:
    """Who sees whom, as the tables above say: bool[B,S,S], [query, key].

    segment, example: int32[B,T]; has_image: bool[B,N]; kind: one of KINDS (VlaxError otherwise).
    """
    check_kind(kind)
    ids = sequence_examples(example, has_image, tokens_per_image)
    size, images = ids.shape[1], has_image.shape[1] * tokens_per_image
    same = (ids[:, :, None] == ids[:, None, :]) & (ids > 0)[:, None, :]
    sees = jnp.tril(jnp.ones((size, size), bool))[None]
    is_image = jnp.arange(size) < images
    if kind != "causal":
        sees = sees | (is_image[:, None] & is_image[None, :])
    if kind in ("prefix_lm", "image_sees_prompt"):
        in_prefix = jnp.pad(prefix(segment, example), ((0, 0), (images, 0)))
        from_prefix = in_prefix | is_image if kind == "prefix_lm" else jnp.broadcast_to(is_image, in_prefix.shape)
        to_prefix = in_prefix | is_image if kind == "prefix_lm" else in_prefix
        sees = sees | (from_prefix[:, :, None] & to_prefix[:, None, :])
    return (same & sees) | ((ids == 0)[:, :, None] & jnp.eye(size, dtype=bool))


def positions(example: jax.Array, has_image: jax.Array, tokens_per_image: int) -> jax.Array:
    """int32[B,S]: image tokens 0..I-1; text from I, or from 0 without an image; both restart by example; pads get 0.

    tokens_per_image 2, has_image [[True, False]], example [[1, 1, 2, 2, 0]]  ->  [[0, 1, 0, 1, 2, 3, 0, 1, 0]]
    """
    batch, length = example.shape
    index = jnp.arange(length, dtype=jnp.int32)
    starts = jnp.where(example != jnp.pad(example, ((0, 0), (1, 0)), constant_values=-1)[:, :-1], index, 0)
    offset = jnp.where(has_image, tokens_per_image, 0).astype(jnp.int32)
    offset = jnp.take_along_axis(offset, jnp.clip(example - 1, 0, has_image.shape[1] - 1), axis=1)
    text = jnp.where(example > 0, index - jax.lax.cummax(starts, axis=1) + offset, 0)
    image = jnp.tile(jnp.arange(tokens_per_image, dtype=jnp.int32), has_image.shape[1])
    return jnp.concatenate([jnp.broadcast_to(image, (batch, image.size)), text], axis=1)


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
