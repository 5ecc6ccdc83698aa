"""Pictures and attention in the form that the report carries inside its one file: data URIs and base64."""

import base64
import hashlib
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vlax.errors import VlaxError
from vlax.images import as_rgb

LONGEST = 336  # pixels of the long side; larger pictures are made smaller
LOSSLESS = 96  # up to this long side: PNG, shown enlarged with its pixels visible, as the tower sees them
_QUALITY = 85  # of JPEG


class Pictures:
    """Collects pictures, each content once.

    pictures.add(image) -> index into pictures.packed, a list of {"uri": "data:image/...", "width", "height", "pixels": bool}
    """

    def __init__(self):
        self.packed: list[dict] = []
        self._index: dict[str, int] = {}

    def add(self, image: Image.Image) -> int:
        small = as_rgb(image)
        small.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)  # keeps the shape, never enlarges
        key = hashlib.sha256(f"{small.size}".encode() + small.tobytes()).hexdigest()
        if key not in self._index:
            self._index[key] = len(self.packed)
            self.packed.append(_pack(small))
        return self._index[key]


def _pack(image: Image.Image) -> dict:
    lossless = max(image.size) <= LOSSLESS
    kind, options = ("png", {"optimize": True}) if lossless else ("jpeg", {"quality": _QUALITY})
    buffer = io.BytesIO()
    image.save(buffer, format=kind.upper(), **options)
    uri = f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return {"uri": uri, "width": image.width, "height": image.height, "pixels": lossless}


def pack_attention(attention: Sequence[tuple[str, np.ndarray]], name: str) -> dict | None:
    """Attention of each token, in a byte a cell.

    Args:
      attention: (token, float[h,w]) pairs; None comes back for an empty sequence.
      name: what error messages call it.

    Returns:
      {"tokens": [n strings], "height": h, "width": w, "peaks": [n], "data": base64 of uint8[n,h,w]}. A byte of 255 is the
      token's largest cell; `peaks` is that cell's share of the token's attention on the image: byte / 255 * peak is a share.

    Raises VlaxError: grids that differ or aren't h x w, negative or non-finite values.
    """
    if not attention:
        return None
    grids = [np.asarray(grid, dtype=np.float64) for _, grid in attention]
    shapes = sorted({grid.shape for grid in grids})
    if len(shapes) > 1 or len(shapes[0]) != 2 or 0 in shapes[0]:
        raise VlaxError(f"{name}: attention needs one grid [h, w] for all tokens; got shapes {', '.join(map(str, shapes))}.")
    stack = np.stack(grids)
    if not np.isfinite(stack).all() or stack.min() < 0:
        raise VlaxError(f"{name}: attention must be finite and not negative; got values from {stack.min()} to {stack.max()}.")
    peaks, sums = stack.max((1, 2)), stack.sum((1, 2))
    scaled = stack / np.where(peaks > 0, peaks, 1)[:, None, None]
    return {
        "tokens": [token for token, _ in attention],
        "height": stack.shape[1],
        "width": stack.shape[2],
        "peaks": [round(float(share), 6) for share in peaks / np.where(sums > 0, sums, 1)],
        "data": base64.b64encode(np.rint(255 * scaled).astype(np.uint8).tobytes()).decode(),
    }
