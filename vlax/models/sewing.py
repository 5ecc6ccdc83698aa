"""The tokens of a picture that is shown in parts (`vlax/images/anyres.py`), put together as the decoder reads them."""

import jax
import jax.numpy as jnp

from vlax.images.anyres import AnyRes


def sew(features: jax.Array, newline: jax.Array, cuts: jax.Array, anyres: AnyRes) -> jax.Array:
    """[B,I,D]: the tokens of the whole, then those of its parts row by row, a newline after each row. What follows a picture's
    last token means nothing (`masks.py` hides it).

    features [B,1+P,side*side,D] of the whole and of the parts; newline [D]; cuts int32[B,7]; I is `anyres.longest`.
    """
    batch, _, whole, width = features.shape
    side = anyres.side
    columns, top, left, height, wide, rows, across = (cuts[:, n : n + 1] for n in range(7))
    at = jnp.arange(anyres.longest - whole, dtype=jnp.int32)[None]
    row, column = at // (across + 1), at % (across + 1)
    parts = features[:, 1:].reshape(batch, -1, width)

    def token(y: jax.Array, x: jax.Array) -> jax.Array:
        """[B,I,D]: those at (y, x) of what is cut out of the grid."""
        y, x = top + y, left + x
        part = (y // side) * columns + x // side
        index = part * whole + (y % side) * side + x % side
        return jnp.take_along_axis(parts, jnp.clip(index, 0, parts.shape[1] - 1)[..., None], axis=1)

    def between(place: jax.Array, size: jax.Array, shrunk: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """(first token, next one, share of the next one) of places on an axis that is shrunk, as torch's bilinear filter."""
        scale = size.astype(jnp.float32) / jnp.maximum(shrunk, 1).astype(jnp.float32)
        exact = jnp.maximum((place.astype(jnp.float32) + 0.5) * scale - 0.5, 0.0)
        low = exact.astype(jnp.int32)
        return low, jnp.minimum(low + 1, size - 1), exact - low

    if shrinks(anyres):
        y, below, down = between(row, height, rows)
        x, beside, right = between(column, wide, across)
        down, right = (share[..., None].astype(features.dtype) for share in (down, right))
        upper = token(y, x) * (1 - right) + token(y, beside) * right
        lower = token(below, x) * (1 - right) + token(below, beside) * right
        sewn = upper * (1 - down) + lower * down
    else:
        sewn = token(row, column)
    sewn = jnp.where((column == across)[..., None], newline.astype(sewn.dtype), sewn)
    return jnp.concatenate([features[:, 0], sewn], axis=1)


def shrinks(anyres: AnyRes) -> bool:
    """Whether some picture has so many tokens that they are shrunk."""
    return any(rows * columns * 100 > 121 * anyres.most for rows, columns in anyres.grids)
