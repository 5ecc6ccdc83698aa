"""vlax: small vision-language models, aligned in four stages, in JAX.

import vlax
model = vlax.load("runs/embedded/stage3/export")
model.caption(["photo.jpg"])
model.answer(["photo.jpg"], ["what colour is the circle?"])
"""

from vlax import evaluation
from vlax.api import Model, load
from vlax.errors import VlaxError
from vlax.pretrained.model import from_pretrained

__all__ = ["Model", "VlaxError", "evaluation", "from_pretrained", "load"]
